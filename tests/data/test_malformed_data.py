"""Whatever is wrong with data: each case ends with one line that says what, where, and what to do.

What is odd but must work is at the end, with what it gives and what is reported.
"""

from __future__ import annotations

import gzip
import os
import pickle
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.make_archives import write_cifar10, write_mnist, write_stl10, write_tar
from benchmarks.real_images import Labelled
from tests.helpers.own_images import class_folders, csv_of, picture, rows_of
from tests.helpers.runs import sgd_influence
from utils.data import decode
from utils.data.datasets import prepare
from utils.data.formats import read_idx
from utils.data.labels import class_labels
from utils.data.source import Source
from utils.data.splits import TrialData, draw_split, load_trial
from utils.data.user_paths import read_parts
from utils.errors import UserError

pytestmark = pytest.mark.usefixtures("cache")

RUN = "-e 1 -r 0 -nt 1 --methods Random --model mlp --image_size 8 --context cpu"


# ---------------------------------------------------------------- CSV files and their rows


def with_row(row: str) -> Callable[[Path], Path]:
    """A CSV file whose third row below the header is `row`, which is row 4."""

    def make(root: Path) -> Path:
        rows = rows_of()
        return csv_of(root, [*rows[:2], row, *rows[3:]])

    return make


def with_file(name: str, content: bytes) -> Callable[[Path], Path]:
    """A CSV file whose row 4 names a file with these bytes."""

    def make(root: Path) -> Path:
        csv = with_row(f"{name},0")(root)
        (csv.parent / name).write_bytes(content)
        return csv

    return make


def with_bytes(content: bytes) -> Callable[[Path], Path]:
    """A CSV file with these bytes."""

    def make(root: Path) -> Path:
        csv = csv_of(root, [])
        csv.write_bytes(content)
        return csv

    return make


def with_labels(*labels: str) -> Callable[[Path], Path]:
    """A CSV file of 12 images with these labels in turn."""

    def make(root: Path) -> Path:
        images = [row.split(",")[0] for row in rows_of()]
        return csv_of(root, [f"{p},{labels[i % len(labels)]}" for i, p in enumerate(images)])

    return make


def with_csvs(*names: str) -> Callable[[Path], Path]:
    """A folder with several CSV files of the same rows."""

    def make(root: Path) -> Path:
        csv = csv_of(root, rows_of())
        for name in names:
            csv.with_name(name).write_bytes(csv.read_bytes())
        csv.unlink()
        return csv.parent

    return make


def cut(format_name: str, share: float = 0.5) -> bytes:
    """The first part of an image file."""
    import io

    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, format_name)
    return stream.getvalue()[: int(share * len(stream.getvalue()))]


def png_of(width: int, height: int) -> bytes:
    """A PNG file that announces this size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def unreadable(root: Path) -> Path:
    csv = csv_of(root, rows_of())
    (csv.parent / "cat/1.png").chmod(0)
    return csv


def folder_as_image(root: Path) -> Path:
    csv = with_row("folder.png,0")(root)
    csv.with_name("folder.png").mkdir()
    return csv


def pipe_as_image(root: Path) -> Path:
    csv = with_row("pipe.png,0")(root)
    os.mkfifo(csv.with_name("pipe.png"))
    return csv


def link_to_itself(root: Path) -> Path:
    csv = with_row("loop.png,0")(root)
    csv.with_name("loop.png").symlink_to("loop.png")
    return csv


CSV_CASES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no header": (
        with_bytes(b"cat/0.png,0\ndog/0.png,1\n"),
        "images.csv: row 1: a column x:image is needed, the header is 'cat/0.png,0'; add it",
    ),
    "other columns": (
        with_bytes(b"file,class\ncat/0.png,0\n"),
        "images.csv: row 1: a column x:image is needed, the header is 'file,class'; add it",
    ),
    "no labels": (
        with_bytes(b"x:image\ncat/0.png\n"),
        "images.csv: row 1: a column y:label is needed, the header is 'x:image'; add it",
    ),
    "empty": (
        with_bytes(b""),
        "images.csv: cannot be read as CSV (it is empty; give it the header",
    ),
    "header only": (
        with_bytes(b"x:image,y:label\n"),
        "images.csv: no row follows its header; add a row per image",
    ),
    "semicolons": (
        with_bytes(b"x:image;y:label\ncat/0.png;0\n"),
        "images.csv: row 1: fields are separated by semicolons; save it with commas",
    ),
    "a column twice": (
        with_bytes(b"x:image,y:label,note, note\ncat/0.png,0,a,b\n"),
        "images.csv: row 1: two columns are called 'note'; rename one",
    ),
    "the label twice": (
        with_bytes(b"x:image,y:label,y:label\ncat/0.png,0,1\n"),
        "images.csv: row 1: two columns are called 'y:label'; rename one",
    ),
    "comma in a name without quotes": (
        with_row("cat/a, b.png,0"),
        "Expected 2 fields in line 4, saw 3; give an NNC CSV file, names with commas",
    ),
    "not UTF-8": (
        with_bytes("x:image,y:label\nKätzchen.png,0\n".encode("latin-1")),
        "images.csv: its text is not UTF-8; save it as CSV UTF-8",
    ),
    "no image named": (with_row(",0"), "images.csv: row 4: no image is named; fill in x:image"),
    "missing image": (
        with_row("none.png,0"),
        "images/none.png': No such file or directory; restore or remove it",
    ),
    "text named .png": (
        with_file("text.png", b"this is no image"),
        f"images/text.png': not an image in {decode.FORMAT_NAMES}; restore or remove it",
    ),
    "PNG cut short": (with_file("cut.png", cut("PNG")), "cut.png': truncated or damaged image; "),
    "JPEG cut short": (with_file("cut.jpg", cut("JPEG")), "cut.jpg': truncated or damaged image; "),
    "file of 0 bytes": (with_file("none.png", b""), "none.png': the file is empty; restore"),
    "30,000 x 30,000 pixels": (
        with_file("bomb.png", png_of(30_000, 30_000)),
        "bomb.png': its header announces more than 178 million pixels; restore",
    ),
    "unreadable file": (unreadable, "cat/1.png': Permission denied; make it readable"),
    "folder named .png in a CSV": (folder_as_image, "folder.png': a folder, not a file; restore"),
    "pipe named .png": (pipe_as_image, "pipe.png': not a plain file; restore"),
    "link to itself": (link_to_itself, "loop.png': Too many levels of symbolic links; restore"),
    "negative label": (
        with_row("cat/1.png,-1"),
        "images.csv: row 4: label '-1'; classes must be whole numbers from 0 on",
    ),
    "label 2.5": (
        with_row("cat/1.png,2.5"),
        "images.csv: row 4: label '2.5'; classes must be whole numbers from 0 on",
    ),
    "label NaN": (
        with_row("cat/1.png,NaN"),
        "images.csv: row 4: label 'NaN'; give the class or remove the row",
    ),
    "a quotation mark within a row": (
        with_row('cat/1.png,"cat\ndog/2.png,b"'),
        "a name has one line; is a quotation mark missing or one too many?",
    ),
    "a blank before a quotation mark": (
        with_row('cat/1.png, "cat"'),
        "images.csv: row 4: label '\"cat\"'; remove the quotation marks, and any blank",
    ),
    "blank label": (
        with_row("cat/1.png, "),
        "images.csv: row 4: label ''; give the class or remove the row",
    ),
    "one class": (
        with_labels("3"),
        "images.csv: all images are of one class, '3'; at least two classes are needed",
    ),
    "too few images": (
        lambda root: csv_of(root, rows_of(3)),
        "images.csv: 3 images of 2 classes are too few to draw 2 more sets from; add images",
    ),
    "two CSV files for training": (
        with_csvs("train.csv", "train_old.csv"),
        "images: train.csv and train_old.csv are both for training; name them *train*",
    ),
    "CSV files without a clear name": (
        with_csvs("a.csv", "b.csv"),
        "images/a.csv: its name does not say which set it is; name them *train*",
    ),
    "no CSV file for training": (
        with_csvs("valid.csv", "test.csv"),
        "images: no CSV file is for training; name one of them *train*",
    ),
}


# ---------------------------------------------------------------- folders


def empty_class(root: Path) -> Path:
    folder = class_folders(root / "images")
    (folder / "emu").mkdir()
    return folder


def folder_loop(root: Path) -> Path:
    folder = class_folders(root / "images")
    (folder / "cat" / "again").symlink_to(folder)
    return folder


def folder_named_png(root: Path) -> Path:
    folder = class_folders(root / "images")
    (folder / "dog" / "x.png").mkdir()
    return folder


def only(what: str) -> Callable[[Path], Path]:
    """A folder with one thing in it."""

    def make(root: Path) -> Path:
        (root / "images").mkdir()
        if what == "image":
            picture(root / "images" / "a.png")
        if what == "class":
            picture(root / "images" / "cat" / "a.png")
        return root / "images"

    return make


def bad_list(content: bytes) -> Callable[[Path], Path]:
    """Class folders in a folder of their own, next to a list that has a fault."""

    def make(root: Path) -> Path:
        class_folders(root / "data" / "images")
        (root / "data" / "train.csv").write_bytes(content)
        return root / "data"

    return make


def text_file(root: Path) -> Path:
    (root / "images.txt").write_text("cats")
    return root / "images.txt"


FOLDER_CASES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty class folder": (
        empty_class,
        "images/emu: a class folder without images; add images or remove it",
    ),
    "folder that leads back": (folder_loop, "images/cat/again: a link that leads back to "),
    "folder named .png": (
        folder_named_png,
        "dog/x.png: a folder with the name of an image; rename",
    ),
    "empty folder": (only("nothing"), "images: no class folders; put the images of each class"),
    "images without class folders": (only("image"), "images: no class folders; put the images of"),
    "one class folder": (only("class"), "images: all images are of one class, 'cat'; at least two"),
    "list with semicolons": (
        bad_list(b"x:image;y:label\nimages/cat/0.png;0\n"),
        "train.csv: row 1: fields are separated by semicolons; save it with commas",
    ),
    "list of another code": (
        bad_list("x:image,y:label\nimages/cat/0.png,猫\n".encode("cp932")),
        "train.csv: its text is not UTF-8; save it as CSV UTF-8",
    ),
    "list in UTF-16": (
        bad_list("x:image,y:label\nimages/cat/0.png,0\n".encode("utf-16")),
        "train.csv: its text is not UTF-8; save it as CSV UTF-8",
    ),
    "list with a line for Excel": (
        bad_list(b"sep=,\nx:image,y:label\nimages/cat/0.png,0\n"),
        "train.csv: row 1: a line for Excel; remove it",
    ),
    "list with a comment column first": (
        bad_list(b"#class,x:image,y:label\ncat,images/cat/0.png\n"),
        "train.csv: row 2: label ''; give the class or remove the row",
    ),
    "list with a line for Excel after a mark": (
        bad_list("\ufeffSEP=,\n\nx:image,y:label\nimages/cat/0.png,0\n".encode()),
        "train.csv: row 1: a line for Excel; remove it",
    ),
    "list of vectors": (
        bad_list(b"x:image,y__0:cat,y__1:dog\nimages/cat/0.png,1,0\n"),
        "train.csv: row 1: the label is a vector",
    ),
    "neither folder nor CSV": (text_file, "images.txt: is no folder and no .csv file; give a"),
    "nothing there": (
        lambda root: root / "nowhere",
        "nowhere' is not known and no such path exists; known are digits, mnist, cifar10, stl10",
    ),
}


# ---------------------------------------------------------------- archives

N = 40
LABELS = np.arange(N) % 10
TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


def both(*shape: int) -> tuple[Labelled, Labelled]:
    """The same images for training and testing."""
    images = np.random.default_rng(0).integers(0, 256, (N, *shape), dtype=np.uint8)
    return (images, LABELS), (images, LABELS)


def mnist(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], str]:
    """MNIST with one of its files changed before it is compressed."""

    def make(folder: Path) -> str:
        write_mnist(*both(28, 28), folder)
        content = gzip.decompress((folder / name).read_bytes())
        (folder / name).write_bytes(gzip.compress(change(content)))
        return "mnist"

    return make


def gzip_cut(folder: Path) -> str:
    write_mnist(*both(28, 28), folder)
    path = folder / TRAIN_IMAGES
    path.write_bytes(path.read_bytes()[:-1000])
    return "mnist"


def tar(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> Callable[[Path], str]:
    """CIFAR-10's archive with a first member of this kind."""

    def make(folder: Path) -> str:
        member = tarfile.TarInfo(name)
        member.type, member.size, member.linkname = kind, size, "/etc/passwd"
        with gzip.open(folder / "cifar-10-python.tar.gz", "wb") as stream:
            stream.write(member.tobuf() + bytes(10_240))
        return "cifar10"

    return make


class Attack:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch attacked",)


def attack(folder: Path) -> str:
    write_cifar10(*both(32, 32, 3), folder)
    names = [f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6)]
    batches = [*names, "cifar-10-batches-py/test_batch"]
    content = pickle.dumps(Attack())
    write_tar([(name, content) for name in batches], folder / "cifar-10-python.tar.gz")
    return "cifar10"


def stl10(cut_images: int, first_label: int) -> Callable[[Path], str]:
    """STL-10's archive with images cut and one label changed."""

    def make(folder: Path) -> str:
        write_stl10(*both(96, 96, 3), folder)
        path = folder / "stl10_binary.tar.gz"
        members = []
        with tarfile.open(path) as archive:
            for member in archive:
                content = archive.extractfile(member).read()  # type: ignore[union-attr]
                if member.name.endswith("train_X.bin"):
                    content = content[: len(content) - cut_images]
                if member.name.endswith("train_y.bin"):
                    content = bytes([first_label]) + content[1:]
                members.append((member.name, content))
        write_tar(members, path)
        return "stl10"

    return make


CIFAR = "cifar-10-python.tar.gz: "
FIRST_BATCH = "cifar-10-batches-py/data_batch_1"
ARCHIVE_CASES: dict[str, tuple[Callable[[Path], str], str]] = {
    "MNIST cut short": (
        mnist(TRAIN_IMAGES, lambda content: content[:-1]),
        f"{TRAIN_IMAGES}: its header announces 31360 bytes, but only 31359 follow; get",
    ),
    "MNIST with a wrong magic number": (
        mnist(TRAIN_IMAGES, lambda content: b"\0\0\x0d\x03" + content[4:]),
        f"{TRAIN_IMAGES}: no whole IDX file (magic number 00000d03); get the file again",
    ),
    "MNIST count too high": (
        mnist(TRAIN_LABELS, lambda content: content[:4] + struct.pack(">I", 41) + content[8:]),
        f"{TRAIN_LABELS}: its header announces 41 bytes, but only 40 follow; get the file again",
    ),
    "MNIST count absurd": (
        mnist(TRAIN_IMAGES, lambda content: content[:4] + b"\xff" * 12 + content[16:]),
        f"{TRAIN_IMAGES}: no whole IDX file (its header announces 79228162458924105385300197375",
    ),
    "MNIST labels of other images": (
        mnist(TRAIN_LABELS, lambda content: content[:4] + struct.pack(">I", 39) + content[8:-1]),
        f"{TRAIN_LABELS}: 39 labels for the 40 images of {TRAIN_IMAGES}; get both files again",
    ),
    "gzip cut": (gzip_cut, f"{TRAIN_IMAGES}: no whole IDX file (Compressed file ended before"),
    "tar with ../": (tar("../evil"), CIFAR + f"the member {FIRST_BATCH} is missing; get the file"),
    "tar with a symbolic link": (
        tar(FIRST_BATCH, tarfile.SYMTYPE),
        CIFAR + f"the member {FIRST_BATCH} is missing; get the file",
    ),
    "tar with 100 GB of zeros": (
        tar("zeros", size=100 << 30),
        CIFAR + "member 'zeros' makes the content larger than 536870912 bytes; don't trust",
    ),
    "pickle that calls os.system": (
        attack,
        "data_batch_1: no CIFAR-10 batch (asks for posix.system, which is refused); get the file",
    ),
    "STL-10 cut": (
        stl10(1, 1),
        "train_X.bin: cut short: 1105919 bytes are no whole number of images; get the file again",
    ),
    "STL-10 with a label 11": (
        stl10(0, 11),
        "train_X.bin: there is not one label from 1 to 10 for each of its 40 images; get the file",
    ),
}


# ---------------------------------------------------------------- options

OPTION_CASES: dict[str, tuple[str, str]] = {
    "more training images than there are": (
        "--n_train 11",
        "--n_train 11: must be from 2 (one per class) to 8 for images",
    ),
    "image size 0": ("--image_size 0", "--image_size 0: must be a whole number of at least 1"),
    "model that is missing": (
        "--model tests.helpers.users_models:none",
        "cannot be imported (Attribute",
    ),
    "model that raises": (
        "--model tests.helpers.users_models:raises",
        "RuntimeError: no such layer at",
    ),
    "model of a wrong shape": (
        "--model tests.helpers.users_models:wrong_shape",
        "gave (3, 3) for a batch",
    ),
    "model without parameters": (
        "--model tests.helpers.users_models:no_parameters",
        "has no parameters to train",
    ),
    "data folder in the user's folder": (
        "--data_dir {images}/ours",
        "images/ours: lies in the folder of the images themselves; give a folder elsewhere",
    ),
}


# ---------------------------------------------------------------- what goes wrong


def line_of_refused_run(arguments: str, output: Path, capsys: Any) -> str:
    """Run the command; it must end with status 2, one line, and no result. Returns the line."""
    assert sgd_influence(output, f"{RUN} {arguments}", small="") == 2
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if "error: " in line or "Traceback" in line]
    assert len(errors) == 1 and lines[-1] == errors[0], lines
    assert errors[0].startswith("eval_sgd_influence.py: error: ")
    assert not output.exists() or not files_below(output)
    return errors[0]


def files_below(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if not path.is_dir() or path.is_symlink()}


@pytest.mark.parametrize("case", [*CSV_CASES, *FOLDER_CASES])
def test_a_users_mistake_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    make, expected = (CSV_CASES | FOLDER_CASES)[case]
    path = make(tmp_path)
    forbid_reading_what_has_no_mode(monkeypatch)
    before = files_below(tmp_path)
    line = line_of_refused_run(f"-ds {path}", tmp_path / "out", capsys)
    assert expected in line
    written = files_below(tmp_path) - before
    assert {path.name for path in written} <= {"data_problems.csv"}
    assert all(f"1 broken image, listed in {path}" in line for path in written)


def forbid_reading_what_has_no_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for everybody but root, who may run the tests."""
    content = decode._content

    def checked(path: str) -> IO[bytes]:
        if os.path.exists(path) and os.stat(path).st_mode & 0o777 == 0:
            raise PermissionError(13, "Permission denied")
        return content(path)

    monkeypatch.setattr(decode, "_content", checked)


@pytest.mark.parametrize("case", ARCHIVE_CASES)
def test_a_damaged_archive_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make, expected = ARCHIVE_CASES[case]
    (tmp_path / "data").mkdir()
    name = make(tmp_path / "data")
    before = files_below(tmp_path)
    arguments = f"-ds {name} --data_dir data --allow_unverified_data"
    assert expected in line_of_refused_run(arguments, tmp_path / "out", capsys)
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("case", OPTION_CASES)
def test_an_impossible_option_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    more, expected = OPTION_CASES[case]
    images = class_folders(tmp_path / "images")
    more = more.format(images=images)
    assert expected in line_of_refused_run(f"-ds {images} {more}", tmp_path / "out", capsys)
    assert not list(images.rglob("*.csv"))


# ---------------------------------------------------------------- what must work


def bom_and_crlf(root: Path) -> Path:
    csv = csv_of(root, [])
    text = "\r\n".join(["\ufeffx:image,y:label", *rows_of(), ""])
    csv.write_bytes(text.encode())
    return csv


def one_pixel(root: Path) -> Path:
    csv = csv_of(root, rows_of())
    picture(csv.parent / "cat/1.png", size=(1, 1))
    return csv


def absolute(root: Path) -> Path:
    return csv_of(root, [f"{root}/images/{row}" for row in rows_of()])


def other_set(name: str, label_of_copy: str) -> Callable[[Path], Path]:
    """Training and test folders, a cat of the training set also lying in the other one."""

    def make(root: Path) -> Path:
        class_folders(root / "images" / "train")
        class_folders(root / "images" / name, 3, first=50)
        copy = root / "images" / name / label_of_copy / "copy.png"
        copy.write_bytes((root / "images/train/cat/2.png").read_bytes())
        return root / "images"

    return make


def labelled_twice(root: Path) -> Path:
    csv = csv_of(root, rows_of())
    (csv.parent / "dog/5.png").write_bytes((csv.parent / "cat/0.png").read_bytes())
    return csv


def odd_names(root: Path) -> Path:
    names = ["with space", "with, comma", 'with "quotes"', "with 'quote", "Käse ß 猫", "two\nlines"]
    rows = []
    for number, name in enumerate(names):
        for label in (0, 1):
            picture(root / f"images/{label}/{name}.png", 10 * number + label)
            quoted = name.replace('"', '""')
            rows.append(f'"{label}/{quoted}.png",{label}')
    csv = root / "images" / "images.csv"
    csv.write_text("\n".join(["x:image,y:label", *rows, ""]), encoding="utf-8")
    return csv


def odd_class_names(root: Path) -> Path:
    for number, name in enumerate(["with, comma", 'with "quotes"', "Käse ß 猫", "two\nlines"]):
        for image in range(4):
            picture(root / "images" / name / f"{name} {image}.png", 10 * number + image)
    return root / "images"


def other_files(root: Path) -> Path:
    folder = class_folders(root / "images")
    for name in (".DS_Store", "cat/.hidden.png", "cat/Thumbs.db", "dog/desktop.ini"):
        (folder / name).write_bytes(b"x")
    (folder / ".git").mkdir()
    return folder


def climbing(root: Path) -> Path:
    csv = csv_of(root, [f"../images/{row}" for row in rows_of()])
    moved = root / "lists" / "images.csv"
    moved.parent.mkdir()
    return csv.rename(moved)


def climbing_through_a_link(root: Path) -> Path:
    """The system goes up from where the link leads; next to the link lie files of other images."""
    csv = climbing(root / "there")
    (root / "here").mkdir()
    (root / "here" / "lists").symlink_to(csv.parent)
    for path in sorted((root / "there" / "images").rglob("*.png")):
        other = root / "here" / path.relative_to(root / "there")
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_bytes(b"another image")
    return root / "here" / "lists" / csv.name


def single(root: Path) -> Path:
    folder = class_folders(root / "images")
    picture(folder / "emu" / "only.png", 300)
    return folder


WORKING: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "byte order mark and CRLF": (bom_and_crlf, []),
    "image of one pixel": (one_pixel, ["12 resized"]),
    "labels that are text": (with_labels("cat", "dog"), ["0 = cat, 1 = dog"]),
    "labels with gaps": (with_labels("7", "3", "12"), ["0 = 3, 1 = 7, 2 = 12"]),
    "labels such as 1.0": (with_labels("0.0", "1.0"), []),
    "class with one image": (single, ["one image, which stays in training: emu"]),
    "image with two labels": (labelled_twice, []),
    "image in training and in test": (other_set("test", "cat"), []),
    "image in training and in validation with another label": (
        other_set("val", "dog"),
        ["No test set: "],
    ),
    "names with spaces, commas, quotes, umlauts, newlines": (odd_names, []),
    "such names of classes": (odd_class_names, ["'two\\nlines'"]),
    "paths with ../": (climbing, ["12 paths lead out of a folder by '..'; they are followed"]),
    "paths with ../ behind a link": (climbing_through_a_link, ["12 paths lead out of a folder"]),
    "absolute paths": (absolute, []),
    "hidden files and Thumbs.db": (other_files, ["One set: "]),
}


def loaded(path: Path, image_size: int | None = 32) -> tuple[Source, TrialData]:
    source = prepare(str(path), None, False, image_size)
    return source, load_trial(source, draw_split(source, 0, None, None, None))


@pytest.mark.parametrize("case", WORKING)
def test_what_is_odd_but_works(tmp_path: Path, caplog: pytest.LogCaptureFixture, case: str) -> None:
    make, words = WORKING[case]
    path = make(tmp_path)
    before = files_below(tmp_path)
    caplog.set_level("INFO", "data_cleansing")
    source, data = loaded(path)
    printed = "\n".join(record.getMessage() for record in caplog.records)
    assert all(word in printed for word in words), printed
    cache = tmp_path / "cache"
    assert files_below(tmp_path) - files_below(cache) == before
    tables = [source.training, source.test, source.validation]
    there = pd.concat([table for table in tables if table is not None])
    paths = [*data.training.paths, *data.validation.paths, *data.test.paths]
    assert sorted(paths) == sorted(there["x:image"]) and all(map(os.path.isabs, paths))
    assert data.training.images[:].shape == (len(data.training), 32, 32, 3)
    for images in (data.training, data.validation, data.test):
        for file, pixels in zip(images.paths, images.images[:], strict=True):
            assert pixels.tobytes() == decode.decode_file(file, source.form).pixels.tobytes()


def test_nothing_is_said_where_nothing_is_odd(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "data_cleansing")
    loaded(csv_of(tmp_path, rows_of()), image_size=8)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["One set"]


# ---------------------------------------------------------------- arbitrary bytes

ANY = settings(max_examples=150, deadline=None, suppress_health_check=[*HealthCheck])


@ANY
@given(st.binary(max_size=200) | st.binary(max_size=60).map(b"x:image,y:label\n".__add__))
def test_any_csv_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    csv = tmp_path / "images.csv"
    csv.write_bytes(content)
    try:
        (part,) = read_parts(csv)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert len(part.table) > 0 and all(part.table["y:label"])


@ANY
@given(st.binary(max_size=60), st.booleans())
def test_any_idx_file_is_read_or_refused(tmp_path: Path, content: bytes, packed: bool) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08" + content) if packed else content)
    try:
        assert read_idx(path).dtype == np.uint8
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(("odd", "named"), [("five", True), ("007", False), ("7", False)])
def test_a_name_among_numbers_is_named(
    odd: str, named: bool, caplog: pytest.LogCaptureFixture
) -> None:
    given = pd.Series(["3", "7"] * 10 + [odd], index=range(2, 23))
    class_labels([(Path("a.csv"), given)])
    words = f"a.csv: row 22: label {odd!r} is no number, though 20 of 21 labels are"
    assert any(words in record.getMessage() for record in caplog.records) == named
