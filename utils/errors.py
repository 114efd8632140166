"""The one error that a user can cause, the line of an error, and suggestions for it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

LONGEST = 2000
"""Characters of a line at most; the middle of a longer line is left out."""


class UserError(Exception):
    """A mistake that the user can mend: one line saying what, where and the remedy.

    The commands print the line and end with exit status 2, without a traceback. Of a line that
    quotes more than fits (a field of a CSV file may have millions of characters) the middle is
    left out, so that it still begins with the place and ends with the remedy.
    """

    def __init__(self, line: str) -> None:
        super().__init__(bounded(line))


def reason_of(error: UserError | OSError, place: Path) -> str:
    """The line of a mistake; an error of the system names its file, or `place` if it has none."""
    if isinstance(error, OSError):
        return f"{error.filename or place}: {error.strerror or error}"
    return str(error)


def did_you_mean(name: str, known: Iterable[str], folder: str = "") -> str:
    """A suggestion for a mistyped name, to be put behind an error; empty if none is near.

    folder: where `name` and the known names are, which is suggested too.
    """
    by_lower = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.7)
    return f"; did you mean {os.path.join(folder, by_lower[near[0]])}?" if near else ""


def bounded(line: str) -> str:
    """`line`, or what fits of its beginning and end into `LONGEST` characters."""
    if len(line) <= LONGEST:
        return line
    half = LONGEST // 2 - 40
    return f"{line[:half]} ... ({len(line) - 2 * half:,} characters left out) ... {line[-half:]}"
