"""How much of a run is done and how long the rest takes, reported while it goes on."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from utils.console import is_shown, log, on_terminal, overall_bar
from utils.run.tasks import Task
from utils.units import duration

LINE_EVERY = 300.0
"""Seconds from one line to the next where the output is no terminal."""
BAR_EVERY = 1.0
"""Seconds from one update of the bar to the next on a terminal."""
TRUSTED = 0.05
"""Share of the work from which on its pace counts and not the estimate."""


class Remaining:
    """What is done of the tasks of a run, by the estimated seconds of their stages.

    The seconds of a stage are spread evenly over those of its tasks that have something to compute.

    Args:
        tasks: all of the run.
        seconds: estimated of each stage, with the workers that there are.
        clock: seconds from any point in time on.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        seconds: Mapping[str, float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tasks = Counter(task.stage for task in tasks)
        self._seconds = {stage: seconds.get(stage, 0.0) for stage in self._tasks}
        self._computed: Counter[str] = Counter()
        self._running: Counter[str] = Counter()
        self._clock = clock
        self._started = self._latest = clock()

    def needless(self, task: Task) -> None:
        """There is nothing to compute for a task."""
        self._tasks[task.stage] -= 1

    def begun(self, task: Task) -> None:
        """A task is with a worker."""
        self._running[task.stage] += 1

    def finished(self, task: Task) -> None:
        """A task that had begun has been computed."""
        self._running[task.stage] -= 1
        self._computed[task.stage] += 1
        self._latest = self._clock()

    @property
    def share(self) -> float:
        """Share of the work that is done, from 0 to 1."""
        total = self._total
        return self._of(self._computed) / total if total else 1.0

    @property
    def left(self) -> float:
        """Seconds until all is done.

        The pace is that of the work done so far; until `TRUSTED` of it is done, that of the
        estimate. Tasks that run longer than the pace says slow it.
        """
        now, done, running = self._clock(), self._of(self._computed), self._of(self._running)
        to_do = self._total - done
        if not to_do:
            return 0.0
        pace = (self._latest - self._started) / done if self.share >= TRUSTED else 1.0
        if done + running:
            pace = max(pace, (now - self._started) / (done + running))
        return max(pace * (to_do - running), pace * to_do - (now - self._latest))

    def __str__(self) -> str:
        return f"{100 * self.share:.0f} % done, about {duration(self.left)} left"

    @property
    def _total(self) -> float:
        return sum(s for stage, s in self._seconds.items() if self._tasks[stage] > 0)

    def _of(self, tasks: Counter[str]) -> float:
        """Estimated seconds of so many tasks of each stage."""
        return sum(
            seconds * tasks[stage] / self._tasks[stage]
            for stage, seconds in self._seconds.items()
            if self._tasks[stage] > 0
        )


@contextmanager
def reported(remaining: Remaining) -> Iterator[None]:
    """Report what remains while the block runs: a bar, or lines where the output is no terminal.

    With `--quiet` neither.
    """
    if not is_shown():
        yield
        return
    ended = threading.Event()
    say = _bar if on_terminal() else _lines
    thread = threading.Thread(target=say, args=(remaining, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _bar(remaining: Remaining, ended: threading.Event) -> None:
    with suppress(OSError), overall_bar("whole run") as bar:  # the terminal may be gone
        while not ended.wait(BAR_EVERY):
            bar.n = 100 * remaining.share
            bar.set_postfix_str(f"about {duration(remaining.left)} left")


def _lines(remaining: Remaining, ended: threading.Event) -> None:
    while not ended.wait(LINE_EVERY):
        with suppress(OSError):  # who reads may be gone; the run notices that itself
            log.info("%s", remaining)
