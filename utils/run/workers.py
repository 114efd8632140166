"""Who computes the tasks of a run: this process, worker processes of it, or a cluster."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from utils.console import log
from utils.errors import UserError
from utils.kernels.cores import hold_core
from utils.output.folder import OutputFolder
from utils.processes import SPAWN, Pool, sheltered
from utils.run.handover import hand_over, take_over
from utils.run.remaining import Remaining, reported
from utils.run.tasks import Job, Schedule, Task
from utils.run.worker_process import Outcome, Setup, begin, work
from utils.signals import LOOK_EVERY, stop_if_asked
from utils.training.device import release_memory
from utils.training.trial import Trial

KEPT = "finished work is kept; give the same command again to resume"


class Workers(Protocol):
    """Computes jobs."""

    def slots(self) -> int:
        """How many jobs it is useful to have submitted at a time."""

    def opened(self, trial: Trial) -> Trial:
        """Make a trial known to the workers; returns the trial to use in this process."""

    def closed(self, seed: int) -> None:
        """The last task of a trial is finished."""

    def submit(self, trial: Trial, job: Job) -> Future[Outcome]:
        """Have a job computed."""


class InProcess:
    """This process, one job after the other, each at once when it is submitted.

    Args:
        use_device: makes the device of a trial, known by its seed, the one that computes.
    """

    def __init__(self, use_device: Callable[[int], None]) -> None:
        self._use_device = use_device

    def slots(self) -> int:
        """One."""
        return 1

    def opened(self, trial: Trial) -> Trial:
        """The trial itself."""
        return trial

    def closed(self, seed: int) -> None:
        """Give back the memory of the trial's graphs, before those of the next are built."""
        release_memory()

    def submit(self, trial: Trial, job: Job) -> Future[Outcome]:
        """Compute the job; whatever it raises is raised here."""
        future: Future[Outcome] = Future()
        self._use_device(trial.seed)  # trials take turns, and each builds graphs until its end
        with hold_core():
            future.set_result(Outcome(job.compute(trial)))
        return future


class HandingOver:
    """Base of workers that are other processes: each trial is handed over to them.

    Args:
        setup: what they need of a trial that lies in a folder.
    """

    def __init__(self, setup: Callable[[Trial, Path], Setup]) -> None:
        self._setup = setup
        self.setups: dict[int, Setup] = {}

    def opened(self, trial: Trial) -> Trial:
        """Hand the trial over; the images of the one returned are mapped, not in memory."""
        folder = hand_over(trial)
        self.setups[trial.seed] = self._setup(trial, folder)
        return replace(trial, data=take_over(folder).data)

    def closed(self, seed: int) -> None:
        """Remove what was handed over."""
        shutil.rmtree(self.setups.pop(seed).folder, ignore_errors=True)


class Processes(HandingOver):
    """Worker processes on this machine, started with the first job, each on a core or a GPU.

    Idle workers lend their cores to the others.

    Args:
        n_workers: how many.
        backend: where nnabla computes.
        device_ids: the GPU numbers that workers take in turn.
        setup: as in `HandingOver`.
    """

    def __init__(
        self,
        n_workers: int,
        backend: str,
        device_ids: Sequence[str],
        setup: Callable[[Trial, Path], Setup],
    ) -> None:
        super().__init__(setup)
        self._n_workers = n_workers
        with sheltered():
            free = SPAWN.Semaphore(n_workers)
        about = backend, tuple(device_ids), os.getpid(), n_workers, free
        self._pool = Pool(n_workers, begin, about)

    def slots(self) -> int:
        """A job for each worker."""
        return self._n_workers

    def submit(self, trial: Trial, job: Job) -> Future[Outcome]:
        """Give the job to a worker that is free."""
        return self._pool.submit(work, self.setups[trial.seed], job.compute)

    @contextmanager
    def running(self) -> Iterator[Processes]:
        """End the workers at the end of the block, whatever they are doing.

        Raises:
            UserError: a worker died.
        """
        try:
            yield self
        except BrokenProcessPool as error:
            stop_if_asked()  # what ends the run may have ended the workers first
            raise _died(error) from error
        finally:
            self._pool.end()


def _died(error: BrokenProcessPool) -> UserError:
    return UserError(
        f"a worker process died ({error}), perhaps for lack of memory; free some memory or give "
        f"fewer --jobs; {KEPT}"
    )


# ---------------------------------------------------------------- the run


def run_tasks(
    tasks: Sequence[Task],
    open_trial: Callable[[int], Trial],
    workers: Workers,
    seconds: Mapping[str, float],
) -> tuple[Trial, int]:
    """Run all tasks, each when those that it needs are finished.

    Args:
        tasks: as `tasks_of` gives them.
        open_trial: gives the trial of a seed.
        workers: who computes.
        seconds: that each stage takes, as estimated.

    Returns:
        A trial, as it is after the run, and the bytes of memory that the workers took at most.
    """
    remaining = Remaining(tasks, seconds)
    run = _Run(tasks, open_trial, workers, remaining)
    with reported(remaining):
        for _ in run.finished():
            stop_if_asked()
    return run.latest, sum(run.memory.values())


class _Run:
    def __init__(
        self,
        tasks: Sequence[Task],
        open_trial: Callable[[int], Trial],
        workers: Workers,
        remaining: Remaining,
    ) -> None:
        self.memory: dict[str, int] = {}
        self.latest: Trial
        self._schedule = Schedule(tasks)
        self._remaining = remaining
        self._open_trial, self._workers = open_trial, workers
        self._trials: dict[int, Trial] = {}
        self._running: dict[Future[Outcome], Task] = {}

    def finished(self) -> Iterator[Task]:
        """Run the tasks; gives each when it is finished."""
        while self._schedule:
            while len(self._running) < self._workers.slots() and (task := self._schedule.next()):
                trial = self._trial(task.seed)
                job = task.job(trial)
                if job is None:
                    self._remaining.needless(task)
                    self._finish(task, Outcome())
                    yield task
                else:
                    self._remaining.begun(task)
                    self._running[self._workers.submit(trial, job)] = task
            for future in self._computed():
                task = self._running.pop(future)
                self._finish(task, future.result())
                self._remaining.finished(task)
                yield task

    def _trial(self, seed: int) -> Trial:
        if seed not in self._trials:
            self._trials[seed] = self.latest = self._workers.opened(self._open_trial(seed))
        return self._trials[seed]

    def _computed(self) -> set[Future[Outcome]]:
        done: set[Future[Outcome]] = set()
        while self._running and not done:
            done, _ = wait(self._running, LOOK_EVERY, FIRST_COMPLETED)
            stop_if_asked()
        return done

    def _finish(self, task: Task, outcome: Outcome) -> None:
        trial = self._trials[task.seed]
        self.memory[outcome.process] = outcome.memory
        _take(outcome, trial.folder)
        task.finish(trial, outcome.result)
        if self._schedule.finished(task):
            del self._trials[task.seed]
            self._workers.closed(task.seed)


def _take(outcome: Outcome, folder: OutputFolder) -> None:
    """Log a worker's messages, and give its files their names; its error is raised."""
    for level, text in outcome.messages:
        log.log(level, "%s", text)
    if outcome.error:
        folder.check_there()  # if it is gone, that is the reason
        raise outcome.error
    for file in outcome.files:
        content = outcome.contents.get(file.path)
        if content is None:
            folder.carry_out(file)
        else:
            folder.save_bytes(content, folder.root / file.path, durable=file.durable)
