"""The verdict on the labels of a run, and its table."""

from __future__ import annotations

import json
from dataclasses import replace
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
from sgd_influence.poor_net import (
    Learnt,
    harmful_options,
    learnt,
    pixel_accuracy,
    poor_net,
    small_pixels,
    still_falling,
    unfit_net,
)
from tests.helpers.runs import save_manifest, sgd_influence
from tests.helpers.tiny import digit_images
from utils.columns import IMAGE, LABEL
from utils.data.datasets import prepare
from utils.data.label_table import verdict_in
from utils.data.splits import load_rows, split_of_trial
from utils.options import Options
from utils.output.manifest import Manifest
from utils.output.paths import OutputPaths
from utils.output.results import Results
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


SOURCE: Any = SimpleNamespace(
    class_names=("cat", "dog"), validation=None, images=range(7), test_drawn=True
)


def verdict(score: list[float], suspect: list[int], reason: str = "") -> tuple:
    found = checked(score, suspect)
    table = issue_table(merged(TRIALS)[0], found, SOURCE.class_names)
    return table, verdict_of(table, found, SOURCE, (1, 8, 8), reason, "")


def test_classes_that_are_not_judged_are_named() -> None:
    found = replace(checked([0.1, 0.2, 0.5, 0.9], [1, 0, 0, 0]), untrained=(0,))
    table = issue_table(merged(TRIALS)[0], found, SOURCE.class_names)
    verdict = verdict_of(table, found, SOURCE, (1, 8, 8), "", "")
    said = "Class cat has no training image, so these labels are not judged"
    assert label_words(verdict, "label_issues.csv")[-1] == said
    found = replace(found, untrained=(0, 1))
    verdict = verdict_of(table, found, SOURCE, (1, 8, 8), "", "")
    said = "Classes cat, dog have no training image, so these labels are not judged"
    assert label_words(verdict, "label_issues.csv")[-1] == said


def test_the_table_is_worst_first_and_the_verdict_counts_it() -> None:
    table, found = verdict([0.2, 0.1, 0.05, 0.9], [1, 1, 0, 0])
    assert list(table) == COLUMNS
    assert table["is_label_issue"].tolist() == [1, 1, 0, 0]
    assert table["label_score"].tolist() == [0.1, 0.2, 0.05, 0.9]
    assert table["class"].tolist() == ["cat" if label == 0 else "dog" for label in table["y:label"]]
    assert set(table["y:label"]) == {0, 1}
    assert table["predicted_class"].tolist() == ["cat"] * 4
    assert (found["n_images"], found["n_issues"], found["n_issues_test"]) == (4, 2, 1)
    assert found["per_class"] == [
        {"label": 0, "class": "cat", "n": 1, "n_issues": 0},
        {"label": 1, "class": "dog", "n": 3, "n_issues": 2},
    ]
    assert found["given_to_suggested"] == [{"given": 1, "suggested": 0, "n": 2}]
    assert found["suspicious_classes"] == [1]
    assert found["validation_from_suspects"]
    assert (found["test_drawn"], found["n_undrawn"]) == (True, 3)
    lines = label_words(found, "label_issues.csv")
    assert lines == [
        "Labels: about 2 of 4 labels look wrong (95 % interval 1 to 3); "
        "review labels/label_issues.csv, the worst come first",
        "1 of those marked is a test image",
        "The interval is wide, because few images are held out: more trials (-nt), or more "
        "validation images of your own, hold out more",
        "More than half of the labels of dog look wrong: look at the class as a whole (swapped or "
        "merged folders?) first",
    ]
    assert "drawn from the same data" in about_validation(found)
    assert about_validation(found, flipped=True) == "" == about_validation(None)


def test_nothing_wrong_and_a_poor_net() -> None:
    _, clean = verdict([0.9, 0.9, 0.9, 0.9], [0, 0, 0, 0])
    headline = "Labels: none of 4 labels looks wrong (95 % interval 0 to 1)"
    assert label_words(clean, "label_issues.csv")[0] == headline
    assert label_words(clean | {"high": 0}, "label_issues.csv") == [
        "Labels: none of 4 labels looks wrong"
    ]
    assert about_validation(clean) == ""
    table, _ = verdict([0.2, 0.1, 0.05, 0.9], [1, 1, 0, 0])
    only_test = table.assign(set="test")
    found = checked([0.2, 0.1, 0.05, 0.9], [1, 1, 0, 0])
    assert about_validation(verdict_of(only_test, found, SOURCE, (1, 8, 8), "", "")) == ""
    own: Any = SimpleNamespace(**vars(SOURCE) | {"validation": table})
    assert about_validation(verdict_of(table, found, own, (1, 8, 8), "", "")) == ""
    _, poor = verdict([0.2, 0.1, 0.5, 0.9], [1, 1, 0, 0], "It falls. Train longer (-e)")
    assert poor["at_least"] and poor["reason"] == "It falls. Train longer (-e)"
    lines = label_words(poor, "label_issues.csv")
    unsure = replace(verdict_in(poor), low=0.0, at_least=True)
    assert unsure.headline == "Up to 3 of 4 labels may be wrong; 2 are marked"
    assert not any("More than half" in words for words in unsure.warnings(str))
    bound = "Labels: at least 1 of 4 labels looks wrong, and up to 3 may be; 2 are marked;"
    assert lines[0].startswith(bound)
    assert lines[2] == poor["reason"]


def test_an_interval_without_width_is_not_printed() -> None:
    _, found = verdict([0.2, 0.1, 0.5, 0.9], [1, 1, 0, 0])
    assert verdict_in(found | {"low": 2, "high": 2}).headline == "About 2 of 4 labels look wrong"


def net(
    accuracy: float,
    pixels: float,
    falling: float,
    frequent: float = 0.1,
    n_tested: int = 450,
    loss: float = 0.9,
    n_epochs: int = 20,
) -> Learnt:
    return Learnt(accuracy, pixels, falling, frequent, n_tested, loss, n_epochs)


def test_the_sentences_on_a_poor_net() -> None:
    good = checked([0.9] * 4, [0] * 4)
    doubted = replace(good, good=False)
    wrong = replace(doubted, accuracy=0.85)
    assert poor_net(net(accuracy=0.8, pixels=0.9, falling=0.1), good) == ""
    assert poor_net(net(accuracy=0.912, pixels=0.96, falling=0.07), doubted) == (
        "The net is not good enough to estimate the number: it is right about 91.2% of the "
        "validation images, a logistic regression on their pixels about 96.0%; its training loss "
        "is still falling (7% of its fall is in the last quarter of the epochs). Train longer (-e)"
    )
    nan = float("nan")
    rising = poor_net(net(accuracy=0.9, pixels=0.8, falling=nan, loss=2.0), wrong)
    assert "its training loss does not fall; it is right about" in rising
    assert rising.endswith(" Use another --lr or --model")
    short = poor_net(net(accuracy=0.9, pixels=0.8, falling=nan, loss=0.1, n_epochs=3), wrong)
    assert "it was trained for fewer than 4 epochs; it is right about" in short
    assert short.endswith(" Train longer (-e)")
    printed = poor_net(net(accuracy=0.9, pixels=0.8, falling=0.01), wrong)
    assert "right about an estimated 85% of the images" in printed
    assert printed.endswith("Train longer (-e), or use another --model or --lr")
    fitted = poor_net(net(accuracy=0.9, pixels=0.8, falling=0.01, loss=0.1), wrong)
    assert fitted.endswith(
        "fits its training images well already: add images, or use another --model"
    )
    for accuracy, pixels in ((0.5, 0.7), (0.5, 0.5), (0.4, 0.3), (0.9, 0.95), (0.995, 1.0)):
        assert unfit_net(net(accuracy, pixels, falling=0.9)) == ""
    for accuracy, pixels in ((0.44, 0.9), (0.46, 0.5), (0.65, 0.925)):
        assert unfit_net(net(accuracy, pixels, 0.0)).startswith("The net has learnt too little")
    assert not net(0.9, 0.91, 0).sound and not net(0.9, 0.8, 0.06).sound
    assert net(0.9, 0.9, 0.05).sound


def test_a_net_hardly_better_than_the_most_frequent_class_is_unfit() -> None:
    """Whatever a logistic regression makes of the pixels."""
    for frequent, accuracy, n in ((0.5, 0.7, 90), (0.9, 0.92, 90), (0.1, 0.3, 450), (0.5, 1.0, 2)):
        found = net(accuracy, 0.2, 0.01, frequent, n)
        assert unfit_net(found).startswith("The net has learnt too little: it is right about ")
    for frequent, accuracy, n in ((0.5, 0.78, 90), (0.9, 0.98, 90), (0.1, 0.45, 450)):
        assert unfit_net(net(accuracy, 0.2, 0.01, frequent, n)) == ""
    assert unfit_net(net(0.6, 0.2, 0.01, 0.5, 90)) == (
        "The net has learnt too little: it is right about 60.0% of 90 validation images, 50.0% of "
        "which are of one class; about 75.8% are needed. Train longer (-e), or use another --model "
        "or --lr"
    )


def test_a_net_that_learnt_nothing_judges_no_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = "--n_train 60 --n_val 30 --n_test 30 --model mlp --methods Random -r 0 --no_report"
    assert sgd_influence(tmp_path, f"-ds digits -e 1 --lr 0.000001 {sizes}") == 0
    printed = capsys.readouterr().out
    assert "Labels: not judged\nThe net has learnt too little" in printed
    table = read_csv(tmp_path / "labels/label_issues.csv")
    assert not table["is_label_issue"].any()
    assert (table["predicted_label"] == table["y:label"]).all()


def test_a_loss_that_still_falls() -> None:
    assert still_falling(np.exp(-np.arange(20.0))) < 0.01
    assert still_falling(np.linspace(2, 1, 20)) > 0.2
    assert np.isnan(still_falling(np.array([2.0, 1.5, 1.0])))
    assert np.isnan(still_falling(np.full(8, 2.0)))
    assert np.isnan(still_falling(np.linspace(1, 2, 8)))


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
    assert printed(n_epochs=8) == (
        "--n_epochs 8: known to find fewer wrong labels than the defaults; use at least 10 epochs"
    )
    assert printed(n_epochs=8, momentum=0.9, lr_schedule="cosine").endswith(
        "use a constant rate or a momentum below 0.5 and at least 10 epochs"
    )


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


def test_net_and_logistic_regression_are_compared_on_the_same_trials(run: Path) -> None:
    source, seeds = prepare("digits", None, False), (0, 1)
    options = Options("p", run, ("AUM",), dataset="digits", n_train=60, n_val=30, n_test=30)
    pixels, nets, shares = [], [], []
    for seed in seeds:
        split = split_of_trial(options, source, seed)
        images = [load_rows(source, rows, str, "") for rows in (split.training, split.validation)]
        pixels.append(pixel_accuracy(*images))
        shares.append(np.bincount(images[1].labels).max() / 30)
        curve = read_csv(OutputPaths(run).learning_curve(seed))
        nets.append(curve["val_accuracy"].iloc[-1])
    assert pixels[0] != pixels[1]
    for chosen in (seeds, (1,)):
        found = learnt(options, source, Results(OutputPaths(run)), chosen)
        assert found.pixels == pytest.approx(np.mean([pixels[seed] for seed in chosen]))
        assert found.accuracy == pytest.approx(np.mean([nets[seed] for seed in chosen]))
        assert found.frequent == pytest.approx(np.mean([shares[seed] for seed in chosen]))
        assert found.n_tested == 30


def test_the_recommendation_says_that_validation_labels_are_suspects_too(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads((run / "labels/verdict.json").read_text())
    found["validation_from_suspects"] = True
    monkeypatch.setattr(analyze, "check_of_run", lambda *_: found)
    assert sgd_influence(run, small=SMALL) == 0
    value = json.loads((run / "summary/recommendation.json").read_text())
    assert value["validation"] == about_validation(found)
    assert f"Note: {about_validation(found)}" in capsys.readouterr().out


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
