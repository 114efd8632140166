"""Files that are either whole or not there: written beside, then renamed."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from utils.errors import UserError


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, renamed to `path` when the block ends well.

    The temporary name keeps the suffix of `path`, because nnabla chooses the file format by
    it. When the block raises, the temporary file is removed and `path` is left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_csv(table: pd.DataFrame, path: Path, *, index: bool = False) -> None:
    """Write `table` as UTF-8 CSV with Unix line ends, whole or not at all."""
    with written_beside(path) as temporary:
        table.to_csv(temporary, index=index, lineterminator="\n")


def read_csv(path: Path) -> pd.DataFrame:
    """Read what `save_csv` wrote; floats come back bit by bit.

    Raises:
        UserError: the file is not there, empty or no CSV.
    """
    try:
        return pd.read_csv(path, float_precision="round_trip")
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path}: cannot be read ({reason}); delete it, and the same command makes it anew"
        ) from error


def save_json(value: Any, path: Path) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    with written_beside(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
