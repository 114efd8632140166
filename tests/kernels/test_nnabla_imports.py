"""Modules that nnabla looks for, though they do not exist."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType

import nnabla as nn
import pytest

from utils.kernels import array_functions  # noqa: F401  (it stops the searches)
from utils.kernels.nnabla_imports import MISSING


class Searches:
    """Notes what is searched for; finds nothing."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        self.names.append(name)


@pytest.mark.parametrize("stopped", [True, False])
def test_no_missing_module_is_searched_for_values(
    monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    """Where this fails for False, nnabla has stopped by itself: delete the module."""
    searches = Searches()
    monkeypatch.setattr(sys, "meta_path", [searches, *sys.meta_path])
    for name in () if stopped else MISSING:
        monkeypatch.delitem(sys.modules, name)
    assert nn.Variable((2,)).d.shape == (2,)
    assert set(MISSING).isdisjoint(searches.names) == stopped
