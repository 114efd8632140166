"""Preparing data sets as PNG files, and splitting them."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pooch
import pytest
from PIL import Image

from benchmarks.make_archives import main as make_archives
from benchmarks.make_archives import (
    shuffled_parts,
    write_cifar10,
    write_idx,
    write_mnist,
    write_stl10,
)
from utils.data import datasets
from utils.data.datasets import DATASETS, INDEX, prepare
from utils.data.decode import Form
from utils.data.source import Source
from utils.data.splits import draw_split, load_trial, split_sizes, stratified
from utils.errors import UserError

pytestmark = pytest.mark.usefixtures("cache")

N_TRAIN, N_TEST = 60, 30
LABELS = np.arange(N_TRAIN + N_TEST) % 10
MNIST_SHAPE, CIFAR_SHAPE, STL_SHAPE = (28, 28), (32, 32, 3), (96, 96, 3)
WRITERS = {
    "mnist": (MNIST_SHAPE, write_mnist),
    "cifar10": (CIFAR_SHAPE, write_cifar10),
    "stl10": (STL_SHAPE, write_stl10),
}


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (90, *shape), dtype=np.uint8)


def make_tiny(name: str, folder: Path, seed: int = 0) -> Path:
    """Archives with 60 training and 30 test images in the official format."""
    shape, write = WRITERS[name]
    folder.mkdir(parents=True, exist_ok=True)
    images = pixels(*shape, seed=seed)
    write((images[:N_TRAIN], LABELS[:N_TRAIN]), (images[N_TRAIN:], LABELS[N_TRAIN:]), folder)
    return folder


def publish(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the archives in `folder` for the published ones."""
    row = DATASETS[name]
    files = tuple(
        dataclasses.replace(file, md5=pooch.file_hash(folder / file.name, alg="md5"))
        for file in row.archives
    )
    monkeypatch.setitem(datasets.DATASETS, name, dataclasses.replace(row, archives=files))


def forbid_writing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `folder` read-only for everybody (root may write where the mode forbids it)."""
    access = os.access

    def denied(path: Any, mode: int) -> bool:
        return not Path(path).is_relative_to(folder) and access(path, mode)

    monkeypatch.setattr(os, "access", denied)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# ---------------------------------------------------------------- digits


def test_digits_end_to_end(cache: Path) -> None:
    source = prepare("digits", None, False)
    assert source.folder == cache / "digits"
    assert (len(source.training), len(source.test)) == (1397, 400)
    assert source.fingerprint == "scikit-learn digits" and source.form == Form()
    data = load_trial(source, draw_split(source, 0, None, None, None))
    assert data.training.images.shape == (997, 8, 8, 1)
    assert (len(data.validation), len(data.test)) == (400, 400)
    assert data.training.images.max() == 255


def test_the_images_on_disk_are_scikit_learns(cache: Path) -> None:
    from sklearn.datasets import load_digits

    source = prepare("digits", None, False)
    images = {}
    for path, label in zip(*(pd.concat([source.training, source.test]).T.values), strict=True):
        assert os.path.isabs(path) and path not in images
        images[path] = (np.asarray(Image.open(path)).tobytes(), label)
    values, labels = load_digits(return_X_y=True)
    expected = [(np.rint(v * 255 / 16).astype(np.uint8).tobytes(), y) for v, y in zip(
        values, labels, strict=True)]  # fmt: skip
    assert sorted(images.values()) == sorted(expected)


def test_digits_are_written_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare("digits", None, False)
    monkeypatch.setattr(datasets, "write_images", lambda *_: pytest.fail("written again"))
    second = prepare("digits", None, False)
    pd.testing.assert_frame_equal(first.training, second.training)


def test_importing_the_table_imports_no_heavy_package() -> None:
    heavy = "{'sklearn', 'nnabla'} & set(sys.modules)"
    code = f"import utils.data.datasets, sys; sys.exit(bool({heavy}))"
    root = Path(datasets.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


# ---------------------------------------------------------------- archives


@pytest.mark.parametrize(
    ("name", "shape", "trial_shape"),
    [
        ("mnist", MNIST_SHAPE, (32, 32, 1)),
        ("cifar10", CIFAR_SHAPE, (32, 32, 3)),
        ("stl10", STL_SHAPE, (96, 96, 3)),
    ],
)
def test_archives_become_png_files(
    tmp_path: Path, name: str, shape: tuple[int, ...], trial_shape: tuple[int, ...]
) -> None:
    source = prepare(name, make_tiny(name, tmp_path / "data"), True)
    assert source.training["x:image"][7].endswith("/training/00007.png")
    for table, images, labels in (
        (source.training, pixels(*shape)[:N_TRAIN], LABELS[:N_TRAIN]),
        (source.test, pixels(*shape)[N_TRAIN:], LABELS[N_TRAIN:]),
    ):
        assert list(table) == ["x:image", "y:label"]
        assert table["y:label"].tolist() == labels.tolist()
        read = [np.asarray(Image.open(path)) for path in table["x:image"]]
        np.testing.assert_array_equal(read, images)
    data = load_trial(source, draw_split(source, 0, 40, 20, None))
    assert data.training.images.shape == (40, *trial_shape)


def test_unverified_archives_are_refused_unless_allowed(tmp_path: Path) -> None:
    folder = make_tiny("mnist", tmp_path / "data")
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte.gz: the MD5 sum"):
        prepare("mnist", folder, False)
    assert sorted(os.listdir(folder)) == sorted(file.name for file in DATASETS["mnist"].archives)


def test_verified_and_unverified_images_never_mix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_tiny("mnist", tmp_path / "data")
    publish("mnist", folder, monkeypatch)
    official = prepare("mnist", folder, False)
    make_tiny("mnist", folder, seed=1)
    other = prepare("mnist", folder, True)
    make_tiny("mnist", folder, seed=2)
    third = prepare("mnist", folder, True)
    assert official.folder == folder / "mnist"
    assert other.folder.name.startswith("mnist_unverified_")
    assert len({source.folder for source in (official, other, third)}) == 3
    assert len({source.fingerprint for source in (official, other, third)}) == 3
    assert official.fingerprint.split() == [f.md5 for f in datasets.DATASETS["mnist"].archives]
    np.testing.assert_array_equal(
        np.asarray(Image.open(other.training["x:image"][0])), pixels(*MNIST_SHAPE, seed=1)[0]
    )


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the archives of CIFAR-10."""
    folder = make_tiny("cifar10", tmp_path / "data")
    publish("cifar10", folder, monkeypatch)
    return folder


def test_prepared_images_need_no_archives_any_more(published: Path) -> None:
    first = prepare("cifar10", published, False)
    (published / "cifar-10-python.tar.gz").unlink()
    assert_same_training(prepare("cifar10", published, False), first)


def test_a_folder_of_others_in_data_dir_stays_as_it_is(published: Path, cache: Path) -> None:
    """As the reference's example leaves it: with split files and images of the same names."""
    folder = published / "cifar10"
    theirs = {"cifar10_training_0.csv": b"theirs", "training/00000.png": b"an image"}
    for name, content in theirs.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    source = prepare("cifar10", published, False)
    split = draw_split(source, 0, 20, 10, 10)
    assert source.folder == split.files.training.parent.parent == cache / "cifar10"
    assert {name: (folder / name).read_bytes() for name in theirs} == theirs
    assert len(list(folder.rglob("*"))) == 3
    assert_same_training(prepare("cifar10", published, False), source)


def test_a_preparation_that_was_killed_goes_on(published: Path) -> None:
    first = prepare("cifar10", published, False)
    (index,) = published.rglob("prepared_images.csv")
    index.rename(index.with_name("preparing"))
    assert_same_training(prepare("cifar10", published, False), first)
    assert index.exists() and not index.with_name("preparing").exists()


@pytest.mark.parametrize("damage", [b"", b"x:image;y:label;part\n", b"\xff\xfe\x00"])
def test_images_with_a_damaged_index_are_written_again(damage: bytes, published: Path) -> None:
    first = prepare("cifar10", published, False)
    (index,) = published.rglob("prepared_images.csv")
    index.write_bytes(damage)
    assert_same_training(prepare("cifar10", published, False), first)


def assert_same_training(source: Source, expected: Source) -> None:
    pd.testing.assert_frame_equal(source.training, expected.training)


def test_archives_in_data_dir_go_before_images_in_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("cifar10", make_tiny("cifar10", cache), monkeypatch)
    assert prepare("cifar10", None, False).folder == cache / "cifar10"
    data = tmp_path / "data"
    assert prepare("cifar10", data, False).folder == cache / "cifar10"
    make_tiny("cifar10", data, seed=1)
    with pytest.raises(UserError, match="MD5"):
        prepare("cifar10", data, False)
    assert prepare("cifar10", data, True).folder.parent == data


@pytest.mark.parametrize("name", ["mnist", "own"])
@pytest.mark.parametrize("dangling", [False, True])
def test_data_dir_that_is_no_folder(
    name: str, dangling: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    place = tmp_path / "place"
    if dangling:
        place.symlink_to("nowhere")
    else:
        place.touch()
    with pytest.raises(UserError, match="place is not a folder; give one with --data_dir"):
        prepare(f"./{name}" if name == "own" else name, place, False)


def test_what_a_read_only_folder_cannot_take_goes_to_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_tiny("mnist", tmp_path / "data")
    publish("mnist", folder, monkeypatch)
    before = contents(folder)
    forbid_writing(folder, monkeypatch)
    source = prepare("mnist", folder, False)
    files = draw_split(source, 0, 30, 10, 10).files
    assert contents(folder) == before
    assert source.folder == cache / "mnist" and files.test.is_relative_to(cache)
    assert Path(source.training["x:image"][0]).is_relative_to(cache)


def test_prepared_images_in_a_read_only_folder_are_used_where_they_lie(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    prepare("digits", folder, False)
    before = contents(folder)
    forbid_writing(folder, monkeypatch)
    source = prepare("digits", folder, False)
    split = draw_split(source, 0, None, None, None)
    assert contents(folder) == before
    assert split.files.training.parent == cache / "digits"
    assert Path(source.training["x:image"][0]).is_relative_to(folder)
    assert len(load_trial(source, split).training) == 997


def test_nothing_writable_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_writing(tmp_path, monkeypatch)
    with pytest.raises(UserError, match="cannot be written"):
        prepare("digits", None, False)


def test_an_interrupted_preparation_is_done_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = datasets._save_png

    def interrupted(image: np.ndarray, path: Path) -> None:
        if path.name == "00050.png":
            raise KeyboardInterrupt
        save(image, path)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(datasets, "_save_png", interrupted)
        prepare("digits", None, False)
    assert len(os.listdir(cache / "digits" / "training")) == 50
    assert not (cache / "digits" / INDEX).exists()
    source = prepare("digits", None, False)
    assert all(map(os.path.isfile, source.training["x:image"]))


def test_an_image_that_was_deleted_is_written_again(cache: Path) -> None:
    path = Path(prepare("digits", None, False).test["x:image"][3])
    content = path.read_bytes()
    path.unlink()
    prepare("digits", None, False)
    assert path.read_bytes() == content


def test_offline_one_line(cache: Path) -> None:
    with pytest.raises(UserError) as caught:
        prepare("mnist", None, False)
    text = str(caught.value)
    assert "\n" not in text
    for word in ("train-images-idx3-ubyte.gz", "cvdf", "ossci", f"put into {cache}"):
        assert word in text
    with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz.*toronto"):
        prepare("cifar10", None, False)


def test_names_and_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'mnits' is not known .*path.*digits, mnist, cifar10"):
        prepare("mnits", None, False)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is not a folder"):
        prepare("digits", tmp_path / "file", False)


def break_labels(array: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: write_idx(array, folder / "train-labels-idx1-ubyte.gz")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (break_labels(np.zeros(59, np.uint8)), "train-labels.*59 labels for the 60 images"),
        (break_labels(np.full(60, 10, np.uint8)), "train-labels.*label 10 at image 0"),
        (break_labels(np.zeros((60, 1), np.uint8)), "train-labels"),
        (
            lambda folder: write_idx(np.zeros(30, np.uint8), folder / "t10k-images-idx3-ubyte.gz"),
            "t10k-images.*no images",
        ),
        (
            lambda folder: (folder / "t10k-images-idx3-ubyte.gz").write_bytes(b"no gzip"),
            "t10k-images.*no whole IDX file",
        ),
    ],
)
def test_mnist_files_that_do_not_fit_are_named(
    tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    folder = make_tiny("mnist", tmp_path / "data")
    spoil(folder)
    with pytest.raises(UserError, match=words):
        prepare("mnist", folder, True)
    assert not list(folder.rglob("*.png"))


def test_cifar_without_a_batch_is_named(tmp_path: Path) -> None:
    from benchmarks.make_archives import write_tar

    write_tar([("cifar-10-batches-py/data_batch_1", b"")], tmp_path / "cifar-10-python.tar.gz")
    with pytest.raises(UserError, match="member cifar-10-batches-py/data_batch_2 is missing"):
        prepare("cifar10", tmp_path, True)


# ---------------------------------------------------------------- stratified draws


def test_stratified_draws_are_in_proportion_and_ascending() -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    drawn = stratified(labels, 10, np.random.default_rng(0))
    assert np.bincount(labels[drawn]).tolist() == [5, 3, 2]
    assert (np.diff(drawn) > 0).all()
    assert not np.array_equal(drawn, stratified(labels, 10, np.random.default_rng(1)))


@pytest.mark.parametrize("size", [3, 4, 17, 99, 100])
def test_any_size_is_met_with_classes_within_one_of_their_share(size: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [51, 30, 19]))
    drawn = stratified(labels, size, np.random.default_rng(0))
    assert len(set(drawn)) == size
    shares = np.array([51, 30, 19]) * size / 100
    assert (abs(np.bincount(labels[drawn], minlength=3) - shares) < 1).all()


# ---------------------------------------------------------------- splits


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """100 training and 40 test images of 4 classes; by default 20 are for validation."""
    training, test = (
        pd.DataFrame(
            {"x:image": [f"/{part}/{i}.png" for i in range(n)], "y:label": np.arange(n) % 4}
        )
        for part, n in (("training", 100), ("test", 40))
    )
    return Source(
        name="tiny", folder=tmp_path / "tiny", training=training, test=test, n_classes=4,
        class_names=tuple("abcd"), fingerprint="", form=Form(), damping=0.1, n_validation=20,
    )  # fmt: skip


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path)


def test_the_default_split(source: Source) -> None:
    files = draw_split(source, 3, None, None, None).files
    assert files.training == source.folder / "tiny_training_3.csv"
    assert files.validation == source.folder / "tiny_validation_3.csv"
    assert files.test == source.folder / "tiny_test.csv"
    training, validation = read(files.training), read(files.validation)
    assert (len(training), len(validation)) == (80, 20)
    both = pd.concat([training, validation])
    assert set(both["x:image"]) == set(source.training["x:image"])
    assert validation["y:label"].value_counts().tolist() == [5] * 4
    pd.testing.assert_frame_equal(read(files.test), source.test)


def test_a_csv_has_the_header_of_nnc_and_the_order_of_the_source(source: Source) -> None:
    files = draw_split(source, 0, 8, 4, 4).files
    for path in (files.training, files.validation, files.test):
        lines = path.read_bytes().split(b"\n")
        assert lines[0] == b"x:image,y:label" and lines[-1] == b""
        numbers = [int(line.split(b"/")[2].split(b".")[0]) for line in lines[1:-1]]
        assert numbers == sorted(numbers)


@pytest.mark.parametrize("own_validation", [False, True])
def test_a_split_is_rows_of_the_source_that_its_files_name(
    source: Source, own_validation: bool
) -> None:
    if own_validation:
        source = dataclasses.replace(source, validation=source.test.iloc[:24], n_validation=0)
    split = draw_split(source, 3, 40, 12, 20)
    for name, first in (("training", 0), ("validation", 0), ("test", 100)):
        rows, named = getattr(split, name), read(getattr(split.files, name))
        first = {"validation": 100, "test": 124}.get(name, first) if own_validation else first
        assert rows.min() >= first and (np.diff(rows) > 0).all()
        assert source.images.iloc[rows]["x:image"].tolist() == named["x:image"].tolist()
        assert source.images.iloc[rows]["y:label"].tolist() == named["y:label"].tolist()


def test_rows_count_over_all_sets(source: Source) -> None:
    parted = dataclasses.replace(source, validation=source.test.iloc[:24])
    assert source.images["set"].tolist() == ["training"] * 100 + ["test"] * 40
    assert list(source.rows_of_set("test")) == list(range(100, 140))
    assert len(source.rows_of_set("validation")) == 0
    assert list(parted.rows_of_set("test")) == list(range(124, 164))
    for name in ("training", "validation", "test"):
        rows = parted.rows_of_set(name)
        assert set(parted.images["set"].iloc[rows]) == {name}
        assert parted.images["x:image"].iloc[rows].tolist() == list(
            getattr(parted, name)["x:image"]
        )


def test_further_columns_are_carried_along(source: Source) -> None:
    training = source.training.assign(who="me")
    files = draw_split(dataclasses.replace(source, training=training), 0, None, None, None).files
    assert list(read(files.training)) == ["x:image", "y:label", "who"]


def test_splits_are_functions_of_the_seed_alone(source: Source) -> None:
    draw_split(source, 0, None, None, None)
    draw_split(source, 1, 40, 12, 20)
    before = contents(source.folder)
    shutil.rmtree(source.folder)
    np.random.default_rng(5).random()
    draw_split(source, 1, 40, 12, 20)
    draw_split(source, 0, None, None, None)
    assert contents(source.folder) == before
    files = [draw_split(source, seed, None, None, None).files for seed in (0, 1)]
    assert files[0].validation.read_bytes() != files[1].validation.read_bytes()


def test_other_sizes_do_not_overwrite(source: Source) -> None:
    full = draw_split(source, 0, None, None, None).files
    before = contents(source.folder)
    small = draw_split(source, 0, 40, None, None).files
    assert small.training.parent == source.folder / "n_train_40-n_val_20-n_test_40"
    assert {name: contents(source.folder)[name] for name in before} == before
    assert draw_split(source, 0, 80, 20, 40).files == full


def test_a_subset_is_a_part_of_the_full_split(source: Source) -> None:
    full = draw_split(source, 0, None, None, None).files
    small = draw_split(source, 0, 41, 10, 20).files
    for part, size in (("training", 41), ("validation", 10), ("test", 20)):
        images = read(getattr(small, part))["x:image"]
        assert len(images) == size
        assert set(images) < set(read(getattr(full, part))["x:image"])
    counts = read(small.training)["y:label"].value_counts()
    assert counts.max() - counts.min() <= 1


def test_the_test_set_is_the_same_for_every_seed(source: Source) -> None:
    files = [draw_split(source, seed, None, None, 20).files for seed in range(4)]
    contents = {file.test.read_bytes() for file in files}
    assert len(contents) == 1


@pytest.mark.parametrize(
    ("asked", "sizes"),
    [
        ((None, None, None), (80, 20, 40)),
        ((None, 10, None), (80, 10, 40)),
        ((None, 30, None), (70, 30, 40)),
        ((90, 10, 4), (90, 10, 4)),
        ((50, 50, None), (50, 50, 40)),
        ((4, 96, None), (4, 96, 40)),
    ],
)
def test_sizes(source: Source, asked: tuple[int | None, ...], sizes: tuple[int, ...]) -> None:
    assert split_sizes(source, *asked) == sizes
    files = draw_split(source, 0, *asked).files
    tables = [read(path) for path in (files.training, files.validation, files.test)]
    assert tuple(map(len, tables)) == sizes
    assert not set(tables[0]["x:image"]) & set(tables[1]["x:image"])


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ((81, None, None), "--n_train 81: must be from 4 .* to 80 for tiny"),
        ((3, None, None), "--n_train 3: must be from 4 "),
        ((-1, None, None), "--n_train -1: must be from 4 "),
        ((None, 97, None), "--n_val 97: must be from 4 .* to 96 for tiny"),
        ((51, 50, None), "--n_train 51: must be from 4 .* to 50 for tiny"),
        ((None, 0, None), "--n_val 0: must be from 4 "),
        ((None, None, 41), "--n_test 41: must be from 4 .* to 40 for tiny"),
        ((None, None, 3), "--n_test 3: must be from 4 "),
    ],
)
def test_impossible_sizes(source: Source, asked: tuple[int | None, ...], words: str) -> None:
    with pytest.raises(UserError, match=words):
        draw_split(source, 0, *asked)
    assert not source.folder.exists()


def test_a_default_that_is_too_large_says_what_to_give(source: Source) -> None:
    with pytest.raises(UserError, match=r"--n_val 200 \(the default\): must be from 4"):
        draw_split(dataclasses.replace(source, n_validation=200), 0, None, None, None)


def test_a_file_with_the_same_content_is_left_alone(source: Source) -> None:
    path = draw_split(source, 0, None, None, None).files.training
    os.utime(path, (1, 1))
    draw_split(source, 0, None, None, None)
    assert path.stat().st_mtime == 1
    path.write_text("other")
    draw_split(source, 0, None, None, None)
    assert len(read(path)) == 80


def test_sets_of_unlike_images_are_refused(tmp_path: Path, source: Source) -> None:
    def table(n: int, *shape: int) -> pd.DataFrame:
        path = tmp_path / f"{shape}.png"
        Image.fromarray(np.zeros(shape, np.uint8)).save(path)
        return pd.DataFrame({"x:image": [str(path)] * n, "y:label": np.arange(n) % 4})

    unlike = dataclasses.replace(source, training=table(100, 8, 8), test=table(40, 9, 9))
    with pytest.raises(UserError, match=r"tiny_test\.csv: its images are not of the size"):
        load_trial(unlike, draw_split(unlike, 0, None, None, None))


# ---------------------------------------------------------------- the archive maker


def test_the_archive_maker_parts_without_overlap() -> None:
    images = np.arange(50, dtype=np.uint8)[:, None]
    training, test = shuffled_parts(images, np.arange(50), 30, 15, seed=0)
    for part in (training, test):
        assert part[0].ravel().tolist() == part[1].tolist()
    assert len({*training[1], *test[1]}) == 45
    with pytest.raises(ValueError, match="50 are there"):
        shuffled_parts(images, np.arange(50), 40, 15, seed=0)


def test_the_archive_maker_reads_what_is_documented(tmp_path: Path) -> None:
    import io
    import zipfile

    data = tmp_path / "real"
    data.mkdir()
    write_idx(pixels(28, 28), data / "t10k-images-idx3-ubyte.gz")
    write_idx(LABELS.astype(np.uint8), data / "t10k-labels-idx1-ubyte.gz")
    with zipfile.ZipFile(data / "cifar10-test-jpg.zip", "w") as archive:
        for number, label in enumerate(LABELS):
            stream = io.BytesIO()
            Image.new("RGB", (32, 32), (25 * int(label), 0, 0)).save(stream, "JPEG", quality=95)
            name = DATASETS["cifar10"].class_names[label]
            archive.writestr(f"test/{name}/{number:04d}.jpg", stream.getvalue())
    out = tmp_path / "out"
    make_archives(["--data", str(data), "--out", str(out), "--n_train", "60", "--n_test", "30"])
    source = prepare("cifar10", out, True)
    assert (len(source.training), len(source.test)) == (60, 30)
    for path, label in zip(source.training["x:image"], source.training["y:label"], strict=True):
        assert abs(int(np.asarray(Image.open(path))[16, 16, 0]) - 25 * label) < 4
    assert len(prepare("mnist", out, True).training) == 60
    large = prepare("stl10", out, True)
    red = np.asarray(Image.open(large.training["x:image"][0]))[48, 48, 0]
    assert abs(int(red) - 25 * large.training["y:label"][0]) < 4


def test_the_archive_maker_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        make_archives(["--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert "t10k-images-idx3-ubyte.gz" in capsys.readouterr().err
