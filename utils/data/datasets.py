"""The table of named data sets, and their preparation as PNG files.

A data set is a row of `DATASETS`; to add one, add a row.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from utils.columns import IMAGE, LABEL
from utils.console import progress
from utils.data import own_data
from utils.data.decode import CROP, Form, common_side, decode_file
from utils.data.downloads import ArchiveFile, find, find_or_download
from utils.data.formats import (
    CIFAR_LIMIT,
    STL_LIMIT,
    read_cifar_batch,
    read_idx,
    read_members,
    read_stl10_part,
)
from utils.data.own_data import Wanted, own_source
from utils.data.source import (
    DAMPING,
    TEST,
    TEST_SEED,
    TRAINING,
    Source,
    cache_folder,
    first_writable,
)
from utils.data.splits import stratified
from utils.data.user_paths import Rows
from utils.errors import UserError, did_you_mean
from utils.output.storage import save_bytes, save_csv, written_beside

log = logging.getLogger("data_cleansing")

INDEX = "prepared_images.csv"  # x:image (relative), y:label, part; written last
BEGUN = "preparing"
"""A file that is there while images are written."""
PART = "part"
N_DIGITS_TEST = 400

UInt8 = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]
Labelled = tuple[UInt8, Int64]  # images (N, H, W, C), labels (N,)


@dataclass(frozen=True)
class DatasetRow:
    """What is to be known of a named data set.

    read: takes the paths of `archives`, in their order, and gives training and test images;
    n_validation: images drawn from the training ones by default; resize: to 32..128 px;
    damping: alpha of influence functions with --if_solver sgd; built_in: where the
    images come from if not from archives.
    """

    archives: tuple[ArchiveFile, ...]
    read: Callable[[Sequence[Path]], tuple[Labelled, Labelled]]
    class_names: tuple[str, ...]
    n_validation: int
    resize: bool = True
    damping: float = DAMPING
    built_in: str = ""


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
        raise UserError(f"{image_path}: holds no images; get the file again")
    if labels.shape != images.shape[:1]:
        counts = f"{labels.size} labels for the {len(images)} images of {image_path.name}"
        raise UserError(f"{label_path}: {counts}; get both files again")
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


def read_stl10(paths: Sequence[Path]) -> tuple[Labelled, Labelled]:
    """The labelled images of STL-10, from its one archive; labels 1..10 become 0..9.

    Raises UserError, naming archive and member, if damaged.
    """
    names = [f"stl10_binary/{part}_{kind}.bin" for part in ("train", "test") for kind in "Xy"]
    contents = read_members(paths[0], names, STL_LIMIT)
    training, test = (
        read_stl10_part(contents[images], contents[labels], f"{paths[0]}: member {images}")
        for images, labels in (names[:2], names[2:])
    )
    return training, test


MNIST_MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
CIFAR_MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
STL_MIRRORS = ("http://ai.stanford.edu/~acoates/stl10/",)
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
    "stl10": DatasetRow(
        archives=(
            _archive("stl10_binary.tar.gz", "91f7769df0f17e558f3565bffb0c7dfb", STL_MIRRORS),
        ),
        read=read_stl10,
        class_names=(
            *("airplane", "bird", "car", "cat", "deer"),
            *("dog", "horse", "monkey", "ship", "truck"),
        ),
        n_validation=1_000,
    ),
}


# ---------------------------------------------------------------- preparation


def prepare(
    name: str,
    data_dir: Path | None,
    allow_unverified: bool,
    image_size: int | None = None,
    color: str = "auto",
    resize: str = CROP,
    skip_broken: bool = False,
) -> Source:
    """The images of a named data set, or of a user's folder or CSV file, ready to be split.

    Images of the table are written as PNG files to `<root>/<name>/`, or to
    `<root>/<name>_unverified_<MD5>/` if an archive is not the published one. The root is
    `data_dir`, or the cache folder if that is None or cannot be written. Complete folders are
    reused; an incomplete one is written again.

    Args:
        name: a row of the table, else a path, as `own_source` takes it.
        data_dir: where archives and prepared images lie; None for the cache folder.
        allow_unverified: use archives that are not the published ones.
        image_size: side of the images in px; None for the rule of the data set.
        color: "auto", "gray" or "rgb".
        resize: "crop", "pad" or "stretch".
        skip_broken: leave a user's broken images out.

    Raises:
        UserError: the name is unknown, an archive is missing, damaged or not the published one,
            no folder can be written, or something is wrong with a user's images.
    """
    if _is_path(name):
        wanted = Wanted(image_size, color, resize, skip_broken)
        return own_source(Path(name), data_dir and _root(data_dir), wanted)
    if name not in DATASETS:
        known = f"known are {', '.join(DATASETS)}{_suggested(name)}"
        raise UserError(f"data set '{name}' is not known and no such path exists; {known}")
    row, cache = DATASETS[name], cache_folder()
    roots = (_root(data_dir or cache), _root(cache))
    images, fingerprint = _ready(name, row, roots, allow_unverified), _fingerprint(row)
    if images is None:
        paths = find_or_download(row.archives, *roots, allow_unverified)
        images, fingerprint = _prepared_from(name, row, paths, roots)
    folder = first_writable([images, roots[1] / images.name])
    source = _source(name, row, images, folder, fingerprint)
    form = _form(row, source.training[IMAGE][0], Wanted(image_size, color, resize))
    return replace(source, form=form)


def form_of(name: str, rows: Rows, wanted: Wanted) -> Form:
    """What `prepare` makes of images that are on disk.

    Args:
        name: the data set, as `prepare` takes it.
        rows: all of its images.
        wanted: what they are to become.
    """
    if name in DATASETS:
        return _form(DATASETS[name], rows.paths[0], wanted)
    return own_data.form_of(rows, wanted)


def folders_of(name: str, data_dir: Path | None) -> list[Path]:
    """Where images are read from and kept: a user's own path, `data_dir` and the cache folder."""
    own = [Path(name)] if _is_path(name) else []
    return [*own, *([data_dir] if data_dir else []), cache_folder()]


def _is_path(name: str) -> bool:
    """Whether `name` is an existing path, and not a row of the table.

    Raises:
        UserError: a folder on the way cannot be searched.
    """
    if name in DATASETS:
        return False
    try:
        os.stat(name)
    except FileNotFoundError:
        return os.path.islink(name)
    except (NotADirectoryError, ValueError):
        return False
    except OSError as error:
        remedy = "make the folders on its way searchable, or give another path"
        raise UserError(f"--dataset {name}: {error.strerror}; {remedy}") from error
    return True


def _suggested(name: str) -> str:
    """What a mistyped name may stand for: what lies in the same folder, or a data set."""
    folder, last = os.path.split(name.rstrip("/"))
    try:
        there = sorted(os.listdir(folder or "."))
    except OSError:
        there = []
    return did_you_mean(last, there if folder else [*there, *DATASETS], folder)


def _root(folder: Path) -> Path:
    if os.path.lexists(folder) and not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give one with --data_dir")
    return Path(os.path.abspath(folder))


def _ready(
    name: str, row: DatasetRow, roots: Sequence[Path], allow_unverified: bool
) -> Path | None:
    """The folder prepared from the published archives, unless archives must be looked at first.

    Archives in a root take precedence over images prepared in a later root and, if the user
    allows unverified archives, over images prepared in the same root.
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
    import pooch

    sums = " ".join(pooch.file_hash(path, alg="md5") for path in paths)
    fingerprint = sums or _fingerprint(row)
    if fingerprint != _fingerprint(row):
        combined = hashlib.md5(fingerprint.encode(), usedforsecurity=False).hexdigest()
        name = f"{name}_unverified_{combined[:8]}"
    for root in roots:
        if is_prepared(root / name):
            return root / name, fingerprint
    *others, cache = roots
    free = [root for root in others if root == cache or not _is_of_others(root / name, cache)]
    folder = first_writable([*free, cache]) / name
    write_images(folder, *row.read(paths))
    return folder, fingerprint


def _is_of_others(folder: Path, cache: Path) -> bool:
    """Whether a folder holds files, and none that this program begins or ends with; logged."""
    there = set(_listed(folder))
    if not there or there & {INDEX, BEGUN}:
        return False
    log.info("%s holds other files; images are written to %s", folder, cache)
    return True


def _fingerprint(row: DatasetRow) -> str:
    """Identifies the published data."""
    return row.built_in or " ".join(file.md5 for file in row.archives)


def is_prepared(folder: Path) -> bool:
    """Whether `folder` has an index that can be read, and all the files that it names."""
    if not os.path.isfile(folder / INDEX):
        return False
    try:
        index = pd.read_csv(folder / INDEX)[[IMAGE, LABEL, PART]]
    except (ValueError, KeyError):  # damaged: the images are written again
        return False
    there = {f"{part}/{file}" for part in (TRAINING, TEST) for file in _listed(folder / part)}
    return there >= set(index[IMAGE])


def _listed(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def write_images(folder: Path, training: Labelled, test: Labelled) -> None:
    """Write images as `training/00000.png`, ..., `test/00000.png`, ..., the index last."""
    parts = ((TRAINING, training[1]), (TEST, test[1]))
    index = pd.concat([_index_of(part, labels) for part, labels in parts])
    images = list(zip(index[IMAGE], chain(training[0], test[0]), strict=True))
    save_bytes(b"", folder / BEGUN)
    for path, image in progress(images, f"writing {folder}"):
        _save_png(image, folder / path)
    save_csv(index, folder / INDEX)
    (folder / BEGUN).unlink(missing_ok=True)  # another run that wrote the same may be done


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
        form=Form(),
        damping=row.damping,
        n_validation=row.n_validation,
    )


def _form(row: DatasetRow, path: str, wanted: Wanted) -> Form:
    """What the images become; all have the size of the image at `path`."""
    side = wanted.image_size
    if side is None and row.resize:
        side = common_side(min(decode_file(path, Form()).pixels.shape[:2]))
    return Form(side, {"auto": None, "gray": 1, "rgb": 3}[wanted.color], wanted.resize)
