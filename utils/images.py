"""Sets of labelled images: read from NNC CSV files, normalised and augmented."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from utils.console import progress
from utils.errors import UserError

IMAGE, LABEL = "x:image", "y:label"
MIN_SIDE, MAX_SIDE = 32, 128  # pixels, where images are resized
GRAY_MODES = ("1", "L", "LA")
MEAN_AND_STD = {  # by number of channels, of values in 0..1
    1: ((0.5,), (0.5,)),
    3: ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
}
TOP_BIT = np.uint64(63)


@dataclass(frozen=True)
class ImageSet:
    """Decoded images with their labels, in the order of the CSV file that names them.

    images: uint8 (N, H, W, C), C = 1 (gray) or 3 (RGB); labels: int32 (N,);
    paths: N absolute paths, as in the column `x:image`.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]
    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image, as nets take it."""
        _, height, width, channels = self.images.shape
        return channels, height, width


def read_nnc_csv(csv: Path) -> pd.DataFrame:
    """Read an NNC CSV file: `x:image` becomes absolute, `y:label` int32, further columns stay.

    Relative image paths count from the folder of `csv`. Raises UserError, naming the file
    (and the row, the header being row 1), for a file that is missing, is no such CSV or has
    no rows, and for a label that is not a whole number from 0 on.
    """
    try:
        table = pd.read_csv(csv, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{csv}: cannot be read as CSV ({reason}); give an NNC CSV file") from error
    if not {IMAGE, LABEL} <= set(table.columns) or table.empty:
        raise UserError(f"{csv}: needs the header {IMAGE},{LABEL} and at least one row below it")
    if not isinstance(table.index, pd.RangeIndex):  # pandas' way with one field too many
        raise UserError(f"{csv}: rows have more fields than the header; quote names with commas")
    folder = os.path.abspath(csv.parent)
    table[IMAGE] = [os.path.normpath(os.path.join(folder, path)) for path in table[IMAGE]]
    table[LABEL] = np.array(_whole_numbers(csv, list(table[LABEL])), np.int32)
    return table


def load_image_set(csv: Path, resize: bool) -> ImageSet:
    """Decode every image that an NNC CSV file names: gray stays gray, all else becomes RGB.

    With `resize` an image is cropped to its central square, and a side under 32 px becomes
    32, one over 128 px becomes 128 (bilinear); otherwise images are taken as they are.

    Raises UserError, naming the CSV file, the row (the header is row 1) and the image, for
    an image that is missing or broken or differs from the first in size or channels.
    """
    table = read_nnc_csv(csv)
    paths, labels = tuple(table[IMAGE]), table[LABEL].to_numpy(np.int32)
    first = _decode_row(csv, paths, 0, resize)
    images = np.empty((len(paths), *first.shape), np.uint8)
    for row in progress(range(len(paths)), f"reading {csv.name}"):
        image = _decode_row(csv, paths, row, resize)
        if image.shape != first.shape:
            where = f"{csv}: row {row + 2}: {paths[row]!r}"
            sizes = f"{_size_text(image)} where row 2 has {_size_text(first)}"
            raise UserError(f"{where}: {sizes}; all images of a set need one size and colour")
        images[row] = image
    return ImageSet(images, labels, paths)


def normalise(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Turn uint8 (B, H, W, C) into float32 (B, C, H, W): (value / 255 - mean) / std.

    Mean and std are 0.5 and 0.5 for gray (C = 1), and (0.4914, 0.4822, 0.4465) and
    (0.2023, 0.1994, 0.2010) for RGB (C = 3). Raises ValueError for any other C.
    """
    if images.ndim != 4 or images.shape[3] not in MEAN_AND_STD:
        raise ValueError(f"images of shape {images.shape}: (B, H, W, 1) or (B, H, W, 3) needed")
    mean, std = (np.array(c, np.float32) for c in MEAN_AND_STD[images.shape[3]])
    scaled = (images.astype(np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def augment(images: npt.NDArray[np.uint8], seeds: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    """Crop every image at random from its zero-padded self and, colour only, flip it.

    images: uint8 (B, H, W, C); seeds: uint64 (B,), uniform over all 64 bits; returns
    uint8 (B, H, W, C), a new array. The padding is p = H // 8 px on each side (4 at 32 px).
    What happens to an image depends on its own seed s alone: the crop begins at row
    s mod (2p+1) and column (s div (2p+1)) mod (2p+1) of the padded image, p and p being
    the image itself; then, for C = 3, the image is mirrored left-right if the top bit of s
    is set. Gray images are digits and the like, which must not be mirrored.
    """
    _, height, width, channels = images.shape
    pad = height // 8
    offsets = np.uint64(2 * pad + 1)
    top = (seeds % offsets).astype(np.intp)
    left = (seeds // offsets % offsets).astype(np.intp)
    columns = left[:, None] + np.arange(width)
    if channels == 3:
        mirrored = (seeds >> TOP_BIT).astype(bool)
        columns[mirrored] = columns[mirrored, ::-1]
    rows = top[:, None] + np.arange(height)
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    example = np.arange(len(images))[:, None, None]
    cropped: npt.NDArray[np.uint8] = padded[example, rows[:, :, None], columns[:, None, :]]
    return cropped


def _whole_numbers(csv: Path, labels: Sequence[str]) -> list[int]:
    """The labels as int; UserError at the first one that is no whole number from 0 on."""
    for row, label in enumerate(labels):
        if not (label.strip().isascii() and label.strip().isdigit() and len(label) < 10):
            hint = f"{LABEL} must be a whole number from 0 on"
            raise UserError(f"{csv}: row {row + 2}: label {label!r}: {hint}")
    return [int(label) for label in labels]


def _decode_row(csv: Path, paths: Sequence[str], row: int, resize: bool) -> npt.NDArray[np.uint8]:
    """The image of `row` (0 is the first below the header), uint8 (H, W, C)."""
    try:
        with Image.open(paths[row]) as image:
            pixels = _eight_bit(image)
    except Exception as error:  # a broken file may raise anything in a decoder
        where = f"{csv}: row {row + 2}: {paths[row]!r}"
        reason = getattr(error, "strerror", None) or "not a whole image"
        raise UserError(f"{where}: {reason}; mend the file or take the row out") from error
    array = np.asarray(_fitted(pixels) if resize else pixels)
    return array.reshape(*array.shape[:2], -1)


def _eight_bit(image: Image.Image) -> Image.Image:
    """`image` as "L" if it is gray, else as "RGB"; of 16-bit gray the upper 8 bits stay."""
    if image.mode.startswith("I"):  # Pillow's own conversion cuts at 255
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("L" if image.mode in GRAY_MODES else "RGB")


def _fitted(image: Image.Image) -> Image.Image:
    """The central square of `image`, its side brought into MIN_SIDE..MAX_SIDE."""
    square = min(image.size)
    left, top = ((length - square) // 2 for length in image.size)
    side = min(max(square, MIN_SIDE), MAX_SIDE)
    box = (left, top, left + square, top + square)
    if side == square:
        return image.crop(box)
    return image.resize((side, side), Image.Resampling.BILINEAR, box)


def _size_text(image: npt.NDArray[np.uint8]) -> str:
    height, width, channels = image.shape
    return f"{width}x{height} px {'gray' if channels == 1 else 'RGB'}"
