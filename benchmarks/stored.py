"""What benchmarks store: rows next to those that are there, and the processor they were made on."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from utils.output.storage import read_csv


def beside_stored(rows: pd.DataFrame, path: Path, keys: Sequence[str]) -> pd.DataFrame:
    """The rows of the CSV file at `path`, if there is one, and after them the new `rows`.

    Args:
        rows: new ones.
        path: the file; what it holds of the same keys is left out.
        keys: columns that say what a row is about.
    """
    if not path.exists():
        return rows
    there, keys = stored(path), list(keys)
    known = pd.MultiIndex.from_frame(there[keys]).isin(pd.MultiIndex.from_frame(rows[keys]))
    return pd.concat([there[~known], rows], ignore_index=True)


def stored(path: Path) -> pd.DataFrame:
    """The rows of a CSV file; the short name of a commit stays text where it is all digits."""
    return read_csv(path, text=["commit"])


def processor() -> str:
    """The model of the CPU, as far as Python can know it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
