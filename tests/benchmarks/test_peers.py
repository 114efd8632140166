"""The product's side of the comparison with other libraries, on a training of a few images."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import pytest

from benchmarks.make_archives import write_idx
from benchmarks.peers import compare, ours
from benchmarks.peers.compare import OURS, figures_of, table_of
from benchmarks.peers.problem import (
    KILLED,
    Problem,
    Result,
    bytes_of,
    decisions_path,
    load_result,
    parity_path,
    problem_path,
    record,
    result_path,
    scores_path,
    truth_path,
)
from benchmarks.recorded import Recorded, RecordedTrial
from benchmarks.tasks import mnist_cnn
from tests.helpers.runs import ROOT
from utils.data.images import ImageSet
from utils.methods import METHODS, NO_REMOVAL
from utils.output.storage import read_csv
from utils.training.models import smooth_convolutions
from utils.training.sgd import Optimiser


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNIST's files, which hold noise."""
    data = tmp_path_factory.mktemp("data")
    images = np.random.default_rng(0).integers(0, 255, (700, 28, 28), np.uint8)
    write_idx(images, data / "t10k-images-idx3-ubyte.gz")
    write_idx(np.resize(np.arange(10, dtype=np.uint8), 700), data / "t10k-labels-idx1-ubyte.gz")
    return data


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A problem of 40 images, 8 px, 2 epochs."""
    made = tmp_path_factory.mktemp("tiny")
    (made / "results").mkdir()
    small = partial(mnist_cnn, side=8, n_train=40, n_epochs=2, batch_size=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ours.PROBLEMS, "tiny", small)
        ours.build(made, "tiny", 3, data)
    return made


def test_problem_holds_the_training(folder: Path) -> None:
    problem = Problem.load(problem_path(folder))
    assert (problem.seed, problem.model) == (3, "six_convolutions")
    assert [len(rows) for rows in problem.steps] == [16, 16, 8] * 2
    assert problem.wrong.sum() == 4
    assert len(problem.losses) == 6
    assert problem.losses[0] == pytest.approx(np.log(10), rel=0.5)
    assert all(len(array) == 3 for array in problem.states.values())


def test_a_problem_of_another_optimiser_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(seed: int, data: Path | None) -> RecordedTrial:
        return replace(trial, optimiser=Optimiser(momentum=0.9, augmented=False))

    trial = RecordedTrial(**vars(ours.open_trial(folder, 1)), recorded=cast("Recorded", None))
    monkeypatch.setitem(ours.PROBLEMS, "momentum", build)
    with pytest.raises(ValueError, match=r"momentum=0\.9"):
        ours.build(tmp_path, "momentum", 3, None)


def test_a_problem_names_its_net(folder: Path, tmp_path: Path) -> None:
    problem = replace(Problem.load(problem_path(folder)), model="smooth_convolutions")
    problem.save(problem_path(tmp_path))
    assert ours.open_trial(tmp_path, 1).network.model is smooth_convolutions


def test_methods_score_from_the_files_as_from_memory(folder: Path) -> None:
    ours.score(folder, "Hara_exact")
    ours.score(folder, f"Hara_exact{ours.WHOLE}")
    problem = Problem.load(problem_path(folder))
    last, whole = (
        np.load(scores_path(folder, name)) for name in ("Hara_exact", f"Hara_exact{ours.WHOLE}")
    )
    trial = ours.open_trial(folder, 1)
    trial.sgd.load(problem.state(0))
    recorded = Recorded(trial.network, trial.data.training, trial.steps, ours.OPTIMISER)
    np.testing.assert_array_equal(last, recorded.influence(trial.data.validation, 3))
    np.testing.assert_array_equal(whole, recorded.influence(trial.data.validation, 0))
    result = load_result(folder, "Hara_exact")
    assert result.peak_bytes >= result.idle_bytes > 0
    margins = trial.folder.margins(trial.seed)
    assert result.disk_bytes == bytes_of(folder / "ours_1") - bytes_of(margins)


def test_margins_are_those_of_the_training(folder: Path) -> None:
    ours.score(folder, "AUM")
    trial = ours.open_trial(folder, 1)
    trial.sgd.load(Problem.load(problem_path(folder)).state(0))
    recorded = Recorded(trial.network, trial.data.training, trial.steps, ours.OPTIMISER)
    expected = recorded.margins.mean(axis=0, dtype=np.float64)
    np.testing.assert_array_equal(np.load(scores_path(folder, "AUM")), expected)
    assert load_result(folder, "AUM").disk_bytes == bytes_of(trial.folder.margins(trial.seed))


def test_truth_goes_on_and_is_that_of_the_training(folder: Path) -> None:
    ours.truth(folder, "last", 1)
    first = read_csv(truth_path(folder, "last"))
    ours.truth(folder, "last", 3)
    rows = read_csv(truth_path(folder, "last"))
    assert list(rows["group"]) == [-1, 0, 1, 2]
    assert rows["loss"].iloc[:2].equals(first["loss"])
    assert rows["loss"].nunique() == 4
    assert ours.known_truth(truth_path(folder, "last"), "another training") == []


def test_a_failure_is_a_result(folder: Path) -> None:
    def fails() -> np.ndarray:
        raise NotImplementedError("no\nconvolutions")

    record(folder, Result("broken", "a 1", "b", True), fails, lambda: 0)
    result = load_result(folder, "broken")
    assert result.error == "NotImplementedError: no convolutions"
    assert figures_of(folder, Problem.load(problem_path(folder)), result) == {}
    assert not scores_path(folder, "broken").exists()


def test_being_killed_is_a_result(folder: Path) -> None:
    script = (
        "import os, pathlib, signal; from benchmarks.peers.problem import Result, record; "
        f"record(pathlib.Path({str(folder)!r}), Result('killed', 'a 1', 'b', True), "
        "lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: 0)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == -9
    assert load_result(folder, "killed").error == KILLED


def test_figures_of_known_scores(folder: Path) -> None:
    problem = Problem.load(problem_path(folder))
    harmful_first = np.where(problem.wrong, -1.0, 1.0)
    record(folder, Result("known", "a 1", "b", True), lambda: harmful_first, lambda: 7)
    parity_path(folder).write_text(json.dumps({"apart": 0.5}), encoding="utf-8")
    row = table_of(folder, ["known"]).iloc[0]
    assert (row["auc"], row["disk_bytes"], row["parity: apart"]) == (1.0, 7, 0.5)
    assert compare.agreement(np.arange(5.0), -np.arange(5.0)) == pytest.approx(-1)


def test_a_decision_is_the_accuracy_without_the_worst(
    folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = Problem.load(problem_path(folder))
    test = ours.held_out(problem, data)
    assert len(test) == 700 - 40 - 600
    seen = {image.tobytes() for part in (problem.images, problem.images_val) for image in part}
    assert not seen & {image.tobytes() for image in test.images}
    scores = np.random.default_rng(0).permutation(40).astype(float)
    folder = shutil.copytree(folder, tmp_path / "copy")
    for name, sign in (("some", 1), ("others", -1)):
        record(folder, Result(name, "a 1", "b", True), partial(np.multiply, sign, scores), int)
    masks = []

    def counted(recorded: Recorded, removed: np.ndarray, test: ImageSet) -> float:
        masks.append(removed)
        return len(masks) / 10

    monkeypatch.setattr(ours, "accuracy_without", counted)
    ours.decide(folder, ["some", "others", "not there"], data)
    assert [mask.tolist() for mask in masks] == [
        mask.tolist() for mask in (scores < 0, scores < 1, scores < 4, scores > 38, scores > 35)
    ]
    rows = read_csv(decisions_path(folder))
    assert rows["method"].tolist() == [NO_REMOVAL, "some", "some", "others", "others"]
    assert compare.gains_of(folder, "some") == pytest.approx(
        {"unchanged": 10, "gain_3": 10, "gain_10": 20}
    )
    assert compare.gains_of(folder, "others") == pytest.approx(
        {"unchanged": 10, "gain_3": 30, "gain_10": 40}
    )


def test_accuracy_without_images_is_that_of_a_training_without_them(data: Path) -> None:
    recorded = mnist_cnn(3, data, side=8, n_train=40, n_epochs=2, batch_size=16).recorded
    accuracies = set()
    for removed in (np.arange(40) < 0, np.arange(40) < 20):
        test = recorded.data
        accuracy = ours.accuracy_without(recorded, removed, test)
        loss = recorded.loss_without(removed, test)
        after = recorded.evaluator(test)
        assert (after.loss, after.accuracy) == (loss, accuracy)
        accuracies.add(loss)
    assert len(accuracies) == 2


def test_a_difference_is_that_of_the_same_trainings() -> None:
    methods = ("Hara_exact, all epochs", "other", "failed")
    figures = [(0.9, 0.4, np.nan), (0.7, 0.3, np.nan), (0.8, 0.2, np.nan)]
    rows = [
        ("a", s, m, f) for s, row in enumerate(figures) for m, f in zip(methods, row, strict=True)
    ]
    rows.append(("another", 0, "other", 0.5))
    table = pd.DataFrame(rows, columns=["problem", "seed", "method", "auc"])
    ahead = compare.paired(table, "auc").iloc[0]
    assert ahead[["problem", "method", "seeds"]].tolist() == ["a", "other", 3]
    assert ahead["difference"] == pytest.approx(0.5)
    assert ahead["standard_errors"] == pytest.approx(0.5 / (0.1 / 3**0.5))
    assert len(compare.paired(table, "auc")) == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("other", "apart"), [(0.25, np.inf), (0.75, -np.inf), (0.5, 0.0)])
def test_a_difference_that_is_the_same_in_all_trainings(other: float, apart: float) -> None:
    rows = [("a", s, m, f) for s in range(3) for m, f in (("best", 0.5), ("other", other))]
    table = pd.DataFrame(rows, columns=["problem", "seed", "method", "auc"])
    ahead = compare.paired(table, "auc", "best").iloc[0]
    assert ahead["standard_errors"] == apart
    (one,) = compare.paired(table.head(2), "auc", "best")["standard_errors"]
    assert np.isnan(one)


def test_every_method_of_ours_is_one_of_the_product() -> None:
    assert OURS == ours.METHOD_NAMES
    assert {name.removesuffix(ours.WHOLE) for name in OURS} <= set(METHODS)
    assert len({result_path(Path(), name) for name in (*OURS, *compare.PEERS)}) == len(
        (*OURS, *compare.PEERS)
    )
