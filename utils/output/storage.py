"""Files that are either whole or not there: written under a temporary name, then renamed.

Files in an output folder are written through its `OutputFolder` (folder.py).
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from utils.errors import UserError
from utils.files import check_regular

Value = TypeVar("Value")

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp(\.\w+)?")
"""Names of files that are being written; what a killed process leaves."""

TRIAL = ".trial_"
"""Start of the names of temporary folders with the files for workers."""


@contextmanager
def written_beside(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Give a temporary path next to `path`, renamed to `path` when the block ends well.

    The temporary name keeps the suffix of `path`, because some libraries choose the format by it.
    When the block raises, the temporary file is removed and `path` is left as it was.

    Args:
        path: the final name.
        durable: bring the file to the disk, so that a power failure does not lose it; for what
            took long to compute.

    Raises:
        OSError: with `path` as its file name, for a full disk, a folder that cannot be written ...
    """
    with errors_about(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_for(path, path.parent) as temporary:
            yield temporary
            if durable:
                to_disk(temporary)
            put_in_place(path, temporary, durable)


@contextmanager
def errors_about(path: Path) -> Iterator[None]:
    """Errors of the operating system in the block name `path`."""
    try:
        yield
    except OSError as error:
        raise _about(path, error) from error


@contextmanager
def temporary_for(path: Path, folder: Path) -> Iterator[Path]:
    """Give a temporary name for `path` in `folder`; the file is removed if the block raises."""
    temporary = folder / f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}"
    try:
        yield temporary
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def put_in_place(path: Path, temporary: Path, durable: bool) -> None:
    """Rename `temporary` to `path`; `durable`: on the disk, too."""
    os.replace(temporary, path)
    if durable:
        to_disk(path.parent)


def to_disk(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _about(path: Path, error: OSError) -> OSError:
    """The same error about `path`: HDF5 and pandas name no file, or only a temporary one."""
    if error.errno is None:
        return OSError(None, " ".join(str(error).split()), str(path))
    return OSError(error.errno, os.strerror(error.errno), str(path))


def save_bytes(content: bytes | memoryview, path: Path, *, durable: bool = True) -> None:
    """Write `content`, whole or not at all."""
    with written_beside(path, durable=durable) as temporary:
        temporary.write_bytes(content)


def save_csv(table: pd.DataFrame, path: Path, *, index: bool = False) -> None:
    """Write `table` as UTF-8 CSV with Unix line ends, whole or not at all.

    Raises:
        UserError: a name in it is not UTF-8.
    """
    save_bytes(csv_bytes(table, path, index=index), path)


def csv_bytes(table: pd.DataFrame, path: Path, *, index: bool = False) -> bytes:
    """What `save_csv` writes to `path`; raises as that does."""
    text = table.to_csv(index=index, lineterminator="\n")
    if "\r" in text:  # would be taken for the end of a row, and is quoted only with all texts
        text = table.to_csv(index=index, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        name = text[max(0, error.start - 60) : error.end + 20].splitlines()[0]
        raise UserError(
            f"{path}: is to hold a name that is not UTF-8 (...{name!r}); rename that file or folder"
        ) from error


def read_csv(path: Path, columns: Iterable[str] = (), text: Iterable[str] = ()) -> pd.DataFrame:
    """Read what `save_csv` wrote; floats come back bit by bit.

    Args:
        path: the file.
        columns: must be there, with a value in every row.
        text: columns that stay text, though all their values may look like numbers.

    Raises:
        UserError: the file is not there, empty or no CSV, has no rows, or a value of `columns`
            is missing.
    """
    try:
        check_regular(path)
        types = dict.fromkeys(text, str)
        table = pd.read_csv(path, float_precision="round_trip", dtype=types, low_memory=False)
    except (OSError, ValueError) as error:
        raise unreadable(path, "cannot be read", error) from error
    check_whole(table, columns, path)
    return table


def check_whole(table: pd.DataFrame, columns: Iterable[str], path: Path) -> None:
    """Raise UserError if a table of `path` has no rows, or lacks one of `columns` or its values."""
    check_columns(table, columns, path)
    if table.empty:
        raise unreadable(path, "is incomplete", "no rows")
    if table[list(columns)].isna().to_numpy().any():
        raise unreadable(path, "is incomplete", "a value is missing")


def check_columns(table: pd.DataFrame, columns: Iterable[str], path: Path) -> None:
    """Raise UserError if a table of `path` lacks one of `columns`."""
    missing = [name for name in columns if name not in table]
    if missing:
        raise unreadable(path, "is incomplete", f"no column {missing[0]}")


def read_texts(path: Path, columns: Iterable[str]) -> pd.DataFrame | None:
    """As `read_if_there`, with all values as text, empty ones as ""."""
    return read_if_there(path, columns, dtype=str, keep_default_na=False)


def read_if_there(path: Path, columns: Iterable[str], **how: Any) -> pd.DataFrame | None:
    """A table that may be missing or without rows; None if the file is not there.

    Args:
        path: of the CSV file.
        columns: that it must have.
        how: further arguments of `pandas.read_csv`; floats come back bit by bit.

    Raises:
        UserError: the file cannot be read or lacks one of `columns`.
    """
    try:
        check_regular(path)
        table = pd.read_csv(path, **{"float_precision": "round_trip", **how})
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise unreadable(path, "cannot be read", error) from error
    check_columns(table, columns, path)
    return table


def read_versioned_json(path: Path, version: int, build: Callable[[Any], Value]) -> Value | None:
    """What `build` makes of a JSON file; None without a file, or for one of another version.

    Raises:
        UserError: the file cannot be read, or is incomplete.
    """
    try:
        check_regular(path)
        value = json.loads(path.read_text(encoding="utf-8"))
        return build(value) if value["version"] == version else None
    except FileNotFoundError:
        return None
    except KeyError as error:
        raise unreadable(path, "is incomplete", f"{error.args[0]} is missing") from error
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise unreadable(path, "cannot be read", error) from error


def npy_bytes(array: np.ndarray) -> bytes:
    """An array as the content of a .npy file."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return content.getvalue()


def load_array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read an array from a .npy file.

    Raises:
        UserError: the file is not there, no .npy file, or of another shape.
    """
    try:
        check_regular(path)
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise unreadable(path, "cannot be read", error) from error
    if array.shape != shape:
        raise unreadable(path, "is incomplete", f"its shape is {array.shape}, not {shape}")
    return array


def npz_bytes(arrays: Mapping[str, np.ndarray], compressed: bool = True) -> bytes:
    """Arrays as the content of a .npz file.

    In memory: NumPy leaves a file open on a full disk.
    """
    content = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(content, **arrays)
    return content.getvalue()


def load_npz(path: Path, what: str, build: Callable[[Mapping[str, np.ndarray]], Value]) -> Value:
    """What `build` makes of the arrays of a .npz file, `what` for short.

    Raises:
        UserError: the file is not there, cut short or no .npz file, or `build` raises.
    """
    try:
        check_regular(path)
        return build(arrays_in(path.read_bytes()))
    except Exception as error:  # damaged archives raise many kinds
        raise unreadable(path, f"is not a readable {what}", error) from error


def arrays_in(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of which `npz_bytes` made the content."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return dict(archive)


def json_bytes(value: Any) -> bytes:
    """`value` as indented JSON."""
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode("utf-8")


def unreadable(path: Path, what: str, error: Exception | str) -> UserError:
    """The error for a file of the run that was whole when the run started."""
    remedy = "the same command recomputes it"
    if not os.path.exists(path):
        return UserError(f"{path}: is gone, removed while the run went on; {remedy}")
    reason = error.strerror if isinstance(error, OSError) else None
    return UserError(f"{path}: {what} ({' '.join((reason or str(error)).split())[:200]}); {remedy}")
