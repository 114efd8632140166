"""The cores of a run: loops over images take those that no other part of the run computes on.

What is computed side by side writes to places of its own, so that no number of cores changes a
byte. Each thread calls BLAS by itself, with one thread.

Why: nnabla's CPU functions use one core, and workers with nothing to do leave theirs free. Threads
of BLAS's own would neither know of other processes nor speed up the loops of maps.py. Delete when
no function here computes by itself any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Semaphore(Protocol):
    """Counts the free cores of a run, of a process or of several."""

    def acquire(self, block: bool = True, /) -> bool:
        """Take a core; without `block` only if one is free. Whether one was taken."""

    def release(self) -> None:
        """Give a core back."""


@dataclass(frozen=True)
class _Shared:
    free: Semaphore
    pool: ThreadPoolExecutor
    n_cores: int


_shared: _Shared | None = None


def share(n_cores: int, free: Semaphore | None = None) -> None:
    """Let this process compute on the free ones of `n_cores`.

    Args:
        n_cores: of the run; with 1 nothing is computed side by side.
        free: counts them where the run has other processes.
    """
    global _shared
    if n_cores == 1:
        _shared = None
        return
    helpers = ThreadPoolExecutor(n_cores - 1, "core")  # starts threads when it needs them
    _shared = _Shared(free or threading.Semaphore(n_cores), helpers, n_cores)


@contextmanager
def hold_core() -> Iterator[None]:
    """Hold one core for the block; loops in it use other cores while they are free."""
    if _shared is None:
        yield
        return
    _shared.free.acquire()
    try:
        yield
    finally:
        _shared.free.release()


def parallel_for(action: Callable[[Item], object], items: Iterable[Item]) -> None:
    """Call `action` with each item, in parallel where cores are free and in any order."""
    left = list(items)
    waiting = iter(left)  # threads may share the iterator of a list

    def take() -> None:
        for item in waiting:
            action(item)

    helpers = _helpers(take, len(left) - 1)
    try:
        take()
    finally:
        for helper in helpers:
            helper.end()


@dataclass(frozen=True)
class _Helper:
    free: Semaphore
    done: Future[None]

    def end(self) -> None:
        """Wait for it, unless it has not begun; raises what it raised."""
        try:
            if not self.done.cancel():
                self.done.result()
        finally:
            self.free.release()


def _helpers(take: Callable[[], None], at_most: int) -> list[_Helper]:
    """Have free cores call `take`."""
    if _shared is None:
        return []
    helpers: list[_Helper] = []
    while len(helpers) < min(at_most, _shared.n_cores - 1) and _shared.free.acquire(False):
        helpers.append(_Helper(_shared.free, _shared.pool.submit(take)))
    return helpers
