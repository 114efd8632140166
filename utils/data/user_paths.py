"""Read a user's path: a folder of class folders, a folder with NNC CSV files, or one CSV file."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from utils.columns import CLASS, IMAGE, LABEL, SET
from utils.data.class_folders import class_folder_tables, has_class_folders
from utils.data.decisions import DECISION, NEW_LABEL
from utils.data.folder_tree import listed
from utils.data.label_table import IS_ISSUE
from utils.data.labels import class_labels
from utils.data.listed_paths import what_it_is
from utils.data.nnc_csv import means_nnc_csv, paths_that_climb, read_users_csv
from utils.data.set_names import set_name
from utils.data.source import TEST, TRAINING, VALIDATION
from utils.data.unprintable import check_names
from utils.errors import UserError
from utils.output.paths import TRAININGS, OutputPaths, unrenamed
from utils.units import abridged

log = logging.getLogger("data_cleansing")
CLASSES = "classes.csv"
SETS = (TRAINING, VALIDATION, TEST)
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
NO_CLASSES = "; its folders are not used as classes"
OWN_LIST = re.compile(r"(.+_)?train_(?P<kind>cleansed|reviewed)(_\d+)?(\.new(_\d+)?)?\.csv")
"""Training lists that this program writes; `companion` names the other sets next to one."""


@dataclass(frozen=True)
class Part:
    """One set of a user's data.

    Attributes:
        name: of the set.
        table: `x:image` (absolute) and `y:label` (text); with `csv` its index is the rows of the
            file, counted from 1.
        csv: the file that lists them; None for class folders.
        given: the paths as they are written there.
    """

    name: str
    table: pd.DataFrame
    csv: Path | None = None
    given: tuple[str, ...] = ()

    def row(self, position: int) -> int | None:
        """The row of the CSV file, counted from 1."""
        return int(self.table.index[position]) if self.csv else None

    def where(self, position: int) -> str:
        """How messages name a row of the table: CSV file, row and path, or only the path."""
        path = self.table[IMAGE].iloc[position]
        if self.csv is None:
            return shown(path)
        named = self.given[position] if self.what_it_is(position) else path
        return f"{self.csv}: row {self.row(position)}: {named!r}"

    def what_it_is(self, position: int) -> str:
        """Explains a listed path that leads to no file, and what to do; else empty."""
        if self.csv is None or os.path.lexists(self.table[IMAGE].iloc[position]):
            return ""
        return what_it_is(self.given[position], os.path.abspath(self.csv.parent))

    def without(self, positions: Collection[int]) -> Part:
        """The set without some of its rows."""
        kept = [i for i in range(len(self.table)) if i not in positions]
        given = tuple(self.given[i] for i in kept) if self.given else ()
        return replace(self, table=self.table.iloc[kept], given=given)


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

    def at(self, position: int) -> tuple[Part, int]:
        """The set that a row is in, and its position there."""
        for part in self.parts:
            if position < len(part.table):
                return part, position
            position -= len(part.table)
        raise IndexError(position)

    def where(self, position: int) -> str:
        """How messages name a row: CSV file, row and path, or only the path."""
        part, inside = self.at(position)
        return part.where(inside)

    def without(self, positions: Collection[int]) -> Rows:
        """The rows without those at `positions`; sets without rows are dropped."""
        starts = np.cumsum([0, *(len(part.table) for part in self.parts)])
        taken = set(positions)
        parts = [
            part.without({i for i in range(len(part.table)) if start + i in taken})
            for part, start in zip(self.parts, starts, strict=False)
        ]
        return Rows(tuple(part for part in parts if len(part.table)))

    def row_name(self, position: int) -> str:
        """The row of the CSV file that names an image; empty without one.

        With the name of the file where there are several: train.csv:12.
        """
        part, inside = self.at(position)
        if part.csv is None:
            return ""
        several = len({one.csv for one in self.parts}) > 1
        return f"{part.csv.name}:{part.row(inside)}" if several else str(part.row(inside))


def shown(path: str | Path) -> str:
    """A path in one line, whatever characters are in it."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def read_parts(path: Path) -> tuple[Part, ...]:
    """The sets that a path names; the first is the one for training.

    A single set is for training, whatever its name; a cleansed or reviewed list brings the sets
    next to it. In a folder, NNC CSV files go before class folders.

    Raises:
        UserError: the path is none of these, it is not clear which CSV file is for training, a
            name is not UTF-8, or a reader refuses a file.
    """
    check_names([os.path.abspath(path)])
    _check_no_output(path)
    if path.is_dir():
        parts = _of_csv_folder(path) or _of_class_folders(path)
    elif path.suffix.lower() == ".csv":
        parts = (_of_csv(TRAINING, path), *_companions(path))
    else:
        is_archive = path.suffix.lower() in ARCHIVES
        what = "is an archive" if is_archive else "is no folder and no .csv file"
        remedy = "give a folder of class folders, a folder with NNC CSV files, or one such file"
        unpack = "unpack it and " if is_archive else ""
        raise UserError(f"{shown(path)}: {what}; {unpack}{remedy}")
    check_names([path for part in parts for path in part.table[IMAGE]])
    return _with_labels(parts)


def _check_no_output(path: Path) -> None:
    """Raise a UserError for the output folder of a run, which holds no data set."""
    if not (os.path.isfile(OutputPaths(path).manifest) and os.path.isdir(path / TRAININGS)):
        return
    lists = [*path.glob("cleansed/*.csv"), *path.glob("reviewed/csv*/*.csv")]
    made = sorted(str(file) for file in lists if OWN_LIST.fullmatch(file.name))
    own = f", or a list that was made from it, such as {shown(made[0])}" if made else ""
    what = "is the output folder of a run, not a data set"
    raise UserError(f"{shown(str(path))}: {what}; give the data set of that run{own}")


def _with_labels(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Sets of CSV files with their labels as `class_labels` reads them."""
    lists = [(part.csv, part.table[LABEL]) for part in parts if part.csv]
    if not lists:
        return parts
    labels = class_labels(lists)
    return tuple(
        replace(part, table=part.table.assign(**{LABEL: found}))
        for part, found in zip(parts, labels, strict=True)
    )


def companion(name: str, kind: str) -> str:
    """The name of the file with the set `name` (validation or test) next to lists of a kind."""
    return f"{name}_{kind}.csv"


def _companions(csv: Path) -> Iterator[Part]:
    """The other sets of a cleansed or reviewed list, which lie next to it."""
    own = OWN_LIST.fullmatch(csv.name)
    if own is None:
        return
    for name in (VALIDATION, TEST):
        other = csv.with_name(companion(name, own["kind"]))
        if other.exists():
            log.info("%s: the %s images of this list", other, name)
            later = [p for p in csv.parent.glob("*.new*.csv") if unrenamed(p) == other]
            if later:
                last = max(later, key=lambda path: (len(path.name), path.name))
                what = f"{last.name} next to it is of a later run; to use that, rename it"
                log.warning("%s: %s", other, what)
            yield _of_csv(name, other)
        elif name == TEST:
            what = "is not there, so other test images are drawn; copy it next to the list"
            log.warning("%s: %s", other, what)


def _of_csv(name: str, csv: Path) -> Part:
    table, given = read_users_csv(csv)
    if DECISION in table and NEW_LABEL in table:
        what = "holds decisions on labels, not a data set; apply them with python -m utils.review"
        raise UserError(f"{csv}: {what}, which writes the reviewed data set")
    if IS_ISSUE in table:
        what = "holds the label check of a run, not a data set; give the data set of that run"
        raise UserError(f"{csv}: {what}")
    if SET in table:
        log.warning("%s: its column %r is not read, all rows are for %s", csv, SET, name)
    if climbing := paths_that_climb(given):
        log.info("%s: %d paths lead out of a folder by '..'; they are followed", csv, climbing)
    return Part(name, table, csv, tuple(given))


def _of_class_folders(root: Path) -> tuple[Part, ...]:
    tables = class_folder_tables(root)
    return tuple(Part(name, table) for name, table in tables.items())


def _of_csv_folder(root: Path) -> tuple[Part, ...]:
    """The sets of the CSV files in `root`; none if class folders are there and no NNC CSV."""
    files = [p for p in listed(root) if p.suffix.lower() == ".csv" and p.name.lower() != CLASSES]
    with_folders = has_class_folders(root)
    if with_folders:
        others = [file.name for file in files if not means_nnc_csv(file)]
        files = [file for file in files if file.name not in others]
        if files and others:
            log.info("%s: not used: %s", root, abridged(others))
    if len(files) == 1:
        return (_only_csv(root, files[0], with_folders),)
    by_name = _by_name(root, files)
    if by_name:
        read = ", ".join(f"{name} from {by_name[name].name}" for name in SETS if name in by_name)
        log.info("%s: sets are read: %s%s", root, read, NO_CLASSES if with_folders else "")
    return tuple(_of_csv(name, by_name[name]) for name in SETS if name in by_name)


def _only_csv(root: Path, csv: Path, with_folders: bool) -> Part:
    """The only CSV file, for training; UserError if it has another set's name and folders exist."""
    kind = set_name(csv.stem).kind
    if with_folders and kind in (VALIDATION, TEST):
        what = f"{csv.name} lists a {kind} set, next to class folders"
        raise UserError(f"{root}: {what}; give a list for training too, or remove {csv.name}")
    more = NO_CLASSES if with_folders else ""
    log.info("%s: the images that %s lists are read%s", root, csv.name, more)
    return _of_csv(TRAINING, csv)


def _by_name(root: Path, files: Sequence[Path]) -> dict[str, Path]:
    """The CSV file of each set, by the words of its name; UserError if that is not clear."""
    by_name: dict[str, Path] = {}
    for file in files:
        name = set_name(file.stem).kind
        remedy = "name them *train*, *valid* and *test*, or give the path of one CSV file"
        if name not in SETS:
            raise UserError(f"{file}: its name does not say which set it is; {remedy}")
        if name in by_name:
            both = f"{by_name[name].name} and {file.name}"
            raise UserError(f"{root}: {both} are both for {name}; {remedy}")
        by_name[name] = file
    if by_name and TRAINING not in by_name:
        raise UserError(f"{root}: no CSV file is for training; name one of them *train*")
    return by_name
