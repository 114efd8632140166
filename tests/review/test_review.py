"""python -m utils.review: the reviewed data set on disk, and what it is worth."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.helpers.labels import issue, write_label_check
from tests.helpers.own_images import (
    FURTHER,
    class_folders,
    csv_with_further_columns,
    picture,
    rows_of,
)
from tests.helpers.runs import contents, record, sgd_influence
from utils.columns import CLASS, IMAGE, LABEL, ROW, SET
from utils.data.datasets import prepare
from utils.data.decisions import DECISION, NEW_CLASS, NEW_LABEL
from utils.data.label_table import IS_ISSUE, PREDICTED, read_class_names, read_label_verdict
from utils.data.own_data import Wanted, own_source
from utils.errors import UserError
from utils.output.lock import FolderLock
from utils.output.paths import OutputPaths
from utils.review import command, export, worth
from utils.review.__main__ import main
from utils.review.reviewed import Reviewed
from utils.training.model_check import check_once, checked_model
from utils.training.models import MODELS, Model

TINY = "-e 1 -nt 1 -r 0 --batch_size 8 --image_size 8"
QUICK = "--model mlp --context cpu --methods Random --no_report"
WRONG = (0, 3, 25)
"""Of the training images, those whose label the check doubts."""


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 30 cats and 30 dogs in two folders, a ninth of them for testing."""
    root = tmp_path_factory.mktemp("reviewed")
    pictures, output = class_folders(root / "pictures", per_class=30), root / "out"
    assert sgd_influence(output, f"-ds {pictures} {QUICK}", TINY) == 0
    files = sorted(pictures.rglob("*.png"))
    rows, count = [], {"training": 0, "test": 0}
    for number, file in enumerate(files):
        part, label = "test" if number % 6 == 5 else "training", int(file.parent.name == "dog")
        row = count[part]
        wrong = row in WRONG if part == "training" else row == 0
        rows.append(issue(str(file), label, row, part, predicted=1 - label if wrong else label))
        count[part] += 1
    write_label_check(output, rows, test_drawn=True)
    return output


@pytest.fixture
def folder(checked: Path, tmp_path: Path) -> Path:
    """A copy of it to be changed."""
    return shutil.copytree(checked, tmp_path / "out")


def decisions(folder: Path, kinds: dict[tuple[str, int], str], name: str = "mine.csv") -> Path:
    """A file of decisions by set and row; a number stands for the label to give."""
    table = pd.read_csv(OutputPaths(folder).label_issues).set_index([SET, ROW], drop=False)
    rows = table.loc[list(kinds), [IMAGE, LABEL, SET, ROW]].astype(str)
    rows[DECISION] = ["relabel" if kind.isdigit() else kind for kind in kinds.values()]
    rows[NEW_LABEL] = [kind if kind.isdigit() else "" for kind in kinds.values()]
    names = read_class_names(OutputPaths(folder).classes)
    rows[NEW_CLASS] = [names[int(new)] if new else "" for new in rows[NEW_LABEL]]
    csv = folder.parent / name
    rows.to_csv(csv, index=False)
    return csv


def of_suspects(folder: Path, name: str = "mine.csv") -> Path:
    """Relabel the first suspect, remove the second, keep the third; relabel the test image."""
    places = [("training", row) for row in WRONG]
    kinds = dict(zip(places, ("1", "remove", "keep"), strict=True)) | {("test", 0): "1"}
    return decisions(folder, kinds, name)


def first(folder: Path) -> tuple[str, int]:
    """Set and row of some image."""
    return tuple(pd.read_csv(OutputPaths(folder).label_issues)[[SET, ROW]].iloc[0])


def reviewed(folder: Path, csv: Path, *more: str) -> int:
    return main([str(folder), str(csv), *(more or ("-nt", "0"))])


def training_labels(source) -> dict[str, str]:
    """The name of each training image's class by its file."""
    labels = source.training[LABEL].map(dict(enumerate(source.class_names)))
    return dict(zip(source.training[IMAGE].map(os.path.realpath), labels, strict=True))


# ---------------------------------------------------------------- the reviewed data set


def test_the_reviewed_csv_has_the_decisions_and_keeps_its_sets(
    folder: Path, tmp_path: Path
) -> None:
    assert reviewed(folder, of_suspects(folder)) == 0
    csv = folder / "reviewed/csv/train_reviewed.csv"
    table = pd.read_csv(csv)
    assert list(table) == [IMAGE, LABEL, CLASS]
    issues = pd.read_csv(folder / "labels/label_issues.csv")
    training = issues[issues[SET] == "training"].sort_values(ROW).reset_index(drop=True)
    expected = training.drop(index=WRONG[1])
    assert table[IMAGE].tolist() == expected[IMAGE].tolist()
    changed = table[LABEL].to_numpy() != expected[LABEL].to_numpy()
    assert np.flatnonzero(changed).tolist() == [0]
    assert table[CLASS].tolist() == ["dog" if label else "cat" for label in table[LABEL]]
    for path in (csv, csv.parent):
        source = own_source(path, tmp_path / "data", Wanted(8))
        assert source.class_names == ("cat", "dog")
        assert len(source.training) == 49 and len(source.test) == 10
        first = issues[(issues[SET] == "test") & (issues[ROW] == 0)][IMAGE].item()
        assert source.test.set_index(IMAGE)[LABEL][first] == 1


def test_reviewed_lists_keep_further_columns(tmp_path: Path) -> None:
    """Texts as they are, whatever their columns are called."""
    table = csv_with_further_columns(tmp_path / "all.csv", 40)
    out = tmp_path / "out"
    assert sgd_influence(out, f"-ds {tmp_path / 'all.csv'} {QUICK}", TINY) == 0
    assert reviewed(out, decisions(out, {("training", 0): "remove", ("test", 1): "0"})) == 0
    lists = [out / "reviewed/csv" / f"{name}_reviewed.csv" for name in ("train", "test")]
    written = pd.concat(pd.read_csv(csv, dtype=str, keep_default_na=False) for csv in lists)
    assert len(written) == 39 and list(written) == [IMAGE, LABEL, *FURTHER]
    given = table.set_index(IMAGE).loc[[Path(image).name for image in written[IMAGE]]]
    assert written[list(FURTHER)].to_numpy().tolist() == given[list(FURTHER)].to_numpy().tolist()


def test_reviewed_lists_keep_names_that_are_not_those_of_the_classes(tmp_path: Path) -> None:
    """And each list has the columns that its set had."""
    images, rows = class_folders(tmp_path / "pets", per_class=20), rows_of(40)
    training = [f"{row},{'a,web' if n == 4 else ','}" for n, row in enumerate(rows[:30])]
    test = [f"{row},seen" for row in rows[30:]]
    for part, header, lines in (("train", "#class,origin", training), ("test", "note", test)):
        text = "\n".join([f"x:image,y:label,{header}", *lines, ""])
        (images / f"{part}.csv").write_text(text)
    out = tmp_path / "out"
    assert sgd_influence(out, f"-ds {images} {QUICK}", TINY) == 0
    assert reviewed(out, decisions(out, {("training", 0): "keep"})) == 0
    first_set, second_set = (
        pd.read_csv(out / f"reviewed/csv/{name}_reviewed.csv", dtype=str, keep_default_na=False)
        for name in ("train", "test")
    )
    assert list(first_set) == [IMAGE, LABEL, CLASS, "origin"]
    assert list(first_set[CLASS]).count("a") == list(first_set["origin"]).count("web") == 1
    assert list(second_set) == [IMAGE, LABEL, "note"]
    assert set(second_set["note"]) == {"seen"}


def test_nets_of_a_review_get_images_as_the_run_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the run used only gray ones of a data set in colour."""
    images = class_folders(tmp_path / "pets", per_class=20, mode="L")
    picture(images / "dog/0.png", 5, "RGB")
    out = tmp_path / "out"
    part = "--n_train 20 --n_val 6 --n_test 4"
    assert sgd_influence(out, f"-ds {images} {QUICK} {part}", TINY) == 0
    found = read_label_verdict(OutputPaths(out))
    assert found and found.image_shape == (3, 8, 8)
    shapes = []

    def checked(name: str, shape: tuple[int, ...], n_classes: int) -> Model:
        shapes.append(shape)
        return checked_model(name, shape, n_classes)

    monkeypatch.setattr("utils.review.worth.checked_model", checked)
    training = pd.read_csv(out / "labels/label_issues.csv").query("set == 'training'")[ROW]
    removal = decisions(out, {("training", int(training.iloc[0])): "remove"})
    assert reviewed(out, removal, "-nt", "1") == 0
    assert shapes == [(3, 8, 8)]


def test_class_folders_and_lists_hold_the_same_images(folder: Path, tmp_path: Path) -> None:
    csv = of_suspects(folder)
    for how in ("csv", "folder", "filelist"):
        assert reviewed(folder, csv, "-nt", "0", "--export", how) == 0
    listed, linked = (
        own_source(folder / "reviewed" / name, tmp_path / "data", Wanted(8))
        for name in ("csv", "folder")
    )
    assert training_labels(linked) == training_labels(listed)
    lines = (folder / "reviewed/filelist/train_reviewed.txt").read_text().splitlines()
    assert lines == listed.training[IMAGE].tolist()
    assert all(path.is_symlink() for path in (folder / "reviewed/folder").glob("*/*/*.png"))


def test_class_folders_show_images_whose_names_do_not_say_so(tmp_path: Path) -> None:
    pictures = class_folders(tmp_path / "pictures", per_class=8)
    (pictures / "cat/1.png").unlink()
    picture(pictures / "cat/one", format="JPEG")
    (pictures / "cat/2.png").rename(pictures / "cat/.2.png")
    (pictures / "cat/3.png").rename(pictures / "cat/3.data")
    files = sorted(path for path in pictures.rglob("*") if path.is_file())
    rows = [f"{path},{('cat.png', 'dog')[path.parent.name == 'dog']}" for path in files]
    csv, output = tmp_path / "list.csv", tmp_path / "out"
    csv.write_text("\n".join(["x:image,y:label", *rows, ""]))
    assert sgd_influence(output, f"-ds {csv} {QUICK}", TINY) == 0
    issues = pd.read_csv(OutputPaths(output).label_issues)
    known = issues[[IMAGE, LABEL, SET, ROW]].head(1).assign(**{DECISION: "keep", NEW_LABEL: ""})
    known.to_csv(tmp_path / "mine.csv", index=False)
    assert reviewed(output, tmp_path / "mine.csv", "-nt", "0", "--export", "folder") == 0
    source = own_source(output / "reviewed/folder", tmp_path / "data", Wanted(8))
    names = {Path(path).name for path in source.images[IMAGE]}
    assert len(source.images) == 16 and {"one.jpg", "2.png", "3.data.png"} <= names


def test_classes_that_get_another_folder_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = pd.DataFrame({IMAGE: [str(picture(tmp_path / "a.png"))], LABEL: [0], ROW: [0]})
    data = Reviewed({}, {"training": rows}, {0: "a/b", 1: "cat"}, pd.Series(dtype=str))
    assert (export.export(data, tmp_path, "folder") / "train/class 0/a.png").exists()
    assert "'a/b' is 'class 0' (--export csv keeps" in caplog.text


def test_a_name_with_a_line_break_is_not_listed(tmp_path: Path) -> None:
    rows = pd.DataFrame({IMAGE: ["/a\nb.png"], LABEL: [0], ROW: [0]})
    data = Reviewed({"training": rows}, {"training": rows}, {0: "cat"}, pd.Series(dtype=str))
    with pytest.raises(UserError, match="has a line break, which a list of lines cannot hold"):
        export.export(data, tmp_path, "filelist")


def test_images_are_copied_where_there_are_no_links(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refused)
    csv = of_suspects(folder)
    for _ in range(2):  # the second time it is there
        assert reviewed(folder, csv, "-nt", "0", "--export", "folder") == 0
    files = list((folder / "reviewed/folder").glob("*/*/*.png"))
    assert len(files) == 59
    assert all(path.is_file() and not path.is_symlink() for path in files)
    assert not (folder / "reviewed/folder_2").exists()


def test_equal_names_and_odd_classes_get_places_of_their_own() -> None:
    names = {0: "a/b", 1: "..", 2: "cat", 3: "CAT", 4: "", 5: "class 0", 6: "dog"}
    folders = export._folder_names(names)
    assert folders[6] == "dog" and folders[5] == "class 0"
    assert len({name.lower() for name in folders.values()}) == len(names)
    assert not any("/" in name or name.startswith(".") for name in folders.values())


def test_images_that_the_run_did_not_use_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, output = class_folders(tmp_path / "pictures", per_class=30), tmp_path / "out"
    part = "--n_train 20 --n_val 6 --n_test 4 --cleanse_n 2"
    assert sgd_influence(output, f"-ds {pictures} {QUICK} {part}", TINY) == 0
    text = "cleansed: training images of the data set not listed, because no trial of this command"
    line = next(row for row in capsys.readouterr().out.splitlines() if text in row)
    assert line.endswith(": 25")
    found = read_label_verdict(OutputPaths(output))
    assert found and found.test_drawn and found.n_undrawn == 30
    assert reviewed(output, decisions(output, {first(output): "keep"})) == 0
    assert "30 images of the data set not in it" in capsys.readouterr().err


# ---------------------------------------------------------------- nothing is lost


def test_an_edited_or_foreign_file_stays(folder: Path) -> None:
    csv = of_suspects(folder)
    assert reviewed(folder, csv) == 0
    assert reviewed(folder, csv) == 0
    assert not (folder / "reviewed/csv_2").exists()  # the same
    edited = folder / "reviewed/csv/train_reviewed.csv"
    edited.write_text(edited.read_text().replace(",0,cat", ",1,dog", 1))
    kept = edited.read_bytes()
    assert reviewed(folder, csv) == 0
    assert edited.read_bytes() == kept
    assert (folder / "reviewed/csv_2/train_reviewed.csv").read_bytes() != kept
    (folder / "reviewed/filelist").write_text("mine")
    assert reviewed(folder, csv, "-nt", "0", "--export", "filelist") == 0
    assert (folder / "reviewed/filelist").read_text() == "mine"
    assert (folder / "reviewed/filelist_2/train_reviewed.txt").exists()


def test_an_export_that_is_cut_off_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_):
        raise OSError(28, "No space left on device")

    csv = of_suspects(folder)
    with monkeypatch.context() as patch:
        patch.setattr(export, "_link", full)
        assert reviewed(folder, csv, "-nt", "0", "--export", "folder") == 2
    assert list((folder / "reviewed").iterdir()) == []
    left = folder / "reviewed/.folder.01234567.tmp/train"  # of a command that was killed
    left.mkdir(parents=True)
    assert reviewed(folder, csv) == 0
    assert [path.name for path in (folder / "reviewed").iterdir()] == ["csv"]


def test_decisions_of_several_reviews_are_merged(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = of_suspects(folder)
    assert reviewed(folder, first) == reviewed(folder, first) == 0
    labels = folder / "labels"
    written = (labels / "decisions.csv").read_bytes()
    assert written == first.read_bytes()
    capsys.readouterr()
    later = {("training", 0): "keep", ("training", 3): "undo", ("training", 7): "remove"}
    later[("test", 0)] = "1"
    second = decisions(folder, later, "second.csv")
    assert reviewed(folder, second) == 0
    printed = capsys.readouterr().out
    assert "4 decisions of earlier reviews: 1 kept, 1 given again, 1 replaced, 1 undone" in printed
    assert "Both together: 4 decisions: 2 keep, 1 relabel, 1 remove" in printed
    expected = {("training", 0): "keep", ("training", 7): "remove", ("training", 25): "keep"}
    together = decisions(folder, expected | {("test", 0): "1"}, "together.csv")
    assert (labels / "decisions.csv").read_bytes() == together.read_bytes()
    assert (labels / "decisions_2.csv").read_bytes() == written
    assert not (labels / "decisions_3.csv").exists()
    assert len(pd.read_csv(folder / "reviewed/csv_2/train_reviewed.csv")) == 49
    by_hand = (labels / "decisions.csv").read_text() + "\n"
    (labels / "decisions.csv").write_text(by_hand)
    assert reviewed(folder, labels / "decisions.csv") == 0
    assert (labels / "decisions.csv").read_text() == by_hand


def test_the_last_decision_can_be_undone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    undo = decisions(folder, {("training", 0): "undo"}, "undo.csv")
    assert reviewed(folder, undo) == 2
    assert "undoes decisions that no review applied" in capsys.readouterr().err
    assert not (folder / "reviewed").exists()
    assert reviewed(folder, decisions(folder, {("training", 0): "remove"})) == 0
    capsys.readouterr()
    assert reviewed(folder, undo) == 0
    printed = capsys.readouterr().out
    assert "1 decision of earlier reviews: 1 undone" in printed
    assert "Both together: no decision is left" in printed
    assert len(pd.read_csv(folder / "reviewed/csv_2/train_reviewed.csv")) == 50
    assert pd.read_csv(folder / "labels/decisions.csv").empty
    assert len(pd.read_csv(folder / "labels/decisions_2.csv")) == 1
    assert reviewed(folder, undo) == 2  # with the empty file there
    assert reviewed(folder, folder / "labels/decisions.csv") == 2
    assert "has no decision; decide on the page" in capsys.readouterr().err


def test_the_results_of_the_run_stay_as_they_are(folder: Path) -> None:
    before = contents(folder)
    assert reviewed(folder, of_suspects(folder), "-nt", "1") == 0
    after = contents(folder)
    added = {name for name in after if name not in before}
    assert {name: after[name] for name in before} == before
    assert {Path(name).parts[0] for name in added} == {"reviewed", "labels"}


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("spoil", "printed"),
    [
        (lambda out, csv: shutil.rmtree(out), "no such folder"),
        (lambda out, csv: (out / "manifest.json").unlink(), "holds no run"),
        (lambda out, csv: (out / "labels/label_issues.csv").unlink(), "has no labels/label_issues"),
        (lambda out, csv: (out / "labels/label_issues.csv").write_text("a\n1\n"), "was edited"),
        (lambda out, csv: (out / "summary/classes.csv").unlink(), "has no summary/classes.csv"),
        (lambda out, csv: csv.unlink(), "mine.csv: does not exist; correct the path"),
        (lambda out, csv: csv.write_text("a,b\n1,2\n"), "row 1: a column x:image is needed"),
        (
            lambda out, csv: csv.write_text("x:image,y:label\na,0\n"),
            "no column set; the header must be ",
        ),
        (lambda out, csv: csv.write_text(csv.read_text().replace("keep", "kep")), "row 4: decis"),
        (
            lambda out, csv: csv.write_text(
                csv.read_text().replace("\n", "\n\n").replace("keep", "kep")
            ),
            "row 7: decis",
        ),
        (lambda out, csv: (out / "reviewed").symlink_to("/tmp"), "is a symbolic link where"),
    ],
)
def test_a_mistake_is_one_line(
    spoil, printed: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv = of_suspects(folder)
    spoil(folder, csv)
    assert reviewed(folder, csv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m utils.review: error: ") and printed in line


@pytest.mark.parametrize("part", ["training", "test"])
def test_removing_every_image_of_a_set_is_refused(
    part: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    n = (pd.read_csv(folder / "labels/label_issues.csv")[SET] == part).sum()
    csv = decisions(folder, {(part, row): "remove" for row in range(n)})
    assert reviewed(folder, csv) == 2
    assert f"removes every {part} image; keep some" in capsys.readouterr().err
    assert not (folder / "reviewed").exists()


def test_removing_all_classes_but_one_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(folder / "labels/label_issues.csv")
    cats = table[(table[SET] == "training") & (table[LABEL] == 0)][ROW]
    assert reviewed(folder, decisions(folder, {("training", row): "remove" for row in cats})) == 2
    assert "leaves training images of one class only, 'dog'; keep" in capsys.readouterr().err


def test_a_table_from_which_rows_were_taken_is_no_data_set(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv, issues = of_suspects(folder), folder / "labels/label_issues.csv"
    table = pd.read_csv(issues)
    table[table[IS_ISSUE] == 1].to_csv(issues, index=False)
    assert reviewed(folder, csv) == 2
    assert f"{issues}: was edited, so it may lack images; give the" in capsys.readouterr().err
    assert not (folder / "reviewed").exists()
    table.to_csv(issues.with_name("label_issues.new.csv"), index=False)  # of the next run
    record(folder, issues.with_name("label_issues.new.csv"))
    assert reviewed(folder, csv) == 0


def test_images_that_are_gone_are_not_exported(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv, issues = of_suspects(folder), folder / "labels/label_issues.csv"
    table = pd.read_csv(issues)
    other = table.index[(table[SET] == "training") & (table[ROW] == 7)].item()
    table.loc[other, IMAGE] = "/gone/cat.png"
    table.to_csv(issues, index=False)
    record(folder, issues)
    for how in ("csv", "folder"):
        assert reviewed(folder, csv, "-nt", "0", "--export", how) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "1 of 59 images are not where the run read them, such as '/gone/cat.png'" in line
    assert not (folder / "reviewed").exists()


def test_rows_without_a_decision_are_skipped(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(folder / "labels/label_issues.csv")
    csv = folder.parent / "copy.csv"  # of the table, with two more columns
    copy = table.assign(**{DECISION: ["keep"] + [""] * 59, NEW_LABEL: ""})
    blank = "," * (len(list(copy)) - 1) + "\n"  # as Excel writes rows that were cleared
    csv.write_text(copy.to_csv(index=False) + 2 * blank)
    assert reviewed(folder, csv) == 0
    assert len(pd.read_csv(folder / "labels/decisions.csv")) == 1
    assert "59 rows have no decision and are skipped" in capsys.readouterr().out
    table.assign(**{DECISION: "", NEW_LABEL: ""}).to_csv(csv, index=False)
    assert reviewed(folder, csv) == 2
    assert (
        "has no decision; decide on the page and save it again, or fill in the column"
        in capsys.readouterr().err
    )


def test_a_new_label_that_is_also_the_name_of_another_class_is_explained(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    given = pd.DataFrame({DECISION: ["relabel", "keep"], NEW_LABEL: [1, 2]})
    command._log_numbers(Path("mine.csv"), given, {0: "cat", 1: "dog", 2: "2"})
    assert not caplog.messages
    command._log_numbers(Path("mine.csv"), given, {0: "1", 1: "2", 2: "3"})
    assert "new_label is a label, not a name: 1 is the class '2'" in caplog.text


# ---------------------------------------------------------------- what it is worth


def test_the_gain_and_its_interval_are_paired_over_seeds() -> None:
    before, after = [0.50, 0.60, 0.70], [0.53, 0.64, 0.72]
    rows = [
        (name, seed, "", 9, accuracy, 0.0)
        for name, accuracies in (("original", before), ("reviewed", after))
        for seed, accuracy in enumerate(accuracies)
    ]
    gain = worth.gains(pd.DataFrame(rows, columns=list(worth.COLUMNS)))["given"]
    differences = 100 * (np.array(after) - before)
    expected = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert gain.points == pytest.approx(3.0)
    assert gain.interval == pytest.approx((expected.low, expected.high))
    assert (gain.original, gain.reviewed) == pytest.approx((0.6, 0.63))


def test_a_gain_that_every_seed_shares_has_no_interval() -> None:
    rows = [
        (name, seed, "", 9, accuracy, 0.0)
        for name, accuracy in (("original", 0.5), ("reviewed", 0.53))
        for seed in (0, 1)
    ]
    text = worth.gains(pd.DataFrame(rows, columns=list(worth.COLUMNS)))["given"].text
    assert text == "+3.00 (the same with every seed, which gives no interval)"


def test_both_lists_are_trained_and_tested_once(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    csv = of_suspects(folder)
    assert reviewed(folder, csv, "-nt", "2") == 0
    printed = capsys.readouterr().out
    assert "Test accuracy, mean of 2 seeds (10 test images)" in printed
    assert "given " in printed and "reviewed " in printed and "95 % interval" in printed
    assert "were drawn from the images under suspicion" in printed
    assert "1 relabelled, 0 removed" in printed
    table = pd.read_csv(folder / "reviewed/trainings.csv")
    assert table["n_training"].tolist() == [50, 49, 50, 49]
    assert table["test_accuracy"].between(0, 1).all()
    with monkeypatch.context() as patch:
        patch.delattr(worth._Work, "trained")
        assert reviewed(folder, csv, "-nt", "2") == 0  # nothing is trained again
    assert capsys.readouterr().out.splitlines()[-3:] == printed.splitlines()[-3:]
    image = pd.read_csv(folder / "labels/label_issues.csv")[IMAGE].iloc[-1]
    os.utime(image)  # it may be another one
    capsys.readouterr()
    assert reviewed(folder, csv, "-nt", "1") == 0
    assert f"after the labels were checked, such as {image!r}: decis" in capsys.readouterr().err
    assert len(pd.read_csv(folder / "reviewed/trainings.csv")) == 6
    monkeypatch.setitem(MODELS, "mlp", MODELS["resnet"])
    check_once.cache_clear()
    try:
        assert reviewed(folder, csv, "-nt", "1") == 0
    finally:
        check_once.cache_clear()
    assert len(pd.read_csv(folder / "reviewed/trainings.csv")) == 8


def test_an_image_that_was_removed_and_is_gone_is_needed_to_measure(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv = of_suspects(folder)
    table = pd.read_csv(folder / "labels/label_issues.csv")
    removed = table[(table[SET] == "training") & (table[ROW] == WRONG[1])][IMAGE].item()
    os.rename(removed, f"{removed}.away")
    try:
        assert reviewed(folder, csv, "-nt", "0") == 0
        assert reviewed(folder, csv, "-nt", "1") == 2
    finally:
        os.rename(f"{removed}.away", removed)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.endswith("is gone, and the original list needs it; put it back, or give -nt 0")


@pytest.mark.parametrize(
    ("error", "printed"),
    [
        (MemoryError(), "not enough memory (no size given); close other programs"),
        (RuntimeError('failed with "out of memory" (cudaErrorMemoryAllocation)'), "memory"),
    ],
)
def test_a_failure_of_the_machine_is_one_line(
    error: Exception,
    printed: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(command, "review", fail)
    assert reviewed(folder, folder / "none.csv") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m utils.review: error: ") and printed in line


def test_a_folder_that_is_written_to_is_left_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv = of_suspects(folder)
    with FolderLock(folder / "run.lock"):
        assert reviewed(folder, csv) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith("is writing to it; wait until it ends, or use another folder")
    assert not (folder / "reviewed").exists()
    assert reviewed(folder, csv) == 0
    assert not (folder / "run.lock").exists()


def test_a_list_of_trainings_that_was_edited_gets_a_remedy(tmp_path: Path) -> None:
    row = "original,0,k,9,0.5,0.5"
    header = ",".join(worth.COLUMNS)
    for text in (
        "list;seed\n",
        f"{header}\n{row.replace('9', 'many')}\n",
        f"{header},note\n{row},mine\n",
    ):
        (tmp_path / "trainings.csv").write_text(text)
        with pytest.raises(UserError, match="put it back, or remove it"):
            worth._finished(tmp_path / "trainings.csv")


def test_keeping_every_label_leaves_nothing_to_measure(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv = decisions(folder, {("training", 0): "keep", ("test", 0): "remove"})
    assert reviewed(folder, csv, "-nt", "2") == 0
    assert "nothing to measure" in capsys.readouterr().out
    assert len(pd.read_csv(folder / "reviewed/csv/train_reviewed.csv")) == 50


def test_relabelling_wrong_labels_gains_accuracy(tmp_path: Path) -> None:
    """Four of five labels are those of the next class; the decisions put them right."""
    output = tmp_path / "out"
    small = "-ds digits -e 6 -nt 1 -r 0 --n_train 30 --n_val 20 --n_test 20 --batch_size 8"
    assert sgd_influence(output, QUICK, small) == 0
    source = prepare("digits", None, False)
    rows = [
        issue(path, label if row % 5 == 0 else (label + 1) % 10, row, predicted=label)
        for row, (path, label) in enumerate(source.training[[IMAGE, LABEL]].head(200).to_numpy())
    ]
    rows += [
        issue(path, label, row, "test")
        for row, (path, label) in enumerate(source.test[[IMAGE, LABEL]].head(100).to_numpy())
    ]
    table = write_label_check(output, rows)
    wrong = table[table[IS_ISSUE] == 1]
    places = zip(wrong[SET], wrong[ROW], strict=True)
    kinds = dict(zip(places, wrong[PREDICTED].astype(str), strict=True))
    assert reviewed(output, decisions(output, kinds), "-nt", "2") == 0
    gain = worth.gains(pd.read_csv(output / "reviewed/trainings.csv"))["given"]
    assert gain.original < 0.3 < gain.reviewed
