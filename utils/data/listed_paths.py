"""Paths as people write them into lists: the file that is meant, or what is wrong with a path."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from urllib.parse import unquote

PLAIN_PATH = "write its path, from the folder of the CSV file"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(//?)")
_VARIABLE = re.compile(r"\$\{?\w+\}?|%\w+%")

Names = Callable[[str], dict[str, str]]
Real = Callable[[str], str]


def found_on_disk(folder: str, given: Sequence[str]) -> tuple[list[str], int]:
    r"""The absolute path of each image that a list in `folder` names.

    Tried in this order: the path as it is, without blanks around it, with / for \; each also with
    its letters composed as on disk (NFC or NFD).

    Returns:
        the paths, and for how many of them \ became /.
    """
    names: Names = lru_cache(maxsize=None)(_names)
    real: Real = lru_cache(maxsize=None)(os.path.realpath)
    paths = [_found(folder, text, names, real) for text in given]
    turned = sum("\\" in text and "\\" not in path for text, path in zip(given, paths, strict=True))
    return paths, turned


def _found(folder: str, text: str, names: Names, real: Real) -> str:
    first = joined_path(folder, text, real)
    if text.isascii() and "\\" not in text and text == text.strip():
        return first
    for variant in dict.fromkeys((text, text.strip(), text.strip().replace("\\", "/"))):
        path = joined_path(folder, variant, real)
        if os.path.lexists(path):
            return path
        path = _as_composed_on_disk(path, names)
        if os.path.lexists(path):
            return path
    return first


def joined_path(folder: str, path: str, real: Real = os.path.realpath) -> str:
    """The file that the system finds at a path: behind a symbolic link, `..` leads elsewhere."""
    joined = os.path.join(folder, path)
    if ".." not in path.split("/"):
        return os.path.normpath(joined)
    above, name = os.path.split(joined)
    return os.path.normpath(os.path.join(real(above), name))


def _as_composed_on_disk(path: str, names: Names) -> str:
    """The path with each part as it is spelled on disk, where that differs in composition."""
    found = os.sep
    for part in path.strip(os.sep).split(os.sep):
        step = os.path.join(found, part)
        if not part.isascii() and not os.path.lexists(step):
            step = os.path.join(found, names(found).get(unicodedata.normalize("NFC", part), part))
        found = step
    return found


def _names(folder: str) -> dict[str, str]:
    """The names in a folder, by their composed form; empty if it cannot be read."""
    try:
        return {unicodedata.normalize("NFC", name): name for name in os.listdir(folder)}
    except (OSError, ValueError):
        return {}


def what_it_is(given: str, folder: str) -> str:
    """Explains a path that leads to no file, and what to do; empty if there is no explanation."""
    text = given.strip()
    text = re.sub(r"^file:/*(?=[A-Za-z]:)", "", text)
    if re.match(r"[A-Za-z]:", text):
        return f"a path on a Windows drive; copy the image to this machine and {PLAIN_PATH}"
    if text.startswith("\\\\"):
        return f"a path on a Windows share; copy the image to this machine and {PLAIN_PATH}"
    if text.startswith("data:"):
        return f"an image within the list; save it as a file and {PLAIN_PATH}"
    if scheme := _SCHEME.match(text):
        return _address(text, scheme)
    if text.startswith("~"):
        where = os.path.expanduser(text)
        return f"only shells expand ~; write {where if where != text else 'the whole path'}"
    if _VARIABLE.search(text):
        return "a variable, which only shells replace; write the whole path"
    return _nearly(text, folder)


def _address(text: str, scheme: re.Match[str]) -> str:
    kind = scheme[1].lower()
    if kind == "file":
        return f"a file:// address; write the path {unquote(text[5:].removeprefix('//'))}"
    return f"an address ({kind}://), but images are read from disk; download it and {PLAIN_PATH}"


def _nearly(text: str, folder: str) -> str:
    """Explains a path that differs from one on disk only in its spelling."""
    plain = unquote(text)
    if plain != text and os.path.lexists(joined_path(folder, plain)):
        return f"no such file, it is written as in a web address (%); write {plain}"
    where, name = os.path.split(joined_path(folder, text))
    others = {other.casefold(): other for other in _names(where).values()}
    if others.get(name.casefold(), name) != name:
        return f"no such file, capital letters differ; write {others[name.casefold()]}"
    return "no such file, nor with / for \\; restore it" if "\\" in text else ""
