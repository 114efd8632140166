"""Looks at files that a user names before they are opened."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def check_regular(path: str | Path) -> int:
    """Make sure that a path leads to a regular file with content; returns its size in bytes.

    Nothing is opened: reading a pipe, a device or a file such as /proc/kmsg may wait for ever, and
    opening a device may have effects. Files that the system makes up while they are read have no
    size.

    Raises:
        OSError: it does not; `strerror` says why in a few words.
    """
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise OSError(errno.EISDIR, "a folder, not a file", str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    if found.st_size == 0:
        raise OSError(errno.ENODATA, "the file is empty", str(path))
    return found.st_size
