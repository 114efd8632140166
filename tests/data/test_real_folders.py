"""Folders and lists as people have them: used as they are meant, or refused in one clear line."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image

from tests.helpers.errors import one_line
from tests.helpers.own_images import class_folders, csv_of, picture, rows_of
from tests.helpers.real_folders import CASES, chunk, deep, outcome_of, png, png16
from tests.helpers.runs import ROOT, sgd_influence
from utils.data import decode
from utils.data.datasets import prepare
from utils.data.depth import (
    FLOAT,
    SIXTEEN,
    Range,
    common_scales,
    deep_pixels,
    eight_bit,
    is_deep,
)
from utils.data.set_names import UNLABELLED, set_name
from utils.data.source import CACHE_VARIABLE, TEST, TRAINING, VALIDATION
from utils.data.splits import draw_split
from utils.errors import UserError


@pytest.mark.parametrize("name", CASES)
def test_what_becomes_of_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    outcome = outcome_of(CASES[name], tmp_path)
    assert outcome.word == CASES[name].expected, outcome.line


# ---------------------------------------------------------------- broken images


def break_images(folder: Path, numbers: tuple[int, ...]) -> Path:
    for file in [sorted(folder.rglob("*.png"))[number] for number in numbers]:
        file.write_bytes(file.read_bytes()[:60])
    return folder


@pytest.mark.parametrize("numbers", [(0, 5, 9), (3, 5, 11), (0, 1, 2)])
def test_the_count_is_the_same_whichever_image_is_broken(
    numbers: tuple[int, ...], tmp_path: Path
) -> None:
    folder = break_images(class_folders(tmp_path / "images"), numbers)
    with pytest.raises(UserError) as caught:
        prepare(str(folder), tmp_path / "data", False, 8)
    (path,) = (tmp_path / "data").rglob("data_problems.csv")
    one_line(caught, f"3 broken images, listed in {path}; --skip_broken")
    table = pd.read_csv(path)
    assert list(table) == ["file", "row", "problem", "remedy"] and len(table) == 3


def test_the_list_names_rows_and_goes_when_all_is_mended(tmp_path: Path) -> None:
    csv = csv_of(tmp_path, rows_of())
    whole = (csv.parent / "cat/1.png").read_bytes()
    (csv.parent / "cat/1.png").write_bytes(whole[:60])
    with pytest.raises(UserError):
        prepare(str(csv), tmp_path / "data", False, 8)
    (path,) = (tmp_path / "data").rglob("data_problems.csv")
    row = pd.read_csv(path).iloc[0]
    assert (row["file"], row["row"]) == (str(csv.parent / "cat/1.png"), 4)
    (csv.parent / "cat/1.png").write_bytes(whole)
    prepare(str(csv), tmp_path / "data", False, 8)
    assert not path.exists()


def test_what_was_left_out_and_scaled_is_in_block_manifest_and_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    folder, output = deep("uint16", 0, 3000)(tmp_path), tmp_path / "out"
    (folder / "cat" / "x.png").write_bytes(b"none")
    run = f"-ds {folder} -e 1 -r 0 -nt 1 --methods Random --model mlp --image_size 8"
    assert sgd_influence(output, run, small="") == 2
    assert not output.exists()
    assert sgd_influence(output, f"{run} --skip_broken", small="") == 0
    printed = capsys.readouterr().out
    assert "Left out       1 broken image, listed in " in printed
    assert "Pixels         16 bit from 0..4095 to 0..255, the same for all images" in printed
    data = json.loads((output / "manifest.json").read_text())["options"]["data"]
    assert data.endswith("; 16 bit from 0..4095; 1 left out")
    problems = pd.read_csv(output / "summary/data_problems.csv")
    assert problems["file"].tolist() == [str(folder / "cat/x.png")]
    page = (output / "report/index.html").read_text()
    assert "1 broken image left out" in page and str(folder / "cat/x.png") in page


def test_a_subset_of_one_class_is_refused(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "images", 2)
    for number in range(60):
        picture(folder / "cat" / f"more{number}.png", 1000 + number)
    source = prepare(str(folder), tmp_path / "data", False, 8)
    with pytest.raises(UserError) as caught:
        draw_split(source, 0, 2, None, None)
    one_line(caught, "training images drawn are all of one class, 'cat'", "raise --n_train")


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "kind", "others"),
    [
        ("train", TRAINING, ()), ("seg_train", TRAINING, ("seg",)), ("training_set", TRAINING, ()),
        ("train_images", TRAINING, ()), ("VALID", VALIDATION, ()), ("val2017", VALIDATION, ()),
        ("testset", TEST, ()), ("test-1", TEST, ()), ("TestData", TEST, ()),
        ("dev", VALIDATION, ()), ("eval", VALIDATION, ()), ("pred", UNLABELLED, ()),
        ("trainval", TRAINING, ()),
        ("train_val", TRAINING, ()), ("train_test", None, ()), ("test_tube", TEST, ("tube",)),
        ("trainer", None, ("trainer",)), ("latest", None, ("latest",)), ("cat", None, ("cat",)),
        ("interval", None, ("interval",)), ("3", None, ()),
    ],
)  # fmt: skip
def test_names_of_sets(name: str, kind: str | None, others: tuple[str, ...]) -> None:
    assert set_name(name) == (kind, others)


PROGRAMS = {
    "eval_sgd_influence.py": "run_path('eval_sgd_influence.py', run_name='__main__')",
    "eval_influence_functions.py": "run_path('eval_influence_functions.py', run_name='__main__')",
    "python -m utils.page": "run_module('utils.page', run_name='__main__')",
    "python -m utils.review": "run_module('utils.review', run_name='__main__')",
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_other_systems_get_one_line(program: str, system: str) -> None:
    pretend = f"import sys, runpy; sys.platform = {system!r}; sys.argv = ['', '--help']"
    run = f"{pretend}; runpy.{PROGRAMS[program]}"
    done = subprocess.run([sys.executable, "-c", run], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"{program}: error: this program runs on Linux only; on Windows use WSL2, on a Mac a Linux "
        "container or virtual machine"
    ]


# ---------------------------------------------------------------- pixels of more than 8 bits

NUMBERS = np.random.default_rng(0).integers(0, 4096, (5, 7, 3)).astype(np.uint16)


def ppm(kind: bytes) -> bytes:
    if kind == b"P6":
        return b"P6\n7 5\n65535\n" + NUMBERS.astype(">u2").tobytes()
    return b"P3\n# none\n7 5\n65535\n" + b" ".join(b"%d" % value for value in NUMBERS.ravel())


def tiff(
    order: Literal["<", ">"],
    pixels: npt.NDArray[Any],
    white_is: int = 1,
    planes: int = 1,
    number: int = 1,
) -> bytes:
    """A TIFF file of numbers (H, W, C) in this order of bytes, "<" or ">".

    Args:
        order: of bytes.
        pixels: of one channel, or in colour.
        white_is: 0 or 1, what white is in gray.
        planes: 1, or 2 for channels one after the other.
        number: 1 unsigned, 2 signed, 3 floating point.
    """
    height, width, channels = pixels.shape
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    bits = struct.pack(f"{order}{channels}H", *[8 * pixels.itemsize] * channels)
    more = bits if channels > 1 else b""
    of_bits = 8 + len(data) if channels > 1 else 8 * pixels.itemsize
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, of_bits), (259, 3, 1, 1)]
    tags += [(262, 3, 1, 2 if channels > 1 else white_is), (273, 4, 1, 8), (277, 3, 1, channels)]
    tags += [(278, 3, 1, height), (279, 4, 1, len(data)), (284, 3, 1, planes), (339, 3, 1, number)]
    entries = b"".join(
        struct.pack(f"{order}HHI", *tag[:3])
        + struct.pack(f"{order}HH" if tag[1] == 3 and tag[2] == 1 else f"{order}I",
                      *((tag[3], 0) if tag[1] == 3 and tag[2] == 1 else (tag[3],)))
        for tag in tags
    )  # fmt: skip
    start = struct.pack(f"{order}HI", 42, 8 + len(data) + len(more))
    name = b"II" if order == "<" else b"MM"
    return name + start + data + more + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


WITH_OPACITY = np.concatenate([NUMBERS, np.full((5, 7, 1), 65535, np.uint16)], 2)
DEEP = {
    "PNG colour": (png16(NUMBERS), NUMBERS),
    "PNG colour with opacity": (png16(WITH_OPACITY), WITH_OPACITY),
    "PNG gray with opacity": (png16(WITH_OPACITY[..., 2:]), WITH_OPACITY[..., 2:]),
    "PPM": (ppm(b"P6"), NUMBERS),
    "PPM as text": (ppm(b"P3"), NUMBERS),
    "TIFF, Intel": (tiff("<", NUMBERS), NUMBERS),
    "TIFF, Motorola": (tiff(">", NUMBERS), NUMBERS),
    "TIFF, 32 bit": (tiff("<", NUMBERS[..., :1].astype(np.uint32) << 20), None),
}


@pytest.mark.parametrize("name", DEEP)
def test_all_bits_are_read(name: str) -> None:
    content, expected = DEEP[name]
    stream = io.BytesIO(content)
    with Image.open(stream) as image:
        assert is_deep(image)
        found = deep_pixels(image, stream)
    assert found is not None
    if expected is None:
        expected = NUMBERS[..., 0].astype(np.uint32) << 20
    np.testing.assert_array_equal(found[1], expected)


WHITE_AS_ZERO: dict[str, tuple[npt.NDArray[Any], int]] = {
    "8 bit": ((NUMBERS[..., :1] // 16).astype(np.uint8), 1),
    "12 of 16 bit": (NUMBERS[..., :1], 1),
    "floating point": (NUMBERS[..., :1].astype(np.float32), 3),
}
"""Pixels, and the kind of their numbers."""


@pytest.mark.parametrize("name", WHITE_AS_ZERO)
def test_white_as_zero_is_inverted(name: str, tmp_path: Path) -> None:
    """To the gray levels that the same numbers have where black is 0."""
    found, (pixels, number) = [], WHITE_AS_ZERO[name]
    for white_is in (0, 1):
        (tmp_path / "a.tif").write_bytes(tiff("<", pixels, white_is, number=number))
        found.append(decode.decode_file(str(tmp_path / "a.tif"), decode.Form()).pixels)
    np.testing.assert_array_equal(found[0], 255 - found[1])
    assert np.ptp(found[0].astype(int)) > 200


PLANAR = np.moveaxis(NUMBERS, -1, 0).reshape(NUMBERS.shape)
REFUSED = {
    "planes": (tiff("<", PLANAR, planes=2), "a TIFF of 16-bit RGB, in planes, which is not read"),
    "signed": (
        tiff("<", NUMBERS[..., :1].astype(np.int8), number=2),
        "a TIFF of signed 8-bit pixels, which is not read",
    ),
    "half": (tiff("<", NUMBERS)[:20], "a TIFF file that is truncated, damaged or of a kind"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_tiff_that_would_be_misread_is_refused(name: str, tmp_path: Path) -> None:
    content, problem = REFUSED[name]
    (tmp_path / "a.tif").write_bytes(content)
    assert decode.survey_file(str(tmp_path / "a.tif")).problem.startswith(problem)


def test_a_truncated_avif_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.avif")
    content = (tmp_path / "a.avif").read_bytes()
    (tmp_path / "a.avif").write_bytes(content[: len(content) // 2])
    problem = decode.survey_file(str(tmp_path / "a.avif")).problem
    assert problem == "a truncated or damaged AVIF image"


@pytest.mark.parametrize("channels", [1, 3])
def test_the_transparent_colour_of_sixteen_bits_becomes_white(
    channels: int, tmp_path: Path
) -> None:
    pixels = NUMBERS[..., :channels].copy()
    pixels[0, 0] = pixels[2, 3] = 65535  # which does not count for the scale
    named = chunk(b"tRNS", pixels[2, 3].astype(">u2").tobytes())
    (tmp_path / "a.png").write_bytes(png16(pixels, named))
    found = decode.decode_file(str(tmp_path / "a.png"), decode.Form()).pixels
    white = (pixels == pixels[2, 3]).all(-1)
    assert white.sum() >= 2
    assert (found[white] == 255).all()
    np.testing.assert_array_equal(found[~white], eight_bit(pixels, Range(SIXTEEN, 0, 4095))[~white])


@pytest.mark.parametrize(("bits", "factor"), [(2, 85), (4, 17)])
def test_the_transparent_level_of_two_and_four_bits_becomes_white(
    bits: int, factor: int, tmp_path: Path
) -> None:
    """Pillow multiplies the pixels, but not the level."""
    levels = np.arange(8 // bits, dtype=np.uint8)
    packed = sum(int(level) << (8 - bits * (n + 1)) for n, level in enumerate(levels))
    header = struct.pack(">IIBBBBB", len(levels), 1, bits, 0, 0, 0, 0)
    parts = {b"IHDR": header, b"tRNS": b"\0\1", b"IDAT": zlib.compress(bytes([0, packed]))}
    content = png(*(chunk(*part) for part in (parts | {b"IEND": b""}).items()))
    (tmp_path / "a.png").write_bytes(content)
    found = decode.decode_file(str(tmp_path / "a.png"), decode.Form()).pixels
    assert found.ravel().tolist() == [0, 255, *(factor * levels[2:]).tolist()]


def test_sixteen_bit_gray_with_opacity_is_gray(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png16(WITH_OPACITY[..., 2:]))
    assert not decode.survey_file(str(tmp_path / "a.png")).colour


@pytest.mark.parametrize(("high", "top"), [(1, 255), (255, 255), (256, 1023), (4095, 4095),
                                           (4096, 16383), (65535, 65535)])  # fmt: skip
def test_sixteen_bits_are_divided_by_the_next_top(high: int, top: int) -> None:
    ranges = [Range(SIXTEEN, 3, 1), Range(SIXTEEN, 5, high), Range(FLOAT, -1, 7)]
    assert common_scales(ranges) == (Range(SIXTEEN, 0, top), Range(FLOAT, -1, 7))


def test_eight_bits_in_sixteen_come_out_as_they_are() -> None:
    pixels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    np.testing.assert_array_equal(eight_bit(pixels, Range(SIXTEEN, 0, 255)), pixels)


@pytest.mark.parametrize("orientation", [0, 9])
def test_an_orientation_that_is_none_is_upright(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[decode.ORIENTATION] = orientation
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png", exif=exif)
    assert decode.decode_file(str(tmp_path / "a.png"), decode.Form(8, 3)).conversions == ()
