"""Images on disk that are ready to be split: what every way in leads to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from utils.columns import IMAGE, SET
from utils.data.checks import Checks
from utils.data.decode import Form
from utils.data.images import Picked, Pool
from utils.errors import UserError
from utils.units import abridged

CACHE_VARIABLE = "NNABLA_DATA_CLEANSING_CACHE"
TRAINING, VALIDATION, TEST = "training", "validation", "test"
DAMPING = 0.1  # alpha of influence functions with --if_solver sgd, where a data set gives no other
TEST_SEED = 0  # draws the test images; `<name>_test.csv` has no seed in its name


@dataclass(frozen=True)
class Source:
    """Images on disk, ready to be split.

    Each image has a row: a number that counts the training images from 0, then the validation
    images, then the test images. Everything that is computed of an image goes by its row. An image
    file that is named twice is two rows.

    folder: where the CSV files of splits lie; training, test: DataFrames with `x:image`
    (absolute path), `y:label` and maybe further columns, a row per image; validation: the same,
    None if validation images are drawn from the training ones, `n_validation` by default;
    fingerprint: what the images came from; form: what they become when decoded; pool: all of
    them decoded already, or None; problems: the list of images that were left out as broken, None
    where none were; n_problems: how many; checks: what was found in a user's own images, else None;
    given: of a user's own images, by row, the `set` that the user put each into and its `row` there
    (images that cannot be used do not count), else None.
    """

    name: str
    folder: Path
    training: pd.DataFrame
    test: pd.DataFrame
    n_classes: int
    class_names: tuple[str, ...]
    fingerprint: str
    form: Form
    damping: float
    n_validation: int
    validation: pd.DataFrame | None = None
    pool: Pool | None = None
    problems: Path | None = None
    n_problems: int = 0
    checks: Checks | None = None
    given: pd.DataFrame | None = None

    @cached_property
    def images(self) -> pd.DataFrame:
        """All images by row: `x:image`, `y:label`, further columns, and `set`."""
        sets = [name for name in self._tables for _ in self.rows_of_set(name)]
        return self.all_columns().assign(**{SET: sets})

    def all_columns(self) -> pd.DataFrame:
        """All images by row with the columns that their sets have, a user's own `set` too."""
        tables = [table for table in self._tables.values() if table is not None]
        return pd.concat(tables, ignore_index=True)

    def rows_of_set(self, name: str) -> range:
        """The rows of the set `TRAINING`, `VALIDATION` or `TEST`, in the order of its table."""
        sizes = {key: 0 if table is None else len(table) for key, table in self._tables.items()}
        before = list(sizes)[: list(sizes).index(name)]
        start = sum(sizes[key] for key in before)
        return range(start, start + sizes[name])

    @property
    def test_drawn(self) -> bool:
        """Whether the test images were drawn from a user's images for training or validation."""
        if self.given is None:
            return False
        return bool((self.given[SET].iloc[list(self.rows_of_set(TEST))] != TEST).any())

    def decoded(self, rows: npt.NDArray[np.int64]) -> Picked:
        """The images of some rows (N,), which `pool` holds, as (N, H, W, C) without a copy."""
        if self.pool is None:
            raise ValueError(f"{self.name}: its images are not decoded")
        return Picked(self.pool.images, self._in_pool[rows])

    def image_folders(self) -> list[Path]:
        """The folders that images lie in, each once."""
        folders = map(os.path.dirname, self.images[IMAGE])
        return [Path(folder) for folder in dict.fromkeys(folders)]

    @property
    def _tables(self) -> dict[str, pd.DataFrame | None]:
        """The sets in the order in which their rows count."""
        return {TRAINING: self.training, VALIDATION: self.validation, TEST: self.test}

    @cached_property
    def _in_pool(self) -> npt.NDArray[np.int64]:
        """Which image of the pool is that of each row (N,)."""
        numbers = self.pool.rows if self.pool else {}
        return np.array([numbers[path] for path in self.images[IMAGE]], np.int64)


def listed_classes(labels: Iterable[int], source: Source) -> str:
    """The names of some classes in a line; a class without a name is its label."""
    return abridged([source.class_names[label] or str(label) for label in sorted(labels)])


def are_labels(class_names: Sequence[str]) -> bool:
    """Whether the classes have no names but their labels, 0 to K - 1."""
    return list(class_names) == [str(label) for label in range(len(class_names))]


def cache_folder() -> Path:
    """Where data are kept: $NNABLA_DATA_CLEANSING_CACHE, else the user's cache folder."""
    import pooch

    return Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("nnabla_data_cleansing"))


def writable(folder: Path) -> bool:
    """Whether files can be made in `folder`, or in the folders that must be made for it."""
    folders = (folder, *folder.absolute().parents)
    there = next(path for path in folders if os.path.exists(path))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def first_writable(folders: Sequence[Path]) -> Path:
    """The first of `folders` that can be written. Raises UserError if none can."""
    for folder in folders:
        if writable(folder):
            return folder
    names = " nor ".join(dict.fromkeys(map(str, folders)))
    raise UserError(f"{names} cannot be written; give a folder that can be with --data_dir")
