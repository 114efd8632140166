"""The tables of an output folder by image: the one reader, which also keeps what a run computes.

Inside a run an image is its row in the source. CSV files name images by path and label, for the
people who read them; where only files are there, their names are made into rows once, here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from utils.columns import IMAGE, INDEX, LABEL, SEED, TO, TRUE
from utils.errors import UserError
from utils.methods import METHODS
from utils.output.paths import OutputPaths
from utils.output.ranking import ranked
from utils.output.storage import check_whole, read_csv, read_if_there, unreadable

log = logging.getLogger("data_cleansing")

Rows = npt.NDArray[np.int64]
INFLUENCE = (IMAGE, LABEL, "influence", INDEX)
FLIPPED = (INDEX, IMAGE, TRUE, TO, SEED)
PREDICTIONS = (IMAGE, LABEL, "predicted", "confidence")
REMOVED = (IMAGE, LABEL, "influence", "rank", "suggested_label", "confidence")
"""Columns of the tables."""


class Results:
    """The tables of one output folder, each in memory from when it was computed or first read.

    Args:
        paths: of the folder.
        rows_of_trial: gives the rows in the source of a trial's training images (n_train,) by its
            seed. None where no source is there: images are then numbered in the order of path and
            given label. Images with the same path and label are told apart by their order.
    """

    def __init__(
        self, paths: OutputPaths, rows_of_trial: Callable[[int], Rows] | None = None
    ) -> None:
        self.paths = paths
        self._rows_of_trial = rows_of_trial
        self._tables: dict[Path, pd.DataFrame | None] = {}
        self._unnumbered: dict[Path, pd.DataFrame] = {}
        self._rows: dict[int, Rows] = {}
        self._rankings: dict[str, pd.DataFrame] = {}

    # ------------------------------------------------------------ any table

    def keep(self, table: pd.DataFrame, path: Path) -> None:
        """Take a table that was written to `path`, so that it is not read again.

        A table of some images has their rows as its index.
        """
        self._tables[path] = table
        self._rankings.clear()
        self.__dict__.pop("_names", None)

    def table(self, path: Path, columns: Iterable[str] = ()) -> pd.DataFrame:
        """A table that must be there; raises as `read_csv`."""
        table = self._tables.get(path)
        if table is None:
            table = self._tables[path] = read_csv(path)
        check_whole(table, columns, path)
        return table

    def table_if_there(self, path: Path, columns: Iterable[str]) -> pd.DataFrame | None:
        """A table that may be missing or without rows; None where it is missing.

        Raises:
            UserError: it cannot be read, or lacks one of `columns`.
        """
        if path not in self._tables:
            self._tables[path] = read_if_there(path, columns)
        return self._tables[path]

    def table_of_images(self, path: Path, columns: Iterable[str]) -> pd.DataFrame | None:
        """As `table_if_there`, by the row of each image; -1 for one that no trial trained on."""
        there = path in self._tables
        table = self.table_if_there(path, columns)
        if table is not None and not there:
            table = self._tables[path] = table.set_index(self.rows_named(table))
        return table

    # ------------------------------------------------------------ of images

    def influence(self, method: str, seed: int) -> pd.DataFrame:
        """The influence table of a method and trial by row, the most harmful image first.

        Raises:
            UserError: it cannot be read, or does not hold each training image once.
        """
        path = self.paths.influence(method, seed)
        if path not in self._tables:
            table, rows = self._as_read(path, seed), self._training_rows(seed)
            self._tables[path] = table.set_index(rows[table[INDEX].to_numpy()])
            del self._unnumbered[path]
        return self.table(path)

    def influences(self, method: str) -> list[pd.DataFrame]:
        """The influence tables of a method that are there, by seed."""
        return [self.influence(method, seed) for seed, _ in self.paths.influences(method)]

    def rankings(self) -> dict[str, pd.DataFrame]:
        """The ranking of each method that scored images, over all its trials, as `ranked` gives it.

        Methods are in the order of their table.
        """
        for method in METHODS:
            if method not in self._rankings and (tables := self.influences(method)):
                self._rankings[method] = ranked(tables)
        return {method: self._rankings[method] for method in METHODS if method in self._rankings}

    def removed(self, method: str, n: int | None = None) -> tuple[Path, pd.DataFrame] | None:
        """The list of images that cleansed data of a method leave out, by row; its path.

        A list that can no longer be used, because a person edited it, is passed over and logged.

        Args:
            method: that ranked them.
            n: how many images the list of the last command has; None: the largest list.
        """
        lists = self.paths.removed_lists(method)
        chosen = [lists[n]] if n in lists else [lists[k] for k in sorted(lists, reverse=True)]
        for path in chosen:
            try:
                if (table := self.table_of_images(path, REMOVED)) is not None:
                    return path, table.astype(dict.fromkeys(REMOVED[3:], "float64"))
            except (UserError, TypeError, ValueError):
                log.warning("%s: was edited and cannot be read; the page does without it", path)
        return None

    def predictions(self) -> pd.DataFrame | None:
        """What the final models say of the images that the page shows, by row."""
        return self.table_of_images(self.paths.predictions, PREDICTIONS)

    def flips(self) -> pd.DataFrame | None:
        """The labels that were flipped, a row per image and trial; None where none were."""
        return self.table_if_there(self.paths.flipped_labels, FLIPPED)

    def given_labels(self, seeds: Collection[int] | None = None) -> dict[int, int]:
        """The label that the data set gives, of each image that bears a flipped one, by row.

        Args:
            seeds: the trials that count; None for all that are scored.
        """
        flips = self.flips()
        given: dict[int, int] = {}
        if flips is None:
            return given
        for seed in seeds or [seed for seed, _ in self.trials()]:
            own = flips[flips[SEED] == seed]
            rows = self._training_rows(seed)[own[INDEX].to_numpy()]
            given |= zip(rows.tolist(), own[TRUE].astype(int).tolist(), strict=True)
        return given

    def trials(self) -> list[tuple[int, Path]]:
        """The seed of each trial whose images are scored, and one of its influence files."""
        found = {seed: path for method in METHODS for seed, path in self.paths.influences(method)}
        return sorted(found.items())

    def rows_named(self, table: pd.DataFrame) -> Rows:
        """The row of each image of a table with the columns x:image and y:label (N,); -1 if none.

        The labels are those trained on. Of images with the same path and label, the first in the
        table is the one with the lowest row.
        """
        names = self._names
        wanted = pd.MultiIndex.from_frame(_named(table))
        found = pd.MultiIndex.from_frame(_named(names)).get_indexer(wanted)
        rows: Rows = np.append(names.index.to_numpy(np.int64), -1)[found]
        return rows

    def _training_rows(self, seed: int) -> Rows:
        """The rows of the training images of a trial (n_train,)."""
        if self._rows_of_trial is None:
            return self._rows_by_name[seed]
        if seed not in self._rows:
            self._rows[seed] = self._rows_of_trial(seed)
        return self._rows[seed]

    def _as_read(self, path: Path, seed: int) -> pd.DataFrame:
        """An influence table whose images have no rows yet."""
        if path not in self._unnumbered:
            table = read_csv(path, INFLUENCE)
            known = self._rows_of_trial is not None
            _check_whole(path, table, len(self._training_rows(seed) if known else table))
            self._unnumbered[path] = table.astype({INDEX: np.int64})
        return self._unnumbered[path]

    @cached_property
    def _names(self) -> pd.DataFrame:
        """Path and label of all images that were trained on, by row."""
        tables = [table for method in METHODS for table in self.influences(method)]
        every = pd.concat(tables or [pd.DataFrame(columns=INFLUENCE)])[[IMAGE, LABEL]]
        return every[~every.index.duplicated()].sort_index()

    @cached_property
    def _rows_by_name(self) -> dict[int, Rows]:
        """Per trial the rows of its training images, numbered by path, given label and order."""
        flips, parts = self.flips(), {}
        for seed, path in self.trials():
            images = self._as_read(path, seed).sort_values(INDEX).set_index(INDEX)[[IMAGE, LABEL]]
            if flips is not None:
                images.update(flips[flips[SEED] == seed].set_index(INDEX)[TRUE].rename(LABEL))
            parts[seed] = _named(images.astype({LABEL: np.int64}))
        every = pd.concat(parts.values())
        numbers = every.groupby(list(every)).ngroup().to_numpy(np.int64)
        ends = np.cumsum([len(part) for part in parts.values()])[:-1]
        return dict(zip(parts, np.split(numbers, ends), strict=True))


def _named(images: pd.DataFrame) -> pd.DataFrame:
    """Path, label, and how often both came before in the table."""
    names = images[[IMAGE, LABEL]]
    return names.assign(nth=names.groupby([IMAGE, LABEL]).cumcount())


def _check_whole(path: Path, table: pd.DataFrame, n_train: int) -> None:
    """Raise UserError unless an influence table holds each training image once."""
    images = np.unique(table[INDEX])
    if len(table) != n_train or not np.array_equal(images, np.arange(n_train)):
        what = f"does not hold each of the {n_train} training images once"
        raise unreadable(path, what, f"{len(table)} rows, {len(images)} images")
