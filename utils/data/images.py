"""Sets of labelled images: decoded, normalised and augmented."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from utils.console import progress
from utils.data.decode import (
    Form,
    check_room_for_chunk,
    chunk_bytes,
    decode_chunk,
    decode_file,
    over_chunks,
    problem_of,
    room_for,
)
from utils.errors import UserError

MEAN_AND_STD = {  # by number of channels, of values in 0..1
    1: ((0.5,), (0.5,)),
    3: ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
}
TOP_BIT = np.uint64(63)


class Picked:
    """Some rows of a larger array of images (M, H, W, C), fetched only when they are asked for.

    It is indexed as an array (N, H, W, C) along its first axis; NumPy takes it for an array.
    """

    def __init__(self, pool: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64]) -> None:
        self._pool, self._rows = pool, rows
        self.shape: tuple[int, ...] = (len(rows), *pool.shape[1:])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: slice | npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        return np.asarray(self._pool[self._rows[index]])

    def __array__(self, dtype: npt.DTypeLike = None) -> npt.NDArray[Any]:
        return self[:].astype(dtype or np.uint8, copy=False)


@dataclass(frozen=True)
class ImageSet:
    """Decoded images with their labels, in the order of the CSV file that names them.

    images: uint8 (N, H, W, C), C = 1 (gray) or 3 (RGB), to be indexed by slices or arrays (it
    may be `Picked`); labels: int32 (N,); paths: N absolute paths, as in the column `x:image`, for
    files; rows: int64 (N,), the rows of the images in their source; both empty for images that
    come from no source.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]
    paths: tuple[str, ...]
    rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image, as nets take it."""
        _, height, width, channels = self.images.shape
        return channels, height, width

    def batch(
        self, rows: slice | npt.NDArray[Any], seeds: npt.NDArray[np.uint64] | None = None
    ) -> npt.NDArray[np.float32]:
        """What a net is given of some images: float32 (B, C, H, W), normalised.

        seeds: uint64 (B,), by which they are cropped and flipped before; None leaves that out.
        """
        images = self.images[rows]
        return normalise(images if seeds is None else augment(images, seeds))


@dataclass(frozen=True)
class Pool:
    """Decoded image files, each of them once.

    images: uint8 (N, H, W, C), possibly memory-mapped; rows: which of them a file became, by
    absolute path.
    """

    images: npt.NDArray[np.uint8]
    rows: dict[str, int]

    def pick(self, paths: Sequence[str]) -> npt.NDArray[np.uint8]:
        """The images of these paths, without a copy."""
        picked = Picked(self.images, np.array([self.rows[path] for path in paths], np.int64))
        return cast("npt.NDArray[np.uint8]", picked)


def decode_images(
    paths: Sequence[str],
    form: Form,
    where: Callable[[int], str],
    description: str,
    folder: Path | None = None,
    memory: int = 0,
) -> tuple[npt.NDArray[np.uint8], Counter[str]]:
    """Decode image files to uint8 (N, H, W, C); also how many were converted in which way.

    where: says of a position which file and row it is; description: what a progress bar says;
    folder: what is too large for the memory becomes a nameless file there; memory: bytes that it
    takes to decode one of them, at most. Raises UserError,
    naming the first image that is broken or differs from the first in size or channels.
    """
    images, counts, problems = decode_all(paths, form, description, folder, memory)
    if problems:
        raise broken_images(problems, where)
    return images, counts


def decode_all(
    paths: Sequence[str],
    form: Form,
    description: str,
    folder: Path | None = None,
    memory: int = 0,
    looks: npt.NDArray[np.void] | None = None,
) -> tuple[npt.NDArray[np.uint8], Counter[str], list[tuple[int, str]]]:
    """As `decode_images`, but a broken image raises nothing: also position and problem of those.

    Their pixels are 0. Where the form leaves open what images become, the first decides.
    looks: (N,), to be filled in. Raises UserError for a size that does not fit into the memory.
    """
    check_room_for_chunk(len(paths), form)
    try:
        shape = form.shape or decode_file(paths[0], form).pixels.shape
    except Exception as error:  # a broken file may raise anything in a decoder
        return np.empty((0, 0, 0, 0), np.uint8), Counter(), [(0, problem_of(error))]
    images, counts = room_for((len(paths), *shape), folder), Counter[str]()
    problems: list[tuple[int, str]] = []
    looking = looks is not None
    memory += (1 + looking) * chunk_bytes(len(paths), shape)
    chunks = over_chunks(decode_chunk, paths, form, shape, looking, memory=memory)
    for part, (decoded, converted, failed, seen) in progress(chunks, description):
        images[part] = decoded
        counts += converted
        if looks is not None:
            looks[part] = seen
        problems += [(part.start + position, problem) for position, problem in failed]
    return images, counts, problems


def broken_images(problems: Sequence[tuple[int, str]], where: Callable[[int], str]) -> UserError:
    """The error that names the first of the images with problems, and how many there are."""
    row, problem = problems[0]
    more = f" ({len(problems)} such images)" if len(problems) > 1 else ""
    remedy = "" if "; " in problem else "; restore or remove it"
    return UserError(f"{where(row)}: {problem}{remedy}{more}")


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
