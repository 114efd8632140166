"""Loops over arrays that are compiled for this CPU when they first run, and kept on disk.

Why: NumPy needs a pass over memory for each operation, numba one for all of them; numba's own
cache can fail where several processes compile a changed file, or where its folder cannot be
written. Delete when no module here has loops; the handling of the cache alone when numba's is safe.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numba

Function = TypeVar("Function", bound=Callable)

KEPT = Path(numba.config.CACHE_DIR or Path(__file__).parent / "__pycache__")
"""Where what is compiled is kept; the variable NUMBA_CACHE_DIR names another folder."""


def compiled(function: Function) -> Function:
    """`function` compiled by numba: float32 stays float32, and repeated calls give the same bytes.

    Each text of a source file has a folder of its own in `KEPT`: numba numbers its files again for
    a changed text, and for a moment a process could load what another has not yet replaced. Where
    that folder cannot be written, numba's own ones serve; without any, each process compiles again.
    """
    options = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
    others, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(_folder_of(function))
    try:
        return numba.njit(cache=True, **options)(function)
    except (RuntimeError, UnicodeEncodeError):  # no folder, or one whose name numba cannot take
        return numba.njit(**options)(function)
    finally:
        numba.config.CACHE_DIR = others


def _folder_of(function: Callable) -> Path:
    """Where what is compiled of its source file, as it is now, is kept."""
    source = Path(function.__code__.co_filename)
    text = hashlib.sha256(source.read_bytes()).hexdigest()
    return KEPT / f"{source.stem}-{text[:16]}"
