"""The split of a trial: rows of the source, drawn by a seed; their CSV files; their images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from utils.columns import IMAGE, LABEL
from utils.data.images import ImageSet, decode_images
from utils.data.source import TEST, TEST_SEED, TRAINING, VALIDATION, Source
from utils.errors import UserError
from utils.options import Options
from utils.output.storage import csv_bytes, save_bytes

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SplitFiles:
    """The NNC CSV files of one split."""

    training: Path
    validation: Path
    test: Path


@dataclass(frozen=True, eq=False)
class Split:
    """Which images a trial has: the rows of each set in the source (N,), each ascending.

    files: the CSV files that name them.
    """

    training: Int64
    validation: Int64
    test: Int64
    files: SplitFiles


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
) -> Split:
    """Draw a split by its seed, as `split_of` does, and write its three NNC CSV files.

    Files of other sizes than the defaults lie in a folder named by the sizes. A file that is
    there with the same content is left alone.
    """
    split = split_of(source, split_seed, n_train, n_val, n_test)
    training, validation, test = TRAINING, validation_set(source), TEST
    _save_if_other(table_of(source, training, split.training), split.files.training)
    _save_if_other(table_of(source, validation, split.validation), split.files.validation)
    _save_if_other(table_of(source, test, split.test), split.files.test)
    return split


def validation_set(source: Source) -> str:
    """The set that validation images are drawn from."""
    return TRAINING if source.validation is None else VALIDATION


def split_of(
    source: Source, split_seed: int, n_train: int | None, n_val: int | None, n_test: int | None
) -> Split:
    """Draw a split by its seed, stratified.

    Validation images are those of the source, if it has some, else drawn from the training
    images, of every class all but one at most; by default there are `source.n_validation` of
    them. By default training takes all the others and testing all test images; smaller sizes
    are subsets of these, the test subset being the same for every seed.

    Raises UserError, naming option, size asked and size available, for a size that is
    smaller than the number of classes or larger than there is, and if the training images drawn
    are all of one class.
    """
    sizes = split_sizes(source, n_train, n_val, n_test)
    training, validation = _draw_rows(source, sizes, split_seed)
    _check_training(source, source.images.iloc[training])
    test = _subset(source, TEST, sizes[2], np.random.default_rng(TEST_SEED))
    return Split(training, validation, test, _split_files(source, sizes, split_seed))


def split_of_trial(options: Options, source: Source, seed: int) -> Split:
    """The split of the trial of a seed, as `split_of` draws it."""
    sizes = options.n_train, options.n_val, options.n_test
    return split_of(source, options.split_seed_of(seed), *sizes)


def have_same_validation(options: Options, source: Source) -> bool:
    """Whether all trials have the same validation images."""
    first, *others = (split_of_trial(options, source, seed).validation for seed in options.seeds)
    return all(np.array_equal(rows, first) for rows in others)


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
    asked_for = "" if asked is not None else " (the default)"
    meaning = "one per class" if least == source.n_classes else "all"
    limits = f"from {least} ({meaning}) to {available}"
    raise UserError(f"{option} {size}{asked_for}: must be {limits} for {source.name}")


def _draw_rows(source: Source, sizes: tuple[int, int, int], seed: int) -> tuple[Int64, Int64]:
    """Training and validation rows."""
    rng = np.random.default_rng(seed)
    if source.validation is not None:
        validation = _subset(source, VALIDATION, sizes[1], rng)
        return _subset(source, TRAINING, sizes[0], rng), validation
    return _draw_positions(source, source.training[LABEL].to_numpy(np.int64), sizes, rng)


def _subset(source: Source, name: str, size: int, rng: np.random.Generator) -> Int64:
    rows = np.array(source.rows_of_set(name), np.int64)
    labels = source.images[LABEL].to_numpy(np.int64)[rows]
    return rows[stratified(labels, size, rng)]


def table_of(source: Source, name: str, rows: Int64) -> pd.DataFrame:
    """What a CSV file of some rows (N,) of a set holds: all columns that the set has."""
    table = {TRAINING: source.training, VALIDATION: source.validation, TEST: source.test}[name]
    assert table is not None
    return table.iloc[rows - source.rows_of_set(name).start]


def _draw_positions(
    source: Source, labels: Int64, sizes: tuple[int, int, int], rng: np.random.Generator
) -> tuple[Int64, Int64]:
    """Rows of training and of validation images, all of the training set; each ascending.

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


def load_trial(source: Source, split: Split) -> TrialData:
    """The decoded images of one split; what is decoded already is not decoded again.

    Raises UserError, naming the CSV file, the row (the header is row 1) and the image, for an
    image that is missing or broken or differs from the first in size or channels, and if the three
    sets differ in the size or the colour of their images.
    """
    files = split.files
    paths = (files.training, files.validation, files.test)
    rows = (split.training, split.validation, split.test)
    sets = [_load_set(source, *named) for named in zip(rows, paths, strict=True)]
    for path, images in zip(paths, sets, strict=True):
        if images.images.shape[1:] != sets[0].images.shape[1:]:
            what = f"its images are not of the size and colour of those in {paths[0]}"
            raise UserError(f"{path}: {what}; give --image_size and --color")
    training, validation, test = sets
    return TrialData(training, validation, test, files)


def _load_set(source: Source, rows: Int64, csv: Path) -> ImageSet:
    def where(position: int) -> str:
        return f"{csv}: row {position + 2}: "

    return load_rows(source, rows, where, f"reading {csv.name}")


def load_rows(
    source: Source, rows: Int64, where: Callable[[int], str], description: str
) -> ImageSet:
    """Some images of a source; what is decoded already is not decoded again.

    Args:
        source: it.
        rows: (N,).
        where: what an error about the image at a position says before its path.
        description: what a progress bar says.

    Raises:
        UserError: an image is missing or broken.
    """
    table = source.images.iloc[rows]
    paths, labels = tuple(table[IMAGE]), table[LABEL].to_numpy(np.int32)

    def named(position: int) -> str:
        return f"{where(position)}{paths[position]!r}"

    if source.pool is None:
        images, _ = decode_images(paths, source.form, named, description)
    else:
        images = cast("npt.NDArray[np.uint8]", source.decoded(rows))
    return ImageSet(images, labels, paths, rows)
