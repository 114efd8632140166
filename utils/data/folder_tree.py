"""The content of a user's folder: images, other files and folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from utils.errors import UserError
from utils.units import abridged, counted

SUFFIXES = frozenset([
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm",
    ".pgm", ".pbm", ".pnm", ".pfm", ".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc", ".avif",
])  # of the formats in utils.data.decode  # fmt: skip
IGNORED = frozenset([
    "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "#recycle",
    "#snapshot", "lost+found", "lost.dir", "found.000", "$recycle.bin",
    "system volume information",
])  # fmt: skip
"""Files and folders of systems and file managers that are not hidden."""


@dataclass(frozen=True)
class Folder:
    """A folder without hidden files and system files.

    Its properties raise UserError, naming the folder, if it cannot be read, or if a folder in it
    has the name of an image or leads back to one above.

    Attributes:
        path: where it is.
        chain: real paths of the folders that lead to it, its own the last.
    """

    path: Path
    chain: tuple[str, ...]

    @classmethod
    def at(cls, path: Path) -> Folder:
        """The folder at a path, as the start of a chain."""
        return cls(path, (os.path.realpath(path),))

    @cached_property
    def files(self) -> list[Path]:
        """The files in it, sorted."""
        return [path for path in self._listed if not path.is_dir()]

    @cached_property
    def images(self) -> list[Path]:
        """The files in it that have the name of an image."""
        return [path for path in self.files if is_image(path)]

    @cached_property
    def folders(self) -> list[Folder]:
        """The folders in it, sorted."""
        return [self._inner(path) for path in self._listed if path.is_dir()]

    @cached_property
    def filled(self) -> list[Folder]:
        """The folders in it that hold an image, however deep."""
        return [folder for folder in self.folders if folder.holds_images]

    @cached_property
    def holds_images(self) -> bool:
        """Whether an image is in it, however deep."""
        return bool(self.images) or any(folder.holds_images for folder in self.folders)

    @property
    def name(self) -> str:
        """Its own name."""
        return self.path.name

    def walk(self) -> Iterator[Path]:
        """All files in it and in the folders below, in the order of their names."""
        inner = {folder.path: folder for folder in self.folders}
        for path in self._listed:
            if path in inner:
                yield from inner[path].walk()
            else:
                yield path

    def described(self) -> str:
        """What is in it, in words: 3 images, the folders cat, dog."""
        images = [counted(len(self.images), "image")] if self.images else []
        folders = [f"the folders {names_of(self.filled)}"] if self.filled else []
        return " and ".join(images + folders) or "no images"

    @cached_property
    def _listed(self) -> list[Path]:
        return listed(self.path)

    def _inner(self, path: Path) -> Folder:
        if is_image(path):
            raise UserError(f"{path}: a folder with the name of an image; rename it")
        real = os.path.realpath(path)
        if real in self.chain:
            raise UserError(f"{path}: a link that leads back to {real}; remove it")
        return Folder(path, (*self.chain, real))


def names_of(folders: list[Folder]) -> str:
    """The names of folders, only the first if there are many."""
    return abridged([folder.name for folder in folders])


def listed(folder: Path) -> list[Path]:
    """The paths in `folder`, sorted, without hidden files and system files.

    Raises:
        UserError: the folder cannot be read, or what is in it cannot be reached.
    """
    try:
        names = sorted(os.listdir(folder))
        os.stat(os.path.join(folder, "."))  # fails where the folder may not be searched
    except OSError as error:
        remedy = "make the folder readable and searchable (chmod u+rx)"
        raise UserError(f"{folder}: {error.strerror}; {remedy}") from error
    return [folder / n for n in names if not n.startswith(".") and n.lower() not in IGNORED]


def is_image(path: Path) -> bool:
    """Whether a path has the name of an image."""
    return path.suffix.lower() in SUFFIXES
