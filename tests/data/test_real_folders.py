"""Folders and lists as people have them: used as they are meant, or refused in one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.real_folders import CASES, outcome_of
from utils.data.source import CACHE_VARIABLE


@pytest.mark.parametrize("name", CASES)
def test_what_becomes_of_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    outcome = outcome_of(CASES[name], tmp_path)
    assert outcome.word == CASES[name].expected, outcome.line
