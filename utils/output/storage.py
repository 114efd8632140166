"""Files that are either whole or not there: written beside, then renamed."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from utils.errors import UserError
from utils.files import check_regular
from utils.link_free import check_place

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp(\.\w+)?")
"""Names of files that are being written; what a killed process leaves."""

TRIAL = ".trial_"
"""What the names of folders with such a name begin with that hold what workers are given."""


class WriteObserver(Protocol):
    """Keeps account of the files of one folder; `utils.output.manifest.Manifest` is one."""

    @property
    def root(self) -> Path:
        """The folder; it is there before its observer and is never made again."""

    def keeps(self, path: Path) -> bool:
        """Whether it keeps account of `path`."""

    def check_folder(self) -> None:
        """Raise a UserError if the folder is not there any more."""

    def announce(self, path: Path, temporary: Path, durable: bool) -> None:
        """`temporary`, which is whole, is about to be renamed to `path`."""

    def confirm(self, path: Path) -> None:
        """`path` is there now as it was expected."""

    def remove(self, path: Path) -> None:
        """Remove `path` if it is of the account, and folders that are empty then."""


_observers: list[WriteObserver] = []


@contextmanager
def observed_by(observer: WriteObserver) -> Iterator[None]:
    """Tell `observer` of every file that the block writes or removes in its folder."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


@dataclass(frozen=True)
class Pending:
    """A file that was written under a temporary name and has not got its own yet.

    Attributes:
        path: its own name.
        temporary: where it is; None: the file `path` is to be removed.
        durable: as in `written_beside`.
    """

    path: Path
    temporary: Path | None
    durable: bool = False


_deferrals: list[tuple[Path, list[Pending]]] = []


@contextmanager
def deferred(folder: Path) -> Iterator[list[Pending]]:
    """Leave what the block writes under temporary names in `folder`, and remove nothing.

    The list that is given holds, in their order, what `carry_out` has to do with them.
    """
    pending: list[Pending] = []
    _deferrals.append((folder, pending))
    try:
        yield pending
    finally:
        _deferrals.pop()


def carry_out(pending: Pending) -> None:
    """Rename or remove what `deferred` left."""
    if pending.temporary is None:
        remove(pending.path)
        return
    with _errors_about(pending.path):
        _make_folder(pending.path.parent)
        _put_in_place(pending.path, pending.temporary, pending.durable)


@contextmanager
def written_beside(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `path`, renamed to `path` when the block ends well.

    The temporary name keeps the suffix of `path`, because some libraries choose the format by it.
    When the block raises, the temporary file is removed and `path` is left as it was.

    Args:
        path: the final name.
        durable: bring file and account to the disk first, so that a power failure loses neither;
            for what took long to compute.

    Raises:
        OSError: with `path` as its file name, for a full disk, a folder that cannot be written ...
        UserError: the folder that `path` lies in was removed while the run went on.
    """
    folder, pending = _deferrals[-1] if _deferrals else (path.parent, None)
    temporary = folder / f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}"
    with _errors_about(path), _removed_on_error(temporary):
        if pending is None:
            _make_folder(folder)
        yield temporary
        if durable:
            _to_disk(temporary)
        if pending is None:
            _put_in_place(path, temporary, durable)
        else:
            pending.append(Pending(path, temporary, durable))


def _put_in_place(path: Path, temporary: Path, durable: bool) -> None:
    observers = _observers_of(path)
    for observer in observers:
        observer.announce(path, temporary, durable)
    os.replace(temporary, path)
    if durable:
        _to_disk(path.parent)
    for observer in observers:
        observer.confirm(path)


def _observers_of(path: Path) -> list[WriteObserver]:
    return [observer for observer in _observers if observer.keeps(path)]


def check_folder_of(path: Path) -> None:
    """Raise a UserError if `path` lies in a folder that was removed while the run went on."""
    for observer in _observers:
        if path.is_relative_to(observer.root):
            observer.check_folder()


def _make_folder(folder: Path) -> None:
    """Make `folder` and those above it up to the folder of a observer, which is never made again.

    Raises:
        UserError: there is a link, or something else, in the folder of a observer.
    """
    kept = {observer.root for observer in _observers}
    wanted = takewhile(lambda path: path not in kept, (folder, *folder.parents))
    for path in reversed(list(wanted)):
        root = next((root for root in kept if path.is_relative_to(root)), None)
        if root is not None:
            check_place(root, path.relative_to(root).as_posix(), folder=True)
        path.mkdir(exist_ok=True)


@contextmanager
def _errors_about(path: Path) -> Iterator[None]:
    check_folder_of(path)
    try:
        yield
    except OSError as error:
        check_folder_of(path)
        raise _about(path, error) from error


@contextmanager
def _removed_on_error(temporary: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _about(path: Path, error: OSError) -> OSError:
    """The same error about `path`: HDF5 and pandas name no file, a temporary name helps nobody."""
    if error.errno is None:
        return OSError(None, " ".join(str(error).split()), str(path))
    return OSError(error.errno, os.strerror(error.errno), str(path))


def remove(path: Path) -> None:
    """Remove a file, of which account may be kept, and folders that are empty then."""
    if _deferrals:
        _deferrals[-1][1].append(Pending(path, None))
        return
    observers = _observers_of(path)
    for observer in observers:
        observer.remove(path)
    if not observers:
        path.unlink(missing_ok=True)
        with suppress(OSError):
            os.removedirs(path.parent)


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


def read_csv(path: Path, columns: Iterable[str] = ()) -> pd.DataFrame:
    """Read what `save_csv` wrote; floats come back bit by bit.

    Raises:
        UserError: the file is not there, empty or no CSV, has no rows, or a value of `columns`
            is missing.
    """
    try:
        check_regular(path)
        table = pd.read_csv(path, float_precision="round_trip")
    except (OSError, ValueError) as error:
        raise unreadable(path, "cannot be read", error) from error
    missing = [name for name in columns if name not in table]
    if missing or table.empty:
        lack = f"no column {missing[0]}" if missing else "no rows"
        raise unreadable(path, "is not whole", lack)
    if table[list(columns)].isna().to_numpy().any():
        raise unreadable(path, "is not whole", "a value is missing")
    return table


def save_array(array: np.ndarray, path: Path) -> None:
    """Write an array as .npy file, whole or not at all."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    save_bytes(content.getvalue(), path)


def load_array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Read what `save_array` wrote.

    Raises:
        UserError: the file is not there, no .npy file, or of another shape.
    """
    try:
        check_regular(path)
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise unreadable(path, "cannot be read", error) from error
    if array.shape != shape:
        raise unreadable(path, "is not whole", f"its shape is {array.shape}, not {shape}")
    return array


def save_json(value: Any, path: Path) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    save_bytes((json.dumps(value, indent=2, sort_keys=True) + "\n").encode("utf-8"), path)


def unreadable(path: Path, what: str, error: Exception | str) -> UserError:
    """What to raise for a file of the run that was whole when the run looked at it."""
    remedy = "the same command makes it anew"
    if not os.path.exists(path):
        return UserError(f"{path}: is gone, removed while the run went on; {remedy}")
    reason = error.strerror if isinstance(error, OSError) else None
    return UserError(f"{path}: {what} ({' '.join((reason or str(error)).split())[:200]}); {remedy}")
