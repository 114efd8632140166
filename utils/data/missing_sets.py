"""Training, validation and test images from the sets that a user has."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from utils.columns import LABEL, ROW, SET
from utils.data.source import TEST, TEST_SEED, TRAINING, VALIDATION
from utils.data.splits import stratified
from utils.errors import UserError
from utils.units import abridged, counted

log = logging.getLogger("data_cleansing")
SHARE = 0.15  # of the images of one set: for validation, and for testing


@dataclass(frozen=True)
class Sets:
    """Tables with `y:label` in 0..n_classes-1.

    Attributes:
        training, validation, test: validation is None where it is drawn in each trial.
        n_validation: how many images are drawn then, else 0.
    """

    training: pd.DataFrame
    validation: pd.DataFrame | None
    test: pd.DataFrame
    n_validation: int

    def renumbered(self) -> Sets:
        """The same sets, the rows of each table numbered from 0."""
        training, validation, test = (
            table if table is None else table.reset_index(drop=True)
            for table in (self.training, self.validation, self.test)
        )
        return Sets(training, validation, test, self.n_validation)

    def as_given(self, sizes: Mapping[str, int]) -> pd.DataFrame:
        """Where the user gave each image of training, validation and test: its `set` and `row`.

        Args:
            sizes: of the user's sets; the index of the tables counts the images of all of them.
        """
        places = [pd.DataFrame({SET: name, ROW: range(size)}) for name, size in sizes.items()]
        tables = [t for t in (self.training, self.validation, self.test) if t is not None]
        order = np.concatenate([table.index for table in tables])
        return pd.concat(places, ignore_index=True).iloc[order].reset_index(drop=True)


def complete_sets(tables: dict[str, pd.DataFrame], names: tuple[str, ...], where: str) -> Sets:
    """All sets, whichever of `training`, `validation` and `test` are in `tables`; logged.

    With one set, 15 % of it are drawn for testing (fixed) and as many for validation (by each
    trial's seed); the last image of a class stays in training. Without a test set half of the
    validation set becomes one. Without a validation set 15 % of the training images are drawn.

    Args:
        tables: by set.
        names: of the classes.
        where: what errors begin with.

    Raises:
        UserError: there are too few images, or a set has no class that is trained on.
    """
    training, validation = tables[TRAINING], tables.get(VALIDATION)
    test = tables.get(TEST)
    _check_shared(tables, names, where)
    _log_classes_missing(tables, names)
    if validation is not None:
        if test is None:
            validation, test = _halves(validation, where)
        return Sets(training, validation, test, 0)
    n_drawn = _n_drawn(len(training), len(names), 1 if test is not None else 2, where)
    _log_single_images(training, names)
    if test is None:
        training, test = _parted(training, n_drawn)
        sizes = len(training) - n_drawn, n_drawn, len(test)
        log.info(
            "One set: %d training, %d validation and %d test images are drawn; those for testing "
            "are neither scored nor in the cleansed lists", *sizes,
        )  # fmt: skip
    else:
        drawn = f"{counted(n_drawn, 'image')} {'is' if n_drawn == 1 else 'are'}"
        log.info("No validation set: %s drawn from the training set", drawn)
    return Sets(training, None, test, n_drawn)


def _n_drawn(n: int, n_classes: int, sets: int, where: str) -> int:
    """How many of n images each of 1 or 2 sets gets, an image of each class staying behind."""
    if n - n_classes < sets:
        what = f"{n} images of {n_classes} classes are too few to draw {sets} more sets from"
        raise UserError(f"{where}: {what}; add images, or give validation and test sets")
    return max(1, min(round(SHARE * n), (n - n_classes) // sets))


def _halves(table: pd.DataFrame, where: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    if len(table) < 2:
        what = "no test set, and one validation image cannot be split in two"
        raise UserError(f"{where}: {what}; add images")
    kept, drawn = _parted(table, len(table) // 2, keep=0)
    sizes = len(kept), len(drawn)
    log.info("No test set: of the validation set %d stay and %d become the test set", *sizes)
    return kept, drawn


def _parted(table: pd.DataFrame, size: int, keep: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    labels = table[LABEL].to_numpy(np.int64)
    drawn = stratified(labels, size, np.random.default_rng(TEST_SEED), keep)
    rest = np.setdiff1d(np.arange(len(table)), drawn)
    return table.iloc[rest], table.iloc[drawn]


def _log_single_images(training: pd.DataFrame, names: tuple[str, ...]) -> None:
    counts = np.bincount(training[LABEL], minlength=len(names))
    single = [name for name, count in zip(names, counts, strict=True) if count == 1]
    if single:
        log.info("Classes with one image, which stays in training: %s", ", ".join(single))


def _check_shared(tables: dict[str, pd.DataFrame], names: tuple[str, ...], where: str) -> None:
    training = set(tables[TRAINING][LABEL])
    for name, table in tables.items():
        if name != TRAINING and not training & set(table[LABEL]):
            both = (set(table[LABEL]), training)
            here, there = (abridged([names[k] for k in sorted(labels)]) for labels in both)
            what = f"no class of the {name} set ({here}) is one of training ({there})"
            raise UserError(f"{where}: {what}; give them the same names, or remove the {name} set")


def _log_classes_missing(tables: dict[str, pd.DataFrame], names: tuple[str, ...]) -> None:
    there = set(tables[TRAINING][LABEL])
    missing = [name for label, name in enumerate(names) if label not in there]
    if missing:
        log.warning("Classes without a training image: %s", ", ".join(missing))
