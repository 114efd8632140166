"""From the bytes of an image file to unsigned bytes of one size and colour.

Kept light, because worker processes import it: no pandas, no nnabla.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import tempfile
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from utils.data.depth import (
    Range,
    Scales,
    common_scales,
    deep_pixels,
    eight_bit,
    is_deep,
    is_gray_with_opacity,
    misread,
    range_of,
    scale_transparent,
    transparent_in,
    white_is_zero,
)
from utils.data.looks import Look, look_at, table_of
from utils.data.png import without_metadata
from utils.errors import UserError
from utils.files import check_regular
from utils.output.usage import free_memory
from utils.signals import LOOK_EVERY, stop_if_asked
from utils.units import shown_bytes

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
FORMAT_NAMES = "PNG, JPEG, GIF, BMP, TIFF, WebP, PPM, JPEG 2000 or AVIF"
MIN_SIDE, MAX_SIDE = 32, 128  # pixels, unless a size is asked for
PALETTE_MODES = ("P", "PA")
GRAY_MODES = ("1", "L", "LA", "La", "F")
ORIENTATION = 0x0112  # EXIF tag; 1 is upright
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image of another orientation upright."""
NOT_IMAGES = {
    rb"version https://git-lfs": "a Git LFS pointer instead of the image; run git lfs pull",
    rb"\s*<(!doctype )?html": "a web page instead of an image; download the image again",
    rb".{4}ftyp(heic|heix|hevc|heim|heis|mif1|msf1)": "a HEIC image, which is not read; convert it "
    "(pip install pillow-heif)",
    rb"%PDF": "a PDF file, not an image; convert it",
    rb"\s*(<\?xml[^>]*>\s*)?(<!--[^>]*-->\s*)?<svg": "an SVG drawing, which has no pixels; convert "
    "it",
    rb"PK\x03\x04": "a zip archive, not an image; unpack it",
    rb"II[*+]\x00|MM\x00[*+]": "a TIFF file that is truncated, damaged or of a kind that is not "
    "read; convert it",
    rb".{4}ftypavi[fs]": "a truncated or damaged AVIF image",
}
"""Beginnings of files that cannot be opened but often have the name of an image."""
LARGE = 10_000_000  # pixels above which a JPEG file is decoded at a smaller size
UNCHECKED = 32_000_000  # bytes that decoding may take without a check of the free memory
STRIP = 250_000  # pixels that are converted at once
PROCESS = 100_000_000  # bytes of a decoding process without its images
CHUNK = 100  # images that one worker takes at once
SERIAL_BELOW = 2000  # images; for fewer, starting processes costs more than they save
MOST_WORKERS = 8

UInt8 = npt.NDArray[np.uint8]
T = TypeVar("T")


CROP, PAD, STRETCH = "crop", "pad", "stretch"  # values of --resize


@dataclass(frozen=True)
class Form:
    """What images become: squares of one size and colour.

    Attributes:
        side: in px; None keeps the size.
        channels: 1 or 3; None keeps the colour.
        resize: "crop" keeps the central square, "pad" all of the image within black borders,
            "stretch" all of it without its aspect ratio.
        scales: by kind of pixels of more than 8 bits, the values that become 0 and 255; for other
            kinds, the smallest and largest value of the image.
    """

    side: int | None = None
    channels: int | None = None
    resize: str = CROP
    scales: Scales = ()

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(H, W, C) of the images; None where it follows from them."""
        if self.side is None or self.channels is None:
            return None
        return self.side, self.side, self.channels


class Finding(NamedTuple):
    """What a look at a file finds; with a problem, only the problem.

    Attributes:
        digest: hash of the bytes of the file.
        shorter, longer: sides in px.
        colour: whether it is in colour.
        problem: what is wrong; empty if nothing.
        memory: bytes to decode it at full size.
        range: of its pixels if they have more than 8 bits, else None.
    """

    digest: bytes
    shorter: int
    colour: bool
    problem: str
    memory: int = 0
    longer: int = 0
    range: Range | None = None


class Decoded(NamedTuple):
    """One image, uint8 (H, W, C), and in which ways it was converted."""

    pixels: UInt8
    conversions: tuple[str, ...]


def common_side(side: float) -> int:
    """The side in px that images of shorter side `side` get by default: 32 to 128."""
    return round(min(max(side, MIN_SIDE), MAX_SIDE))


# ---------------------------------------------------------------- one file


def survey_file(path: str) -> Finding:
    """Look at the bytes and the header of an image file; nothing but a MemoryError is raised.

    The pixels are read only of images of more than 8 bits, and of those with a palette.
    """
    try:
        digest = _digest(path)
        return _read(path, lambda image, stream: _finding(digest, image, stream))
    except Exception as error:  # a broken file may raise anything in a decoder
        return Finding(b"", 0, False, problem_of(error))


def _finding(digest: bytes, image: Image.Image, stream: IO[bytes]) -> Finding:
    memory, size = _memory_for(image, math.prod(image.size)), image.size
    if is_deep(image) or image.mode in PALETTE_MODES:
        _check_memory(size, memory)
    colour, found = _is_colour(image), _range(image, stream) if is_deep(image) else None
    return Finding(digest, min(size), colour, "", memory, max(size), found)


def _range(image: Image.Image, stream: IO[bytes]) -> Range | None:
    deep = deep_pixels(image, stream)
    try:
        return range_of(*deep, transparent_in(image, deep[1])) if deep else None
    except ValueError as error:
        what = "has pixels that are not finite numbers; replace them by numbers"
        raise _Refused(what) from error


def decode_file(
    path: str, form: Form, seen: Callable[[Image.Image, tuple[int, int]], None] | None = None
) -> Decoded:
    """Decode an image file.

    Args:
        path: of the file.
        form: what the image becomes.
        seen: called with the upright image before it is resized, and its size in the file.

    Raises:
        Exception: whatever a decoder raises for a broken file; `problem_of` words it.
    """
    pixels, size, conversions = _upright(path, form)
    if seen:
        seen(pixels, size)
    if form.side:
        conversions += _fitting(size, form)
        pixels = _fitted(pixels, form.side, form.resize)
    mode = {1: "L", 3: "RGB", None: pixels.mode}[form.channels]
    if mode != pixels.mode:
        conversions.append("gray to RGB" if mode == "RGB" else "colour to gray")
        pixels = pixels.convert(mode)
    array = np.asarray(pixels)
    return Decoded(array.reshape(*array.shape[:2], -1), tuple(conversions))


def picture_of(path: str, shorter: int) -> Image.Image:
    """The image of a file as "L" or "RGB"; large ones may be reduced, to `shorter` px or more.

    Raises:
        Exception: as `decode_file`.
    """
    return _upright(path, Form(shorter))[0]


def _upright(path: str, form: Form) -> tuple[Image.Image, tuple[int, int], list[str]]:
    """An image as "L" or "RGB", its true size, and how it was converted.

    JPEG files of more than `LARGE` pixels are decoded at a half, a quarter or an eighth of their
    size if that leaves four times the form's side at least; reduced to that side it then differs
    from the whole image by less than a level in the mean of a photograph.
    """
    return _read(path, lambda image, stream: _made_upright(image, stream, form))


def _made_upright(
    image: Image.Image, stream: IO[bytes], form: Form
) -> tuple[Image.Image, tuple[int, int], list[str]]:
    size = image.size
    conversions = ["first of several frames"] if getattr(image, "n_frames", 1) > 1 else []
    if form.side and math.prod(size) > LARGE:
        image.draft(None, (4 * form.side, 4 * form.side))
    as_it_is = form.side is None
    _check_memory(size, _memory_for(image, math.prod(size), as_it_is=as_it_is))
    pixels, kind = _eight_bit(image, stream, form.scales)
    turn = TURNS.get(_orientation(image))
    if turn is not None:
        pixels = pixels.transpose(turn)
        conversions.append("turned by EXIF")
    if isinstance(stream, io.BytesIO):
        conversions.append("damaged metadata left out")
    return pixels, size, conversions + ([kind] if kind else [])


EACH = {"1": 1, "L": 1, "P": 1, "I;16": 2}
"""Bytes of a pixel in Pillow; 4 in other modes."""
DECODER = {"WEBP": 12, "TIFF": 3, "AVIF": 12, "JPEG2000": 16}
"""Bytes per pixel that a decoder takes in addition to the image."""


def _memory_for(image: Image.Image, in_file: int, as_it_is: bool = False) -> int:
    """Bytes of memory that it takes to decode an image.

    Args:
        image: as opened.
        in_file: pixels in the file; fewer may be decoded.
        as_it_is: whether it keeps its size.
    """
    each = EACH.get(image.mode, 4)
    converted = 1 if image.mode in GRAY_MODES or image.mode.startswith("I") else 4
    bytes_each = each + DECODER.get(image.format or "", 0)
    if _needs_conversion(image):
        bytes_each += converted
    # Pillow decodes a PNG to find metadata that may follow its pixels
    if (image.format != "PNG" or "exif" in image.info) and _orientation(image) in TURNS:
        bytes_each += 1 if image.mode in GRAY_MODES or image.mode.startswith("I") else 4
    if is_deep(image):
        bytes_each += 16  # pixels of 16 bits a colour, and their bytes
    if as_it_is:
        bytes_each += 3
    coefficients = 6 if image.info.get("progressive") else 0  # of all of a JPEG file
    return math.prod(image.size) * bytes_each + in_file * coefficients


def _check_memory(size: tuple[int, int], needed: int) -> None:
    if needed > UNCHECKED and needed > (free := free_memory()):
        raise _Refused(
            f"{size[0]}x{size[1]} px take {shown_bytes(needed)} of memory to decode, "
            f"{shown_bytes(free)} are free; free some memory, or make the image smaller"
        )


def problem_of(error: Exception) -> str:
    """What is wrong with a file, in a few words, by the error of its decoding.

    Raises:
        MemoryError: that was the error, which says nothing of the file.
    """
    if isinstance(error, MemoryError):
        raise error
    if isinstance(error, UnidentifiedImageError):
        return f"not an image in {FORMAT_NAMES}"
    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        return f"its header announces more than {limit} million pixels"
    if isinstance(error, _Refused):
        return str(error)
    if isinstance(error, PermissionError):
        return f"{error.strerror}; make it readable"
    return getattr(error, "strerror", None) or "truncated or damaged image"


class _Refused(ValueError):
    """An image that is refused; the text is the problem."""


def _content(path: str) -> IO[bytes]:
    check_regular(path)
    return open(path, "rb")


def _digest(path: str) -> bytes:
    """A hash of the content of a file."""
    digest = hashlib.blake2b(digest_size=16)
    with _content(path) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.digest()


def _read(path: str, look: Callable[[Image.Image, IO[bytes]], T]) -> T:
    """What `look` makes of an image and of the file that it is opened from.

    A PNG file that fails is tried again without its metadata: what is broken there leaves the
    pixels intact. That file is an `io.BytesIO`.
    """
    with _content(path) as stream:
        try:
            return _looked_at(stream, look)
        except (_Refused, Image.DecompressionBombError, MemoryError):
            raise
        except Exception:
            stream.seek(0)
            mended = without_metadata(stream.read())
            if mended is None:
                raise
    return _looked_at(io.BytesIO(mended), look)


def _looked_at(stream: IO[bytes], look: Callable[[Image.Image, IO[bytes]], T]) -> T:
    Image.init()  # knows all formats from here on
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about odd metadata
        with _opened(stream) as image:
            return look(image, stream)


def _opened(stream: IO[bytes]) -> Image.Image:
    """Open an image; a file of another kind that is known by its beginning is named."""
    try:
        image = Image.open(stream, formats=FORMATS)
    except UnidentifiedImageError as error:
        stream.seek(0)
        start = stream.read(512)
        for pattern, what in NOT_IMAGES.items():
            if re.match(pattern, start, re.IGNORECASE | re.DOTALL):
                raise _Refused(what) from error
        raise
    if kind := misread(image):
        raise _Refused(f"{kind}, which is not read; convert it")
    return image


def _orientation(image: Image.Image) -> int:
    """The value of EXIF's tag; metadata that cannot be read counts as none."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged metadata may raise anything
        return 1


def _is_colour(image: Image.Image) -> bool:
    if image.mode in PALETTE_MODES:
        palette = np.array(image.getpalette() or [], np.uint8).reshape(-1, 3)
        coloured = np.flatnonzero((palette != palette[:, :1]).any(axis=1))
        return bool(len(coloured)) and bool(np.isin(coloured, _entries_used(image)).any())
    gray = image.mode in GRAY_MODES or image.mode.startswith("I") or is_gray_with_opacity(image)
    return not gray


def _entries_used(image: Image.Image) -> npt.NDArray[np.int64]:
    """The entries of its palette that an image has, without those that are transparent."""
    used = np.flatnonzero(image.histogram()[:256])
    clear = image.info.get("transparency", -1)  # an entry, or the opacities of all
    if isinstance(clear, bytes):
        clear = [entry for entry, opacity in enumerate(clear) if not opacity]
    return used[~np.isin(used, clear)]


def _eight_bit(image: Image.Image, stream: IO[bytes], scales: Scales) -> tuple[Image.Image, str]:
    """`image` as "L" if it is gray, else as "RGB", and what it was if something else."""
    deep = deep_pixels(image, stream)
    if deep is not None:
        kind, values = deep
        given = (scale for scale in scales if scale.kind == kind)
        transparent = transparent_in(image, values)
        scale = next(given, None) or common_scales([range_of(kind, values, transparent)])[0]
        scaled = eight_bit(values, scale)
        if white_is_zero(image):
            scaled = ~scaled
        if transparent is not None:
            scaled[transparent] = 255
        pixels = Image.fromarray(scaled)
        return _plain(pixels, "L" if pixels.mode in GRAY_MODES else "RGB"), kind
    scale_transparent(image)
    image.load()
    mode = "RGB" if _is_colour(image) else "L"
    kinds = {"P": "palette", "1": "black and white", "L": "", "RGB": ""}
    kind = "transparent" if _is_transparent(image) else kinds.get(image.mode, image.mode)
    return _plain(image, mode), kind


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """`image` as `mode`, on white where it is transparent."""
    if _is_transparent(image):
        return _in_strips(image, mode, _on_white)
    return image if image.mode == mode else _in_strips(image, mode, lambda strip: strip)


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def _needs_conversion(image: Image.Image) -> bool:
    return image.mode not in ("L", "RGB") or _is_transparent(image)


def _in_strips(
    image: Image.Image, mode: str, change: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """`change` of an image and then its conversion to `mode`, strip by strip to save memory."""
    width, height = image.size
    rows = max(1, STRIP // width)
    changed = Image.new(mode, image.size)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        changed.paste(change(strip).convert(mode), (0, top))
    return changed


def _on_white(image: Image.Image) -> Image.Image:
    """What a page shows of a transparent image."""
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _fitting(size: tuple[int, int], form: Form) -> list[str]:
    done = {CROP: "cropped", PAD: "padded", STRETCH: "stretched"}[form.resize]
    side = max(size) if form.resize == PAD else min(size)
    return [done] * (size[0] != size[1]) + ["resized"] * (side != form.side)


def _fitted(image: Image.Image, side: int, resize: str) -> Image.Image:
    """A square of `side` px, by bilinear interpolation: `Form` describes the ways."""
    if resize == CROP:
        return _cropped(image, side)
    if resize == STRETCH or image.width == image.height:
        return image.resize((side, side), Image.Resampling.BILINEAR)
    longer = max(image.size)
    size = [max(1, round(length * side / longer)) for length in image.size]
    square = Image.new(image.mode, (side, side))
    left, top = ((side - length) // 2 for length in size)
    square.paste(image.resize((size[0], size[1]), Image.Resampling.BILINEAR), (left, top))
    return square


def _cropped(image: Image.Image, side: int) -> Image.Image:
    """The central square, brought to `side` px."""
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
    paths: Sequence[str], form: Form, shape: tuple[int, int, int], looking: bool = False
) -> tuple[UInt8, Counter[str], list[tuple[int, str]], npt.NDArray[np.void]]:
    """Decode several images to one shape (H, W, C).

    Returns uint8 (N, H, W, C), how many were converted in which way (all of them as ""),
    position and problem of those that failed, and if `looking` the looks (N,). Raises MemoryError.
    """
    looks: list[Look | None] = [None] * len(paths) if looking else []
    images, counts = np.zeros((len(paths), *shape), np.uint8), Counter[str]()
    problems: list[tuple[int, str]] = []
    for position, path in enumerate(paths):
        try:
            decoded = decode_file(path, form, _noting(looks, position, shape[0]))
            _check_shape(decoded.pixels, shape)
        except Exception as error:  # a broken file may raise anything in a decoder
            problems.append((position, problem_of(error)))
            continue
        images[position] = decoded.pixels
        counts.update({*decoded.conversions, ""} if decoded.conversions else ())
    return images, counts, problems, table_of(looks)


def chunk_bytes(n_images: int, shape: tuple[int, ...]) -> int:
    """Bytes of a chunk of images of a shape (H, W, C), and of one more while it is resized."""
    return (min(n_images, CHUNK) + 1) * math.prod(shape)


def check_room_for_chunk(n_images: int, form: Form) -> None:
    """Refuse a size of which not even a chunk of images fits into the memory that is free.

    Raises:
        UserError: it does not; without this check the system would kill the process.
    """
    side = form.side or 0
    needed = chunk_bytes(n_images, (side, side, form.channels or 3))
    if needed > UNCHECKED and needed > (free := free_memory()):
        raise UserError(
            f"--image_size {side}: {min(n_images, CHUNK)} images, which are read at a time, take "
            f"{shown_bytes(needed)} of memory, {shown_bytes(free)} are free; give a smaller size"
        )


def _noting(
    looks: list[Look | None], position: int, side: int
) -> Callable[[Image.Image, tuple[int, int]], None] | None:
    """What keeps a look at an image in `looks`; None where none are wanted."""

    def note(picture: Image.Image, size: tuple[int, int]) -> None:
        looks[position] = look_at(picture, size, side)

    return note if looks else None


def _check_shape(pixels: UInt8, shape: tuple[int, int, int]) -> None:
    if pixels.shape != shape:
        sizes = f"{size_text(pixels.shape)} where the first image has {size_text(shape)}"
        raise _Refused(f"{sizes}; all need one size and colour, give --image_size and --color")


def size_text(shape: Sequence[int]) -> str:
    """A shape (H, W, C) in words: 28x28 px gray."""
    height, width, channels = shape
    return f"{width}x{height} px {'gray' if channels == 1 else 'RGB'}"


def over_chunks(
    function: Callable[..., T], paths: Sequence[str], *more: Any, memory: int = 0
) -> Iterator[tuple[slice, T]]:
    """Results of `function(chunk of paths, *more)`, in order, by several processes if many.

    memory: bytes that an image takes at most; there are not more processes than there is room for.
    """
    starts = range(0, len(paths), CHUNK)
    parts = [slice(start, start + CHUNK) for start in starts]
    chunks = (paths[part] for part in parts)
    n_processes = _processes_for(memory)
    if len(paths) < SERIAL_BELOW or n_processes == 1:
        results: Iterator[T] = (function(chunk, *more) for chunk in chunks)
    else:
        results = _by_processes(n_processes, function, chunks, more)
    try:
        yield from zip(parts, results, strict=True)
    except BrokenProcessPool as error:
        stop_if_asked()  # what ends the run may have ended the processes first
        raise UserError(
            f"a process that read {paths[0]} and other images died, perhaps for lack of memory; "
            "free some memory and give the same command again"
        ) from error


def _by_processes(
    n_processes: int,
    function: Callable[..., T],
    chunks: Iterable[Sequence[str]],
    more: Sequence[Any],
) -> Iterator[T]:
    """Results in the order of `chunks`, of which few wait."""
    from utils.processes import Pool, live_under

    pool = Pool(n_processes, live_under, (os.getpid(),))
    waiting: deque[Future[T]] = deque()
    try:
        for chunk in chunks:
            waiting.append(pool.submit(function, chunk, *more))
            if len(waiting) > 2 * n_processes:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())
    finally:
        pool.end()


def _result(future: Future[T]) -> T:
    """Wait for a result; a signal ends that, also where results are there at once."""
    done = False
    while not done:
        stop_if_asked()
        done = bool(wait([future], LOOK_EVERY).done)
    return future.result()


def _processes_for(memory: int) -> int:
    """How many processes decode images that take so many bytes each at most; 1 is this one."""
    from joblib import cpu_count

    return max(1, min(cpu_count(), MOST_WORKERS, free_memory() // (PROCESS + memory)))


def room_for(shape: tuple[int, ...], folder: Path | None) -> UInt8:
    """An array for decoded images: a nameless file in `folder` if memory is short for it.

    That is, if it takes more than half of the memory that is free now.
    """
    size = int(np.prod(shape))
    if folder is None or size <= free_memory() // 2:
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
