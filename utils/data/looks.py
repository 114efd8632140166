"""What is measured of each picture while it is decoded, for finding copies and for facts.

Kept light, because worker processes import it: no pandas, no nnabla.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

VERSION = 1
"""Of these measurements; kept ones with another version are not reused."""
THUMB = 16
STRIP = 250_000  # pixels that are hashed at once
MEASURED = 4_000_000  # pixels that are measured at once, each in about 8 bytes
FINEST = 256  # px; larger sides are reduced, but not below this, for all but the pixels' hash

LOOK = np.dtype(
    [
        ("pixels", np.uint64, 2),  # hash of all pixels as RGB and of the size
        ("hash", np.uint64),  # 64 bits of ImageHash's phash
        ("thumb", np.uint8, THUMB * THUMB),  # gray levels, row by row
        ("width", np.int32),
        ("height", np.int32),
        ("spread", np.float32),  # standard deviation of the gray levels
        ("light", np.uint8),  # gray level that 99 % of the pixels do not exceed
        ("dark", np.uint8),  # gray level that 5 % of the pixels do not exceed
        ("sharpness", np.float32),  # see `sharpness`
    ]
)
"""A record of the table of looks. Gray levels (0 to 255) are taken from the whole picture, resized
to the size of the run."""
UInt8 = npt.NDArray[np.uint8]


class Look(NamedTuple):
    """One picture: `gray` is uint8 (side, side), the others are fields of `LOOK`."""

    pixels: bytes
    hash: bytes
    size: tuple[int, int]
    gray: UInt8


def look_at(picture: Image.Image, size: tuple[int, int], side: int) -> Look:
    """Look at a picture.

    Args:
        picture: upright, as "L" or "RGB"; large ones may have been decoded at a smaller size.
        size: width and height in px that it has in its file.
        side: of the run's pictures, in px.
    """
    gray = _reduced(picture).convert("L")
    square = (side, side)
    squared = gray if gray.size == square else gray.resize(square, Image.Resampling.BILINEAR)
    return Look(_digest(picture, size), _perceptual_hash(gray), size, np.asarray(squared))


def table_of(looks: Sequence[Look | None]) -> npt.NDArray[np.void]:
    """The records (N,) of several pictures; zeros where there is no look."""
    table = np.zeros(len(looks), LOOK)
    there = [(row, look) for row, look in enumerate(looks) if look is not None]
    if not there:
        return table
    rows, seen = [row for row, _ in there], [look for _, look in there]
    part = np.zeros(len(seen), LOOK)
    part["pixels"] = np.frombuffer(b"".join(look.pixels for look in seen), "<u8").reshape(-1, 2)
    part["hash"] = np.frombuffer(b"".join(look.hash for look in seen), ">u8")
    part["width"], part["height"] = zip(*(look.size for look in seen), strict=True)
    at_once = max(1, MEASURED // seen[0].gray.size)
    for start in range(0, len(seen), at_once):
        some = slice(start, start + at_once)
        _measure(part[some], np.stack([look.gray for look in seen[some]]))
    table[rows] = part
    return table


def _reduced(picture: Image.Image) -> Image.Image:
    """A large picture made smaller by whole factors, which takes little time and memory."""
    factors = picture.width // FINEST, picture.height // FINEST
    return picture.reduce((max(1, factors[0]), max(1, factors[1]))) if max(factors) > 1 else picture


def _digest(picture: Image.Image, size: tuple[int, int]) -> bytes:
    """A hash of 16 bytes; a gray picture has the same hash as its copy in RGB."""
    digest = hashlib.blake2b(f"{size} {picture.size}".encode(), digest_size=16)
    for strip in _strips(picture):
        digest.update((strip if strip.mode == "RGB" else strip.convert("RGB")).tobytes())
    return digest.digest()


def _strips(picture: Image.Image) -> Iterator[Image.Image]:
    """A picture from top to bottom in parts that take little memory; a small one as it is."""
    width, height = picture.size
    rows = max(1, STRIP // width)
    if rows >= height:
        yield picture
        return
    for top in range(0, height, rows):
        yield picture.crop((0, top, width, min(top + rows, height)))


def _perceptual_hash(gray: Image.Image) -> bytes:
    import imagehash

    bits = imagehash.phash(gray).hash
    return np.packbits(bits).tobytes()


# ---------------------------------------------------------------- gray levels


def _measure(part: npt.NDArray[np.void], gray: UInt8) -> None:
    """Fill in what follows from gray levels (N, side, side)."""
    part["thumb"] = _thumbs(gray)
    levels = gray.reshape(len(gray), -1)
    places = [int(share * (levels.shape[1] - 1)) for share in (0.01, 0.05, 0.99)]
    low, dark, light = np.partition(levels, places, axis=1)[:, places].T
    part["spread"] = levels.std(axis=1, dtype=np.float32)
    part["light"], part["dark"] = light, dark
    part["sharpness"] = sharpness(gray) / np.maximum(light.astype(np.float32) - low, 1)


def _thumbs(gray: UInt8) -> UInt8:
    """Gray levels (N, side, side) averaged over the areas of a grid: (N, THUMB * THUMB)."""
    side = gray.shape[1]
    edges = np.linspace(0, side, THUMB + 1)
    pixel = np.arange(side)
    overlap = np.minimum(pixel + 1, edges[1:, None]) - np.maximum(pixel, edges[:-1, None])
    share = (overlap.clip(0) * THUMB / side).astype(np.float32)  # (THUMB, side), rows sum to 1
    return np.rint(share @ gray.astype(np.float32) @ share.T).astype(np.uint8).reshape(-1, THUMB**2)


def sharpness(gray: UInt8) -> npt.NDArray[np.float32]:
    """The 98th percentile of the Laplacian's absolute value, in gray levels (N,).

    Divided by the range of gray levels, it does not depend on contrast. The Laplacian is taken
    inside the border of each picture (N, H, W).
    """
    x = gray.astype(np.int16)
    laplacian = 4 * x[:, 1:-1, 1:-1]
    for shifted in (x[:, :-2, 1:-1], x[:, 2:, 1:-1], x[:, 1:-1, :-2], x[:, 1:-1, 2:]):
        laplacian -= shifted
    strength = np.abs(laplacian).reshape(len(x), -1)
    if not strength.shape[1]:
        return np.zeros(len(x), np.float32)
    place = int(0.98 * (strength.shape[1] - 1))
    return np.partition(strength, place, axis=1)[:, place].astype(np.float32)
