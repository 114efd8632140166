"""The images that a user of the Python interface gives: arrays, or an NNC CSV file."""

from __future__ import annotations

import hashlib
import logging
import operator
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sgd_influence.guest import guest
from utils.columns import IMAGE, LABEL, ROW, SET
from utils.data.decode import CROP, Form
from utils.data.images import Pool
from utils.data.missing_sets import complete_sets
from utils.data.own_data import Wanted, own_source
from utils.data.source import DAMPING, TEST, TRAINING, VALIDATION, Source, are_labels
from utils.errors import UserError
from utils.options import number_or_all, options_by_name

log = logging.getLogger("data_cleansing")

UInt8 = npt.NDArray[np.uint8]
CHANNELS = (1, 3)
DARK = 32
"""Images whose brightest pixel is below this are probably on another scale than 0 to 255."""
LARGEST_LABEL = np.iinfo(np.int64).max
_NAMES = {TRAINING: ("X", "y"), VALIDATION: ("X_val", "y_val"), TEST: ("X_test", "y_test")}


class Images:
    """Labelled images, with or without validation and test images.

    Arrays are copied. If validation or test images are missing, 15 % of the images are drawn for
    each: always the same ones for testing, and by the seed of `Cleanser` for validation.

    Args:
        X: (N, H, W) gray, or (N, H, W, C) or (N, C, H, W) with C = 1 or 3. Whole numbers 0 to
            255, or floats 0 to 1, which are rounded to 8 bits; a warning says where all are
            nearly black on that scale.
        y: (N,) or (N, 1) whole numbers of any value, one label per image.
        X_val: validation images of the same size and colour, (N_val, ...).
        y_val: their labels (N_val,).
        X_test: test images (N_test, ...).
        y_test: their labels (N_test,).

    Attributes:
        y: (N,) the labels; scores are in this order.
        classes: (K,) the labels that there are, ascending.

    Raises:
        UserError: of one line, for arrays of another shape, type or range.

    >>> import numpy as np
    >>> from sgd_influence import Images
    >>> images = Images(np.zeros((40, 8, 8), np.uint8), np.arange(40) % 2 + 5)
    >>> images
    Images: 40 of 1x8x8, 2 classes
    >>> images.classes
    array([5, 6])
    >>> Images(np.zeros((40, 64)), np.arange(40) % 2)
    Traceback (most recent call last):
    ...
    utils.errors.UserError: X has the shape (40, 64); give (N, H, W), (N, H, W, C) or (N, C, H, W), C = 1 or 3
    """  # noqa: E501

    y: npt.NDArray[Any]
    classes: npt.NDArray[Any]

    def __init__(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        X_val: npt.ArrayLike | None = None,
        y_val: npt.ArrayLike | None = None,
        X_test: npt.ArrayLike | None = None,
        y_test: npt.ArrayLike | None = None,
    ) -> None:
        sets = dict(_sets({TRAINING: (X, y), VALIDATION: (X_val, y_val), TEST: (X_test, y_test)}))
        self.y = sets[TRAINING][1]
        self.classes = _classes(sets)
        self._folder = temporary_folder()
        with guest():
            _warn_if_dark(sets)
            self._source = _source_of(sets, self.classes, Path(self._folder.name))
        self._chosen: dict[str, Any] = {"dataset": "arrays of the Python interface"}
        self._from_files = False

    @classmethod
    def from_csv(
        cls,
        path: str | os.PathLike[str],
        *,
        image_size: int | None = None,
        color: str = "auto",
        resize: str = CROP,
        skip_broken: bool = False,
    ) -> Images:
        r"""The images of an NNC CSV file, as the commands read it.

        Args:
            path: a CSV file with the columns x:image and y:label; or a folder with such files
                for training, validation and testing, or of class folders.
            image_size: side in pixels of the square images that the net gets; None: from the
                images, 32 to 128.
            color: "gray", "rgb", or "auto": gray if all images are gray.
            resize: "crop", "pad" or "stretch", as in docs/options.md.
            skip_broken: leave images out that cannot be read, instead of refusing them.

        Raises:
            UserError: of one line, naming file and row, for what cannot be read.

        >>> from tempfile import TemporaryDirectory
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from PIL import Image
        >>> from sgd_influence import Images
        >>> with TemporaryDirectory() as folder:
        ...     rows = ["x:image,y:label"]
        ...     for number in range(20):
        ...         pixels = np.full((8, 8), 10 * number, np.uint8)
        ...         Image.fromarray(pixels).save(Path(folder, f"{number}.png"))
        ...         rows.append(f"{number}.png,{number % 2}")
        ...     _ = Path(folder, "images.csv").write_text("\n".join(rows))
        ...     Images.from_csv(Path(folder, "images.csv"), image_size=8)
        Images: 20 of 1x8x8, 2 classes
        """
        chosen: dict[str, Any] = {"image_size": image_size, "color": color, "resize": resize}
        chosen["skip_broken"] = bool(skip_broken)
        chosen = {name: value_of(name, value) for name, value in chosen.items()}
        images, file = cls.__new__(cls), path_of(path, "path")
        images._folder = temporary_folder()
        with guest():
            images._source = _own_source(file, Path(images._folder.name), Wanted(**chosen))
        images.classes = _named_classes(images._source.class_names)
        images.y = images._labels_as_given()
        images._chosen = {"dataset": os.fspath(path), **chosen}
        images._from_files = True
        return images

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        pool = self._source.pool
        assert pool is not None
        _, height, width, channels = pool.images.shape
        size = f"{channels}x{height}x{width}"
        return f"Images: {len(self)} of {size}, {len(self.classes)} classes"

    def places(self, rows: npt.NDArray[np.int64]) -> pd.DataFrame:
        """Where the user gave images: `set` (training is y, validation y_val) and `row` in it.

        Args:
            rows: (M,) rows in the source.
        """
        assert self._source.given is not None
        return self._source.given.iloc[rows].reset_index(drop=True)

    def _labels_as_given(self) -> npt.NDArray[Any]:
        places = self.places(np.arange(len(self._source.images)))
        codes = self._source.images[LABEL].to_numpy(np.int64)
        ours = (places[SET] == TRAINING).to_numpy()
        order = np.argsort(places[ROW].to_numpy()[ours], kind="stable")
        return np.asarray(self.classes[codes[ours][order]])


OPTIONAL = ("cover_epochs", "damping", "image_size")
"""Options that may be None."""


def value_of(name: str, value: Any, shown: str = "") -> Any:
    """A value of an option as the command line would give it.

    Args:
        name: of the option.
        value: as the user gives it.
        shown: the option's name in Python, if it is another one.

    Raises:
        UserError: it is of another type, or the option does not allow it.
    """
    option = options_by_name()[name]
    choices, kind = (option.argparse.get(key) for key in ("choices", "type"))
    if choices and not (isinstance(value, str) and value in choices):
        raise UserError(f"{name} {in_short(value)}: must be one of {', '.join(choices)}")
    if kind not in (int, float, number_or_all) or (value is None and name in OPTIONAL):
        return value
    if kind is number_or_all and value == "all":
        return None
    number = number_of(shown or name, value, float if kind is float else int)
    if option.least is not None and number < option.least:
        raise UserError(f"{name} {value}: must be a whole number of at least {option.least}")
    return number


def number_of(name: str, value: Any, kind: type[int] | type[float]) -> Any:
    """A user's number as an `int` or a `float`; raises a UserError for everything else."""
    try:
        return float(value) if kind is float else operator.index(value)
    except (TypeError, ValueError):
        wanted = "number" if kind is float else "whole number"
        raise UserError(f"{name} {in_short(value)}: must be a {wanted}") from None


def path_of(path: Any, name: str) -> Path:
    """A user's path; raises a UserError for anything else, and for an empty path."""
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise UserError(f"{name} {in_short(path)}: give a path")
    return Path(path)


def in_short(value: object) -> str:
    """A value as an error quotes it: one line of at most 80 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:76]} ..."


def array_of(given: npt.ArrayLike, name: str, dtype: Any = None) -> npt.NDArray[Any]:
    """A user's array; raises a UserError if NumPy cannot make one."""
    try:
        return np.asarray(given, dtype)
    except Exception as error:  # of another library's array too
        reason = " ".join(str(error).split())[:200]
        what = f"{type(given).__name__} does not become an array ({reason})"
        raise UserError(f"{name}: {what}; give a NumPy array") from None


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that is removed with the object."""
    return tempfile.TemporaryDirectory(prefix="sgd_influence_")


def _own_source(path: Path, folder: Path, wanted: Wanted) -> Source:
    if not os.path.lexists(path):
        raise UserError(f"{path}: is not there; give an NNC CSV file or a folder with such files")
    return own_source(path, folder, wanted)


def _named_classes(names: tuple[str, ...]) -> npt.NDArray[Any]:
    return np.arange(len(names)) if are_labels(names) else np.array(names)


# ---------------------------------------------------------------- arrays

Given = Mapping[str, tuple[Any, Any]]
"""Images and labels by set."""


def _sets(given: Given) -> Iterator[tuple[str, tuple[UInt8, npt.NDArray[Any]]]]:
    """The sets that are given, images (N, H, W, C) and labels (N,), all of one size and colour."""
    first: tuple[int, ...] = ()
    for name, (X, y) in given.items():
        image_name, label_name = _NAMES[name]
        if name == TRAINING and (X is None or y is None):
            raise UserError("X and y: give both")
        if (X is None) != (y is None):
            raise UserError(f"{image_name} and {label_name}: give both, or neither")
        if X is None:
            continue
        pixels = _bytes_of(_channels_last(array_of(X, image_name), image_name), image_name)
        first = first or pixels.shape[1:]
        if pixels.shape[1:] != first:
            what = f"its images are {pixels.shape[1:]}, those of X {first} (H, W, C)"
            raise UserError(f"{image_name}: {what}; bring all to one size and colour")
        yield name, (pixels, labels_of(y, len(pixels), label_name))


def _channels_last(images: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    wanted = "give (N, H, W), (N, H, W, C) or (N, C, H, W), C = 1 or 3"
    if 0 in images.shape:
        raise UserError(f"{name} has the shape {images.shape}, without an image; {wanted}")
    if images.ndim == 3:
        return images[..., None]
    if images.ndim != 4 or not {images.shape[1], images.shape[3]} & {*CHANNELS}:
        raise UserError(f"{name} has the shape {images.shape}; {wanted}")
    if images.shape[1] in CHANNELS and images.shape[3] in CHANNELS:
        what = "either axis may be the channels"
        raise UserError(f"{name} has the shape {images.shape}, and {what}; images are too small")
    return images if images.shape[3] in CHANNELS else images.transpose(0, 2, 3, 1)


def _bytes_of(images: npt.NDArray[Any], name: str) -> UInt8:
    """Pixels as unsigned bytes, whatever the numbers are."""
    kind = images.dtype.kind
    if images.dtype == np.uint8:
        return images
    if kind not in "iuf":
        raise UserError(
            f"{name} holds {images.dtype}; give whole numbers 0 to 255 or floats 0 to 1"
        )
    _check_finite(images, name)
    low, high, most = images.min(), images.max(), 1 if kind == "f" else 255
    if not (low >= 0 and high <= most):
        what = f"{name} holds {images.dtype} from {low:g} to {high:g}"
        raise UserError(f"{what}; give whole numbers 0 to 255 or floats 0 to 1")
    return (np.rint(images * 255.0) if kind == "f" else images).astype(np.uint8)


def _warn_if_dark(sets: Given) -> None:
    """Warn of images that seem to be on another scale, such as whole numbers 0 and 1."""
    for name, (pixels, _) in sets.items():
        if 0 < (brightest := int(pixels.max())) < DARK:
            log.warning(
                "%s: all images are nearly black, the brightest pixel is %d of 255; whole numbers "
                "count from 0 to 255, floats from 0 to 1: multiply them unless they are that dark",
                _NAMES[name][0], brightest,
            )  # fmt: skip


def _check_finite(images: npt.NDArray[Any], name: str) -> None:
    finite = np.isfinite(images).reshape(len(images), -1).all(axis=1)
    if not finite.all():
        what = f"{name}[{np.argmin(finite)}] has pixels that are NaN or infinite"
        raise UserError(f"{what}; correct that image, or leave it out")


def labels_of(y: npt.ArrayLike, n: int, name: str) -> npt.NDArray[Any]:
    """A user's labels as a copy (n,); raises as `Images`."""
    labels = array_of(y, name)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (n,):
        hint = ", such as y.argmax(axis=1)" if labels.ndim == 2 else ""
        raise UserError(
            f"{name} has the shape {labels.shape}; give one label per image, ({n},){hint}"
        )
    if labels.dtype.kind not in "iu":
        remedy = _whole_numbers(labels, name)
        raise UserError(f"{name} holds {labels.dtype}; give whole numbers{remedy}")
    if labels.dtype.kind == "u" and len(labels) and labels.max() > LARGEST_LABEL:
        raise UserError(f"{name} holds {labels.max()}; give labels up to {LARGEST_LABEL}")
    return labels.astype(np.int64)


def _whole_numbers(labels: npt.NDArray[Any], name: str) -> str:
    """How labels of another type become whole numbers; empty if that depends on what they mean."""
    if labels.dtype.kind in "USO":
        return f", such as np.unique({name}, return_inverse=True)[1]"
    if labels.dtype.kind == "f" and not (labels == np.rint(labels)).all():
        return ""
    return f", such as {name}.astype(int)"


def _classes(sets: Given) -> npt.NDArray[np.int64]:
    if len(np.unique(sets[TRAINING][1])) < 2:
        raise UserError("y: all images are of one class; at least two are needed to train on")
    return np.unique(np.concatenate([labels for _, labels in sets.values()]))


def _source_of(sets: Given, classes: npt.NDArray[np.int64], folder: Path) -> Source:
    """The source of the arrays; their images are called X[0], X[1], ..."""
    names, tables = tuple(map(str, classes)), _tables(sets, classes)
    files = [file for table in tables.values() for file in table[IMAGE]]
    given = complete_sets(tables, names, "X and y")
    sizes = {name: len(labels) for name, (_, labels) in sets.items()}
    place, renumbered = given.as_given(sizes), given.renumbered()
    pixels = np.concatenate([images for images, _ in sets.values()])  # a copy, also of one
    return Source(
        name="arrays",
        folder=folder,
        training=renumbered.training,
        validation=renumbered.validation,
        test=renumbered.test,
        n_classes=len(classes),
        class_names=names,
        fingerprint=_fingerprint(sets, pixels),
        form=Form(),
        damping=DAMPING,
        n_validation=renumbered.n_validation,
        pool=Pool(pixels, {file: number for number, file in enumerate(files)}),
        given=place,
    )


def _tables(sets: Given, classes: npt.NDArray[np.int64]) -> dict[str, pd.DataFrame]:
    """A table of images and labels by set; its index counts the images of all of them."""
    tables, start = {}, 0
    for name, (images, labels) in sets.items():
        files = [f"{_NAMES[name][0]}[{number}]" for number in range(len(images))]
        table = pd.DataFrame({IMAGE: files, LABEL: np.searchsorted(classes, labels)})
        tables[name] = table.set_axis(range(start, start + len(images)))
        start += len(images)
    return tables


def _fingerprint(sets: Given, pixels: UInt8) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, (images, labels) in sets.items():
        digest.update(f"{name} {images.shape}".encode() + labels.tobytes())
    digest.update(np.ascontiguousarray(pixels).data)
    return f"{len(pixels)} arrays {digest.hexdigest()}"
