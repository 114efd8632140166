"""Copies and facts: what is found, what is not, and that a rerun does not look again."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image, ImageFilter, ImageOps

from tests.helpers.own_images import class_folders, csv_of, picture, rows_of
from utils.data import decode
from utils.data.checks import IMAGES, Checks
from utils.data.copies import COPIES, PAIR, TWO_LABELS, TWO_SETS, find_pairs, near_hashes
from utils.data.datasets import prepare
from utils.data.image_facts import facts_of, short
from utils.data.looks import LOOK, look_at, table_of
from utils.output.folder import OutputFolder
from utils.run.pipeline import record_checks


def scene(seed: int, size: tuple[int, int] = (64, 64), mode: str = "RGB") -> Image.Image:
    """A picture of large random shapes with sharp edges."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(blocks).convert(mode).resize(size, Image.Resampling.NEAREST)


def saved(image: Image.Image, path: Path, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **more)
    return path


def looks_of(*images: Image.Image) -> npt.NDArray[np.void]:
    return table_of([look_at(image, image.size, 32) for image in images])


def looks_of_files(*paths: Path) -> npt.NDArray[np.void]:
    form = decode.Form(32, 3)
    return decode.decode_chunk([str(path) for path in paths], form, (32, 32, 3), True)[3]


def checks_of(path: Path) -> Checks:
    checks = prepare(str(path), None, False).checks
    assert checks is not None
    return checks


def output(tmp_path: Path) -> OutputFolder:
    (tmp_path / "out").mkdir()
    return OutputFolder(tmp_path / "out")


# ---------------------------------------------------------------- the same pixels


def test_the_same_pixels_in_other_files(tmp_path: Path) -> None:
    image, gray = scene(0), scene(1, mode="L")
    jpeg = [
        saved(image, tmp_path / f"{number}.jpg", quality=90, comment=comment)
        for number, comment in enumerate((b"one", b"two"))
    ]
    looks = looks_of_files(
        saved(image, tmp_path / "a.png", compress_level=1),
        saved(image, tmp_path / "b.png", compress_level=9),
        saved(image, tmp_path / "c.bmp"),
        saved(gray, tmp_path / "gray.png"),
        saved(gray.convert("RGB"), tmp_path / "colour.png"),
        *jpeg,
    )
    pixels = [tuple(row) for row in looks["pixels"]]
    assert len({*pixels[:3]}) == len({*pixels[3:5]}) == len({*pixels[5:]}) == 1
    assert len(set(pixels)) == 3


def test_pictures_that_only_shrink_to_the_same_are_not_the_same() -> None:
    one = np.asarray(scene(0, (1024, 1024))).copy()
    other = one.copy()
    other[1::2, :], other[::2, :] = one[::2, :], one[1::2, :]
    looks = looks_of(Image.fromarray(one), Image.fromarray(other))
    assert (one != other).any() and (looks["thumb"][0] == looks["thumb"][1]).all()
    assert (looks["pixels"][0] != looks["pixels"][1]).any()


def test_a_large_picture_is_hashed_whole() -> None:
    image = scene(0, (700, 900))
    changed = image.copy()
    changed.putpixel((699, 899), (1, 2, 3))
    looks = looks_of(image, changed, image.copy())
    assert (looks["pixels"][0] == looks["pixels"][2]).all()
    assert (looks["pixels"][0] != looks["pixels"][1]).any()


# ---------------------------------------------------------------- pairs


@pytest.mark.parametrize("radius", [0, 3, 6])
def test_near_hashes_are_those_of_all_pairs(radius: int) -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 60, dtype=np.uint64)
    flipped = [hashes[i] ^ np.uint64(sum(1 << int(b) for b in rng.permutation(64)[: i % 9]))
               for i in range(60)]  # fmt: skip
    values = np.unique(np.concatenate([hashes, np.array(flipped, np.uint64)]))
    found = [tuple(row) for part in near_hashes(values, radius) for row in part]
    expected = {
        (a, b, d)
        for a, b in itertools.combinations(range(len(values)), 2)
        if (d := bin(int(values[a] ^ values[b])).count("1")) <= radius
    }
    assert len(found) == len(set(found))
    assert {(min(a, b), max(a, b), d) for a, b, d in found} == expected


def records(pictures: list[int]) -> npt.NDArray[np.void]:
    looks = np.zeros(len(pictures), LOOK)
    looks["pixels"][:, 0] = pictures
    return looks


def pairs_of(looks: npt.NDArray[np.void], labels: str, sets: str) -> npt.NDArray[np.void]:
    return find_pairs(looks, *(np.array([ord(c) for c in text]) for text in (labels, sets)))


def test_pairs_connect_a_group_and_show_each_contradiction() -> None:
    pairs = pairs_of(records([7] * 6), "aaabaa", "tttttv")
    assert pairs.dtype == PAIR and len(pairs) == 5 and set(pairs["group"]) == {1}
    two_labels = pairs[pairs["kind"] == 0]
    assert {*two_labels["a"], *two_labels["b"]} == set(range(6))
    assert len(two_labels) == 5


def test_kinds_and_order_of_pairs() -> None:
    pairs = pairs_of(records([1, 1, 2, 2, 3, 3, 4]), "aaaaaba", "ttvtttt")
    assert pairs[["a", "b", "kind", "distance", "group"]].tolist() == [
        (4, 5, 0, 0, 1), (2, 3, 1, 0, 2), (0, 1, 2, 0, 3)
    ]  # fmt: skip


def test_many_equal_pictures_give_few_pairs() -> None:
    assert len(pairs_of(records([1] * 3000), "a" * 3000, "t" * 3000)) == 2999


def test_nearly_the_same_picture_is_found(tmp_path: Path) -> None:
    image = scene(0)
    looks = looks_of_files(
        saved(image, tmp_path / "a.png"),
        saved(image, tmp_path / "b.jpg", quality=60),
        saved(image.resize((90, 90)), tmp_path / "c.png"),
        *(saved(scene(1 + n), tmp_path / f"other{n}.png") for n in range(20)),
    )
    pairs = pairs_of(looks, "a" * 23, "t" * 23)
    assert {*pairs["a"], *pairs["b"]} == {0, 1, 2} and len(pairs) == 2
    assert (pairs["distance"] > 0).all() and (pairs["distance"] <= 6).all()


def test_an_equal_hash_alone_makes_no_pair() -> None:
    looks = looks_of(scene(0), scene(1))
    looks["hash"] = 5
    assert len(pairs_of(looks, "ab", "tt")) == 0


def test_blank_pictures_are_no_near_copies() -> None:
    blank = [Image.new("RGB", (32, 32), (level, level, level)) for level in (10, 200)]
    assert len(pairs_of(looks_of(*blank), "ab", "tt")) == 0


# ---------------------------------------------------------------- facts


def test_facts() -> None:
    images = {
        "blank": Image.new("RGB", (64, 64), (120, 130, 140)),
        "very dark": scene(1).point(lambda level: level // 8),
        "very bright": ImageOps.expand(scene(2, (12, 12)), 26, "white"),
        "blurred": scene(3).filter(ImageFilter.GaussianBlur(5)),
        "odd size": scene(4, (16, 16)),
        "odd aspect ratio": scene(5, (128, 40)),
    }
    plain = [scene(10 + n) for n in range(10)]
    facts = facts_of(looks_of(*images.values(), *plain))
    assert {fact.name: np.flatnonzero(fact.holds).tolist() for fact in facts} == {
        name: [number] for number, name in enumerate(images)
    }


def test_large_pictures_are_measured_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [scene(n) for n in range(5)]
    whole = looks_of(*pictures)
    monkeypatch.setattr("utils.data.looks.MEASURED", 1)
    assert looks_of(*pictures).tobytes() == whole.tobytes()


def test_measurements_have_three_digits_or_are_whole() -> None:
    assert [short(value) for value in (0.012345, 12.345, 99.97, 2773.4)] == [
        "0.0123", "12.3", "100", "2773"]  # fmt: skip


def test_what_is_usual_is_not_odd() -> None:
    strips = [scene(n, (160, 32)).filter(ImageFilter.GaussianBlur(4)) for n in range(9)]
    held = {fact.name: fact.holds.sum() for fact in facts_of(looks_of(*strips, scene(9)))}
    assert (held["odd aspect ratio"], held["odd size"], held["blurred"]) == (1, 0, 0)


# ---------------------------------------------------------------- a user's images


def test_a_contradiction_in_folders(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for number in range(6):
        saved(scene(number), root / "train" / "cat" / f"{number}.png")
        saved(scene(10 + number), root / "train" / "dog" / f"{number}.png")
        saved(scene(20 + number), root / "test" / "dog" / f"{number}.png")
    saved(scene(0), root / "train" / "dog" / "again.bmp")
    saved(scene(11), root / "test" / "dog" / "again.png", compress_level=0)
    checks = checks_of(root)
    assert checks.duplicates.drop(columns=["group", "row", "row_2"]).values.tolist() == [
        [TWO_LABELS, 0, str(root / "train/cat/0.png"), "cat", "training",
         str(root / "train/dog/again.bmp"), "dog", "training"],
        [TWO_SETS, 0, str(root / "train/dog/1.png"), "dog", "training",
         str(root / "test/dog/again.png"), "dog", "test"],
    ]  # fmt: skip
    counts = checks.quality[checks.quality["fact"] == IMAGES]
    assert counts[["set", "label", "value"]].values.tolist() == [
        ["training", "cat", "6"], ["training", "dog", "7"], ["test", "dog", "7"]
    ]  # fmt: skip


def test_rows_of_a_list_and_the_set_that_is_drawn(tmp_path: Path) -> None:
    csv = csv_of(tmp_path, [*rows_of(), *rows_of()])
    source = prepare(str(csv), None, False)
    assert source.checks is not None
    table = source.checks.duplicates
    assert {(int(a), int(b)) for a, b in zip(table["row"], table["row_2"], strict=True)} == {
        (row, row + 12) for row in range(2, 14)
    }
    drawn = source.test["x:image"].value_counts()
    inside = {path for path, n in drawn.items() if n == 1}
    assert inside and set(table[table["kind"] == TWO_SETS]["x:image"]) == inside
    assert set(table["kind"]) <= {TWO_SETS, COPIES}


def test_a_rerun_does_not_look_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = class_folders(tmp_path / "images")
    picture(root / "dog" / "copy.png", 0)
    first = checks_of(root)
    looked: list[object] = []

    def noted(*given: Any) -> Any:
        looked.append(given)
        return look_at(*given)

    monkeypatch.setattr(decode, "look_at", noted)
    again = checks_of(root)
    assert not looked
    pd.testing.assert_frame_equal(again.duplicates, first.duplicates)
    pd.testing.assert_frame_equal(again.quality, first.quality)
    (root / "dog" / "copy.png").unlink()
    assert checks_of(root).duplicates.empty and len(looked) == 12


@pytest.mark.parametrize("name", ["image_looks.npz", "image_pairs.npz"])
def test_kept_files_that_are_damaged_are_made_again(
    tmp_path: Path, data_cache: Path, name: str
) -> None:
    root = class_folders(tmp_path / "images")
    picture(root / "dog" / "copy.png", 0)
    first = checks_of(root)
    folder = prepare(str(root), None, False).folder
    (folder / name).write_bytes(b"PK\3\4 cut")
    pd.testing.assert_frame_equal(checks_of(root).duplicates, first.duplicates)
    assert len((folder / name).read_bytes()) > 100


def test_named_data_sets_are_not_checked() -> None:
    assert prepare("digits", None, False).checks is None


def test_one_line_each_and_two_tables(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = class_folders(tmp_path / "images")
    picture(root / "dog" / "copy.png", 0)
    saved(Image.new("L", (8, 8)), root / "dog" / "black.png")
    checks, folder = checks_of(root), output(tmp_path)
    caplog.clear()
    caplog.set_level("INFO", "data_cleansing")
    record_checks(checks, folder)
    copies, facts = (record.getMessage() for record in caplog.records)
    assert copies.startswith("Copies: 1 pair of the same picture (1 with two labels); listed in")
    assert copies.endswith(f"listed in {folder.duplicates}")
    assert "1 blank, 1 very dark" in facts and facts.endswith(f"listed in {folder.image_quality}")
    for path, table in (
        (folder.duplicates, checks.duplicates), (folder.image_quality, checks.quality)
    ):  # fmt: skip
        written = pd.read_csv(path, dtype=str, keep_default_na=False)
        assert written.values.tolist() == table.astype(str).values.tolist()


def test_copies_are_listed_among_pictures_that_look_like_them() -> None:
    """Two copies next to many pictures of another label that all look like them."""
    first, rng = scene(0), np.random.default_rng(0)
    others = []
    for _ in range(12):
        pixels = np.asarray(first).astype(int) + rng.integers(-1, 2, np.asarray(first).shape)
        others.append(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
    looks = looks_of(first, *others, first)
    pairs = find_pairs(looks, np.array([0, *[1] * 12, 0]), np.zeros(14, int))
    same = pairs[pairs["distance"] == 0]
    assert same[["a", "b"]].tolist() == [(0, 13)]
    assert len(pairs) > 1


def test_similar_pictures_are_counted_apart_from_copies() -> None:
    rows = [(TWO_LABELS, 0), (COPIES, 0), (COPIES, 0), (TWO_LABELS, 1), (TWO_SETS, 5)]
    table = pd.DataFrame(rows, columns=["kind", "distance"])
    assert Checks(table)._about_copies() == (
        "Copies: 3 pairs of the same picture (1 with two labels, 2 of the same label and set), "
        "2 pairs of similar pictures (1 with two labels, 1 in two sets)"
    )


def test_nothing_is_reported_where_nothing_is_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checks = checks_of(class_folders(tmp_path / "images"))
    caplog.clear()
    caplog.set_level("INFO", "data_cleansing")
    record_checks(checks, output(tmp_path))
    assert not caplog.records
