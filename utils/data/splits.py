"""The split of a trial: drawn by its seed, written as NNC CSV files, decoded."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from utils.columns import IMAGE, LABEL
from utils.data.images import ImageSet, load_image_set
from utils.data.nnc_csv import read_nnc_csv
from utils.data.source import TEST_SEED, Source
from utils.errors import UserError
from utils.output.storage import csv_bytes, save_bytes

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SplitFiles:
    """The NNC CSV files of one split."""

    training: Path
    validation: Path
    test: Path


@dataclass(frozen=True)
class TrialData:
    """The decoded images of one split, and the files that name them.

    given_labels: those of the training images (N,) before `--flip_labels` made some of them wrong;
    None without it.
    """

    training: ImageSet
    validation: ImageSet
    test: ImageSet
    files: SplitFiles
    given_labels: npt.NDArray[np.int32] | None = None


def stratified(
    labels: npt.NDArray[np.int64], size: int, rng: np.random.Generator, keep: int = 0
) -> Int64:
    """Draw `size` positions out of `labels` (N,), each class in proportion; ascending.

    Shares are rounded by largest remainder, equal remainders in the order of the labels.
    Of each class at least `keep` are not drawn; `size` must allow for that.
    """
    classes, counts = np.unique(labels, return_counts=True)
    quotas = _quotas(counts * size / len(labels), np.maximum(counts - keep, 0), size)
    drawn = [
        rng.permutation(np.flatnonzero(labels == label))[:quota]
        for label, quota in zip(classes, quotas, strict=True)
    ]
    return np.sort(np.concatenate(drawn))


def _quotas(shares: npt.NDArray[np.float64], room: Int64, size: int) -> Int64:
    """Whole numbers (K,) near `shares` (K,), none above `room` (K,), with the sum `size`."""
    quotas = np.minimum(np.floor(shares).astype(np.int64), room)
    while quotas.sum() < size:
        open_classes = np.flatnonzero(quotas < room)
        by_remainder = np.argsort((quotas - shares)[open_classes], kind="stable")
        quotas[open_classes[by_remainder[: size - quotas.sum()]]] += 1
    return quotas


def draw_split(
    source: Source, split_seed: int, n_train: int | None, n_val: int | None, n_test: int | None
) -> SplitFiles:
    """Draw a split by its seed, stratified, and write its three NNC CSV files.

    Validation images are those of the source, if it has some, else drawn from the training
    images, of every class all but one at most; by default there are `source.n_validation` of
    them. By default training takes all the others and testing all test images; smaller sizes
    are subsets of these, the test subset being the same for every seed. Files of other sizes
    than the defaults lie in a folder named by the sizes. Rows keep the order of `source`; a
    file that is there with the same content is left alone.

    Raises UserError, naming option, size asked and size available, for a size that is
    smaller than the number of classes or larger than there is, and if the training images drawn
    are all of one class.
    """
    sizes = split_sizes(source, n_train, n_val, n_test)
    training, validation = _draw_tables(source, sizes, split_seed)
    _check_training(source, training)
    test = _subset(source.test, sizes[2], np.random.default_rng(TEST_SEED))
    files = _split_files(source, sizes, split_seed)
    _save_if_other(training, files.training)
    _save_if_other(validation, files.validation)
    _save_if_other(test, files.test)
    return files


def _check_training(source: Source, training: pd.DataFrame) -> None:
    if training[LABEL].nunique() < 2 <= source.training[LABEL].nunique():
        name = source.class_names[training[LABEL].iloc[0]]
        what = f"the {len(training)} training images drawn are all of one class, {name!r}"
        raise UserError(f"{source.name}: {what}; at least two classes are needed, raise --n_train")


def split_sizes(
    source: Source, n_train: int | None, n_val: int | None, n_test: int | None
) -> tuple[int, int, int]:
    """The numbers of training, validation and test images; raises as `draw_split` does."""
    pool, tested = len(source.training), len(source.test)
    if source.validation is None:
        validation = _size(source, "--n_val", n_val, source.n_validation, pool - source.n_classes)
        default, available = pool - max(source.n_validation, validation), pool - validation
        default = default if default >= source.n_classes else available
    else:
        there = len(source.validation)
        validation = _size(source, "--n_val", n_val, there, there)
        default = available = pool
    training = _size(source, "--n_train", n_train, default, available)
    return training, validation, _size(source, "--n_test", n_test, tested, tested)


def _size(source: Source, option: str, asked: int | None, default: int, available: int) -> int:
    """The size asked, or the default; UserError if there are not so many or too few."""
    size = default if asked is None else asked
    least = source.n_classes if option == "--n_train" else min(source.n_classes, default)
    if least <= size <= available:
        return size
    what = f"{size} images of {source.name} {'asked' if asked is not None else '(the default)'}"
    meaning = "one per class" if least == source.n_classes else "all"
    limits = f"{least} ({meaning}) to {available} are available"
    raise UserError(f"{option}: {what}, from {limits}; give {option} within them")


def _draw_tables(
    source: Source, sizes: tuple[int, int, int], seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and validation rows."""
    rng = np.random.default_rng(seed)
    if source.validation is not None:
        validation = _subset(source.validation, sizes[1], rng)
        return _subset(source.training, sizes[0], rng), validation
    drawn = _draw_positions(source, source.training[LABEL].to_numpy(np.int64), sizes, rng)
    return source.training.iloc[drawn[0]], source.training.iloc[drawn[1]]


def _subset(table: pd.DataFrame, size: int, rng: np.random.Generator) -> pd.DataFrame:
    return table.iloc[stratified(table[LABEL].to_numpy(np.int64), size, rng)]


def _draw_positions(
    source: Source, labels: Int64, sizes: tuple[int, int, int], rng: np.random.Generator
) -> tuple[Int64, Int64]:
    """Positions of training and of validation images in the pool, each ascending.

    The pool is parted as for the default sizes where that leaves enough on either side, so
    that a subset's images are on the same side as in the full split of the same seed.
    """
    n_training, n_validation, _ = sizes
    reserved = min(max(source.n_validation, n_validation), len(labels) - n_training)
    validation = stratified(labels, reserved, rng, keep=1)
    training = np.setdiff1d(np.arange(len(labels)), validation)
    validation = validation[stratified(labels[validation], n_validation, rng)]
    return training[stratified(labels[training], n_training, rng)], validation


def _split_files(source: Source, sizes: tuple[int, int, int], seed: int) -> SplitFiles:
    folder, training, validation = source.folder, len(source.training), source.n_validation
    if source.validation is None:
        training -= validation
    else:
        validation = len(source.validation)
    if sizes != (training, validation, len(source.test)):
        folder /= "n_train_{}-n_val_{}-n_test_{}".format(*sizes)
    return SplitFiles(
        training=folder / f"{source.name}_training_{seed}.csv",
        validation=folder / f"{source.name}_validation_{seed}.csv",
        test=folder / f"{source.name}_test.csv",
    )


def _save_if_other(table: pd.DataFrame, path: Path) -> None:
    """Write `table` to `path`, unless that has the same content already."""
    content = csv_bytes(table, path)
    if not path.is_file() or path.read_bytes() != content:
        save_bytes(content, path)


def fingerprint(images: ImageSet) -> dict[str, int | str]:
    """What a set is known by: how many images of how many bytes, a hash of names, labels, sizes.

    Names count from the folder that all images lie in, which may be moved.
    """
    base = len(os.path.commonpath([os.path.dirname(path) for path in images.paths]))
    digest, total = hashlib.sha256(), 0
    for path, label in zip(images.paths, images.labels, strict=True):
        size = os.path.getsize(path)
        total += size
        digest.update(f"{path[base:]}\0{label}\0{size}\n".encode(errors="surrogateescape"))
    return {"images": len(images), "bytes": total, "sha256": digest.hexdigest()}


def load_trial(source: Source, files: SplitFiles) -> TrialData:
    """The decoded images of one split; what is decoded already is not decoded again.

    Raises UserError for what `load_image_set` refuses, and if the three sets differ in the
    size or the colour of their images.
    """
    paths = (files.training, files.validation, files.test)
    sets = [_load_set(source, path) for path in paths]
    for path, images in zip(paths, sets, strict=True):
        if images.images.shape[1:] != sets[0].images.shape[1:]:
            what = f"its images are not of the size and colour of those in {paths[0]}"
            raise UserError(f"{path}: {what}; give --image_size and --color")
    training, validation, test = sets
    return TrialData(training, validation, test, files)


def _load_set(source: Source, csv: Path) -> ImageSet:
    if source.pool is None:
        return load_image_set(csv, source.form)
    table = read_nnc_csv(csv)
    paths = tuple(table[IMAGE])
    return ImageSet(source.pool.pick(paths), table[LABEL].to_numpy(np.int32), paths)
