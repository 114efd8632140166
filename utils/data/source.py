"""Images on disk that are ready to be split: what every way in leads to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from utils.columns import IMAGE
from utils.data.checks import Checks
from utils.data.decode import Form
from utils.data.images import Pool
from utils.errors import UserError

CACHE_VARIABLE = "NNABLA_DATA_CLEANSING_CACHE"
TRAINING, VALIDATION, TEST = "training", "validation", "test"
DAMPING = 0.1  # alpha of influence functions with --if_solver sgd, where a data set gives no other
TEST_SEED = 0  # draws the test images; `<name>_test.csv` has no seed in its name


@dataclass(frozen=True)
class Source:
    """Images on disk, ready to be split.

    folder: where the CSV files of splits lie; training, test: DataFrames with `x:image`
    (absolute path), `y:label` and maybe further columns, a row per image; validation: the same,
    None if validation images are drawn from the training ones, `n_validation` by default;
    fingerprint: what the images came from; form: what they become when decoded; pool: all of
    them decoded already, or None; problems: the list of images that were left out as broken, None
    where none were; n_problems: how many; checks: what was found in a user's own images, else None.
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

    def image_folders(self) -> list[Path]:
        """The folders that images lie in, each once."""
        tables = (self.training, self.validation, self.test)
        images = (path for table in tables if table is not None for path in table[IMAGE])
        return [Path(folder) for folder in dict.fromkeys(map(os.path.dirname, images))]


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
