"""Names that are not UTF-8: their likely encoding, and the command that renames them."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable

from utils.errors import UserError

ENCODINGS = ("cp932", "gb18030", "euc_kr", "cp1252", "latin_1")
"""Of file names from before UTF-8: Japanese, Chinese, Korean, Western Windows and Unix."""

HALF_WIDTH = re.compile("[\uff61-\uff9f]")
"""Half-width katakana: rare in names, but common where the encoding is guessed wrongly."""


def check_names(paths: Iterable[str]) -> None:
    """Raise UserError for the first absolute path that is not UTF-8: no CSV file can hold it."""
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError as error:
            raise _refused(path) from error


def _refused(path: str) -> UserError:
    """The error for the first part of a path that is not UTF-8; it gives a command to rename it."""
    folder = os.sep
    for part in path.strip(os.sep).split(os.sep):
        name = os.fsencode(part)
        try:
            name.decode()
        except UnicodeDecodeError:
            break
        folder = os.path.join(folder, part)
    encoding, text = _guessed(name)
    shown = os.path.join(folder, name.decode("ascii", "backslashreplace"))
    command = f"convmv -f {encoding} -t utf-8 -r --notest {shlex.quote(folder)}"
    what = f"its name is not UTF-8 (read as {encoding} it is {text})"
    return UserError(f"{shown}: {what}; rename it and others there by {command}")


def _guessed(name: bytes) -> tuple[str, str]:
    """The most likely encoding of a name, and the name in it."""
    single = not re.search(rb"[\x80-\xbf]|[\xc0-\xff]{2}", name)  # as accented letters are
    for encoding in ENCODINGS[3:] if single else ENCODINGS:
        try:
            text = name.decode(encoding)
        except UnicodeDecodeError:
            continue
        if text.isprintable() and not HALF_WIDTH.search(text):
            return encoding, text
    return "latin_1", name.decode("latin_1")
