"""Processes that this one starts beside it: signals to the whole group are this one's to heed.

Ctrl-C and a terminal that hangs up reach every process of the group. Those started here, by loky,
have these signals blocked from their first instruction on, and so has what loky starts with them:
the trackers that remove semaphores of processes that were killed.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from typing import Any

from joblib.externals.loky import ProcessPoolExecutor
from joblib.externals.loky.backend import resource_tracker as loky_tracker

from utils.signals import ENDING

PARENT_EVERY = 0.5
"""Seconds between looks at whether the process that started this one is alive."""
SILENT = "ignore:resource_tracker"
"""Filter of warnings: a tracker removes what is left of a process that was killed, and says so."""


@contextmanager
def sheltered() -> Iterator[None]:
    """Processes and threads that start in the block are not reached by signals that end a run."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        _start_trackers()
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # Python's tracker unblocks some
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_trackers() -> None:
    """Start the trackers, which take the filters of warnings over, unless they are running."""
    sys.warnoptions.append(SILENT)
    try:
        loky_tracker.ensure_running()
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.remove(SILENT)


class Pool(ProcessPoolExecutor):
    """loky's pool, its processes and the trackers that it starts sheltered."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        with sheltered():  # its queues start a tracker
            super().__init__(*args, **kwargs)

    def submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a free process call `fn`; processes start with the first call."""
        with sheltered():
            future: Future[Any] = super().submit(fn, *args, **kwargs)
        return future

    def end(self) -> None:
        """End the processes, whatever they do.

        loky drops the calls that wait and looks for them afterwards, which ends its thread with a
        traceback; so it gets to see none.
        """
        with suppress(queue.Empty):
            while True:
                self._work_ids.get_nowait()
        self.shutdown(kill_workers=True)


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
