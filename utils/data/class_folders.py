"""Folders of images as people have them: a folder per class, maybe under train, val and test."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from utils.columns import IMAGE, LABEL
from utils.data.decode import FORMAT_NAMES
from utils.data.source import TEST, TRAINING, VALIDATION
from utils.errors import UserError
from utils.units import counted

LOG = logging.getLogger("data_cleansing")
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), TRAINING),
    **dict.fromkeys(("val", "valid", "validation"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}
SUFFIXES = frozenset(
    [".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".tif", ".tiff", ".webp"]
)  # of the formats in utils.data.decode
IGNORED = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx"))


def class_folder_tables(root: Path) -> dict[str, pd.DataFrame]:
    """A table of each set: `x:image` (absolute path) and `y:label` (the class folder's name).

    Folders in `root` called train, val (or valid, validation) and test are sets if they hold
    folders and there is one for training; otherwise every folder is a class, and there is one
    set. Rows are sorted by class and path. Images may lie in folders below their class
    folder; hidden files and those of file managers are ignored. Raises UserError, naming the
    folder, if one is empty, can't be read or leads back to itself.
    """
    folders = _folders(root)
    splits = {SPLIT_NAMES[f.name.lower()]: f for f in folders if _is_split(f)}
    if TRAINING not in splits:
        return {TRAINING: _classes(root, folders)}
    others = [folder.name for folder in folders if folder not in splits.values()]
    if others:
        LOG.warning("%s: beside train, val and test, not used: %s", root, ", ".join(others))
    order = [name for name in (TRAINING, VALIDATION, TEST) if name in splits]
    return {name: _classes(splits[name], _folders(splits[name])) for name in order}


def has_class_folders(root: Path) -> bool:
    """Whether a folder in `root` holds an image or a folder."""
    return any(_is_image(path) or path.is_dir() for f in _folders(root) for path in listed(f))


def _is_split(folder: Path) -> bool:
    if folder.name.lower() not in SPLIT_NAMES:
        return False
    there = listed(folder)
    return any(p.is_dir() for p in there) and not any(_is_image(p) for p in there if p.is_file())


def _classes(root: Path, folders: list[Path]) -> pd.DataFrame:
    if not folders:
        raise UserError(f"{root}: no class folders; put the images of each class into a folder")
    left_out: list[Path] = []
    rows = [(path, f.name) for f in folders for path in _class_images(f, left_out)]
    if left_out:
        what = f"{counted(len(left_out), 'file')} not used, having no name of {FORMAT_NAMES}"
        LOG.warning("%s: %s; the first is %s", root, what, left_out[0])
    return pd.DataFrame(rows, columns=[IMAGE, LABEL])


def _class_images(folder: Path, left_out: list[Path]) -> list[str]:
    """Absolute paths of the images of a class; what is no image joins `left_out`."""
    files = list(_walk(folder, (os.path.realpath(folder.parent), os.path.realpath(folder))))
    images = [os.path.abspath(path) for path in files if _is_image(path)]
    left_out += [path for path in files if not _is_image(path)]
    if not images:
        raise UserError(f"{folder}: a class folder without images; put some in or take it out")
    return images


def _walk(folder: Path, chain: tuple[str, ...]) -> Iterator[Path]:
    """The files below `folder`; `chain`: the real paths of the folders that lead to it."""
    for path in listed(folder):
        if not path.is_dir():
            yield path
            continue
        if _is_image(path):
            raise UserError(f"{path}: a folder with the name of an image; rename it")
        real = os.path.realpath(path)
        if real in chain:
            raise UserError(f"{path}: a link that leads back to {real}; take it out")
        yield from _walk(path, (*chain, real))


def _folders(folder: Path) -> list[Path]:
    return [path for path in listed(folder) if path.is_dir()]


def listed(folder: Path) -> list[Path]:
    """What lies in `folder`, sorted, without hidden files and those of file managers."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; make the folder readable") from error
    return [folder / n for n in names if not n.startswith(".") and n.lower() not in IGNORED]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES
