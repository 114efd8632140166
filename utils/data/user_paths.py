"""What a user's path may be: a folder of class folders, a folder with NNC CSV files, or one CSV."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from utils.columns import CLASS, IMAGE, LABEL
from utils.data.class_folders import class_folder_tables, has_class_folders, listed
from utils.data.nnc_csv import is_nnc_csv, paths_that_climb, read_users_csv
from utils.data.source import TEST, TRAINING, VALIDATION
from utils.errors import UserError

LOG = logging.getLogger("data_cleansing")
CLASSES = "classes.csv"
CSV_WORDS = (("train", TRAINING), ("valid", VALIDATION), ("test", TEST), ("val", VALIDATION))


@dataclass(frozen=True)
class Part:
    """One set: a table with `x:image` (absolute) and `y:label` (text), and its CSV file or None."""

    name: str
    table: pd.DataFrame
    csv: Path | None = None

    def where(self, row: int) -> str:
        """What names a row of the table to the user."""
        path = self.table[IMAGE].iloc[row]
        return f"{self.csv}: row {row + 2}: {path!r}" if self.csv else shown(path)


@dataclass(frozen=True)
class Rows:
    """The rows of all sets one after the other."""

    parts: tuple[Part, ...]

    @cached_property
    def paths(self) -> list[str]:
        """The absolute path of each row's image."""
        return [path for part in self.parts for path in part.table[IMAGE]]

    @cached_property
    def labels(self) -> list[str]:
        """The label of each row."""
        return [label for part in self.parts for label in part.table[LABEL]]

    @cached_property
    def class_names(self) -> list[str]:
        """What the column `CLASS` calls the class of each row, exactly; empty where nothing."""
        tables = (part.table for part in self.parts)
        named = (t[CLASS] if CLASS in t else [""] * len(t) for t in tables)
        return [name for names in named for name in names]

    @cached_property
    def part_names(self) -> list[str]:
        """The set of each row."""
        return [part.name for part in self.parts for _ in range(len(part.table))]

    def where(self, position: int) -> str:
        """What names a row to the user: CSV file, row and path, or the path alone."""
        for part in self.parts:
            if position < len(part.table):
                return part.where(position)
            position -= len(part.table)
        raise IndexError(position)

    def row_name(self, position: int) -> str:
        """The row of the CSV file that names a row, of which the header is row 1; else empty."""
        for part in self.parts:
            if position < len(part.table):
                return f"{position + 2}" if part.csv else ""
            position -= len(part.table)
        raise IndexError(position)


def shown(path: str | Path) -> str:
    """A path in one line, whatever characters are in it."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def read_parts(path: Path) -> tuple[Part, ...]:
    """The sets that a path names; the first is the one for training.

    One set alone is taken to be for training, whatever its name. In a folder, NNC CSV files
    go before class folders. Raises UserError if the path is none of these, if it is not clear
    which CSV file is for training, and for what the readers refuse.
    """
    if path.is_dir():
        return _of_csv_folder(path) or _of_class_folders(path)
    if path.suffix.lower() != ".csv":
        remedy = "give a folder of class folders, a folder with NNC CSV files, or one such file"
        raise UserError(f"{shown(path)}: is no folder and no .csv file; {remedy}")
    return (_of_csv(TRAINING, path),)


def _of_csv(name: str, csv: Path) -> Part:
    table, given = read_users_csv(csv)
    if climbing := paths_that_climb(given):
        LOG.info("%s: %d paths lead out of a folder by '..'; they are followed", csv, climbing)
    return Part(name, table, csv)


def _of_class_folders(root: Path) -> tuple[Part, ...]:
    tables = class_folder_tables(root)
    return tuple(Part(name, table) for name, table in tables.items())


def _of_csv_folder(root: Path) -> tuple[Part, ...]:
    """The sets of the CSV files in `root`; none if class folders are there and no NNC CSV."""
    files = [p for p in listed(root) if p.suffix.lower() == ".csv" and p.name.lower() != CLASSES]
    if has_class_folders(root):
        files = [file for file in files if is_nnc_csv(file)]
    if len(files) == 1:
        return (_of_csv(TRAINING, files[0]),)
    by_name = _by_name(root, files)
    order = (TRAINING, VALIDATION, TEST)
    return tuple(_of_csv(name, by_name[name]) for name in order if name in by_name)


def _by_name(root: Path, files: list[Path]) -> dict[str, Path]:
    """The CSV file of each set, by words in the names; UserError if that is not clear."""
    by_name: dict[str, Path] = {}
    for file in files:
        name = next((name for word, name in CSV_WORDS if word in file.stem.lower()), None)
        remedy = "name them *train*, *valid* and *test*, or give the path of one CSV file"
        if name is None:
            raise UserError(f"{file}: its name does not say which set it is; {remedy}")
        if name in by_name:
            both = f"{by_name[name].name} and {file.name}"
            raise UserError(f"{root}: {both} are both for {name}; {remedy}")
        by_name[name] = file
    if by_name and TRAINING not in by_name:
        raise UserError(f"{root}: no CSV file is for training; name one of them *train*")
    return by_name
