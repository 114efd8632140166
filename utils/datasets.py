"""The table of data sets, their preparation as PNG files, and the split of a trial.

A data set is a row of `DATASETS`; to add one, add a row.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from utils.archives import (
    CIFAR_LIMIT,
    ArchiveFile,
    find,
    find_or_download,
    first_writable,
    md5_of,
    read_cifar_batch,
    read_idx,
    read_members,
)
from utils.console import progress
from utils.errors import UserError
from utils.images import IMAGE, LABEL, ImageSet, load_image_set
from utils.storage import save_csv, written_beside

CACHE_VARIABLE = "NNABLA_DATA_CLEANSING_CACHE"
INDEX = "prepared_images.csv"  # x:image (relative), y:label, part; written last
PART = "part"
TRAINING, TEST = "training", "test"
TEST_SEED = 0  # `<dataset>_test.csv` has no seed in its name
N_DIGITS_TEST = 400

UInt8 = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]
Labelled = tuple[UInt8, Int64]  # images (N, H, W, C), labels (N,)


@dataclass(frozen=True)
class DatasetRow:
    """What is to be known of a named data set.

    read: takes the paths of `archives`, in their order, and gives training and test images;
    n_validation: images drawn from the training ones by default; resize: to 32..128 px;
    damping: alpha of the influence functions, (H + alpha I) v = grad; built_in: where the
    images come from if not from archives.
    """

    archives: tuple[ArchiveFile, ...]
    read: Callable[[Sequence[Path]], tuple[Labelled, Labelled]]
    class_names: tuple[str, ...]
    n_validation: int
    resize: bool = True
    damping: float = 0.1
    built_in: str = ""


@dataclass(frozen=True)
class Source:
    """Images on disk, ready to be split.

    folder: where the CSV files of splits lie; training, test: DataFrames with `x:image`
    (absolute path) and `y:label`, a row per image; fingerprint: what the images came from.
    """

    name: str
    folder: Path
    training: pd.DataFrame
    test: pd.DataFrame
    n_classes: int
    class_names: tuple[str, ...]
    fingerprint: str
    resize: bool
    damping: float
    n_validation: int


@dataclass(frozen=True)
class SplitFiles:
    """The NNC CSV files of one split."""

    training: Path
    validation: Path
    test: Path


@dataclass(frozen=True)
class TrialData:
    """The decoded images of one split."""

    training: ImageSet
    validation: ImageSet
    test: ImageSet


# ---------------------------------------------------------------- the table


def read_digits(paths: Sequence[Path]) -> tuple[Labelled, Labelled]:
    """scikit-learn's bundled digits, 8x8, 0..16 stretched to 0..255; 400 are for testing."""
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    images = np.rint(values * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    tested = np.zeros(len(labels), bool)
    tested[stratified(labels, N_DIGITS_TEST, np.random.default_rng(TEST_SEED))] = True
    return (images[~tested], labels[~tested]), (images[tested], labels[tested])


def read_mnist(paths: Sequence[Path]) -> tuple[Labelled, Labelled]:
    """MNIST from its four IDX files: training images and labels, test images and labels.

    Raises UserError, naming the file, for one that is damaged or does not fit its partner.
    """
    return _read_idx_pair(paths[0], paths[1]), _read_idx_pair(paths[2], paths[3])


def _read_idx_pair(image_path: Path, label_path: Path) -> Labelled:
    images, labels = read_idx(image_path), read_idx(label_path)
    if images.ndim != 3 or images.size == 0:
        raise UserError(f"{image_path}: holds no images; get the file anew")
    if labels.shape != images.shape[:1]:
        counts = f"{labels.size} labels for the {len(images)} images of {image_path.name}"
        raise UserError(f"{label_path}: {counts}; get both files anew")
    if labels.max() > 9:
        row = int(np.argmax(labels > 9))
        raise UserError(f"{label_path}: label {labels[row]} at image {row}; 0 to 9 are needed")
    return images[..., None], labels.astype(np.int64)


def read_cifar10(paths: Sequence[Path]) -> tuple[Labelled, Labelled]:
    """CIFAR-10 from its one archive. Raises UserError, naming archive and member, if damaged."""
    members = [f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6)]
    members.append("cifar-10-batches-py/test_batch")
    contents = read_members(paths[0], members, CIFAR_LIMIT)
    batches = [read_cifar_batch(contents[name], f"{paths[0]}: member {name}") for name in members]
    images, labels = (np.concatenate(parts) for parts in zip(*batches[:-1], strict=True))
    return (images, labels), batches[-1]


MNIST_MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
CIFAR_MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
TEN_DIGITS = tuple("0123456789")


def _archive(name: str, md5: str, mirrors: Sequence[str]) -> ArchiveFile:
    return ArchiveFile(name, md5, tuple(mirror + name for mirror in mirrors))


DATASETS: dict[str, DatasetRow] = {
    "digits": DatasetRow(
        archives=(),
        read=read_digits,
        class_names=TEN_DIGITS,
        n_validation=400,
        resize=False,
        built_in="scikit-learn digits",
    ),
    "mnist": DatasetRow(
        archives=tuple(
            _archive(name, md5, MNIST_MIRRORS)
            for name, md5 in (
                ("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
                ("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
                ("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
                ("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
            )
        ),
        read=read_mnist,
        class_names=TEN_DIGITS,
        n_validation=10_000,
    ),
    "cifar10": DatasetRow(
        archives=(
            _archive("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", CIFAR_MIRRORS),
        ),
        read=read_cifar10,
        class_names=(
            *("airplane", "automobile", "bird", "cat", "deer"),
            *("dog", "frog", "horse", "ship", "truck"),
        ),
        n_validation=10_000,
        damping=10.0,
    ),
}


# ---------------------------------------------------------------- preparation


def cache_folder() -> Path:
    """Where data are kept: $NNABLA_DATA_CLEANSING_CACHE, else the user's cache folder."""
    import pooch

    return Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("nnabla_data_cleansing"))


def prepare(name: str, data_dir: Path | None, allow_unverified: bool) -> Source:
    """Make sure that the images of a named data set lie on disk as PNG files.

    They lie in `<root>/<name>/`, or `<root>/<name>_unverified_<MD5>/` if an archive is not
    the published one; root is `data_dir` (None: the cache folder), or the cache folder for
    what a read-only `data_dir` cannot take. What is there already is taken as it is; what
    an interrupted run left is done again. Raises UserError for an unknown name, an archive
    that is missing, damaged or not the published one, and if no folder can be written.
    """
    if name not in DATASETS:
        raise UserError(f"data set '{name}' is not known; known are {', '.join(DATASETS)}")
    row, cache = DATASETS[name], cache_folder()
    roots = (_root(data_dir or cache), _root(cache))
    images, fingerprint = _ready(name, row, roots, allow_unverified), _fingerprint(row)
    if images is None:
        paths = find_or_download(row.archives, *roots, allow_unverified)
        images, fingerprint = _prepared_from(name, row, paths, roots)
    folder = first_writable([images, roots[1] / images.name])
    return _source(name, row, images, folder, fingerprint)


def _root(folder: Path) -> Path:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give one with --data_dir")
    return Path(os.path.abspath(folder))


def _ready(
    name: str, row: DatasetRow, roots: Sequence[Path], allow_unverified: bool
) -> Path | None:
    """The folder prepared from the published archives, unless archives must be looked at first.

    Archives in a root go before what was prepared elsewhere, and, if the user allows
    unverified ones, before what was prepared beside them.
    """
    for root in roots:
        archived = any(find(file.name, [root]) for file in row.archives)
        if is_prepared(root / name) and not (archived and allow_unverified):
            return root / name
        if archived:
            return None
    return None


def _prepared_from(
    name: str, row: DatasetRow, paths: Sequence[Path], roots: Sequence[Path]
) -> tuple[Path, str]:
    """The folder with the images of these archives, written if need be, and its fingerprint."""
    fingerprint = " ".join(map(md5_of, paths)) or _fingerprint(row)
    if fingerprint != _fingerprint(row):
        combined = hashlib.md5(fingerprint.encode(), usedforsecurity=False).hexdigest()
        name = f"{name}_unverified_{combined[:8]}"
    for root in roots:
        if is_prepared(root / name):
            return root / name, fingerprint
    folder = first_writable(roots) / name
    write_images(folder, *row.read(paths))
    return folder, fingerprint


def _fingerprint(row: DatasetRow) -> str:
    """What the published data are known by."""
    return row.built_in or " ".join(file.md5 for file in row.archives)


def is_prepared(folder: Path) -> bool:
    """Whether `folder` has an index and all the files that it names."""
    if not os.path.isfile(folder / INDEX):
        return False
    there = {f"{part}/{file}" for part in (TRAINING, TEST) for file in _listed(folder / part)}
    return there >= set(pd.read_csv(folder / INDEX)[IMAGE])


def _listed(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def write_images(folder: Path, training: Labelled, test: Labelled) -> None:
    """Write images as `training/00000.png`, ..., `test/00000.png`, ..., the index last."""
    parts = ((TRAINING, training[1]), (TEST, test[1]))
    index = pd.concat([_index_of(part, labels) for part, labels in parts])
    images = list(zip(index[IMAGE], chain(training[0], test[0]), strict=True))
    for path, image in progress(images, f"writing {folder}"):
        _save_png(image, folder / path)
    save_csv(index, folder / INDEX)


def _index_of(part: str, labels: Int64) -> pd.DataFrame:
    paths = [f"{part}/{number:05d}.png" for number in range(len(labels))]
    return pd.DataFrame({IMAGE: paths, LABEL: labels, PART: part})


def _save_png(image: UInt8, path: Path) -> None:
    """Write one image (H, W, C), C = 1 or 3."""
    pixels = image[..., 0] if image.shape[2] == 1 else image
    with written_beside(path) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, format="PNG")


def _source(name: str, row: DatasetRow, images: Path, folder: Path, fingerprint: str) -> Source:
    index = pd.read_csv(images / INDEX)
    index[IMAGE] = [str(images / path) for path in index[IMAGE]]
    training, test = (
        index[index[PART] == part].drop(columns=PART).reset_index(drop=True)
        for part in (TRAINING, TEST)
    )
    return Source(
        name=name,
        folder=folder,
        training=training,
        test=test,
        n_classes=len(row.class_names),
        class_names=row.class_names,
        fingerprint=fingerprint,
        resize=row.resize,
        damping=row.damping,
        n_validation=row.n_validation,
    )


# ---------------------------------------------------------------- splits


def stratified(labels: npt.NDArray[np.int64], size: int, rng: np.random.Generator) -> Int64:
    """Draw `size` positions out of `labels` (N,), each class in proportion; ascending.

    Shares are rounded by largest remainder, equal remainders in the order of the labels.
    """
    classes, counts = np.unique(labels, return_counts=True)
    shares = counts * size / len(labels)
    quotas = np.floor(shares).astype(int)
    by_remainder = np.argsort(quotas - shares, kind="stable")
    quotas[by_remainder[: size - quotas.sum()]] += 1
    drawn = [
        rng.permutation(np.flatnonzero(labels == label))[:quota]
        for label, quota in zip(classes, quotas, strict=True)
    ]
    return np.sort(np.concatenate(drawn))


def draw_split(
    source: Source, split_seed: int, n_train: int | None, n_val: int | None, n_test: int | None
) -> SplitFiles:
    """Draw a split by its seed, stratified, and write its three NNC CSV files.

    Validation images are drawn from the training images. By default there are
    `source.n_validation` of them, training takes all the others and testing all test
    images; smaller sizes are subsets of these, the test subset being the same for every
    seed. Files of other sizes than the defaults lie in a folder named by the sizes. Rows
    keep the order of `source`; a file that is there with the same content is left alone.

    Raises UserError, naming option, size asked and size available, for a size that is
    smaller than the number of classes or larger than there is.
    """
    labels = source.training[LABEL].to_numpy(np.int64)
    sizes = split_sizes(source, n_train, n_val, n_test)
    training, validation = _draw_positions(source, labels, sizes, split_seed)
    test_labels = source.test[LABEL].to_numpy(np.int64)
    test = stratified(test_labels, sizes[2], np.random.default_rng(TEST_SEED))
    files = _split_files(source, sizes, split_seed)
    _save_if_other(source.training.iloc[training], files.training)
    _save_if_other(source.training.iloc[validation], files.validation)
    _save_if_other(source.test.iloc[test], files.test)
    return files


def split_sizes(
    source: Source, n_train: int | None, n_val: int | None, n_test: int | None
) -> tuple[int, int, int]:
    """The numbers of training, validation and test images; raises as `draw_split` does."""
    pool, tested = len(source.training), len(source.test)
    validation = _size(source, "--n_val", n_val, source.n_validation, pool - source.n_classes)
    default = pool - max(source.n_validation, validation)
    training = _size(source, "--n_train", n_train, default, pool - validation)
    return training, validation, _size(source, "--n_test", n_test, tested, tested)


def _size(source: Source, option: str, asked: int | None, default: int, available: int) -> int:
    """The size asked, or the default; UserError if there are not so many or too few."""
    size = default if asked is None else asked
    if source.n_classes <= size <= available:
        return size
    what = f"{size} images of {source.name} {'asked' if asked is not None else '(the default)'}"
    limits = f"{source.n_classes} (one per class) to {available} are available"
    raise UserError(f"{option}: {what}, from {limits}; give {option} within them")


def _draw_positions(
    source: Source, labels: Int64, sizes: tuple[int, int, int], seed: int
) -> tuple[Int64, Int64]:
    """Positions of training and of validation images in the pool, each ascending.

    The pool is parted as for the default sizes where that leaves enough on either side, so
    that a subset's images are on the same side as in the full split of the same seed.
    """
    n_training, n_validation, _ = sizes
    rng = np.random.default_rng(seed)
    reserved = min(max(source.n_validation, n_validation), len(labels) - n_training)
    validation = stratified(labels, reserved, rng)
    training = np.setdiff1d(np.arange(len(labels)), validation)
    validation = validation[stratified(labels[validation], n_validation, rng)]
    return training[stratified(labels[training], n_training, rng)], validation


def _split_files(source: Source, sizes: tuple[int, int, int], seed: int) -> SplitFiles:
    folder = source.folder
    if sizes != (len(source.training) - source.n_validation, source.n_validation, len(source.test)):
        folder /= "n_train_{}-n_val_{}-n_test_{}".format(*sizes)
    return SplitFiles(
        training=folder / f"{source.name}_training_{seed}.csv",
        validation=folder / f"{source.name}_validation_{seed}.csv",
        test=folder / f"{source.name}_test.csv",
    )


def _save_if_other(table: pd.DataFrame, path: Path) -> None:
    """Write `table` to `path`, unless that has the same content already."""
    content = table.to_csv(index=False, lineterminator="\n").encode()
    if not path.is_file() or path.read_bytes() != content:
        save_csv(table, path)


def load_trial(source: Source, files: SplitFiles) -> TrialData:
    """Decode the images of one split.

    Raises UserError for what `load_image_set` refuses, and if the three sets differ in the
    size or the colour of their images.
    """
    paths = (files.training, files.validation, files.test)
    sets = [load_image_set(path, source.resize) for path in paths]
    for path, images in zip(paths, sets, strict=True):
        if images.images.shape[1:] != sets[0].images.shape[1:]:
            what = f"its images are not of the size and colour of those in {paths[0]}"
            raise UserError(f"{path}: {what}; one size and colour is needed")
    return TrialData(*sets)
