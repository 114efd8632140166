"""Every test keeps its data in a cache folder of the test run, never in the user's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from utils.source import CACHE_VARIABLE


@pytest.fixture(autouse=True, scope="session")
def data_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache folder of all tests of one worker."""
    folder = tmp_path_factory.mktemp("cache")
    patch = pytest.MonkeyPatch()
    patch.setenv(CACHE_VARIABLE, str(folder))
    yield folder
    patch.undo()


@pytest.fixture(autouse=True, scope="session")
def few_resamples() -> Iterator[None]:
    """A short bootstrap: that of --verify takes more than a second per method."""
    patch = pytest.MonkeyPatch()
    patch.setattr("sgd_influence.verify.N_RESAMPLES", 50)
    yield
    patch.undo()


@pytest.fixture
def learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    """No word that a small net has learnt nothing in few steps."""
    monkeypatch.setattr("sgd_influence.train.no_better_than_guessing", lambda *known: "")
