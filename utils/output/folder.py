"""The owner of an output folder: everything in it is written and removed through one object.

`OutputFolder` writes whole files. `ClaimedFolder` belongs to the process that holds the lock, and
records each result in the manifest. `DeferredFolder` belongs to a worker process: its files keep
temporary names until the process that holds the lock renames them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from utils.errors import UserError
from utils.link_free import check_place, remove_file
from utils.output.lock import FolderLock, folder_lost, has_claim
from utils.output.manifest import FileDigest, Manifest
from utils.output.paths import OutputPaths
from utils.output.storage import (
    csv_bytes,
    errors_about,
    json_bytes,
    npy_bytes,
    put_in_place,
    temporary_for,
    to_disk,
)

log = logging.getLogger("data_cleansing")


@dataclass(frozen=True)
class Pending:
    """A file that was written under a temporary name and does not have its own yet.

    Attributes:
        path: its own name, below the output folder.
        temporary: where it is; None: the file `path` is to be removed.
        durable: as in `OutputFolder.written`.
    """

    path: Path
    temporary: Path | None
    durable: bool = False


@dataclass(frozen=True)
class OutputFolder(OutputPaths):
    """Names, writes and removes the files of one output folder.

    The folder itself is never created: one that is removed during a run stays removed. Folders in
    it are created when they are needed, and no link in it is followed.
    """

    def check_there(self) -> None:
        """Raise a UserError if the run no longer owns the folder; here there is no run."""

    @contextmanager
    def written(self, path: Path, *, durable: bool = False) -> Iterator[Path]:
        """Give a temporary path, whose file gets the name `path` when the block ends well.

        The temporary name keeps the suffix of `path`, because some libraries choose the format by
        it. When the block raises, the temporary file is removed and `path` is left as it was.

        Args:
            path: the final name, in the folder.
            durable: flush file and account to the disk first, so that a power failure loses
                neither; for results that took long to compute.

        Raises:
            OSError: with `path` as its file name, for a full disk, a folder that cannot be
                written ...
            UserError: the folder was removed while the run went on, or a link or something else
                is at the place of the file or of a folder.
        """
        with self._errors_about(path), temporary_for(path, self._ready_for(path)) as temporary:
            yield temporary
            if durable:
                to_disk(temporary)
            self._finish(path, temporary, durable)

    def remove(self, path: Path) -> None:
        """Remove the file `path`, if it is there, and the folders that are empty then."""
        remove_file(self.root, self._name(path))

    def carry_out(self, pending: Pending) -> None:
        """Rename or remove what a `DeferredFolder` left."""
        path = self.root / pending.path
        if pending.temporary is None:
            self.remove(path)
            return
        with self._errors_about(path):
            self._ready_for(path)
            self._finish(path, pending.temporary, pending.durable)

    def save_bytes(self, content: bytes | memoryview, path: Path, *, durable: bool = True) -> None:
        """Write `content`, whole or not at all; raises as `written`."""
        with self.written(path, durable=durable) as temporary:
            temporary.write_bytes(content)

    def save_csv(self, table: pd.DataFrame, path: Path, *, index: bool = False) -> None:
        """Write `table` as `storage.save_csv` does; raises as that and `written`."""
        self.save_bytes(csv_bytes(table, path, index=index), path)

    def save_array(self, array: np.ndarray, path: Path) -> None:
        """Write an array as .npy file; raises as `written`."""
        self.save_bytes(npy_bytes(array), path)

    def save_json(self, value: Any, path: Path) -> None:
        """Write `value` as indented JSON; raises as `written`."""
        self.save_bytes(json_bytes(value), path)

    def _ready_for(self, path: Path) -> Path:
        """Make the folder of the temporary file for `path`; returns it."""
        place = self.root
        for part in path.parent.relative_to(self.root).parts:
            place /= part
            check_place(self.root, self._name(place), folder=True)
            place.mkdir(exist_ok=True)
        return place

    def _finish(self, path: Path, temporary: Path, durable: bool) -> None:
        """Give `temporary`, which is whole, its name."""
        put_in_place(path, temporary, durable)

    @contextmanager
    def _errors_about(self, path: Path) -> Iterator[None]:
        """Errors of the system name `path`, or the folder, if that is gone."""
        self.check_there()
        try:
            with errors_about(path):
                yield
        except OSError:
            self.check_there()
            raise

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


@dataclass(frozen=True)
class ClaimedFolder(OutputFolder):
    """The output folder of this process's run: each result is recorded in the manifest.

    Attributes:
        claim: the lock that keeps other runs away.
        account: the manifest; on the disk it names each result before that has its name.
    """

    claim: FolderLock
    account: Manifest

    def check_there(self) -> None:
        """Raise a UserError if the folder was removed or replaced while the run went on."""
        if not self.claim.held():
            raise folder_lost(self.root)

    def remove(self, path: Path) -> None:
        """Remove a file: from the account first, because without it the file is of no use.

        A result that the account does not name is somebody else's and stays.
        """
        if not self.account.keeps(path):
            super().remove(path)
        elif self.account.begin_removal(path):
            self.save_account()
            super().remove(path)
            self.account.end_removal(path)

    def save_account(self) -> None:
        """Write the account, whole or not at all."""
        self.save_json(self.account.as_json(), self.manifest)

    def check_outputs(self) -> None:
        """Compare the results with the account; raises as `Manifest.check_outputs`."""
        self.account.check_outputs()
        self.save_account()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Write the account when the block ends, however it ends."""
        try:
            yield
        except BaseException:
            with suppress(OSError, UserError):
                self.save_account()
            raise
        self.account.end()
        self.save_account()

    def _finish(self, path: Path, temporary: Path, durable: bool) -> None:
        if not self.account.keeps(path):
            super()._finish(path, temporary, durable)
            return
        known = FileDigest.of(temporary)
        place = self.account.place_for(path, known)
        if self.account.announce(place, known, durable):
            self.save_account()
        super()._finish(place, temporary, durable)
        self.account.confirm(place)
        if place != path:
            log.info("%s: was changed by hand and stays; the new one is %s", path, place.name)
            return
        for other in self.account.superseded(path):
            self.remove(other)


@dataclass(frozen=True)
class DeferredFolder(OutputFolder):
    """The output folder for a worker process: files keep temporary names until `carry_out`.

    Attributes:
        claim: the content of `run.lock` during the run, so that nothing is written into the folder
            of a run that has ended; None for a folder of the worker's own.
    """

    claim: bytes | None = None
    _pending: list[Pending] = field(default_factory=list, init=False, compare=False)

    def check_there(self) -> None:
        """Raise a UserError if the run no longer owns the folder."""
        if self.claim is not None and not has_claim(self.lock, self.claim):
            raise folder_lost(self.root)

    def remove(self, path: Path) -> None:
        """Leave the removal to `carry_out`."""
        self._pending.append(Pending(path.relative_to(self.root), None))

    def take_pending(self) -> tuple[Pending, ...]:
        """The files written and removed since the last call, in order, for `carry_out`."""
        taken = tuple(self._pending)
        self._pending.clear()
        return taken

    def _ready_for(self, path: Path) -> Path:
        """All temporary files are in the output folder itself."""
        return self.root

    def _finish(self, path: Path, temporary: Path, durable: bool) -> None:
        self._pending.append(Pending(path.relative_to(self.root), temporary, durable))
