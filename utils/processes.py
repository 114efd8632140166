"""Processes that this one starts; only this one heeds signals to the whole group.

Ctrl-C and a terminal that hangs up reach every process of the group. Those started here have these
signals blocked from their first instruction on, and so has the tracker that removes semaphores of
processes that were killed.

`Pool` is not `concurrent.futures.ProcessPoolExecutor`: in Python 3.10 that has no public way to
end processes that compute, and where one is killed while it sends a result larger than a pipe
holds, the executor waits for the rest forever, also when the interpreter exits. Nor is it loky's,
which restarts processes whose memory grows, and can be kept from it by private names only.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any

from utils.signals import ENDING

PARENT_EVERY = 0.5
"""Seconds between looks at whether the process that started this one is alive."""
SILENT = "ignore:resource_tracker"
"""Filter of warnings of the tracker about what it removes after a killed process."""
SPAWN = multiprocessing.get_context("spawn")


@contextmanager
def sheltered() -> Iterator[None]:
    """Processes and threads that start in the block are not reached by signals that end a run."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        _start_tracker()
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # the tracker's start unblocks some
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_tracker() -> None:
    """Start the tracker, which inherits the filters of warnings, unless it is running."""
    sys.warnoptions.append(SILENT)
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.remove(SILENT)


# ---------------------------------------------------------------- the pool


class Pool:
    """Processes that each compute one call at a time; a thread of this process waits for each.

    A process keeps its memory from call to call and is never replaced.

    Args:
        n_workers: how many; they start with the first call, as worker-0, worker-1, ...
        initializer: what each calls first.
        initargs: what it is called with.
    """

    def __init__(
        self, n_workers: int, initializer: Callable[..., object], initargs: Sequence[Any] = ()
    ) -> None:
        self._threads = ThreadPoolExecutor(n_workers, "worker")
        self._begin = initializer, tuple(initargs)
        self._n_workers = n_workers
        self._workers: list[_Worker] = []
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have a free process call a module's function.

        The future raises what the function raises, or BrokenProcessPool if the process died.
        """
        with sheltered():
            while len(self._workers) < self._n_workers:
                self._workers.append(_Worker(f"worker-{len(self._workers)}", *self._begin))
                self._idle.put(self._workers[-1])
            return self._threads.submit(self._call, function, arguments)

    def _call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        worker = self._idle.get()  # there is one: no more threads than workers
        try:
            return worker.call(function, arguments)
        finally:
            self._idle.put(worker)

    def end(self) -> None:
        """End the processes, whatever they do, and drop waiting calls."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
        self._threads.shutdown()


class _Worker:
    """A process and the connection to it."""

    def __init__(
        self, name: str, initializer: Callable[..., object], initargs: tuple[Any, ...]
    ) -> None:
        self._connection, theirs = SPAWN.Pipe()
        arguments = theirs, initializer, initargs
        self.process = SPAWN.Process(target=_serve, args=arguments, name=name)
        with _main_hidden():
            self.process.start()
        theirs.close()  # now only the process holds it: its death closes the connection

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """The result of a call.

        Raises:
            BrokenProcessPool: the process died.
        """
        call = pickle.dumps((function, arguments))
        try:
            self._connection.send_bytes(call)
            answer = self._connection.recv_bytes()
        except (EOFError, OSError) as died:
            raise BrokenProcessPool(self._how_it_ended()) from died
        result, error, where = pickle.loads(answer)  # noqa: S301 (of our own process)
        if error is not None:
            raise error from RemoteError(where)
        return result

    def _how_it_ended(self) -> str:
        self.process.join(1)
        code = self.process.exitcode
        if code is None:
            return "no reason given"
        return f"exit status {code}" if code >= 0 else _signal_name(-code)


class RemoteError(Exception):
    """The traceback of an error in another process, in words."""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


@contextmanager
def _main_hidden() -> Iterator[None]:
    """Keep Python from running the main script again in the processes that start in the block.

    A script that uses this program without `if __name__ == "__main__"` would begin again in each.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


# ---------------------------------------------------------------- in a process of the pool


def _serve(
    connection: Connection, initializer: Callable[..., object], initargs: tuple[Any, ...]
) -> None:
    """Answer calls until the other end of the connection is gone.

    Where the initializer has failed, its error answers each of them.
    """
    failed = b""
    try:
        initializer(*initargs)
    except BaseException as error:
        failed = _failure(error)
    while True:
        try:
            call = connection.recv_bytes()
        except EOFError:
            return
        connection.send_bytes(failed or _answer(call))


def _answer(call: bytes) -> bytes:
    """The pickled result or, if it fails, the error and its traceback."""
    try:
        function, arguments = pickle.loads(call)  # noqa: S301 (of our own process)
        return pickle.dumps((function(*arguments), None, ""))
    except BaseException as error:
        return _failure(error)


def _failure(error: BaseException) -> bytes:
    """The pickled error and its traceback, in the place of a result."""
    where = "".join(traceback.format_exception(error))
    try:
        return pickle.dumps((None, error, where))
    except Exception:
        return pickle.dumps((None, RuntimeError(repr(error)), where))


def live_under(parent: int) -> None:
    """In a process of a pool, first of all: ignore signals that end a run, and end with `parent`.

    Args:
        parent: id of the process that started this one.
    """
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_EVERY)
    os._exit(1)
