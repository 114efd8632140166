"""Folders and lists as people have them: how each is built, and how it should be read.

`CASES` has all of them by name; `outcome_of` reads one. The `origin` of a case is an issue tracker,
the documentation of a tool, or a data set that many have downloaded.
"""

from __future__ import annotations

import logging
import os
import struct
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.helpers.own_images import picture
from utils.data.datasets import prepare
from utils.data.source import Source
from utils.data.splits import TrialData, draw_split, load_trial
from utils.errors import UserError

WORKS, LINE, SILENT, TRACEBACK = "works", "one clear line", "silent", "traceback"
PER_CLASS = 4
Form = Literal["NFC", "NFD"]


@dataclass(frozen=True)
class Case:
    """A folder or a list.

    Attributes:
        build: makes it in a folder and returns the path to pass.
        expected: `WORKS` or `LINE`.
        words: that the log, or the line of the error, must have.
        classes: that must be read.
        options: of `prepare`.
        right: whether the pixels or the sets are as intended.
        origin: its source.
    """

    build: Callable[[Path], Path]
    expected: str
    words: Sequence[str] = ()
    classes: Sequence[str] = ("cat", "dog")
    options: Mapping[str, Any] = field(default_factory=dict)
    right: Callable[[Source, TrialData], bool] = lambda source, data: True
    origin: str = "issue 19"


@dataclass(frozen=True)
class Outcome:
    """The result of a case: one of the four words, and the line that was reported or the error."""

    word: str
    line: str


def outcome_of(case: Case, root: Path) -> Outcome:
    """Build a case in `root` and read it as a run does, at 8 px unless its options differ."""
    path = case.build(root)
    try:
        with _logged() as lines:
            source = prepare(str(path), root / "cache", False, **{"image_size": 8, **case.options})
            data = load_trial(source, draw_split(source, 0, None, None, None))
    except UserError as error:
        text = str(error)
        clear = "\n" not in text and all(word in text for word in case.words)
        return Outcome(LINE if clear or case.expected == WORKS else TRACEBACK, text)
    except Exception as error:  # what a user would see as a traceback
        return Outcome(TRACEBACK, f"{type(error).__name__}: {error}")
    reported = all(word in "\n".join(lines) for word in case.words)
    right = source.class_names == tuple(case.classes) and case.right(source, data)
    notable = next((line for line in lines if any(word in line for word in case.words)), "")
    return Outcome(WORKS if reported and right else SILENT, notable or " / ".join(lines))


@contextmanager
def _logged() -> Iterator[list[str]]:
    """The lines that the program logs in the block, and nobody else gets."""
    log, handler = logging.getLogger("data_cleansing"), _Lines()
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield handler.lines
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


# ---------------------------------------------------------------- folders


def folders(*paths: str, n: int = PER_CLASS, **more: Any) -> Callable[[Path], Path]:
    """Folders with different images each; the root is `data`."""

    def build(root: Path) -> Path:
        for number, path in enumerate(paths):
            for image in range(n):
                picture(root / "data" / path / f"{image}.png", 100 * number + image, **more)
        return root / "data"

    return build


def both(*sets: str) -> tuple[str, ...]:
    """The class folders cat and dog in each of some folders."""
    return tuple(f"{one}/{name}" for one in sets for name in ("cat", "dog"))


def with_files(build: Callable[[Path], Path], **files: bytes | str) -> Callable[[Path], Path]:
    """What another builds, with further files; a name has `__` for `/` and `_dot_` for a dot."""

    def make(root: Path) -> Path:
        path = build(root)
        for name, content in files.items():
            file = path / name.replace("__", "/").replace("_dot_", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


def sets_of(training: int, validation: int, test: int) -> Callable[[Source, TrialData], bool]:
    """Whether so many images were read for each set; 0: there is none."""

    def right(source: Source, data: TrialData) -> bool:
        others = (len(source.validation) if source.validation is not None else 0, len(source.test))
        return (len(source.training), *others) == (training, validation, test)

    return right


def system_folders(root: Path) -> Path:
    path = folders("cat", "dog")(root)
    for name in ("@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information", "__MACOSX"):
        for place in (path, path / "cat"):
            picture(place / name / "deep" / "thumb.png", 500)
    for name in ("Thumbs.db", ".DS_Store", "cat/._0.png", "dog/desktop.ini", "cat/.hidden/1.png"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(b"no image")
    return path


def only_heic(root: Path) -> Path:
    path = folders("dog")(root)
    (path / "cat").mkdir()
    for image in range(20):
        (path / "cat" / f"{image}.heic").write_bytes(HEIC)
    return path


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)


def no_suffix(root: Path) -> Path:
    path = folders("cat", "dog")(root)
    for file in (path / "cat").iterdir():
        file.rename(file.with_suffix(""))
    return path


def decomposed_folder(root: Path) -> Path:
    names = [unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")]
    return folders(f"train/{names[0]}", "train/dog", f"test/{names[1]}", "test/dog")(root)


def undecodable(where: str) -> Callable[[Path], Path]:
    """A name in Shift-JIS, of a file or of a folder."""

    def build(root: Path) -> Path:
        path = folders("cat", "dog")(root)
        name = os.fsdecode("猫の写真".encode("cp932"))
        if where == "file":
            (path / "cat" / "0.png").rename(path / "cat" / f"{name}.png")
        else:
            (path / "cat").rename(path / name)
        return path

    return build


# ---------------------------------------------------------------- lists


def listed(
    rows: Sequence[str] | None = None, header: str = "x:image,y:label", encoding: str = "utf-8"
) -> Callable[[Path], Path]:
    """Images in cat and dog, and a CSV file with these rows and rows of all images after them."""

    def build(root: Path) -> Path:
        path = folders("cat", "dog")(root)
        lines = [header, *(rows or []), *every_row()]
        (path / "list.csv").write_text("\n".join([*lines, ""]), encoding=encoding)
        return path / "list.csv"

    return build


def every_row(separator: str = ",", slash: str = "/", labels: Sequence[str] = ()) -> list[str]:
    """A row for each of the images."""
    images = [f"{name}{slash}{image}.png" for name in ("cat", "dog") for image in range(PER_CLASS)]
    given = labels or ["cat"] * PER_CLASS + ["dog"] * PER_CLASS
    return [f"{p}{separator}{given[i % len(given)]}" for i, p in enumerate(images)]


def rows(*lines: str, **more: Any) -> Callable[[Path], Path]:
    """Images in cat and dog, and a CSV file with these lines alone."""

    def build(root: Path) -> Path:
        csv = listed(**more)(root)
        csv.write_text("\n".join([*lines, ""]), encoding="utf-8")
        return csv

    return build


def labelled(*labels: str) -> Callable[[Path], Path]:
    """A CSV file of all images with these labels in turn."""
    return rows("x:image,y:label", *every_row(labels=labels))


def composed(on_disk: Form, in_list: Form) -> Callable[[Path], Path]:
    """A list whose names are composed otherwise than on disk, of folder and file."""

    def build(root: Path) -> Path:
        csv, word = listed()(root), "Ka\u0308se \u304c"
        disk, text = (unicodedata.normalize(form, word) for form in (on_disk, in_list))
        picture(csv.parent / disk / f"{disk}.png", 700)
        csv.write_text(csv.read_text() + f"{text}/{text}.png,cat\n", encoding="utf-8")
        return csv

    return build


def sets_listed(**lists: str) -> Callable[[Path], Path]:
    """A folder with images and several CSV files."""

    def build(root: Path) -> Path:
        path = folders("cat", "dog", n=8)(root)
        for number, (name, header) in enumerate(lists.items()):
            own = [f"cat/{2 * number + i}.png,cat" for i in range(2)]
            own += [f"dog/{2 * number + i}.png,dog" for i in range(2)]
            (path / f"{name}.csv").write_text("\n".join([header, *own, ""]))
        return path

    return build


# ---------------------------------------------------------------- pixels


def deep(kind: str, low: float, high: float, of: str = "png") -> Callable[[Path], Path]:
    """Gray images of this type of numbers whose values go from `low` to `high` over the set.

    Image i of 8 is a ramp from low to low + (i + 1) / 8 of the range.
    """

    def build(root: Path) -> Path:
        for number in range(2 * PER_CLASS):
            share = (number + 1) / (2 * PER_CLASS)
            ramp = np.linspace(low, low + (high - low) * share, 64).reshape(8, 8)
            name = ("cat", "dog")[number % 2]
            file = root / "data" / name / f"{number}.{of}"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_deep(file, ramp.astype(kind))
        return root / "data"

    return build


def write_deep(file: Path, pixels: npt.NDArray[Any]) -> None:
    """Write gray (H, W) of any type, or 16-bit colour (H, W, 3) as PNG."""
    if pixels.ndim == 3:
        file.write_bytes(png16(pixels))
    elif file.suffix == ".pgm":
        height, width = pixels.shape
        file.write_bytes(b"P5 %d %d 65535\n" % (width, height) + pixels.astype(">u2").tobytes())
    else:
        Image.fromarray(pixels).save(file)


def png16(pixels: npt.NDArray[Any], more: bytes = b"") -> bytes:
    """A PNG file of 16 bits (H, W, 1 to 4), `more` before its pixels."""
    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return png(
        chunk(b"IHDR", header), more, chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")
    )


def png(*chunks: bytes) -> bytes:
    """A PNG file of these chunks."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def chunk(kind: bytes, data: bytes, damaged: bool = False) -> bytes:
    """A chunk of a PNG file, of a wrong checksum if `damaged`."""
    checksum = zlib.crc32(kind + data) ^ damaged
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def colour16(high: int, channels: int = 3) -> Callable[[Path], Path]:
    """16-bit colour of which `high` is the largest value."""

    def build(root: Path) -> Path:
        path = folders("cat", "dog")(root)
        for number, file in enumerate(sorted(path.rglob("*.png"))):
            rng = np.random.default_rng(number)
            pixels = rng.integers(0, high, (8, 8, channels), endpoint=True).astype(np.uint16)
            pixels[0, :2, :3] = ((0,) * 3, (high,) * 3)
            pixels[..., 3:] = high
            write_deep(file, pixels)
        return path

    return build


def mixed_depths(root: Path) -> Path:
    path = deep("uint16", 0, 4095)(root)
    for number in range(2):
        Image.fromarray(np.full((8, 8), 100, np.uint8)).save(path / "cat" / f"plain{number}.png")
    return path


def spread(low: int = 0, high: int = 255) -> Callable[[Source, TrialData], bool]:
    """Whether the pixels of all images together go from about `low` to about `high`."""

    def right(source: Source, data: TrialData) -> bool:
        assert source.pool is not None
        pixels = source.pool.images
        return abs(int(pixels.min()) - low) <= 2 and abs(int(pixels.max()) - high) <= 2

    return right


def one_scale(source: Source, data: TrialData) -> bool:
    """Whether the brightest pixels of the images grow as those of `deep` do."""
    assert source.pool is not None
    highest = {
        Path(path).stem: source.pool.images[row].max() for path, row in source.pool.rows.items()
    }
    expected = [round(255 * (number + 1) / 8) for number in range(8)]
    return all(abs(int(highest[str(i)]) - expected[i]) <= 1 for i in range(8))


def plain_untouched(source: Source, data: TrialData) -> bool:
    assert source.pool is not None
    plain = [row for path, row in source.pool.rows.items() if "plain" in path]
    return bool((source.pool.images[plain] == 100).all())


def with_image(name: str, content: bytes, folder: str = "cat") -> Callable[[Path], Path]:
    """Class folders of which one holds this file too."""

    def build(root: Path) -> Path:
        path = folders("cat", "dog")(root)
        (path / folder / name).write_bytes(content)
        return path

    return build


def damaged_png(*extra: bytes, after: bool = False) -> bytes:
    """A whole PNG file of 8 px with further chunks before (or after) its pixels."""
    line = zlib.compress(bytes([0, *([90] * 24)]) * 8)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", line)
    body = (pixels, *extra) if after else (*extra, pixels)
    return png(header, *body, chunk(b"IEND", b""))


def has_gray(name: str) -> Callable[[Source, TrialData], bool]:
    """Whether the image of this name came out as `damaged_png` has it."""

    def right(source: Source, data: TrialData) -> bool:
        assert source.pool is not None
        (row,) = (row for path, row in source.pool.rows.items() if path.endswith(name))
        return bool((source.pool.images[row] == 90).all())

    return right


def saved(name: str, mode: str = "RGB", **more: Any) -> Callable[[Path], Path]:
    """Class folders with images of another format."""

    def build(root: Path) -> Path:
        path = folders("cat", "dog")(root)
        for number in range(3):
            picture(path / "cat" / f"{number}{name}", 50 + number, mode, **more)
        return path

    return build


def broken_set(root: Path) -> Path:
    """Images broken in several ways, in both sets."""
    path = folders(*both("train", "test"), n=8)(root)
    whole = (path / "train/cat/1.png").read_bytes()
    (path / "train/cat/1.png").write_bytes(whole[:-40])
    (path / "train/dog/7.png").write_bytes(b"")
    (path / "test/cat/0.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    return path


def strips(root: Path) -> Path:
    return folders("cat", "dog", size=(100, 8))(root)


def lines_of(source: Source) -> list[str]:
    """The lines of the list of broken images."""
    return source.problems.read_text().splitlines() if source.problems else []


def _three_left_out(source: Source, data: TrialData) -> bool:
    counts = Counter(line.split(",")[2] for line in lines_of(source)[1:])
    return source.n_problems == 3 and len(counts) == 3 and sets_of(14, 0, 15)(source, data)


def _with_folder(path: Path, name: str) -> Path:
    (path / name).mkdir()
    return path


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _with_picture(csv: Path, name: str) -> Path:
    picture(csv.parent / name, 800)
    return csv


def _other_labels(path: Path) -> Path:
    text = (path / "test.csv").read_text().replace(",cat", ",emu").replace(",dog", ",emu")
    (path / "test.csv").write_text(text)
    return path


def _with_nan(path: Path) -> Path:
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(path / "cat" / "nan.tif")
    return path


def _all_broken(path: Path, folder: str) -> Path:
    for file in (path / folder).rglob("*.png"):
        file.write_bytes(b"broken")
    return path


def _cut(file: Path) -> Path:
    file.write_bytes(file.read_bytes()[:-300])
    return file.parents[1]


def _moved(csv: Path, name: str, *paths: str) -> Path:
    csv.rename(csv.with_name(name))
    return folders(*paths)(csv.parents[1])


HEADER = "x:image,y:label"
SETS_READ = ("sets are read: training from ",)
ZTXT = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2_000_000)))
ICC = chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(2_000_000)))

SET_CASES: dict[str, Case] = {
    "training_set/training_set, test_set/test_set": Case(
        folders(*both("training_set/training_set", "test_set/test_set")), WORKS,
        ("training from training_set/training_set, test from test_set/test_set",),
        right=sets_of(8, 0, 8), origin="Kaggle, cat and dog",
    ),
    "seg_train, seg_test, seg_pred": Case(
        folders(*both("seg_train/seg_train", "seg_test/seg_test"), "seg_pred/seg_pred"), WORKS,
        ("training from seg_train/seg_train", "not used: seg_pred (4 images)"),
        right=sets_of(8, 0, 8), origin="Kaggle, Intel image classification",
    ),
    "train/train": Case(
        folders(*both("train/train")), WORKS, ("nothing but the folder train/train",),
        origin="Kaggle, dogs vs. cats",
    ),
    "train and test flat, with labels.csv": Case(
        with_files(folders("train", "test"), labels_dot_csv="id,label\n0,cat\n"), LINE,
        ("sets without class folders, test (4 images), train (4 images)", "labels.csv has no"),
        origin="Kaggle competitions; huggingface/datasets 7880",
    ),
    "train and test flat, with metadata.csv": Case(
        with_files(folders("train", "test"), train__metadata_dot_csv="file_name,label\n0.png,1\n"),
        LINE, ("sets without class folders", "metadata.csv has no such header"),
        origin="Hugging Face imagefolder",
    ),
    "CSV next to class folders": Case(
        with_files(folders(*both("train", "val")), noisy_dot_csv="path,noisy_labels_0\n"), WORKS,
        ("noisy.csv not used",), right=sets_of(8, 4, 4), origin="fastai, imagewoof",
    ),
    "classes called train, test_tube": Case(
        folders("train", "test_tube", "bus"), WORKS, classes=("bus", "test_tube", "train"),
        origin="CIFAR-100",
    ),
    "classes called train_station, test_tube": Case(
        folders("train_station", "test_tube"), WORKS, classes=("test_tube", "train_station"),
    ),
    "Train, VALID, Test-Set": Case(
        folders(*both("Train", "VALID", "Test-Set")), WORKS,
        ("training from Train, validation from VALID, test from Test-Set",),
        right=sets_of(8, 8, 8),
    ),
    "train2017, val2017": Case(
        folders(*both("train2017", "val2017")), WORKS, SETS_READ, right=sets_of(8, 4, 4),
        origin="COCO",
    ),
    "images_train, images_dev": Case(
        folders(*both("images_train", "images_dev")), WORKS, ("validation from images_dev",)
    ),
    "trainset, testset": Case(folders(*both("trainset", "testset")), WORKS, SETS_READ),
    "TrainImages, TestImages": Case(folders(*both("TrainImages", "TestImages")), WORKS, SETS_READ),
    "train, valid and samples/train": Case(
        folders(*both("train", "valid", "samples/train", "samples/valid")), WORKS,
        ("not used: samples",), right=sets_of(8, 4, 4), origin="fastai/fastai2 210",
    ),
    "chest_xray next to its own sets": Case(
        folders(*both("train", "test", "chest_xray/train", "chest_xray/test"), "__MACOSX/x"),
        WORKS, ("not used: chest_xray",), right=sets_of(8, 0, 8), origin="Kaggle, chest X-ray",
    ),
    "train with classes, test without": Case(
        folders(*both("train"), "test"), WORKS, ("not used: test (4 images)",),
        origin="fastai/fastai 1552",
    ),
    "train/n01/images, val/images": Case(
        folders("train/n01/images", "train/n02/images", "val/images"), LINE,
        ("no class of the validation set (images) is one of training (n01, n02)",),
        origin="Tiny ImageNet",
    ),
    "trainA, trainB, testA, testB": Case(
        folders("trainA", "trainB", "testA", "testB"), LINE, ("sets without class folders",),
        origin="CycleGAN",
    ),
    "set and class side by side": Case(
        folders(*both("train"), "extra"), LINE,
        ("train (the folders cat, dog) looks like a set, extra (4 images) like a class",),
        origin="fastai/fastai 2569",
    ),
    "two folders for training": Case(
        folders(*both("train_1", "train_2", "test")), LINE,
        ("train_1 and train_2 are both for training",),
    ),
    "val and test, no train": Case(
        folders(*both("val", "test")), LINE, ("none of its sets is for training",)
    ),
    "image next to the folders of a set": Case(
        with_files(folders(*both("train", "val")), train__stray_dot_png=b"x"), LINE,
        ("train: 1 image outside of its class folders; move every image",),
        origin="huggingface/datasets 5153",
    ),
    "folds": Case(
        folders(*both("fold1", "fold2", "fold3")), LINE,
        ("fold1, fold2, fold3 all hold folders cat, dog",),
    ),
    "images and masks in each class": Case(
        folders("a/images", "a/masks", "b/images", "b/masks"), LINE, ("all hold folders images",),
        origin="Kvasir-SEG, MVTec AD",
    ),
    "cat/train, cat/test, dog/train, dog/test": Case(
        folders("cat/train", "cat/test", "dog/train", "dog/test"), WORKS,
        ("each class holds its sets (test, train)",), right=sets_of(8, 0, 8),
    ),
    "one level too high": Case(
        with_files(
            folders(*both("dataset")), README_dot_md="x", boxes_dot_csv="file,x-min,y-min\n"
        ), WORKS, ("holds nothing but the folder dataset", "boxes.csv not used"),
    ),
    "data sets side by side": Case(
        folders(*both("a/train", "a/test", "b/train", "b/test")), LINE,
        ("a is a data set of its own, with the sets test, train; give -ds",),
    ),
    "data set next to other images": Case(
        folders(*both("ILSVRC/train", "ILSVRC/val"), "Annotations/x"), LINE,
        ("ILSVRC is a data set of its own, with the sets train, val",), origin="ImageNet",
    ),
    "two levels too high, with sets": Case(
        folders(*both("a/data/train", "a/data/test")), WORKS,
        ("nothing but the folder a/data", *SETS_READ), right=sets_of(8, 0, 8),
    ),
    "one level too high, next to another folder": Case(
        with_files(folders(*both("images")), docs__a_dot_txt="x"), LINE,
        ("of its folders only images holds images, in the folders cat, dog; give -ds",),
    ),
    "images next to the class folders": Case(
        with_files(folders("cat", "dog"), stray_dot_png=b"x"), WORKS,
        ("1 image outside of the class folders, not used",), origin="huggingface/datasets 5153",
    ),
    "images deeper than their class": Case(
        folders("cat/a", "cat/b", "dog/c"), WORKS, ("cat, dog hold folders (a, b)",)
    ),
    "other capitals in the test set": Case(
        folders("train/Cat", "train/Dog", "test/cat", "test/dog"), LINE,
        ("no class of the test set (cat, dog) is one of training (Cat, Dog)",),
    ),
    "one class in training, more in test": Case(
        folders("train/cat", "test/cat", "test/dog"), LINE,
        ("all training images are of one class, 'cat'", "two classes are needed"),
    ),
    "empty class folder": Case(
        lambda root: _with_folder(folders("cat", "dog")(root), "emu"), LINE,
        ("emu: a class folder without images",), origin="pytorch/vision 4925",
    ),
    "folders that systems make": Case(
        system_folders, WORKS, origin="pytorch/vision 109, 2831; tensorflow 46595"
    ),
    "20 HEIC files": Case(
        only_heic, LINE,
        ("cat: 20 files, none named .png, .jpg, ...; name them so, convert them (HEIC: pip",),
        origin="FiftyOne",
    ),
    "images without a suffix": Case(
        no_suffix, LINE, ("cat: 4 files, none named .png",), origin="keras-team/keras 15575"
    ),
    "class folder in NFC and in NFD": Case(decomposed_folder, WORKS, classes=("café", "dog")),
    "file name in Shift-JIS": Case(
        undecodable("file"), LINE, ("is not UTF-8", "猫の写真.png", "convmv -f cp932 -t utf-8 -r")
    ),
    "folder name in Shift-JIS": Case(
        undecodable("folder"), LINE, (r"\x94L", "convmv -f cp932 -t utf-8 -r --notest")
    ),
    "a zip archive": Case(
        lambda root: _file(root / "data.zip", b"PK\3\4"), LINE, ("is an archive; unpack it",)
    ),
}  # fmt: skip

LIST_CASES: dict[str, Case] = {
    r"cat\x.jpg": Case(
        rows("x:image,y:label", *every_row(slash="\\")), WORKS, ("are written with \\",)
    ),
    r".\cat\x.jpg": Case(
        rows("x:image,y:label", *(f".\\{row}" for row in every_row(slash="\\"))), WORKS,
        ("are written with \\",),
    ),
    "drive letter": Case(
        listed([r"C:\a\x.png,cat"]), LINE, ("row 2: 'C:", "a path on a Windows drive")
    ),
    "file address of a drive": Case(
        listed(["file:///C:/a/x.png,cat"]), LINE, ("a path on a Windows drive",)
    ),
    "network share": Case(listed([r"\\server\x.png,cat"]), LINE, ("a path on a Windows share",)),
    "URL": Case(listed(["https://a.b/x.png,cat"]), LINE, ("row 2: 'https://", "an address (https")),
    "s3 address": Case(listed(["s3://bucket/x.png,cat"]), LINE, ("an address (s3://)",)),
    "file address": Case(listed(["file:///a/x%20y.png,cat"]), LINE, ("write the path /a/x y.png",)),
    "home folder": Case(listed(["~/x.png,cat"]), LINE, ("only shells expand ~; write /",)),
    "variable": Case(listed(["$HOME/x.png,cat"]), LINE, ("a variable, which only shells",)),
    "%20 for a blank": Case(
        lambda root: _with_picture(listed(["cat/a%20b.png,cat"])(root), "cat/a b.png"), LINE,
        ("no such file, it is written as in a web address (%); write cat/a b.png",),
    ),
    "other capitals": Case(listed(["cat/0.PNG,cat"]), LINE, ("letters differ; write 0.png",)),
    "blanks in the header": Case(
        listed(header=" x:image , y:label "), WORKS, origin="Neural Network Console"
    ),
    "blanks around paths and labels": Case(
        rows("x:image,y:label", *(f" {row.replace(',', ' , ')} " for row in every_row())), WORKS
    ),
    "tabs": Case(
        rows("x:image\ty:label", *every_row("\t")), LINE, ("separated by tabs; save it with",)
    ),
    "semicolons": Case(
        rows("x:image;y:label", *every_row(";")), LINE, ("separated by semicolons",)
    ),
    "bars": Case(rows("id|x:image|y:label", "1|cat/0.png|cat"), LINE, ("separated by bars",)),
    "comment line first": Case(
        rows("# my list", "x:image,y:label", *every_row()), LINE, ("row 1: a comment line",)
    ),
    "comment line among the rows": Case(
        listed(["# cats,"]), LINE, ("row 2: a comment line; remove it",)
    ),
    "sep= for Excel": Case(
        rows("sep=,", "x:image,y:label", *every_row()), LINE, ("row 1: a line for Excel",)
    ),
    "one-hot columns": Case(
        rows("x:image,y__0:cat,y__1:dog", "cat/0.png,1,0"), LINE,
        ("the label is a vector (columns y__0:cat to y__1:dog)",), origin="Neural Network Console",
    ),
    "vector of inputs": Case(
        rows("x__0,x__1,y:label", "1,2,0"), LINE, ("the input is a vector (columns x__0 to x__1)",),
        origin="Neural Network Console",
    ),
    "a row that is cut": Case(listed(["cat/0.png"]), LINE, ("row 2: label ''; give the class",)),
    "byte order mark": Case(listed(encoding="utf-8-sig"), WORKS),
    "UTF-16": Case(listed(encoding="utf-16"), LINE, ("its text is not UTF-8",)),
    "1e1, 10 and 1_0": Case(
        labelled("10", "1e1", "1_0", "2"), WORKS, ("'1e1', '1_0' are not written as plain",),
        classes=("10", "1_0", "1e1", "2"),
    ),
    "007 and 7": Case(
        labelled("7", "007"), WORKS, ("'007' are not written as",), classes=("007", "7")
    ),
    "labels +1, 1, １, 2": Case(
        labelled("+1", "1", "１", "2"), WORKS, ("'+1', '１' are not written",),
        classes=("+1", "1", "2", "１"),
    ),
    "labels 1 and 1.0": Case(
        labelled("0", "1", "1.0"), WORKS,
        ("One class '1' has several spellings: '1' (3 rows), '1.0' (2 rows)",), classes=("0", "1"),
    ),
    "labels 1, 1.0 and a name": Case(
        labelled("1", "1.0", "cat"), WORKS,
        ("One class '1' has several spellings: '1' (3 rows), '1.0' (3 rows)",),
        classes=("1", "cat"),
    ),
    "label ' 1'": Case(
        labelled("0", "1", " 1"), WORKS, ("several spellings: '1' (3 rows), ' 1'",),
        classes=("0", "1"),
    ),
    "labels True and true": Case(
        labelled("True", "true", "False"), WORKS, ("differ in capitals",),
        classes=("False", "True", "true"),
    ),
    "label NaN": Case(labelled("0", "NaN"), LINE, ("row 3: label 'NaN'; give the class",)),
    "label -1": Case(
        labelled("0", "1", "-1"), LINE, ("label '-1'; classes must be whole numbers",)
    ),
    "label composed otherwise": Case(
        labelled("caf\u00e9", "cafe\u0301", "dog"), WORKS,
        ("One class 'café' has several spellings",), classes=("café", "dog"),
    ),
    "path in NFC, file in NFD": Case(composed("NFD", "NFC"), WORKS),
    "path in NFD, file in NFC": Case(composed("NFC", "NFD"), WORKS),
    "test.csv of other labels": Case(
        lambda root: _other_labels(sets_listed(train=HEADER, test=HEADER)(root)), LINE,
        ("no class of the test set (emu) is one of training (cat, dog)",),
    ),
    "train.csv and latest.csv": Case(
        sets_listed(train=HEADER, latest=HEADER), LINE, ("latest.csv: its name does not say",)
    ),
    "train.csv, val_list.csv, testset.csv": Case(
        sets_listed(train=HEADER, val_list=HEADER, testset=HEADER), WORKS, right=sets_of(4, 4, 4)
    ),
    "test.csv next to train/ and val/": Case(
        lambda root: _moved(listed()(root), "test.csv", *both("train", "val")), LINE,
        ("test.csv lists a test set, next to class folders",),
    ),
    "list and class folders": Case(
        lambda root: listed()(root).parent, WORKS,
        ("the images that list.csv lists are read; its folders are not used as classes",),
    ),
}  # fmt: skip

PIXEL_CASES: dict[str, Case] = {
    "12 bits in 16": Case(
        deep("uint16", 0, 4095), WORKS, right=one_scale, classes=("cat", "dog"),
        origin="pytorch/pytorch 20524",
    ),
    "0..255 as uint16": Case(deep("uint16", 0, 255, "tif"), WORKS, right=one_scale),
    "10 bits as PGM": Case(deep("uint16", 0, 1023, "pgm"), WORKS, right=one_scale),
    "16 bits": Case(
        deep("uint16", 0, 65535), WORKS, right=one_scale, origin="pytorch/vision 2218"
    ),
    "0..255 as int32": Case(deep("int32", 0, 255, "tif"), WORKS, right=one_scale),
    "negative int32": Case(deep("int32", -1000, 3000, "tif"), WORKS, right=one_scale),
    "0..1 as float": Case(deep("float32", 0, 1, "tif"), WORKS, right=one_scale),
    "-1..1 as float": Case(deep("float32", -1, 1, "tif"), WORKS, right=one_scale),
    "12 bits in 16-bit colour": Case(colour16(4095), WORKS, right=spread()),
    "12 bits in 16-bit colour with opacity": Case(
        colour16(4095, 4), WORKS, right=spread(), origin="scans",
    ),
    "8-bit among 12-bit": Case(mixed_depths, WORKS, right=plain_untouched),
    "not a number among floats": Case(
        lambda root: _with_nan(deep("float32", 0, 1, "tif")(root)), LINE,
        ("not finite numbers; replace them",),
    ),
    "PNG: broken eXIf": Case(
        with_image("x.png", damaged_png(chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"))), WORKS,
        right=has_gray("x.png"),
    ),
    "PNG: ICC profile above 1 MB": Case(
        with_image("x.png", damaged_png(ICC)), WORKS, right=has_gray("x.png")
    ),
    "PNG: zTXt above 1 MB": Case(
        with_image("x.png", damaged_png(ZTXT)), WORKS, right=has_gray("x.png")
    ),
    "PNG: zTXt above 1 MB after the pixels": Case(
        with_image("x.png", damaged_png(ZTXT, after=True)), WORKS, right=has_gray("x.png")
    ),
    "PNG: bad checksum of a comment": Case(
        with_image("x.png", damaged_png(chunk(b"tEXt", b"a\0b", damaged=True))), WORKS,
        ("damaged metadata left out",), right=has_gray("x.png"),
    ),
    "PNG: bad checksum of the pixels": Case(
        with_image("x.png", damaged_png()[:-24] + b"\0\0\0\0" + damaged_png()[-20:]), LINE,
        ("x.png: truncated or damaged image",),
    ),
    "truncated JPEG": Case(
        lambda root: _cut(saved(".jpg", size=(64, 64))(root) / "cat/0.jpg"), LINE,
        ("0.jpg: truncated or damaged image",), origin="keras, fastai: truncated images",
    ),
    "PPM": Case(saved(".ppm"), WORKS, origin="GTSRB"),
    "PGM and PBM": Case(saved(".pgm", "L"), WORKS),
    "JPEG 2000": Case(saved(".jp2"), WORKS),
    "AVIF": Case(saved(".avif"), WORKS),
    "HEIC under the name .jpg": Case(
        with_image("x.jpg", HEIC), LINE, ("x.jpg: a HEIC image, which is not read; convert it",)
    ),
    "web page under the name .jpg": Case(
        with_image("x.jpg", b"<!DOCTYPE html><html>404</html>"), LINE, ("a web page instead",)
    ),
    "Git LFS pointer": Case(
        with_image("x.png", b"version https://git-lfs.github.com/spec/v1\n"), LINE,
        ("a Git LFS pointer instead of the image; run git lfs pull",),
    ),
    "three broken images": Case(
        broken_set, LINE, ("3 broken images, listed in", "data_problems.csv; --skip_broken leaves"),
    ),
    "three broken images, --skip_broken": Case(
        broken_set, WORKS, ("3 broken images left out",), options={"skip_broken": True},
        right=_three_left_out,
    ),
    "a class of broken images, --skip_broken": Case(
        lambda root: _all_broken(folders("cat", "dog", "emu")(root), "emu"), WORKS,
        ("Classes of which no image is left: emu",), options={"skip_broken": True},
    ),
    "a set of broken images, --skip_broken": Case(
        lambda root: _all_broken(folders(*both("train", "test"))(root), "test"), LINE,
        ("all images of the test set are broken",), options={"skip_broken": True},
    ),
    "all images broken, --skip_broken": Case(
        lambda root: _all_broken(folders("cat", "dog")(root), "."), LINE,
        ("all images of the training set are broken",), options={"skip_broken": True},
    ),
    "strips": Case(strips, WORKS, ("leave out 92 % of the median image; --resize pad",)),
    "strips, --resize pad": Case(strips, WORKS, ("8 padded",), options={"resize": "pad"}),
    "strips, --resize stretch": Case(
        strips, WORKS, ("8 stretched",), options={"resize": "stretch"}
    ),
}  # fmt: skip

CASES = SET_CASES | LIST_CASES | PIXEL_CASES
