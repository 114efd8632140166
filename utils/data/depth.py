"""Pixels of more than 8 bits, and the common scale that brings a data set to 0..255.

Pillow reads 16-bit gray in full, but only the upper bytes of 16-bit colour; the lower bytes are
read here. Kept light, because worker processes import it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

from utils.data.png import compressed_pixels

SIXTEEN, INTEGER, FLOAT = "16 bit", "32 bit", "floating point"
TOPS = (255, 1023, 4095, 16383, 65535)
"""Divisors of 16-bit pixels: the largest values of 8, 10, 12, 14 and 16 bits."""
STRIP = 250_000  # values that are scaled at once
BITS, WHITE_IS, PLANES, SAMPLES = 258, 262, 284, 339
"""Tags of TIFF: bits of a sample, what 0 is in gray, how samples lie, kind of number."""

Pixels = npt.NDArray[Any]
FACTORS = {"L;2": 85, "L;4": 17}
"""By which Pillow multiplies gray pixels of 2 and 4 bits."""


class Range(NamedTuple):
    """The smallest and the largest pixel of one kind; as a scale, what becomes 0 and 255."""

    kind: str
    low: float
    high: float


Scales = tuple[Range, ...]
"""At most one of each kind."""


# ---------------------------------------------------------------- reading


def deep_pixels(image: Image.Image, stream: IO[bytes]) -> tuple[str, Pixels] | None:
    """The kind and the pixels of an image of more than 8 bits, (H, W) or (H, W, 2 to 4).

    image: as opened from `stream`, not decoded yet. None for an image of 8 bits. The last of 2
    or of 4 channels is opacity.
    """
    if image.mode.startswith("I;16"):
        return SIXTEEN, np.asarray(image)
    if image.mode == "F":
        return FLOAT, np.asarray(image)
    if image.mode == "I":
        return _integers(image)
    colour = _sixteen_bit_colour(image, stream)
    return None if colour is None else (SIXTEEN, colour)


def is_deep(image: Image.Image) -> bool:
    """Whether an image, as opened, has more than 8 bits."""
    return image.mode[0] in "IF" or _colour_reader(image) is not None


def is_gray_with_opacity(image: Image.Image) -> bool:
    """Whether an image, as opened, is of 16-bit gray with opacity, which Pillow calls RGBA."""
    return _raw_mode(image).startswith("LA;16")


def misread(image: Image.Image) -> str:
    """The kind of a TIFF, as opened, whose pixels Pillow reads wrongly; empty for other images."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return ""
    bits = max(np.atleast_1d(image.tag_v2.get(BITS, 1)))
    if bits > 8 and not is_deep(image):
        planes = ", in planes" if image.tag_v2.get(PLANES) == 2 else ""
        return f"a TIFF of {bits}-bit {image.mode}{planes}"
    if bits == 8 and 2 in np.atleast_1d(image.tag_v2.get(SAMPLES, 1)):
        return "a TIFF of signed 8-bit pixels"
    return ""


def white_is_zero(image: Image.Image) -> bool:
    """Whether a gray TIFF has white as 0, which Pillow inverts in images of 8 bits alone."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    return image.tag_v2.get(WHITE_IS) == 0


def transparent_in(image: Image.Image, values: Pixels) -> npt.NDArray[np.bool_] | None:
    """Mask (H, W) of the pixels of the colour that a PNG names as transparent; None without one."""
    colour = image.info.get("transparency")
    if image.format != "PNG" or not isinstance(colour, int | tuple):
        return None
    same = values == np.array(colour)
    return same.all(-1) if values.ndim == 3 else same


def scale_transparent(image: Image.Image) -> None:
    """Multiply the transparent level of a PNG of 2 or 4 bits as Pillow multiplies its pixels."""
    level, factor = image.info.get("transparency"), FACTORS.get(_raw_mode(image))
    if factor and isinstance(level, int):
        image.info["transparency"] = factor * level


def _integers(image: Image.Image) -> tuple[str, Pixels]:
    if image.format == "PPM":
        return SIXTEEN, np.asarray(image).astype(np.uint16)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits, sign = (image.tag_v2.get(tag, (0,)) for tag in (BITS, SAMPLES))
        if tuple(np.atleast_1d(bits)) == (32,) and tuple(np.atleast_1d(sign)) == (1,):
            return INTEGER, np.asarray(image).view(np.uint32)
    return INTEGER, np.asarray(image)


def _colour_reader(image: Image.Image) -> Any:
    """What reads an image of 16-bit colour or of 16-bit gray with opacity; None for others."""
    mode = _raw_mode(image)
    if image.format == "PNG" and mode in ("RGB;16B", "RGBA;16B", "LA;16B"):
        return _of_png
    if image.format == "TIFF" and re.fullmatch(r"RGB[AX]?;16[BLN]", mode):
        return _of_tiff
    if image.format == "PPM" and image.mode == "RGB":
        given = _tiles(image)[0].args
        return _of_ppm if isinstance(given, tuple) and int(given[1]) > 255 else None
    return None


def _tiles(image: Image.Image) -> list[Any]:
    """Where the parts of an opened image lie in its file, and how they are to be decoded."""
    return getattr(image, "tile", None) or []


def _raw_mode(image: Image.Image) -> str:
    """How the pixels lie in the file; empty where that is not known."""
    tiles = _tiles(image)
    given = tiles[0].args if tiles else ""
    return str(given[0] if isinstance(given, tuple) and given else given)


def _sixteen_bit_colour(image: Image.Image, stream: IO[bytes]) -> Pixels | None:
    reader = _colour_reader(image)
    return None if reader is None else reader(image, stream)


def _of_png(image: Image.Image, stream: IO[bytes]) -> Pixels:
    mode, interlaced = _raw_mode(image).split(";")[0], int(bool(image.info.get("interlace")))
    image.load()  # which checks the file
    stream.seek(0)
    data = compressed_pixels(stream.read())

    def read(mode: str, raw_mode: str) -> Pixels:
        return np.asarray(Image.frombytes(mode, image.size, data, "zip", raw_mode, interlaced))

    if mode == "LA":  # four bytes a pixel, which are read as if they were colours
        parts = read("RGBA", "RGBA")
        return _joined(parts[..., ::2], parts[..., 1::2])
    return _joined(read(mode, f"{mode};16B"), read(mode, f"{mode};16L"))


def _of_tiff(image: Image.Image, stream: IO[bytes]) -> Pixels:
    raw_mode = _raw_mode(image)
    lower = raw_mode[:-1] + {"B": "L", "L": "B", "N": "B"}[raw_mode[-1]]
    upper = np.asarray(image)
    stream.seek(0)
    with Image.open(stream, formats=["TIFF"]) as again:
        tiles = [part._replace(args=(lower, *part.args[1:])) for part in _tiles(again)]
        setattr(again, "tile", tiles)  # noqa: B010, a file's image has them, an Image not
        return _joined(upper, np.asarray(again))


def _of_ppm(image: Image.Image, stream: IO[bytes]) -> Pixels:
    """Values are scaled to 0..65535, as Pillow scales gray images."""
    codec, _, offset, (_, maximum) = _tiles(image)[0]
    image.load()  # which checks the file
    stream.seek(offset)
    content = stream.read()
    if codec == "ppm_plain":
        values = np.array(re.sub(rb"#[^\r\n]*", b"", content).split(), np.float64)
    else:
        values = np.frombuffer(content, ">u2").astype(np.float64)
    width, height = image.size
    values = values[: width * height * 3].reshape(height, width, 3)
    return np.rint(values * (65535 / maximum)).astype(np.uint16)


def _joined(upper: Pixels, lower: Pixels) -> Pixels:
    """16-bit values from their upper and lower bytes."""
    return (upper.astype(np.uint16) << 8) | lower


# ---------------------------------------------------------------- scaling


def range_of(kind: str, pixels: Pixels, transparent: npt.NDArray[np.bool_] | None = None) -> Range:
    """The smallest and the largest value, without opacity.

    Args:
        kind: of the pixels.
        pixels: (H, W) or (H, W, 2 to 4).
        transparent: mask (H, W) of pixels that do not count, unless all are transparent.

    Raises:
        ValueError: a value is not finite.
    """
    colours = _without_opacity(pixels)
    if transparent is not None and not transparent.all():
        colours = colours[~transparent]
    low, high = colours.min(), colours.max()
    if not np.isfinite(low) or not np.isfinite(high):
        raise ValueError("not finite")
    return Range(kind, float(low), float(high))


def common_scales(found: Iterable[Range]) -> Scales:
    """The scale of each kind of pixels in a data set, from the ranges of its images.

    16-bit pixels are divided by the smallest of `TOPS` that is not below their maximum; 32-bit
    and floating-point ones go from their minimum to their maximum.
    """
    ranges = list(found)
    kinds = (kind for kind in (SIXTEEN, INTEGER, FLOAT) if any(r.kind == kind for r in ranges))
    return tuple(_scale([r for r in ranges if r.kind == kind]) for kind in kinds)


def _scale(ranges: Sequence[Range]) -> Range:
    kind, low, high = ranges[0].kind, min(r.low for r in ranges), max(r.high for r in ranges)
    if kind == SIXTEEN:
        return Range(kind, 0, next(top for top in TOPS if high <= top))
    return Range(kind, low, high)


def scales_text(scales: Scales) -> str:
    """In words: 16 bit from 0..4095."""
    return ", ".join(f"{kind} from {low:.7g}..{high:.7g}" for kind, low, high in scales)


def eight_bit(pixels: Pixels, scale: Range) -> npt.NDArray[np.uint8]:
    """Pixels (H, W) or (H, W, 2 to 4) brought to 0..255."""
    result = np.empty(pixels.shape, np.uint8)
    width = max(1, pixels.shape[1])
    factor = 255 / (scale.high - scale.low) if scale.high > scale.low else 0.0
    for top in range(0, len(pixels), rows := max(1, STRIP // width)):
        strip = pixels[top : top + rows].astype(np.float64)
        result[top : top + rows] = np.rint(((strip - scale.low) * factor).clip(0, 255))
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        result[..., -1] = _opacity(pixels[..., -1])
    return result


def _opacity(values: Pixels) -> npt.NDArray[Any]:
    """Opacity (H, W) scaled to 0..255, by the smallest of `TOPS` that is not below its maximum."""
    top = next(top for top in TOPS if values.max(initial=0) <= top)
    return np.rint(values * (255 / top))


def _without_opacity(pixels: Pixels) -> Pixels:
    return pixels[..., :-1] if pixels.ndim == 3 and pixels.shape[2] in (2, 4) else pixels
