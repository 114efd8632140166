"""Folders of images as people have them: a folder per class, maybe in folders for sets."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from utils.columns import IMAGE, LABEL
from utils.data.decode import FORMAT_NAMES
from utils.data.folder_tree import Folder, is_image, listed
from utils.data.set_folders import Classes, ClassFolder, lowered, sets_in
from utils.errors import UserError
from utils.units import abridged, counted

log = logging.getLogger("data_cleansing")
NAMED = 3  # files that a line names


def class_folder_tables(root: Path) -> dict[str, pd.DataFrame]:
    """A table of each set: `x:image` (absolute path) and `y:label` (the class folder's name).

    `sets_in` tells classes from sets, in the folder that `lowered` finds. Rows are sorted by class
    and path. Images may lie in folders below their class folder; hidden files and system files are
    ignored, files that are not used are reported.

    Raises:
        UserError: naming the folder, if a class folder has no images, a folder cannot be read or
            leads back to itself, or for what `sets_in` refuses.
    """
    top = lowered(Folder.at(root))
    left_out = _lists_in(p for p in (top.path, *top.path.parents) if p.is_relative_to(root))
    sets = sets_in(top)
    tables = {name: _table(top, classes, left_out) for name, classes in sets.items()}
    left_out += [path for classes in sets.values() for path in _lists_above(top.path, classes)]
    _log_left_out(root, left_out)
    return tables


def has_class_folders(root: Path) -> bool:
    """Whether a folder in `root` holds an image or a folder."""
    return any(folder.images or folder.folders for folder in Folder.at(root).folders)


def _table(top: Folder, classes: Classes, left_out: list[Path]) -> pd.DataFrame:
    if not classes:
        raise UserError(f"{top.path}: no class folders; put the images of each class into a folder")
    rows = [(path, name) for name, c in _named(classes) for path in _class_images(c, left_out)]
    return pd.DataFrame(rows, columns=[IMAGE, LABEL])


def _named(classes: Classes) -> list[tuple[str, ClassFolder]]:
    """Each class with its name in composed form (NFC), so that equal names compare equal."""
    named = [(unicodedata.normalize("NFC", one.name), one) for one in classes]
    spellings: dict[str, set[str]] = defaultdict(set)
    for name, one in named:
        spellings[name].add(one.name)
    for name in (name for name, of_name in spellings.items() if len(of_name) > 1):
        log.warning(
            "Two folders are called %s, in composed and in decomposed letters: one class", name
        )
    return named


def _class_images(one: ClassFolder, left_out: list[Path]) -> list[str]:
    """Absolute paths of the images of a class; other files are added to `left_out`."""
    files = list(one.folder.walk())
    images = [os.path.abspath(path) for path in files if is_image(path)]
    others = [path for path in files if not is_image(path)]
    if not images and others:
        what = f"{counted(len(others), 'file')}, none named .png, .jpg, ..."
        remedy = "name them so, convert them (HEIC: pip install pillow-heif), or remove the folder"
        raise UserError(f"{one.folder.path}: {what}; {remedy}")
    if not images:
        what = "a class folder without images; add images or remove it"
        raise UserError(f"{one.folder.path}: {what}")
    left_out += others
    return images


def _lists_above(top: Path, classes: Classes) -> list[Path]:
    """CSV files in the folders between `top` and the class folders."""
    above = {parent for one in classes for parent in one.folder.path.parents}
    return _lists_in(p for p in above if p != top and p.is_relative_to(top))


def _lists_in(folders: Iterable[Path]) -> list[Path]:
    """The CSV files in some folders, the outer folders first."""
    paths = [path for folder in sorted(folders) for path in listed(folder)]
    return [path for path in paths if path.suffix.lower() == ".csv" and not path.is_dir()]


def _log_left_out(root: Path, left_out: list[Path]) -> None:
    lists = [path for path in left_out if path.suffix.lower() == ".csv"]
    if lists:
        names = abridged([str(path.relative_to(root)) for path in lists], NAMED)
        what = "its classes are its folders; to read a list, give its own path"
        log.warning("%s: %s not used: %s", root, names, what)
    others = [path for path in left_out if path not in lists]
    if others:
        what = f"{counted(len(others), 'file')} not used, having no name of {FORMAT_NAMES}"
        log.warning("%s: %s; the first is %s", root, what, others[0])
