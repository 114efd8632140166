"""Whether what stands at the name of one of a run's own files was written by a run.

The results are known by their hash in `manifest.json`. These files tell of times, so that no hash
of them is there: they are known by what is in them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from utils.errors import UserError
from utils.link_free import REMEDY, check_place, read_file
from utils.output.lock import holder_of
from utils.output.paths import OutputPaths
from utils.output.runs import runs_in

TITLE = b"<title>Data cleansing: "
"""Of the page; it stands before its style and its images."""
_LOGGED = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ ")
_HEAD = 4096
"""Bytes by which a page and a log are known."""


def check_own_files(paths: OutputPaths) -> None:
    """Check the lock, the log, the list of runs and the page of a folder, as far as they are there.

    Raises:
        UserError: one of them was not written by a run, or is no file.
    """
    for path in _known(paths):
        check_own(path, paths)


def check_own(path: Path, paths: OutputPaths) -> None:
    """The same for one of these files."""
    check_place(paths.root, path.relative_to(paths.root).as_posix())
    if os.path.lexists(path) and not is_own(path, paths):
        raise UserError(f"{path}: was not written by a run; {REMEDY}")


def is_own(path: Path, paths: OutputPaths) -> bool:
    """Whether one of these files, which is there, was written by a run."""
    return _known(paths)[path](path)


def _known(paths: OutputPaths) -> dict[Path, Callable[[Path], bool]]:
    return {
        paths.lock: _is_lock, paths.log: _is_log, paths.runs: _are_runs, paths.page: _is_page,
    }  # fmt: skip


def _is_lock(path: Path) -> bool:
    content = read_file(path, _HEAD)
    return not content or holder_of(content) is not None


def _is_log(path: Path) -> bool:
    content = read_file(path, _HEAD)
    return not content or _LOGGED.match(content) is not None


def _are_runs(path: Path) -> bool:
    try:
        runs_in(read_file(path))
    except ValueError:
        return False
    return True


def _is_page(path: Path) -> bool:
    content = read_file(path, _HEAD)
    return content.lstrip().startswith(b"<!DOCTYPE html>") and TITLE in content
