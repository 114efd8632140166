"""From the bytes of an image file to unsigned bytes of one size and colour.

Kept light, because worker processes import it: no pandas, no nnabla.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tempfile
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from utils.errors import UserError
from utils.signals import LOOK_EVERY, stop_if_asked

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
FORMAT_NAMES = "PNG, JPEG, GIF, BMP, TIFF or WebP"
MIN_SIDE, MAX_SIDE = 32, 128  # pixels, unless a size is asked for
GRAY_MODES = ("1", "L", "LA", "La", "F")
ORIENTATION = 0x0112  # EXIF tag; 1 is upright
CHUNK = 100  # images that one worker takes at once
SERIAL_BELOW = 2000  # images; for fewer, starting processes costs more than they save
MOST_WORKERS = 8

UInt8 = npt.NDArray[np.uint8]
T = TypeVar("T")


@dataclass(frozen=True)
class Form:
    """What images become: squares of `side` px, of `channels` 1 or 3; None leaves them alone."""

    side: int | None = None
    channels: int | None = None


class Finding(NamedTuple):
    """What a look at a file finds: hash of its bytes, shorter side in px, colour; or a problem."""

    digest: bytes
    shorter: int
    colour: bool
    problem: str


class Decoded(NamedTuple):
    """One image, uint8 (H, W, C), and in which ways it was converted."""

    pixels: UInt8
    conversions: tuple[str, ...]


def common_side(side: float) -> int:
    """The side in px that images of shorter side `side` get by default: 32 to 128."""
    return round(min(max(side, MIN_SIDE), MAX_SIDE))


# ---------------------------------------------------------------- one file


def survey_file(path: str) -> Finding:
    """Look at the bytes and the header of an image file; nothing is raised."""
    try:
        content = _content(path)
        with _opened(content) as image:
            digest = hashlib.blake2b(content, digest_size=16).digest()
            return Finding(digest, min(image.size), _is_colour(image), "")
    except Exception as error:  # a broken file may raise anything in a decoder
        return Finding(b"", 0, False, problem_of(error))


def decode_file(path: str, form: Form) -> Decoded:
    """Decode an image file; what is wrong with it is raised as whatever the decoder raises."""
    with _opened(_content(path)) as image:
        conversions = ["first of several frames"] if getattr(image, "n_frames", 1) > 1 else []
        if image.getexif().get(ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
            conversions.append("turned by EXIF")
        pixels, kind = _eight_bit(image)
        conversions += [kind] if kind else []
    if form.side:
        conversions += _fitting(pixels.size, form.side)
        pixels = _fitted(pixels, form.side)
    mode = {1: "L", 3: "RGB", None: pixels.mode}[form.channels]
    if mode != pixels.mode:
        conversions.append("gray to RGB" if mode == "RGB" else "colour to gray")
        pixels = pixels.convert(mode)
    array = np.asarray(pixels)
    return Decoded(array.reshape(*array.shape[:2], -1), tuple(conversions))


def problem_of(error: Exception) -> str:
    """What a failed decoding says about the file, in a few words."""
    if isinstance(error, UnidentifiedImageError):
        return f"not an image in {FORMAT_NAMES}"
    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        return f"its header announces more than {limit} million pixels"
    if isinstance(error, _Refused):
        return str(error)
    return getattr(error, "strerror", None) or "not a whole image"


class _Refused(ValueError):
    """Says what is wrong with an image."""


def _content(path: str) -> bytes:
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise _Refused("a folder, not a file")
    if not stat.S_ISREG(mode):
        raise _Refused("not a plain file")
    with open(path, "rb") as stream:
        content = stream.read()
    if not content:
        raise _Refused("the file is empty")
    return content


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    Image.init()  # knows all formats from here on
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about odd metadata
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            yield image


def _is_colour(image: Image.Image) -> bool:
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette() or [], np.uint8).reshape(-1, 3)
        return bool((palette != palette[:, :1]).any())
    return image.mode not in GRAY_MODES and not image.mode.startswith("I")


def _eight_bit(image: Image.Image) -> tuple[Image.Image, str]:
    """`image` as "L" if it is gray, else as "RGB", and what it was if something else."""
    if image.mode == "F":
        raise _Refused("its pixels are floating-point numbers; save it with 8 or 16 bit")
    if image.mode.startswith("I"):  # Pillow's own conversion cuts at 255
        upper = (np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)
        return Image.fromarray(upper), "16 bit"
    mode = "RGB" if _is_colour(image) else "L"
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return _on_white(image.convert("RGBA")).convert(mode), "transparent"
    kinds = {"P": "palette", "1": "black and white", "L": "", "RGB": ""}
    return image.convert(mode), kinds.get(image.mode, image.mode)


def _on_white(image: Image.Image) -> Image.Image:
    """What a page shows of an RGBA image."""
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _fitting(size: tuple[int, int], side: int) -> list[str]:
    width, height = size
    return ["cropped"] * (width != height) + ["resized"] * (min(size) != side)


def _fitted(image: Image.Image, side: int) -> Image.Image:
    """The central square of `image`, brought to `side` px by bilinear interpolation."""
    square = min(image.size)
    left, top = ((length - square) // 2 for length in image.size)
    box = (left, top, left + square, top + square)
    if side == square:
        return image.crop(box)
    return image.resize((side, side), Image.Resampling.BILINEAR, box)


# ---------------------------------------------------------------- many files


def survey_chunk(paths: Sequence[str]) -> list[Finding]:
    """`survey_file` of several."""
    return [survey_file(path) for path in paths]


def decode_chunk(
    paths: Sequence[str], form: Form, shape: tuple[int, int, int]
) -> tuple[UInt8, Counter[str], list[tuple[int, str]]]:
    """Decode several images to one shape (H, W, C).

    Returns uint8 (N, H, W, C), how many were converted in which way (all of them as ""), and
    position and problem of those that failed.
    """
    images, counts = np.zeros((len(paths), *shape), np.uint8), Counter[str]()
    problems: list[tuple[int, str]] = []
    for position, path in enumerate(paths):
        try:
            decoded = decode_file(path, form)
            _check_shape(decoded.pixels, shape)
        except Exception as error:  # a broken file may raise anything in a decoder
            problems.append((position, problem_of(error)))
            continue
        images[position] = decoded.pixels
        counts.update({*decoded.conversions, ""} if decoded.conversions else ())
    return images, counts, problems


def _check_shape(pixels: UInt8, shape: tuple[int, int, int]) -> None:
    if pixels.shape != shape:
        sizes = f"{size_text(pixels.shape)} where the first image has {size_text(shape)}"
        raise _Refused(f"{sizes}; all need one size and colour, give --image_size and --color")


def size_text(shape: Sequence[int]) -> str:
    """A shape (H, W, C) in words: 28x28 px gray."""
    height, width, channels = shape
    return f"{width}x{height} px {'gray' if channels == 1 else 'RGB'}"


def over_chunks(
    function: Callable[..., T], paths: Sequence[str], *more: Any
) -> Iterator[tuple[slice, T]]:
    """Results of `function(chunk of paths, *more)`, in order, by several processes if many."""
    starts = range(0, len(paths), CHUNK)
    parts = [slice(start, start + CHUNK) for start in starts]
    chunks = (paths[part] for part in parts)
    if len(paths) < SERIAL_BELOW:
        results: Iterator[T] = (function(chunk, *more) for chunk in chunks)
    else:
        results = _by_processes(function, chunks, more)
    try:
        yield from zip(parts, results, strict=True)
    except BrokenProcessPool as error:
        stop_if_asked()  # what ends the run may have ended the processes first
        raise UserError(
            f"a process that read {paths[0]} and other images died, killed or for want of memory; "
            "free some memory, and the same command reads them again"
        ) from error


def _by_processes(
    function: Callable[..., T], chunks: Iterable[Sequence[str]], more: Sequence[Any]
) -> Iterator[T]:
    """Results in the order of `chunks`, of which few wait."""
    from joblib import cpu_count

    from utils.processes import Pool, live_under

    n_workers = min(cpu_count(), MOST_WORKERS)
    pool = Pool(n_workers, initializer=live_under, initargs=(os.getpid(),))
    waiting: deque[Future[T]] = deque()
    try:
        for chunk in chunks:
            waiting.append(pool.submit(function, chunk, *more))
            if len(waiting) > 2 * n_workers:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())
    finally:
        pool.end()


def _result(future: Future[T]) -> T:
    """Wait for a result; a signal ends that."""
    done = False
    while not done:
        stop_if_asked()
        done = bool(wait([future], LOOK_EVERY).done)
    return future.result()


def room_for(shape: tuple[int, ...], folder: Path | None) -> UInt8:
    """An array for decoded images: a nameless file in `folder` if memory is short for it.

    That is, if it takes more than half of the memory that is free now.
    """
    size = int(np.prod(shape))
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if folder is None or size <= free // 2:
        return np.empty(shape, np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:  # the mapping keeps it until it ends
        _take_space(file.fileno(), size, folder)
        return np.memmap(file, np.uint8, "w+", shape=shape)


def _take_space(descriptor: int, size: int, folder: Path) -> None:
    """Take the space of a file to be mapped: on a full disk a mapping ends the process later."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(folder)) from error
