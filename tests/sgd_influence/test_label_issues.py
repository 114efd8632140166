"""The verdict on the labels of a run, and its table."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sgd_influence import analyze
from sgd_influence.label_check import Checked, Count
from sgd_influence.label_issues import (
    COLUMNS,
    Seen,
    about_validation,
    issue_table,
    label_words,
    merged,
    verdict_of,
)
from sgd_influence.poor_net import harmful_options, pixel_accuracy, small_pixels, still_falling
from tests.helpers.runs import save_manifest, sgd_influence
from tests.helpers.tiny import digit_images
from utils.columns import IMAGE, LABEL
from utils.options import Options
from utils.output.manifest import Manifest
from utils.output.paths import OutputPaths
from utils.output.storage import read_csv

SMALL = "-ds digits -e 2 -nt 2 -r 0 --n_train 60 --n_val 30 --n_test 30 --model mlp --methods AUM"


def seen(name: str, rows: list[int], labels: list[int], first: list[float], trained: bool) -> Seen:
    """What a trial says: the probability of the first of two classes is `first`."""
    paths = [f"/{name}/{row}.png" for row in rows]
    images = pd.DataFrame({IMAGE: paths, LABEL: labels, "row": rows})
    softmax = np.array([[p, 1 - p] for p in first])
    return Seen(name, images, softmax, np.array(first), trained)


TRIALS = [
    seen("training", [4, 2], [0, 1], [0.9, 0.2], True),
    seen("training", [7], [0], [0.4], False),
    seen("test", [2], [1], [0.3], False),
    seen("training", [7, 2], [1, 1], [0.6, 0.4], True),  # a flipped label of 7
    seen("training", [4], [0], [0.7], False),
    seen("test", [2], [1], [0.5], False),
]


def test_each_image_once_over_all_trials() -> None:
    images, evidence = merged(TRIALS)
    keys = list(zip(images["set"], images["row"], strict=True))
    assert keys == [("test", 2), ("training", 2), ("training", 4), ("training", 7)]
    assert images[LABEL].tolist() == [1, 1, 0, 1]  # of 7 the label trained on
    assert images["n_trials"].tolist() == [2, 2, 2, 2]
    assert images["aum"].tolist() == pytest.approx([0.4, 0.3, 0.8, 0.6])  # of 7 not that held out
    assert evidence.groups.tolist() == [2, 0, 0, 0]
    assert evidence.n_trained.tolist() == [0, 2, 1, 1]
    assert evidence.n_held.tolist() == [2, 0, 1, 1]
    np.testing.assert_allclose(evidence.trained[:, 0], [0, 0.3, 0.9, 0.6], rtol=1e-6)
    np.testing.assert_allclose(evidence.held[:, 0], [0.4, 0, 0.7, 0.4], rtol=1e-6)


def checked(score: list[float], suspect: list[int]) -> Checked:
    n = sum(suspect)
    return Checked(
        score=np.array(score),
        suspect=np.array(suspect, bool),
        predicted=np.array([0, 0, 0, 0]),
        predicted_score=np.array([0.9, 0.8, 0.7, 0.6]),
        count=Count(n, max(0, n - 1), n + 1),
        accuracy=0.95,
        good=True,
    )


SOURCE: Any = SimpleNamespace(class_names=("cat", "dog"), validation=None)


def verdict(score: list[float], suspect: list[int], reason: str = "") -> tuple:
    found = checked(score, suspect)
    table = issue_table(merged(TRIALS)[0], found)
    return table, verdict_of(table, found, SOURCE, reason, "")


def test_the_table_is_worst_first_and_the_verdict_counts_it() -> None:
    table, found = verdict([0.2, 0.1, 0.05, 0.9], [1, 1, 0, 0])
    assert list(table) == COLUMNS
    assert table["is_label_issue"].tolist() == [1, 1, 0, 0]
    assert table["label_score"].tolist() == [0.1, 0.2, 0.05, 0.9]
    assert (found["n_images"], found["n_issues"], found["n_issues_test"]) == (4, 2, 1)
    assert found["per_class"] == [
        {"label": 0, "class": "cat", "n": 1, "n_issues": 0},
        {"label": 1, "class": "dog", "n": 3, "n_issues": 2},
    ]
    assert found["given_to_suggested"] == [{"given": 1, "suggested": 0, "n": 2}]
    assert found["suspicious_classes"] == [1]
    assert found["validation_from_suspects"]
    lines = label_words(found)
    assert lines[0] == (
        "Labels: about 2 of 4 labels look wrong (95 % interval 1 to 3), 1 of them in the test set; "
        "review labels/label_issues.csv, the worst come first"
    )
    assert "dog" in lines[1] and "folders" in lines[1]
    assert "drawn from the same data" in about_validation(found)
    assert about_validation(found, flipped=True) == "" == about_validation(None)


def test_nothing_wrong_and_a_poor_net() -> None:
    _, clean = verdict([0.9, 0.9, 0.9, 0.9], [0, 0, 0, 0])
    assert label_words(clean) == ["Labels: about 0 of 4 labels look wrong (95 % interval 0 to 1)"]
    assert about_validation(clean) == ""
    table, _ = verdict([0.2, 0.1, 0.05, 0.9], [1, 1, 0, 0])
    only_test = table.assign(set="test")
    found = checked([0.2, 0.1, 0.05, 0.9], [1, 1, 0, 0])
    assert about_validation(verdict_of(only_test, found, SOURCE, "", "")) == ""
    own: Any = SimpleNamespace(class_names=("cat", "dog"), validation=table)
    assert about_validation(verdict_of(table, found, own, "", "")) == ""
    _, poor = verdict([0.2, 0.1, 0.5, 0.9], [1, 1, 0, 0], "Train longer (-e): it falls")
    assert poor["at_least"] and poor["reason"] == "Train longer (-e): it falls"
    lines = label_words(poor)
    assert lines[0].startswith("Labels: at least 2 of 4 labels look wrong, 1 of them in the test")
    assert lines[1] == poor["reason"]


def test_a_net_that_learnt_nothing_judges_no_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = "--n_train 60 --n_val 30 --n_test 30 --model mlp --methods Random -r 0 --no_report"
    assert sgd_influence(tmp_path, f"-ds digits -e 1 --lr 0.000001 {sizes}") == 0
    printed = capsys.readouterr().out
    assert "Labels: not judged. The net has learnt too little" in printed
    table = read_csv(tmp_path / "labels/label_issues.csv")
    assert not table["is_label_issue"].any()
    assert (table["predicted_label"] == table["y:label"]).all()


def test_a_loss_that_still_falls() -> None:
    assert still_falling(np.exp(-np.arange(20.0))) < 0.01
    assert still_falling(np.linspace(2, 1, 20)) > 0.2
    assert still_falling(np.array([2.0, 1.0])) == 1
    assert still_falling(np.full(8, 2.0)) == 1


def test_pixels_are_averaged_and_tell_digits_apart() -> None:
    images = np.arange(2 * 16 * 12 * 3).reshape(2, 16, 12, 3) % 251
    small = small_pixels(images.astype(np.uint8)).reshape(2, 8, 8, 3)
    assert small[1, 0, 0, 2] == images[1, :2, :2, 2].mean()
    assert pixel_accuracy(digit_images(0, 500), digit_images(500, 800)) > 0.7


def test_options_that_harm_the_check_are_named(tmp_path: Path) -> None:
    def printed(**more: Any) -> str:
        return harmful_options(Options("p", tmp_path, ("AUM",), **more))

    assert printed() == "" == printed(momentum=0.9) == printed(lr_schedule="cosine")
    assert printed(momentum=0.9, lr_schedule="cosine").startswith(
        "--momentum 0.9 --lr_schedule cos"
    )
    assert "--n_epochs 8" in printed(n_epochs=8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("labels")
    assert sgd_influence(output, small=SMALL) == 0
    return output


def test_a_run_scores_every_image_of_its_trials(run: Path) -> None:
    table = read_csv(run / "labels/label_issues.csv")
    assert list(table) == COLUMNS
    known = read_csv(run / "influence/AUM/influence_aum_0.csv")
    assert set(known[IMAGE]) < set(table[IMAGE])
    assert (table["set"] == "test").sum() == 30
    assert not table.duplicated(["set", "row"]).any()
    assert table["label_score"].between(0, 1).all()
    found = json.loads((run / "labels/verdict.json").read_text())
    assert found["n_images"] == len(table) > 150
    assert found["n_issues"] == table["is_label_issue"].sum()
    assert sum(row["n"] for row in found["per_class"]) == len(table)
    assert found["at_least"]  # two epochs


def test_the_recommendation_says_that_validation_labels_are_suspects_too(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads((run / "labels/verdict.json").read_text())
    found["validation_from_suspects"] = True
    monkeypatch.setattr(analyze, "check_of_run", lambda *_: found)
    assert sgd_influence(run, small=SMALL) == 0
    value = json.loads((run / "summary/recommendation.json").read_text())
    assert value["validation"] == about_validation(found)
    assert f"But {about_validation(found)}" in capsys.readouterr().out


def test_aum_of_the_table_is_that_of_the_trials(run: Path) -> None:
    table = read_csv(run / "labels/label_issues.csv").set_index(IMAGE)
    paths = [run / f"influence/AUM/influence_aum_{seed}.csv" for seed in (0, 1)]
    first, second = (read_csv(path).set_index(IMAGE)["influence"] for path in paths)
    both = first.index.intersection(second.index)
    expected = (first[both] + second[both]) / 2
    np.testing.assert_allclose(table.loc[both, "aum"], expected, rtol=1e-6)


def test_trainings_of_an_earlier_version_are_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sgd_influence(tmp_path, small=SMALL) == 0
    manifest = Manifest.read(OutputPaths(tmp_path))
    for path in (*tmp_path.glob("infl_results_sgd/*/label_record*"), *tmp_path.glob("labels/*")):
        del manifest.outputs[path.relative_to(tmp_path).as_posix()]
        path.unlink()
    save_manifest(manifest)
    capsys.readouterr()
    assert sgd_influence(tmp_path, small=SMALL) == 0
    printed = capsys.readouterr()
    assert (printed.out + printed.err).count("Labels were not checked") == 1
    assert not (tmp_path / "labels").exists() or not list((tmp_path / "labels").iterdir())
