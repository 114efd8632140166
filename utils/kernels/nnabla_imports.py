"""Keeps nnabla's compiled code from searching the disk for modules that do not exist.

Why: nnabla 1.39 imports "nnabla.nnabla" and "nnabla.nnabla_ext" whenever an array is asked for
its values, 400 times a training step. Neither module exists, and Python does not remember a
failed search, so that each import looks through nnabla's folders again: a tenth of a step's time.
`None` in `sys.modules` makes the import fail at once.

Delete when nnabla no longer makes these imports; tests/kernels/test_nnabla_imports.py fails then.
"""

from __future__ import annotations

import sys

MISSING = ("nnabla.nnabla", "nnabla.nnabla_ext")


def stop_searching() -> None:
    """Let imports of the missing modules fail at once, in this process."""
    for name in MISSING:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
