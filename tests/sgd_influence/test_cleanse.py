"""The cleansed data: places over several trials, opinions, files, and the way back in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nnabla.utils.data_iterator import data_iterator_csv_dataset

from sgd_influence.cleanse import (
    cleanse,
    cleansed_table,
    opinions,
    removed_table,
)
from sgd_influence.outcomes import Outcomes
from tests.helpers.own_images import class_folders, csv_of
from tests.helpers.own_images import rows_of as csv_rows
from tests.helpers.runs import sgd_influence
from utils.columns import CLASS, IMAGE, LABEL
from utils.data.decode import Form
from utils.data.own_data import Wanted, own_source
from utils.data.source import Source
from utils.data.splits import split_of
from utils.data.user_paths import read_parts
from utils.errors import UserError
from utils.options import Options
from utils.output.folder import OutputFolder
from utils.output.paths import OutputPaths
from utils.output.ranking import joined
from utils.output.results import Results
from utils.output.storage import read_csv
from utils.page.facts import Facts

QUICK = "--model mlp --context cpu --methods Hara"
TINY = "-e 1 -nt 1 -r 0 3 6 --batch_size 8 --image_size 8"
REMOVED = [IMAGE, LABEL, "influence", "rank", "suggested_label", "confidence"]


def influences(rows: list[int]) -> pd.DataFrame:
    """An influence table of rows of the source, the most harmful first."""
    images = [f"/{row}.png" for row in rows]
    values = np.arange(len(rows)) - 2.0
    return pd.DataFrame({IMAGE: images, LABEL: 7, "influence": values}, index=rows)


def outcomes(removed: list[int], predicted: list[int], confidence: list[float]) -> Outcomes:
    nothing = np.empty(0)
    return Outcomes(
        nothing, nothing, nothing,
        np.array(removed), np.array(predicted), np.array(confidence, np.float32),
    )  # fmt: skip


# ---------------------------------------------------------------- places


def test_place_is_the_mean_rank_fraction_where_it_was_trained_on() -> None:
    """Row 4 of the data set is held back by the first trial, row 0 by the second."""
    images = joined([influences([2, 0, 1, 3]), influences([4, 2, 1, 3])])
    assert images.index.tolist() == [4, 2, 0, 1, 3]
    # places: row 4: 0 alone; 2: 0 and 1/4; 0: 1/4 alone; 1: 2/4 and 2/4; 3: 3/4 and 3/4
    assert images["rank"].tolist() == [1, 2, 3, 4, 5]


def test_trials_of_other_lengths_count_by_fraction() -> None:
    # fractions: row 0: 0 and 0; row 1: 1/2 and 1/4
    images = joined([influences([0, 1]), influences([0, 1, 3, 2])])
    assert images.index.tolist() == [0, 1, 3, 2]
    assert images.loc[0, "influence"] == pytest.approx((-2.0 + -2.0) / 2)


def test_of_an_image_with_two_labels_the_row_that_was_removed_is_left_out(tmp_path: Path) -> None:
    """The trial trained on its second row only, and ranks that one worst."""
    labels = [0, 1] * 4
    table = pd.DataFrame({IMAGE: ["/a", *"bcdefg", "/a"], LABEL: labels})
    source = Source(
        name="two", folder=tmp_path, training=table, test=table, n_classes=2,
        class_names=("0", "1"), fingerprint="", form=Form(), damping=0.1, n_validation=2,
    )  # fmt: skip
    seeds = [s for s in range(99) if {0, 7} & set(rows_of(source, s)) == {7}]
    rows, folder = rows_of(source, seeds[0]), OutputFolder(tmp_path)
    results = Results(folder, lambda seed: rows)
    worst_first = table.iloc[rows[::-1]].assign(influence=np.arange(4.0))
    results.keep(worst_first, folder.influence("Hara", seeds[0]))
    options = Options(
        program="", output_dir=tmp_path, methods=("Hara",), n_train=4, n_trials=1, seed=seeds[0],
    )  # fmt: skip
    cleanse(options, source, folder, results, {}, {"Hara": 1})
    removed = pd.read_csv(folder.removed("Hara", 1))
    kept = pd.read_csv(folder.cleansed("Hara", 1))
    assert removed[[IMAGE, LABEL]].to_numpy().tolist() == [["/a", 1]]
    assert len(kept) == 5 and not (kept == ["/a", 1]).all(axis=1).any()


def rows_of(source: Source, seed: int) -> np.ndarray:
    return split_of(source, seed, 4, None, None).training


# ---------------------------------------------------------------- opinions


def test_the_smallest_removal_of_at_least_n_counts() -> None:
    rows = np.arange(10)
    by_n = {
        0: outcomes([], [], []),
        1: outcomes([5], [1], [0.3]),
        2: outcomes([5, 6], [2, 2], [0.6, 0.7]),
        4: outcomes([5, 6, 7, 8], [3, 3, 3, 3], [0.9, 0.9, 0.9, 0.9]),
    }
    printed = opinions([(rows, by_n)], 2)
    assert printed["suggested_label"].to_dict() == {5: 2, 6: 2, 7: 3, 8: 3}
    assert printed["confidence"].to_dict() == pytest.approx({5: 0.6, 6: 0.7, 7: 0.9, 8: 0.9})


def test_a_trial_that_disagrees_lowers_the_confidence() -> None:
    rows = np.arange(10)
    trials = [
        (rows, {1: outcomes([5], [label], [confidence])})
        for label, confidence in ((2, 0.9), (3, 0.5), (2, 0.3))
    ]
    printed = opinions(trials, 1)
    assert printed.loc[5].to_list() == pytest.approx([2, 0.4])


def test_what_was_removed_has_the_opinions_and_the_names_of_the_classes() -> None:
    images = joined([influences([0, 1, 2, 3])])
    printed = opinions([(np.arange(4), {3: outcomes([0, 1, 2], [1, 7, 1], [0.95, 0.95, 0.85])})], 3)
    removed = removed_table(images, printed, 4, "abcdefgh")
    assert removed[CLASS].tolist() == ["h"] * 4
    assert removed["#suggested_class"].tolist()[:3] == ["b", "h", "b"]
    assert removed["suggested_label"].isna().tolist() == [False, False, False, True]


def test_names_of_classes_come_along_unless_they_are_the_labels() -> None:
    training = pd.DataFrame({IMAGE: ["/a", "/b", "/c"], LABEL: [0, 1, 1], "weight": [3, 4, 5]})
    removed = pd.DataFrame(index=[1])
    named = cleansed_table(training, removed, ("cat", "dog"))
    assert named.to_dict("list") == {
        IMAGE: ["/a", "/c"], LABEL: [0, 1], "weight": [3, 5], CLASS: ["cat", "dog"],
    }  # fmt: skip
    assert list(cleansed_table(training, removed, ("0", "1"))) == [IMAGE, LABEL, "weight"]


# ---------------------------------------------------------------- files, and back in


def cleansed_of(output: Path, n: int, method: str = "Hara") -> tuple[pd.DataFrame, pd.DataFrame]:
    folder = output / "cleansed"
    kept = pd.read_csv(folder / f"{method}_train_cleansed_{n}.csv")
    removed = pd.read_csv(folder / f"{method}_removed_{n}.csv", float_precision="round_trip")
    return kept, removed


def test_the_page_shows_the_list_of_the_last_command(tmp_path: Path) -> None:
    pictures, output = class_folders(tmp_path / "pictures", per_class=20), tmp_path / "output"
    for n in (5, 2):
        assert sgd_influence(output, f"-ds {pictures} {QUICK} --cleanse_n {n}", TINY) == 0
    lists = {path.name for path in output.glob("cleansed/Hara_removed_*")}
    assert lists == {"Hara_removed_5.csv", "Hara_removed_2.csv"}
    facts = Facts.read(OutputPaths(output))
    assert facts.removed_files["Hara"].name == "Hara_removed_2.csv"
    assert len(facts.removed["Hara"]) == facts.n_worst("Hara") == 2


def test_cleansed_folder_goes_back_in(tmp_path: Path) -> None:
    pictures = class_folders(tmp_path / "pictures", per_class=20)
    first, second = tmp_path / "first", tmp_path / "second"
    assert sgd_influence(first, f"-ds {pictures} {QUICK} --cleanse_n 5", TINY) == 0
    kept, removed = cleansed_of(first, 5)
    influence = read_csv(first / "influence/Hara/influence_hara_0.csv").head(5)
    assert removed[[IMAGE, LABEL, "influence"]].equals(influence[[IMAGE, LABEL, "influence"]])
    assert removed["rank"].tolist() == [1, 2, 3, 4, 5]
    assert removed["confidence"].between(0.5, 1).all()  # of two classes
    assert list(kept) == [IMAGE, LABEL, CLASS]
    assert kept.groupby(CLASS)[LABEL].unique().map(list).to_dict() == {"cat": [0], "dog": [1]}
    everything = {str(path) for path in pictures.rglob("*.png")}
    tested = set(everything) - set(kept[IMAGE]) - set(removed[IMAGE])
    assert len(tested) == 6  # 15 % of 40, that no trial trains on
    assert len(kept) == 40 - 6 - 5

    again = first / "cleansed/Hara_train_cleansed_5.csv"
    assert sgd_influence(second, f"-ds {again} {QUICK} --cleanse_n 0", TINY) == 0
    kept_again, removed_again = cleansed_of(second, 0)
    assert list(removed_again) == [*REMOVED, CLASS, "#suggested_class"]
    assert removed_again.empty
    assert kept_again.equals(kept)  # not one of them is lost to testing
    assert set(pd.read_csv(second / "cleansed/test_cleansed.csv")[IMAGE]) == tested
    assert list(kept_again) == [IMAGE, LABEL, CLASS]  # once
    merged_labels = kept_again.merge(kept, on=IMAGE, suffixes=("", "_before"))
    assert (merged_labels[LABEL] == merged_labels[f"{LABEL}_before"]).all()
    assert read_csv(second / "summary/classes.csv")["name"].tolist() == ["cat", "dog"]


@pytest.mark.parametrize(
    "names, expected",
    [
        ("cat dog cat dog", ["cat", "dog"]),
        ("cat dog cat dog  dog", ["cat", "dog"]),
        ("cat dog cat cat cat dog", ["cat", "dog"]),
        ("cat dog cat cat", ["0", "1"]),
        ("cat cat cat cat", ["0", "1"]),
        ("cat  cat ", ["0", "1"]),
    ],
    ids=[
        "named",
        "a blank",
        "a stray one",
        "no name of most",
        "one name of two",
        "a class without",
    ],
)
def test_classes_are_called_by_their_column_where_it_is_clear(
    tmp_path: Path, names: str, expected: list[str]
) -> None:
    named = zip(csv_rows(), names.split(" ") * 10, strict=False)
    csv = csv_of(tmp_path, [f"{row},{name}" for row, name in named], f"x:image,y:label,{CLASS}")
    assert list(own_source(csv, tmp_path / "data", Wanted(8)).class_names) == expected


def test_cleansed_csv_keeps_further_columns_and_goes_back_in(tmp_path: Path) -> None:
    rows = [f"{row},{number},{chr(97 + number % 3)}" for number, row in enumerate(csv_rows())]
    csv = csv_of(tmp_path, rows, header="x:image,y:label,z__0,note")
    first, second = tmp_path / "first", tmp_path / "second"
    small = "-e 1 -nt 2 -r 0 3 --batch_size 4 --image_size 8"
    assert sgd_influence(first, f"-ds {csv} {QUICK} --cleanse_n 2", small) == 0
    kept, removed = cleansed_of(first, 2)
    assert list(kept) == [IMAGE, LABEL, "z__0", "note"]
    assert list(removed) == REMOVED
    given = pd.read_csv(csv)
    given[IMAGE] = [str(csv.parent / path) for path in given[IMAGE]]
    found = given[given[IMAGE].isin(kept[IMAGE])].reset_index(drop=True)
    assert kept.equals(found)
    again = first / "cleansed/Hara_train_cleansed_2.csv"
    assert sgd_influence(second, f"-ds {again} {QUICK}", small) == 0
    assert list(cleansed_of(second, 0)[0]) == [IMAGE, LABEL, "z__0", "note"]


def test_digits_go_back_in_and_nnabla_reads_them(tmp_path: Path) -> None:
    small = "-e 2 -nt 1 -r 0 4 --n_train 60 --n_val 30 --n_test 30 --batch_size 16"
    first, second = tmp_path / "first", tmp_path / "second"
    assert sgd_influence(first, f"-ds digits {QUICK} --cleanse_n 4", small) == 0
    kept, removed = cleansed_of(first, 4)
    assert len(kept) == 60 + 30 - 4
    assert not set(removed[IMAGE]) & set(kept[IMAGE])
    csv = first / "cleansed/Hara_train_cleansed_4.csv"
    again = "-e 2 -nt 1 -r 0 4 --batch_size 16 --image_size 8"
    assert sgd_influence(second, f"-ds {csv} {QUICK}", again) == 0
    with data_iterator_csv_dataset(str(csv), 2, normalize=False, shuffle=False) as batches:
        images, labels = batches.next()
    assert images.shape == (2, 1, 8, 8)
    assert labels.ravel().tolist() == kept[LABEL].head(2).tolist()


def test_a_list_of_validation_images_is_not_training(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    for number, part in enumerate(("train", "val", "test")):
        class_folders(folder / part, per_class=6, first=1000 * number)
    output = tmp_path / "out"
    assert sgd_influence(output, f"-ds {folder} {QUICK} --cleanse_n 3", TINY) == 0
    kept, removed = cleansed_of(output, 3)
    images = [*kept[IMAGE], *removed[IMAGE]]
    assert len(images) == 12
    assert all(path.startswith(str(folder / "train")) for path in images)
    source = own_source(output / "cleansed/Hara_train_cleansed_3.csv", tmp_path / "data", Wanted(8))
    assert source.validation is not None
    for table, part in ((source.validation, "val"), (source.test, "test")):
        assert set(table[IMAGE]) == {str(path) for path in (folder / part).rglob("*.png")}


def test_the_list_alone_is_one_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Somewhere else, or under a name of its own, it brings no other sets."""
    csv = csv_of(tmp_path, csv_rows())
    (csv.parent / "test_cleansed.csv").write_text("x:image,y:label\ncat/0.png,0\n")
    for name, parts in (("images.csv", 1), ("train.csv", 1), ("Hara_train_cleansed_5.csv", 2)):
        listed = csv.with_name(name)
        listed.write_bytes(csv.read_bytes())
        assert len(read_parts(listed)) == parts
    assert "is not there" not in caplog.text
    alone = csv.with_name("train_reviewed.csv")
    alone.write_bytes(csv.read_bytes())
    assert len(read_parts(alone)) == 1
    assert f"{csv.with_name('test_reviewed.csv')}: is not there, so other test" in caplog.text


def test_lists_of_the_label_check_are_no_data_sets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    decisions = csv_of(tmp_path, ["cat/0.png,0,keep,"], "x:image,y:label,decision,new_label")
    with pytest.raises(UserError, match="decisions on labels, not a data set; apply them with"):
        read_parts(decisions)
    issues = csv_of(tmp_path, ["cat/0.png,0,test,1"], "x:image,y:label,set,is_label_issue")
    with pytest.raises(UserError, match="the label check of a run, not a data set; give the data"):
        read_parts(issues)
    decisions.write_text("x:image,y:label,set\ncat/0.png,0,test\n")
    read_parts(decisions)
    assert "its column 'set' is not read, all rows are for training" in caplog.text


def test_a_class_that_loses_its_last_image_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "parts"
    for number, part in enumerate(("train", "val", "test")):
        class_folders(folder / part, per_class=2, first=1000 * number)
    small = "-e 1 -nt 1 -r 0 3 --batch_size 8 --image_size 8"
    assert sgd_influence(tmp_path / "out", f"-ds {folder} {QUICK} --cleanse_n 3", small) == 0
    assert "Hara_train_cleansed_3.csv: no image is left of " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("--cleanse_n 60", "--cleanse_n 60: there are only 60 training images in a trial"),
        ("--cleanse_n -1", "--cleanse_n -1: must be a whole number of at least 0"),
    ],
)
def test_mistakes(
    more: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sgd_influence(tmp_path / "out", f"{QUICK} {more}") == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
