"""The signals that end a run: SIGINT (Ctrl-C), SIGTERM and SIGHUP. One module owns their state.

Nothing happens on import. A signal that is ignored, as under nohup, stays ignored. What the others
do depends on the phase of the process, which is the one instance of `_Process` below:

    starting   from `heed` on          one line, and the process ends at once: nothing is begun yet
    running    in `interruptible`      the first is noted, and `stop_if_asked` raises
                                       KeyboardInterrupt; a second raises it wherever the run hangs
    over       after `interruptible`   ignored, so that the exit status stays that of the run

Python heeds a signal between two of its own instructions only. Where the main thread gets to none
within `GRACE` seconds, because it is in a system call or in C code that does not return, a thread
reports this in one line and ends the process (`_Watch`). It leaves temporary files and the lock to
the next run. C code that does not return and never lets go of Python's interpreter lock stops that
thread as well; only SIGKILL ends it.

Imports the standard library alone, so that signals are heeded early.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SIGNALLED = 128
"""Exit status of a program that signal n ended: 128 + n."""
GRACE = 3.0
"""Seconds from a second signal to the end of the process, whatever it hangs in."""
LOOK_EVERY = 0.2
"""Seconds between looks of what waits at whether a signal asked the run to end."""
TOGETHER = 0.1
"""Seconds within which signals are one: `timeout` and terminals send to process and group."""


class _Process:
    """The phase of this process, and what it has received.

    Attributes:
        program: what its lines begin with.
        phase: "starting", "running" or "over".
        owned: `heed` was called: the process is a program of ours, and not a test or a notebook.
        received: the first signal.
        since: when that was, by the monotonic clock.
        raised: KeyboardInterrupt was raised; a later signal does not disturb what cleans up.
        watch: a thread that notices signals while the main thread is busy.
    """

    def __init__(self) -> None:
        self.program = Path(sys.argv[0]).name if sys.argv else ""
        self.phase = "over"
        self.owned = False
        self.received: signal.Signals | None = None
        self.since = 0.0
        self.raised = False
        self.watch: _Watch | None = None


_process = _Process()


# ---------------------------------------------------------------- the phases


def heed(program: str) -> None:
    """From here on this process is a program whose signals are heeded, also those kept back.

    Args:
        program: what its lines begin with.
    """
    _process.program, _process.phase, _process.owned = program, "starting", True
    for number in _heeded():
        signal.signal(number, _heard)
    _process.watch = _Watch()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let a signal end the block at the next `stop_if_asked`, a second one wherever it is.

    Python raises KeyboardInterrupt in whatever code is running, and loses it where that is the
    callback of a weak reference, of which nnabla's graphs have many. So the first is only noted.
    """
    _process.received, _process.raised, _process.phase = None, False, "running"
    before = {number: signal.signal(number, _heard) for number in _heeded()}
    hook, sys.unraisablehook = sys.unraisablehook, _without_interrupts(sys.unraisablehook)
    watch = None if _process.watch else _Watch()
    try:
        yield
    finally:
        _process.phase = "over"
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if _process.owned else handler)
        sys.unraisablehook = hook
        if watch:
            watch.end()


def as_program(run: Callable[[], int]) -> NoReturn:
    """Exit with the status that `run` gives; signals from its end on are ignored.

    Args:
        run: what the program does after `heed`.
    """
    try:
        status = run()
    except KeyboardInterrupt:  # a second signal after the run's last instruction
        status = SIGNALLED + (_process.received or signal.SIGINT)
    finally:
        _process.phase = "over"
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
        if _process.watch:
            _process.watch.end()
    sys.exit(status)


def received() -> signal.Signals | None:
    """The signal that asked the block of `interruptible` to end."""
    return _process.received


def stop_if_asked() -> None:
    """Raise KeyboardInterrupt if a signal asked the run to end."""
    if _process.received:
        _process.raised = True
        raise KeyboardInterrupt


def how_ended(number: signal.Signals) -> str:
    """What the line of a program that a signal ended says first."""
    return "interrupted" if number == signal.SIGINT else f"ended by {number.name}"


# ---------------------------------------------------------------- what a signal does


def _heeded() -> list[signal.Signals]:
    return [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]


def _heard(number: int, frame: object) -> None:
    """The handler of all of them, run by the main thread."""
    if _process.phase == "starting":
        _end_at_once(signal.Signals(number))
    elif _process.phase == "running":
        if _process.received is None:
            _process.since = time.monotonic()
            _process.received = signal.Signals(number)
        elif not _process.raised and time.monotonic() - _process.since > TOGETHER:
            _process.raised = True
            raise KeyboardInterrupt


def _end_at_once(number: signal.Signals) -> NoReturn:
    """Say a line if the terminal takes it, and end without cleaning up."""
    state = "before it began" if _process.phase == "starting" else "at once, in whatever it was"
    line = f"{_process.program}: {how_ended(number)} {state}\n"
    with suppress(OSError):
        if select.select([], [2], [], 0)[1]:
            os.write(2, line.encode("utf-8", "backslashreplace"))
    os._exit(SIGNALLED + number)


def _without_interrupts(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Report no KeyboardInterrupt that was lost in a callback: the next check raises it."""

    def without(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            hook(unraisable)

    return without


class _Watch:
    """A thread that ends the process where the main thread does not; from now until `end`.

    Python writes the number of every signal into a pipe, whatever the main thread does.
    """

    def __init__(self) -> None:
        self._reads, self._writes = os.pipe()
        os.set_blocking(self._writes, False)
        self._before = signal.set_wakeup_fd(self._writes, warn_on_full_buffer=False)
        threading.Thread(target=self._run, name="signals", daemon=True).start()

    def end(self) -> None:
        """Look no longer."""
        signal.set_wakeup_fd(self._before)
        os.close(self._writes)

    def _run(self) -> None:
        heard: list[signal.Signals] = []
        last = 0.0
        while byte := os.read(self._reads, 1):
            if byte[0] not in ENDING or time.monotonic() - last < TOGETHER:
                continue
            heard.append(signal.Signals(byte[0]))
            last = time.monotonic()
            patience = GRACE if len(heard) < 3 else 0
            if len(heard) > 1 or _process.phase == "starting":
                more = select.select([self._reads], [], [], patience)[0]
                if not more and (len(heard) > 1 or not _process.received):
                    _end_at_once(heard[0])
        os.close(self._reads)
