"""Files inside a folder, reached without following a link.

A link inside an output folder may lead to somebody's files, so nothing is written, read or removed
through one. The folder itself may be reached by a link.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from utils.errors import UserError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
REMEDY = "move it elsewhere, or choose another --output_dir"
"""What helps where something of somebody else stands at the name of a file of a run."""


def check_place(root: Path, name: str, *, folder: bool = False) -> None:
    """Check that a file (or a folder) can be at a place: it is there, or nothing is.

    Args:
        root: the folder, which may itself be a link.
        name: the place below it, with slashes.
        folder: a folder is to be there, not a file.

    Raises:
        UserError: something else is there, such as a link, a pipe or a device, or one of the
            folders on the way is not a folder.
    """
    path = root
    parts = PurePosixPath(name).parts
    for number, part in enumerate(parts, start=1):
        path = path / part
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            return
        inner = folder or number < len(parts)
        if not (stat.S_ISDIR(mode) if inner else stat.S_ISREG(mode)):
            raise _other(path, mode, "folder" if inner else "file")


def _other(path: Path, mode: int, wanted: str) -> UserError:
    return UserError(f"{path}: is {_kind(mode)} where a run has a {wanted}; {REMEDY}")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFDIR: "a folder",
        stat.S_IFREG: "a file",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def open_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file; returns its descriptor. Does not wait, whatever is at `path`.

    Raises:
        OSError: as `os.open`.
        UserError: at `path` is something else, or a file that is to be changed in place has
            another name (a hard link), which may be somebody's.
    """
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError:
        check_place(path.parent, path.name)  # says what is there, if that is the reason
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _other(path, found.st_mode, "file")
        if flags & (os.O_WRONLY | os.O_RDWR) and found.st_nlink > 1:
            raise UserError(f"{path}: has another name (a hard link); {REMEDY}")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_file(path: Path, most: int = -1) -> bytes:
    """The content of a regular file, its first `most` bytes if given; raises as `open_file`."""
    with open(open_file(path), "rb") as stream:
        return stream.read(most)


def remove_file(root: Path, name: str) -> None:
    """Remove the file `name` under `root`, if it is there, and the folders that are empty then.

    Raises:
        UserError: something else than a file is there, or a link is on the way.
        OSError: it cannot be removed.
    """
    check_place(root, name)
    place = PurePosixPath(name)
    try:
        with _folder_of(root, place) as folder:
            if stat.S_ISREG(os.stat(place.name, dir_fd=folder, follow_symlinks=False).st_mode):
                os.unlink(place.name, dir_fd=folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(root / name)) from error
    with suppress(OSError):
        for parent in place.parents[:-1]:
            with _folder_of(root, parent) as folder:
                os.rmdir(parent.name, dir_fd=folder)


@contextmanager
def _folder_of(root: Path, place: PurePosixPath) -> Iterator[int]:
    """A descriptor of the folder that `place` lies in; no link is followed on the way there."""
    descriptor = os.open(root, _FOLDER)
    try:
        for part in place.parts[:-1]:
            inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)
