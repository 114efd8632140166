"""What tests of data share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from utils.data.source import CACHE_VARIABLE


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of this test, and no network."""

    def fail(*_: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("pooch.HTTPDownloader.__call__", fail)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"
