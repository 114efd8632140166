"""Which training images harm a net: the Python interface, on top of the stages of the commands.

Two objects: the user fills in `Images`, and `Cleanser` computes what the commands compute.

>>> import numpy as np
>>> from sklearn.datasets import load_digits
>>> from sgd_influence import Cleanser, Images
>>> X, y = load_digits(return_X_y=True)
>>> images = Images(X[:200].reshape(-1, 8, 8) / 16, y[:200])
>>> with Cleanser(images, model="mlp", n_epochs=2, batch_size=32, context="cpu") as cleanser:
...     scores = cleanser.fit().score("Hara")
>>> scores.shape
(200,)
>>> worst = np.argsort(scores)[:10]  # harmful images first; held-out images, nan, last

`Recorder` scores the images of the user's own training loop in nnabla. `METHODS` has the methods by
name. Invalid input raises a `UserError` with a message of one line. docs/python.md is the manual.

The stages, in the order data flows, are train.py, infl.py, eval.py, verify.py and analyze.py.
"""

from __future__ import annotations

import importlib
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgd_influence.arrays import Images
    from sgd_influence.interface import Cleanser
    from sgd_influence.recorder import Recorder
    from utils.errors import UserError
    from utils.methods import METHODS

__all__ = ["METHODS", "Cleanser", "Images", "Recorder", "UserError"]

_HOMES = {
    "Cleanser": "sgd_influence.interface",
    "Images": "sgd_influence.arrays",
    "METHODS": "utils.methods",
    "Recorder": "sgd_influence.recorder",
    "UserError": "utils.errors",
}
"""The module of each name, imported when the name is first used: the commands need none."""


def _check_utils() -> None:
    """Raise an ImportError of one line if `import utils` finds another module than ours."""
    ours = Path(__file__).resolve().parents[1] / "utils"
    try:
        spec = find_spec("utils")
    except ValueError:  # a module without a spec, made by hand
        spec = None
    places = [*(spec.submodule_search_locations or ()), spec.origin or ""] if spec else []
    if ours in [Path(place).resolve() for place in places]:
        return
    found = f"finds {places[-1] or places[0]}" if spec else "finds no such package"
    raise ImportError(
        f"sgd_influence needs its package utils in {ours}, but 'import utils' {found}; rename "
        "that one, put it into a package of yours, or run in another folder"
    )


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    nnabla_log = logging.getLogger("nnabla")
    before = nnabla_log.level
    nnabla_log.setLevel(logging.WARNING)  # without a line on its CPU extension
    try:
        return getattr(importlib.import_module(_HOMES[name]), name)
    finally:
        nnabla_log.setLevel(before)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_check_utils()
importlib.import_module("utils")  # chooses BLAS kernels, if NumPy is not loaded yet
