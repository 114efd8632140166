"""Loops over arrays that are compiled for this CPU when they first run, and kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numba

Function = TypeVar("Function", bound=Callable)


def compiled(function: Function) -> Function:
    """`function` compiled by numba: float32 stays float32, and repeated calls give the same bytes.

    What is compiled lies in `__pycache__`, or in numba's folder under the user's cache; where
    neither can be written, each process compiles anew.
    """
    options = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder for the cache
        return numba.njit(**options)(function)
