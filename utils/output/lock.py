"""One run per output folder: a lock that names its holder and that a dead holder cannot keep."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType

from utils.errors import UserError
from utils.link_free import open_file

log = logging.getLogger("data_cleansing")


@dataclass(frozen=True)
class Holder:
    """Who runs into a folder: process id, host, and since when (local time)."""

    pid: int
    host: str
    since: str

    @classmethod
    def here(cls) -> Holder:
        """This process."""
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        return cls(os.getpid(), socket.gethostname(), since)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"

    def lives(self) -> bool:
        """Whether the process is there and is not this one; it is one of this host."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # somebody else's
            return True
        return self.pid != os.getpid()


_LARGEST_PID = 2**31 - 1


def holder_of(content: bytes) -> Holder | None:
    """Who is named in a lock file; None if nobody is."""
    try:
        holder = Holder(**json.loads(content))
    except (ValueError, TypeError, RecursionError):
        return None
    texts = isinstance(holder.host, str) and isinstance(holder.since, str)
    return holder if texts and type(holder.pid) is int and 0 < holder.pid <= _LARGEST_PID else None


def folder_lost(root: Path) -> UserError:
    """The error for an output folder that is no longer the one that the run has locked."""
    return UserError(
        f"{root}: was removed or replaced while the run went on; the same command starts again"
    )


def has_claim(path: Path, claim: bytes) -> bool:
    """Whether the lock file `path` is there and holds `claim`, which the run wrote into it."""
    try:
        return path.read_bytes() == claim
    except OSError:
        return False


class FolderLock:
    """Locks the folder of the file `path` while its block runs; the file names the holder.

    The kernel releases the lock when the process ends, however it ends. The file of a killed
    process stays; the next run takes it over and logs that.

    Raises:
        UserError: another process holds it; the line names process and host. Or `path` is a link,
            or something else that is no file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    def __enter__(self) -> FolderLock:
        while not self.held():
            self._release()
            self._descriptor = open_file(self.path, os.O_RDWR | os.O_CREAT)
            seen = self._lock()
        try:
            self._take_over(seen)
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.held():
            self.path.unlink(missing_ok=True)
        self._release()

    def held(self) -> bool:
        """Whether the file is there and is the one that this process locked."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.lstat(self.path))
        except OSError:
            return False

    def _release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _lock(self) -> bool:
        """Lock the file; returns whether the kernel would have shown another holder."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = self._holder() or "another process"
            self._release()
            raise UserError(
                f"{self.path.parent}: {holder}, is writing to it; wait until it ends, "
                "or use another folder"
            ) from error
        except OSError as error:
            log.warning(
                "%s: cannot be locked (%s); do not run two commands on this folder at once",
                self.path, error.strerror,
            )  # fmt: skip
            return False
        return True

    def _take_over(self, seen: bool) -> None:
        """Write this process into the file, if who is there has ended.

        A lock held on another host is not always seen from here, so that one is believed. Where
        the kernel shows no locks (`seen` is False), the holder is looked for by its number.
        """
        before, me = self._holder(), Holder.here()
        if before and before.host != me.host:
            raise UserError(
                f"{self.path.parent}: {before}, was writing to it, and whether it still is "
                f"cannot be seen from {me.host}; if it has ended, delete {self.path}"
            )
        if before and not seen and before.lives():
            raise UserError(
                f"{self.path.parent}: {before}, seems to be writing to it (files cannot be locked "
                f"here, so this is not certain); if it has ended, delete {self.path}"
            )
        if before:
            log.warning("%s: taken over from %s, which was killed", self.path.parent, before)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, (json.dumps(asdict(me)) + "\n").encode(), 0)

    def _holder(self) -> Holder | None:
        """Who is named in the file; None if it was killed before it wrote that."""
        return holder_of(os.pread(self._descriptor, 4096, 0))
