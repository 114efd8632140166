"""Reading image sets, normalising and augmenting them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from utils.data.datasets import prepare
from utils.data.decode import Form, common_side, decode_chunk, survey_file
from utils.data.depth import SIXTEEN, Range
from utils.data.images import ImageSet, augment, decode_images, normalise
from utils.data.nnc_csv import read_users_csv
from utils.data.source import Source
from utils.data.splits import Split, SplitFiles, load_trial
from utils.errors import UserError


def save_image(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def random_pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def write_csv(folder: Path, *rows: str) -> Path:
    path = folder / "images.csv"
    path.write_text("\n".join(("x:image,y:label", *rows, "")), encoding="utf-8")
    return path


def load_set(csv: Path, form: Form) -> ImageSet:
    """The images that a CSV file names, as a trial has them."""
    table, _ = read_users_csv(csv)
    table["y:label"] = table["y:label"].astype(int)
    rows, n_classes = np.arange(len(table)), 10
    source = Source(
        name="some", folder=csv.parent, training=table, test=table, n_classes=n_classes,
        class_names=("",) * n_classes, fingerprint="", form=form, damping=0.1, n_validation=0,
    )  # fmt: skip
    return load_trial(source, Split(rows, rows, rows, SplitFiles(csv, csv, csv))).training


# ---------------------------------------------------------------- reading


def test_gray_images_keep_one_channel_and_their_order(tmp_path: Path) -> None:
    pixels = random_pixels(2, 8, 8)
    for number in (0, 1):
        save_image(tmp_path / "sub" / f"{number}.png", pixels[number])
    csv = write_csv(tmp_path, "sub/1.png,7", f"{tmp_path}/sub/0.png,3")
    images = load_set(csv, Form())
    assert images.images.shape == (2, 8, 8, 1) and images.images.dtype == np.uint8
    np.testing.assert_array_equal(images.images[..., 0], pixels[::-1])
    assert images.labels.dtype == np.int32 and images.labels.tolist() == [7, 3]
    assert images.paths == (str(tmp_path / "sub/1.png"), str(tmp_path / "sub/0.png"))
    assert len(images) == 2


def test_colour_images_are_exact_and_palettes_become_rgb(tmp_path: Path) -> None:
    pixels = random_pixels(8, 8, 3)
    save_image(tmp_path / "a.png", pixels)
    Image.fromarray(pixels).quantize(8).save(tmp_path / "b.png")
    images = load_set(write_csv(tmp_path, "a.png,0", "b.png,1"), Form()).images
    assert images.shape == (2, 8, 8, 3)
    np.testing.assert_array_equal(images[0], pixels)


def test_sixteen_bit_gray_is_brought_to_eight_bits_by_the_scale_given(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png", np.array([[0, 255], [256, 65535]], np.uint16))
    form = Form(scales=(Range(SIXTEEN, 0, 65535),))
    images = load_set(write_csv(tmp_path, "a.png,0"), form).images
    assert images[0, :, :, 0].tolist() == [[0, 1], [1, 255]]


@pytest.mark.parametrize(
    ("size", "side"), [((28, 28), 32), ((33, 33), 33), ((200, 150), 128), ((40, 20), 32)]
)
def test_resizing_brings_sides_into_32_to_128(
    tmp_path: Path, size: tuple[int, int], side: int
) -> None:
    save_image(tmp_path / "a.png", random_pixels(*size))
    assert common_side(min(size)) == side
    images = load_set(write_csv(tmp_path, "a.png,0"), Form(side)).images
    assert images.shape == (1, side, side, 1)


def test_resizing_takes_the_central_square(tmp_path: Path) -> None:
    pixels = random_pixels(32, 40)
    save_image(tmp_path / "a.png", pixels)
    images = load_set(write_csv(tmp_path, "a.png,0"), Form(32)).images
    np.testing.assert_array_equal(images[0, :, :, 0], pixels[:, 4:36])


def test_further_columns_are_kept_and_byte_order_mark_and_crlf_are_fine(tmp_path: Path) -> None:
    csv = tmp_path / "images.csv"
    csv.write_bytes('\ufeffx:image,y:label,who\r\n"a, ü.png",2,me\r\n'.encode())
    table, given = read_users_csv(csv)
    assert table["x:image"].tolist() == [str(tmp_path / "a, ü.png")] and given == ["a, ü.png"]
    assert table["y:label"].tolist() == ["2"] and table["who"].tolist() == ["me"]


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ("missing.png,1", ["row 3", "missing.png", "No such file"]),
        ("text.png,1", ["row 3", "text.png", "not an image in PNG"]),
        ("cut.png,1", ["row 3", "cut.png", "truncated or damaged image"]),
        ("folder.png,1", ["row 3", "folder.png", "a folder"]),
        ("small.png,1", ["row 3", "small.png", "5x6 px gray", "8x8 px gray"]),
        ("colour.png,1", ["row 3", "colour.png", "8x8 px RGB", "8x8 px gray"]),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, second: str, words: list[str]) -> None:
    save_image(tmp_path / "a.png", random_pixels(8, 8))
    save_image(tmp_path / "small.png", random_pixels(6, 5))
    save_image(tmp_path / "colour.png", random_pixels(8, 8, 3))
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    (tmp_path / "folder.png").mkdir()
    csv = write_csv(tmp_path, "a.png,0", second)
    with pytest.raises(UserError) as caught:
        load_set(csv, Form())
    assert all(word in str(caught.value) for word in [str(csv), *words]), caught.value
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"x:image,y:label\n", b"image,label\na.png,0\n", b"\xff\xfe", b"a.png,0\n"]
)
def test_what_is_no_nnc_csv_is_refused(tmp_path: Path, content: bytes) -> None:
    csv = tmp_path / "images.csv"
    csv.write_bytes(content)
    with pytest.raises(UserError, match=r"images\.csv: "):
        read_users_csv(csv)


@pytest.mark.parametrize(
    ("content", "row", "words"),
    [
        ("\n\nx:image,y:label\na.png,0\n\n \ngone.png,1\n", 7, "No such file"),
        ("x:image,y:label\na.png,0\n\n,1\n", 4, "no image is named"),
        ("x:image,y:label\r\n\r\na.png,\r\n", 3, "give the class"),
        ("x:image,y:label\n\na.png,0\na.png,-1\n", 4, "whole numbers from 0"),
        ("x:image,y:label,#class\n\na.png,0," + 1001 * "c", 3, "shorten it"),
        ('x:image,y:label,who\na.png,0,"two\nlines"\n\n#gone,1,\n', 4, "a comment line"),
        ("\nx:image,y:label,y:label\na.png,0,1\n", 2, "two columns are called"),
        ("\nx:image;y:label\na.png;0\n", 2, "separated by semicolons"),
        ("\na,b\n1,2\n", 2, "a column x:image is needed"),
    ],
)
def test_empty_lines_count_as_rows(tmp_path: Path, content: str, row: int, words: str) -> None:
    save_image(tmp_path / "a.png", random_pixels(8, 8))
    csv = tmp_path / "images.csv"
    csv.write_text(content, encoding="utf-8", newline="")
    with pytest.raises(UserError) as caught:
        prepare(str(csv), None, False)
    assert f"images.csv: row {row}: " in str(caught.value) and words in str(caught.value)


def test_too_little_memory_is_not_a_damaged_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_image(tmp_path / "a.png", random_pixels(8, 8))

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("utils.data.decode._looked_at", fail)
    path = str(tmp_path / "a.png")
    for read in (
        lambda: survey_file(path),
        lambda: decode_chunk([path], Form(8), (8, 8, 1)),
        lambda: decode_images([path], Form(), str, ""),
    ):
        with pytest.raises(MemoryError):
            read()


def test_a_field_too_many_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="more fields than the header"):
        read_users_csv(write_csv(tmp_path, "a,b.png,0"))


def test_a_missing_csv_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.csv: does not exist"):
        read_users_csv(tmp_path / "none.csv")


@settings(max_examples=100, deadline=None, suppress_health_check=[*HealthCheck])
@given(content=st.binary(max_size=200) | st.binary(max_size=60).map(b"x:image,y:label\n".__add__))
def test_arbitrary_bytes_are_read_or_refused(tmp_path: Path, content: bytes) -> None:
    csv = tmp_path / "images.csv"
    csv.write_bytes(content)
    try:
        table, _ = read_users_csv(csv)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert len(table) > 0


# ---------------------------------------------------------------- normalising


def test_normalise_gray() -> None:
    images = np.array([0, 51, 255], np.uint8).reshape(1, 1, 3, 1)
    result = normalise(images)
    assert result.dtype == np.float32 and result.shape == (1, 1, 1, 3)
    np.testing.assert_allclose(result.ravel(), [-1, -0.6, 1], rtol=1e-6)


def test_normalise_colour() -> None:
    images = np.array([[0, 51, 255], [255, 0, 51]], np.uint8).reshape(1, 1, 2, 3)
    result = normalise(images)
    assert result.shape == (1, 3, 1, 2) and result.flags.c_contiguous
    expected = [
        [(0 - 0.4914) / 0.2023, (1 - 0.4914) / 0.2023],
        [(0.2 - 0.4822) / 0.1994, (0 - 0.4822) / 0.1994],
        [(1 - 0.4465) / 0.2010, (0.2 - 0.4465) / 0.2010],
    ]
    np.testing.assert_allclose(result[0, :, 0], expected, rtol=1e-5)


def test_normalise_refuses_other_shapes() -> None:
    for shape in ((1, 8, 8, 2), (8, 8, 3)):
        with pytest.raises(ValueError, match="needed"):
            normalise(np.zeros(shape, np.uint8))


# ---------------------------------------------------------------- augmenting


def naive_augment(image: np.ndarray, seed: int) -> np.ndarray:
    """One image (H, W, C), as the documentation of `augment` says it."""
    height, width, channels = image.shape
    pad = height // 8
    top, left = seed % (2 * pad + 1), seed // (2 * pad + 1) % (2 * pad + 1)
    result = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            source = row + top - pad, column + left - pad
            if 0 <= source[0] < height and 0 <= source[1] < width:
                result[row, column] = image[source]
    return result[:, ::-1] if channels == 3 and seed >= 2**63 else result


def seeds_of(count: int, rng_seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(rng_seed)
    return rng.integers(0, 2**64, count, dtype=np.uint64)


@pytest.mark.parametrize("shape", [(32, 32, 3), (8, 8, 1), (16, 24, 3), (4, 4, 1)])
def test_augment_equals_the_naive_loop(shape: tuple[int, int, int]) -> None:
    images, seeds = random_pixels(6, *shape), seeds_of(6)
    result = augment(images, seeds)
    expected = [naive_augment(i, int(s)) for i, s in zip(images, seeds, strict=True)]
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, np.stack(expected))


def test_augment_of_centre_crop_is_the_image_and_the_top_bit_flips_it() -> None:
    images = random_pixels(1, 32, 32, 3)
    centre = 4 + 9 * 4
    np.testing.assert_array_equal(augment(images, np.array([centre], np.uint64)), images)
    # 2**63 mod 81 is not 0: take the seed whose crop is the centre and whose top bit is set
    flipped = next(s for s in range(2**63, 2**63 + 81) if s % 81 == centre)
    result = augment(images, np.array([flipped], np.uint64))
    np.testing.assert_array_equal(result, images[:, :, ::-1])


def test_the_whole_range_of_crops_occurs_and_half_the_images_are_flipped() -> None:
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[0, 16, 10] = 255  # moves to row 16 + 4 - top, column 10 + 4 - left, or its mirror
    result = augment(np.repeat(image, 4000, 0), seeds_of(4000))
    _, rows, columns = np.nonzero(result[..., 0])
    assert set(rows) == set(range(12, 21))
    assert set(columns) == {*range(6, 15), *range(17, 26)}
    assert abs(np.mean(columns >= 17) - 0.5) < 0.05  # 6 standard deviations


def test_augment_of_an_image_depends_on_its_own_seed_alone() -> None:
    images, seeds = random_pixels(9, 32, 32, 3), seeds_of(9)
    order = np.array([5, 2, 8, 0])
    np.testing.assert_array_equal(
        augment(images, seeds)[order], augment(images[order], seeds[order])
    )


def test_augment_leaves_its_input_alone() -> None:
    images = random_pixels(5, 8, 8, 3)
    before = images.copy()
    augment(images, seeds_of(5))[:] = 0
    np.testing.assert_array_equal(images, before)


def test_gray_is_never_flipped() -> None:
    images, seeds = random_pixels(50, 32, 32, 1), seeds_of(50)
    top_bit = np.uint64(2**63)
    period = np.uint64(81)  # of the crop
    moved = seeds % period
    assert (seeds >= top_bit).any()
    np.testing.assert_array_equal(augment(images, seeds), augment(images, moved))
