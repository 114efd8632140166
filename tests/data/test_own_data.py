"""A user's own images: every way in, and what becomes of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sgd_influence.cleanse import cleansed_table
from tests.helpers.own_images import (
    class_folders,
    csv_of,
    csv_with_further_columns,
    picture,
    rows_of,
)
from tests.helpers.runs import sgd_influence
from utils.data import decode
from utils.data.datasets import prepare
from utils.data.decode import Form, decode_file, room_for
from utils.data.depth import Range
from utils.data.source import CACHE_VARIABLE, Source
from utils.data.splits import TrialData, draw_split, load_trial
from utils.errors import UserError
from utils.output.storage import save_csv

RUN = "-e 1 -r 0 2 -nt 1 --model mlp --image_size 8 --context cpu"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def prepared(path: Path, image_size: int | None = 8, color: str = "auto") -> Source:
    return prepare(str(path), None, False, image_size, color)


def trial(source: Source, seed: int = 0) -> TrialData:
    return load_trial(source, draw_split(source, seed, None, None, None))


def sizes(source: Source) -> tuple[int, int, int]:
    data = trial(source)
    return len(data.training), len(data.validation), len(data.test)


def names(table: pd.DataFrame) -> list[str]:
    return [Path(path).name for path in table["x:image"]]


# ---------------------------------------------------------------- ways in


@pytest.mark.parametrize("kind", ["class folders", "one CSV", "folder with one CSV"])
def test_one_set_is_parted_70_15_15(tmp_path: Path, kind: str) -> None:
    if kind == "class folders":
        path = class_folders(tmp_path / "images", 20)
    else:
        csv = csv_of(tmp_path, rows_of())
        class_folders(csv.parent, 20)
        csv.write_text("\n".join(["x:image,y:label", *rows_of(40)]))
        path = csv if kind == "one CSV" else csv.parent
    source = prepared(path)
    assert sizes(source) == (28, 6, 6)
    for table in (source.training, source.test):
        assert len(set(np.bincount(table["y:label"]))) == 1
    assert source.class_names == (("cat", "dog") if kind == "class folders" else ("0", "1"))
    assert source.name == "images" and source.folder.name.startswith("images_")
    classes = pd.read_csv(source.folder / "classes.csv", dtype=str)
    assert classes["name"].tolist() == list(source.class_names)


def test_the_test_set_is_fixed_and_the_validation_set_follows_the_seed(tmp_path: Path) -> None:
    path = class_folders(tmp_path / "images", 20)
    source, again = prepared(path), prepared(path)
    pd.testing.assert_frame_equal(source.test, again.test)
    assert trial(source, 1).test.paths == trial(source, 0).test.paths
    assert trial(source, 1).validation.paths != trial(source, 0).validation.paths
    assert trial(source, 1).validation.paths == trial(again, 1).validation.paths


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
@pytest.mark.parametrize("train", ["train", "training"])
def test_split_folders_are_recognised(tmp_path: Path, train: str, name: str) -> None:
    root = tmp_path / "images"
    for folder, number in ((train, 4), (name, 3), ("test", 2)):
        class_folders(root / folder, number, 1000 * number)
    source = prepared(root)
    assert sizes(source) == (8, 6, 4)
    data = trial(source)
    assert all(f"/{name}/" in path for path in data.validation.paths)
    assert all("/test/" in path for path in data.test.paths)
    assert source.class_names == ("cat", "dog")


def test_split_folders_without_validation_and_without_test(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "data_cleansing")
    for folder, number in (("train", 20), ("test", 3)):
        class_folders(tmp_path / "a" / folder, number, 1000 * number)
    for folder, number in (("train", 20), ("val", 5)):
        class_folders(tmp_path / "b" / folder, number, 1000 * number)
    assert sizes(prepared(tmp_path / "a")) == (34, 6, 6)
    assert sizes(prepared(tmp_path / "b")) == (40, 5, 5)
    assert "No validation set: 6 images are drawn from the training set" in caplog.text
    printed = "No test set: of the validation set 5 stay and 5 become the test set"
    assert printed in caplog.text


def test_classes_may_be_called_train_and_test(tmp_path: Path) -> None:
    for number, name in enumerate(("train", "test", "plane")):
        for image in range(5):
            picture(tmp_path / "images" / name / f"{image}.png", 10 * number + image)
    assert prepared(tmp_path / "images").class_names == ("plane", "test", "train")


def test_number_folders_sort_by_value_and_images_may_lie_deeper(tmp_path: Path) -> None:
    for number in (0, 2, 10):
        for image in range(4):
            picture(tmp_path / f"images/{number}/deep/er/{image}.png", 10 * number + image)
    assert prepared(tmp_path / "images").class_names == ("0", "2", "10")


def test_csv_files_are_recognised_by_name(tmp_path: Path) -> None:
    csv = csv_of(tmp_path, rows_of())
    for name, rows in (
        ("my_train_list.csv", rows_of()[:6]),
        ("valid.csv", rows_of()[6:10]),
        ("Test.CSV", rows_of()[10:]),
    ):
        csv.with_name(name).write_text("\n".join(["x:image,y:label", *rows]))
    csv.unlink()
    source = prepared(csv.parent)
    assert sizes(source) == (6, 4, 2)
    assert trial(source).test.paths[0] == str(csv.parent / "cat/5.png")


def test_class_folders_go_before_a_csv_file_of_another_kind(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "images")
    (folder / "notes.csv").write_text("file,price\na,1\n")
    assert prepared(folder).class_names == ("cat", "dog")


@pytest.mark.parametrize(
    "header", ["x:image,y:label", "x:image,y:label;cat", "x,y", "x:photo,y:kind"]
)
def test_headers_as_nnc_writes_them(tmp_path: Path, header: str) -> None:
    assert len(prepared(csv_of(tmp_path, rows_of(), header)).training) == 10


def test_the_table_of_names_goes_before_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folders(tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    assert prepare("digits", None, False).n_classes == 10
    assert prepare("./digits", None, False).n_classes == 2


def test_the_only_image_of_a_class_stays_in_training(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "images", 20)
    only = picture(folder / "emu" / "only.png", 300)
    source = prepared(folder)
    assert str(only) in set(source.training["x:image"])
    assert all(str(only) in trial(source, seed).training.paths for seed in range(10))


# ---------------------------------------------------------------- formats and kinds of pixels

FORMATS: dict[str, dict[str, Any]] = {
    "a.png": {}, "a.jpg": {}, "a.JPEG": {}, "a.gif": {}, "a.bmp": {}, "a.tif": {}, "a.tiff": {},
    "a.webp": {"lossless": True},
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_formats(tmp_path: Path, name: str) -> None:
    path = picture(tmp_path / name, 0, "RGB", (16, 16), **FORMATS[name])
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode_file(str(path), Form(16, 3)).pixels, expected)


@pytest.mark.parametrize(
    ("mode", "suffix", "kinds", "channels"),
    [
        ("L", "png", (), 1), ("RGB", "png", (), 3), ("1", "png", ("black and white",), 1),
        ("P", "png", ("palette",), 3), ("RGBA", "png", ("transparent",), 3),
        ("LA", "png", ("transparent",), 1), ("CMYK", "jpg", ("CMYK",), 3),
        ("I;16", "png", ("16 bit",), 1), ("I;16", "tif", ("16 bit",), 1),
        ("CMYK", "tif", ("CMYK",), 3),
    ],
)  # fmt: skip
def test_kinds_of_pixels(
    tmp_path: Path, mode: str, suffix: str, kinds: tuple[str, ...], channels: int
) -> None:
    path = tmp_path / f"a.{suffix}"
    if mode == "I;16":
        Image.fromarray(np.full((8, 8), 0x1234, np.uint16)).save(path)
    else:
        picture(path, mode=mode)
    decoded = decode_file(str(path), Form(8, scales=(Range("16 bit", 0, 65535),)))
    assert decoded.conversions == kinds and decoded.pixels.shape == (8, 8, channels)
    assert decode.survey_file(str(path)).colour == (channels == 3)
    if mode == "I;16":
        assert (decoded.pixels == 0x12).all()


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (10, 20, 30, 0)).save(tmp_path / "a.png")
    assert (decode_file(str(tmp_path / "a.png"), Form(8, 3)).pixels == 255).all()


def test_a_gray_palette_is_gray(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", mode="L")
    with Image.open(tmp_path / "a.png") as image:
        image.convert("P").save(tmp_path / "a.gif")
    assert not decode.survey_file(str(tmp_path / "a.gif")).colour


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_entries_of_a_palette_that_no_pixel_has_make_no_colour(tmp_path: Path, suffix: str) -> None:
    """Pillow's own palette has colours."""
    drawing = Image.new("L", (8, 8))
    drawing.paste(255, (2, 2, 6, 6))
    path = tmp_path / f"a.{suffix}"
    drawing.convert("RGB").convert("P").save(path)
    assert not decode.survey_file(str(path)).colour
    assert decode_file(str(path), Form(8)).pixels.shape == (8, 8, 1)


def test_of_several_frames_the_first_counts(tmp_path: Path) -> None:
    frames = [Image.new("L", (8, 8), value) for value in (40, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    decoded = decode_file(str(tmp_path / "a.gif"), Form(8, 1))
    assert "first of several frames" in decoded.conversions
    assert (decoded.pixels == 40).all()


def test_exif_turns_the_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[decode.ORIENTATION] = 6  # the camera was held upright: turn by 90 degrees clockwise
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, :8] = 255  # the left half, which comes to the top
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    decoded = decode_file(str(tmp_path / "a.png"), Form(16, 3))
    assert decoded.conversions == ("turned by EXIF",)
    assert (decoded.pixels[:8] == 255).all() and (decoded.pixels[8:] == 0).all()


def test_conversions_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = class_folders(tmp_path / "images")
    picture(folder / "cat/palette.png", 50, "P")
    picture(folder / "dog/gray.png", 51, "L")
    picture(folder / "dog/wide.png", 52, size=(30, 8))
    picture(folder / "dog/large.jpg", 53, "CMYK", size=(20, 20))
    caplog.set_level("INFO", "data_cleansing")
    prepared(folder)
    printed = [r.getMessage() for r in caplog.records if "converted" in r.getMessage()]
    (line,) = printed
    head, kinds = line.split(": ")
    assert head == "4 images converted to 8x8 px RGB"
    assert sorted(kinds.split(", ")) == sorted(
        ["1 palette", "1 gray to RGB", "1 cropped", "1 CMYK", "1 resized"]
    )


# ---------------------------------------------------------------- one size, one colour


@pytest.mark.parametrize(
    ("sides", "side"), [((8, 8, 8), 32), ((40, 50, 300), 50), ((500, 40, 600), 128)]
)
def test_the_default_size_is_the_median_within_32_to_128(
    tmp_path: Path, sides: tuple[int, ...], side: int
) -> None:
    for number in range(6):
        for label in ("a", "b"):
            size = (sides[number % 3], sides[number % 3] + number)
            picture(tmp_path / f"images/{label}/{number}.png", number + 10 * (label == "b"),
                    size=size)  # fmt: skip
    assert prepared(tmp_path / "images", None).form == Form(side, 3)


@pytest.mark.parametrize(
    ("modes", "color", "channels"),
    [
        ("L", "auto", 1), ("RGB", "auto", 3), (("L", "RGB"), "auto", 3),
        ("RGB", "gray", 1), ("L", "rgb", 3),
    ],
)  # fmt: skip
def test_colour(tmp_path: Path, modes: str | tuple[str, ...], color: str, channels: int) -> None:
    for number, mode in enumerate((modes,) if isinstance(modes, str) else modes):
        class_folders(tmp_path / "images", 6 - number, 0, mode)
    data = trial(prepared(tmp_path / "images", 8, color))
    assert data.training.images.shape[1:] == (8, 8, channels)


def test_size_and_colour_of_named_data(cache: Path) -> None:
    source = prepare("digits", None, False, 16, "rgb")
    data = load_trial(source, draw_split(source, 0, 20, 20, 20))
    assert data.training.images.shape == (20, 16, 16, 3)


# ---------------------------------------------------------------- many, and large


def test_processes_give_what_one_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = class_folders(tmp_path / "images", 10)
    alone = prepared(folder)
    monkeypatch.setattr(decode, "SERIAL_BELOW", 5)
    monkeypatch.setattr(decode, "CHUNK", 7)
    together = prepared(folder)
    assert together.fingerprint == alone.fingerprint
    assert together.pool is not None and alone.pool is not None
    np.testing.assert_array_equal(together.pool.images, alone.pool.images)


def test_what_is_too_large_for_the_memory_is_mapped(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = class_folders(tmp_path / "images", 10)
    in_memory = prepared(folder)
    monkeypatch.setattr(decode, "free_memory", lambda: 1)
    mapped = prepared(folder)
    assert mapped.pool is not None and isinstance(mapped.pool.images, np.memmap)
    assert in_memory.pool is not None and not isinstance(in_memory.pool.images, np.memmap)
    rows = np.array([2, 1, 2])
    for images, expected in zip(
        (trial(mapped).training, trial(mapped).test),
        (trial(in_memory).training, trial(in_memory).test),
        strict=True,
    ):
        np.testing.assert_array_equal(images.images[rows], expected.images[rows])
        np.testing.assert_array_equal(images.images[1:3], expected.images[:][1:3])
    kinds = {path.suffix for path in cache.rglob("*") if path.is_file()}
    assert kinds == {".csv", ".npz"}


def test_memory_is_mapped_beyond_half_of_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "free_memory", lambda: 40)
    assert not isinstance(room_for((20,), tmp_path), np.memmap)
    assert isinstance(room_for((21,), tmp_path), np.memmap)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- whole runs


def test_from_a_folder_to_the_picture(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "images", 20)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    output = tmp_path / "out"
    assert sgd_influence(output, f"-ds {folder} {RUN}", small="") == 0
    assert (output / "fig/result.png").stat().st_size > 0
    influence = pd.read_csv(output / "influence/Hara/influence_hara_0.csv")
    assert len(influence) == 28
    assert set(influence["x:image"]) <= set(map(str, before))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("change", ["content", "name", "label", "less"])
def test_changed_data_are_not_mixed_with_earlier_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    folder, output = class_folders(tmp_path / "images", 8), tmp_path / "out"
    command = f"-ds {folder} {RUN} --methods Random -r 0"
    assert sgd_influence(output, command, small="") == 0
    first = json.loads((output / "manifest.json").read_text())["options"]["data"]
    image = folder / "cat/3.png"
    if change == "content":
        picture(image, 999)
    elif change == "less":
        image.unlink()
    else:
        image.rename(folder / ("cat/other.png" if change == "name" else "dog/other.png"))
    assert sgd_influence(output, command, small="") == 2
    printed = capsys.readouterr().err
    known = first.rsplit(" ", 1)[0] if change == "less" else first  # without its digest
    assert f"the data was {known}, now " in printed and "holds results of other options" in printed


# ---------------------------------------------------------------- paths of the data set


def test_what_is_behind_a_link_and_two_dots_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the system finds it, not what a path with `..` taken out would name."""
    there, lookalike = class_folders(tmp_path / "store/v2/images"), tmp_path / "images"
    class_folders(lookalike, first=500)
    (tmp_path / "store/v2/sub").mkdir()
    (tmp_path / "link").symlink_to("store/v2/sub")
    monkeypatch.chdir(tmp_path)
    for name in ("images", "list.csv"):
        if name == "list.csv":
            for folder in (there, lookalike):
                (folder.parent / name).write_text(
                    "\n".join(["x:image,y:label", *(f"images/{row}" for row in rows_of()), ""])
                )
        source = prepared(Path("link/..") / name)
        assert all(path.startswith(f"{there}/") for path in source.training["x:image"])


def test_a_folder_that_may_not_be_searched_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may search every folder, so the system's refusal is put in its place."""
    folder, stat = class_folders(tmp_path / "images"), os.stat

    def refused(path: Any, **more: Any) -> os.stat_result:
        if str(path).startswith(f"{folder}/"):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **more)

    monkeypatch.setattr(os, "stat", refused)
    with pytest.raises(UserError, match=r"images: Permission denied; make the folder readable and"):
        prepared(folder)


def test_test_images_are_drawn_only_where_there_are_none(tmp_path: Path) -> None:
    for name in ("one", "two/train", "two/test"):
        class_folders(tmp_path / name)
    assert prepared(tmp_path / "one").test_drawn
    assert not prepared(tmp_path / "two").test_drawn
    assert not prepare("digits", None, False).test_drawn


def test_points_and_boxes_are_not_a_list_of_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = class_folders(tmp_path / "images")
    (folder / "boxes.csv").write_text("filename,x,y,w,h\ncat/0.png,0,0,8,8\n")
    assert prepared(folder).class_names == ("cat", "dog")
    (folder / "points.csv").write_text("x,y\n1,2\n0.5,3\n")
    assert prepared(folder).class_names == ("cat", "dog")
    assert "boxes.csv not used" in caplog.text and "points.csv" in caplog.text


def test_the_same_folder_written_otherwise_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folders(tmp_path / "images", 10)
    monkeypatch.chdir(tmp_path)
    for name in ("images", "images/", "./images", str(tmp_path / "images")):
        command = f"-ds {name} --methods Random --no_report {RUN}"
        assert sgd_influence(tmp_path / "out", command, small="") == 0


def test_a_list_says_that_a_later_test_list_is_next_to_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    csv = csv_of(tmp_path, rows_of()).rename(tmp_path / "images/AUM_train_cleansed_1.csv")
    for name in ("test_cleansed.csv", "test_cleansed.new.csv"):
        csv.with_name(name).write_text("x:image,y:label\ncat/5.png,0\ndog/5.png,1\n")
    prepared(csv)
    assert "test_cleansed.new.csv next to it is of a later run" in caplog.text


def test_class_names_replace_a_column_that_does_not_name_the_labels(tmp_path: Path) -> None:
    rows = [f"{path},{('cat', 'dog')[int(label)]},animal" for path, label in
            (row.split(",") for row in rows_of())]  # fmt: skip
    source = prepared(csv_of(tmp_path, rows, "x:image,y:label,#class"))
    kept = cleansed_table(source.training, source.training.head(1), source.class_names)
    assert set(zip(kept["y:label"], kept["#class"], strict=True)) == {(0, "cat"), (1, "dog")}


def test_csv_files_next_to_class_folders_say_what_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder = class_folders(tmp_path / "pets")
    for name, rows in (("train.csv", rows_of(8)), ("test.csv", rows_of()[8:])):
        (folder / name).write_text("\n".join(["x:image,y:label", *rows, ""]))
    (folder / "more.csv").write_text("filename,label\ncat/0.png,cat\n")
    prepared(folder)
    read = "sets are read: training from train.csv, test from test.csv; its folders are not used"
    assert f"{folder}: {read}" in caplog.text
    assert f"{folder}: not used: more.csv" in caplog.text


# ---------------------------------------------------------------- further columns


def test_stray_quotation_marks_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notes = ["", '"5 inch', "", "", '6 inch"', *[""] * 7]
    rows = [f"{row},{note}" for row, note in zip(rows_of(), notes, strict=True)]
    prepared(csv_of(tmp_path, rows, "x:image,y:label,note"))
    text = "images.csv: row 3: 1 value of the column 'note' with line breaks: is a quotation mark"
    assert text in caplog.text


def test_a_column_without_a_name_stays_without(tmp_path: Path) -> None:
    """As pandas writes its index."""
    rows = [f"{n},{row}" for n, row in enumerate(rows_of())]
    rows = [f"{row},," for row in rows]  # and empty cells, as spreadsheets write them
    source = prepared(csv_of(tmp_path, rows, ",x:image,y:label,,"))
    assert list(source.training) == ["", "x:image", "y:label"]


def test_further_columns_pass_through_unchanged(tmp_path: Path) -> None:
    """Into the CSV files of the splits and the cleansed list, texts as they are, in their order."""
    table = csv_with_further_columns(tmp_path / "images" / "all.csv", 40)
    source = prepared(tmp_path / "images" / "all.csv")
    split = draw_split(source, 0, None, None, None)
    cleansed = tmp_path / "cleansed.csv"
    kept = cleansed_table(source.training, source.training.head(3), source.class_names)
    save_csv(kept, cleansed)
    given = table.set_index("x:image", drop=False)
    paths = (split.files.training, split.files.validation, split.files.test, cleansed)
    for path in paths:
        written = pd.read_csv(path, dtype=str, keep_default_na=False)
        assert list(written) == list(table)
        names_of = written["x:image"].map(lambda image: Path(image).name)
        expected = given.loc[names_of].assign(**{"x:image": list(written["x:image"])})
        assert written.to_numpy().tolist() == expected.to_numpy().tolist()
    assert sum(len(pd.read_csv(path)) for path in paths[:3]) == 40
    again = prepared(cleansed)  # as a data set, the list has them still
    assert list(again.training) == list(table)
