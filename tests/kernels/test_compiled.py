"""What is compiled is of the source as it is now."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest

from utils.kernels import compiled

LOOP = """
from utils.kernels.compiled import compiled

@compiled
def more(x):
    return x + {step}
"""


def loaded(source: Path, step: int) -> ModuleType:
    """A module with the function `more`; its file keeps its size and its time of change."""
    source.write_text(LOOP.format(step=step), encoding="utf-8")
    os.utime(source, (0, 0))
    module = ModuleType(source.stem)
    exec(compile(source.read_text(encoding="utf-8"), source, "exec"), module.__dict__)
    return module


def test_changed_source_is_compiled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "KEPT", tmp_path / "kept")
    source = tmp_path / "loop.py"
    assert loaded(source, 1).more(1) == 2
    assert loaded(source, 2).more(1) == 3


def test_what_is_compiled_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "KEPT", tmp_path / "kept")
    source = tmp_path / "loop.py"
    loaded(source, 1).more(1)
    again = loaded(source, 1).more
    again(1)
    assert sum(again.stats.cache_hits.values()) == 1
    assert Path(again.stats.cache_path).is_relative_to(tmp_path / "kept")
