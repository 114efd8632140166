"""The benchmark that removes by each ranking and trains again from the first step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import from_scratch
from benchmarks.from_scratch import EKFAC, METHODS, OURS, PEER, Task, Work, rows_of, table_of
from benchmarks.peers.problem import Problem, Result, problem_path, record
from utils.methods import NO_REMOVAL
from utils.output.paths import OutputPaths
from utils.output.storage import read_csv

N_TRAIN = 64


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of runs of the task `small`."""
    options = "--flip_labels 0.1 -r 0 5 -e 2 --model mlp --n_test 100"
    monkeypatch.setitem(from_scratch.TASKS, "small", Task("digits", options, (N_TRAIN, 50)))
    return tmp_path


def test_rows_of_a_run(folder: Path) -> None:
    rows = rows_of("small", 3, Work(0.01, OURS, None, folder, folder))
    assert rows.groupby("method")["n"].apply(list).to_dict() == {
        NO_REMOVAL: [0], **{method: [5] for method in OURS}
    }  # fmt: skip
    assert set(rows["task"]) == {"small"} and set(rows["seed"]) == {3}
    assert set(rows["lr"]) == {0.01}
    unchanged = rows.loc[rows["method"] == NO_REMOVAL, "test_accuracy"].iloc[0]
    assert rows["gain"].tolist() == pytest.approx(
        (100 * (rows["test_accuracy"] - unchanged)).tolist()
    )


def test_ekfac_scores_the_training_of_the_run_and_removes_by_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def run_peers(python: Path, command: str, place: Path, *arguments: str) -> None:
        asked.append((python, command, *arguments))
        problem = Problem.load(problem_path(place))
        assert len(problem.labels) == N_TRAIN
        assert {len(array) for array in problem.states.values()} == {problem.epochs[-1] + 2}
        if command == "score":  # by AUM's scores, so that the removal is AUM's
            by_aum = read_csv(OutputPaths(place.parent).influence("AUM", 3))
            scores = by_aum.sort_values("datasource_index")["influence"].to_numpy()
            record(place, Result(PEER, "", "", True), lambda: scores, lambda: 0)

    monkeypatch.setattr(from_scratch, "run_peers", run_peers)
    python = Path("python")
    rows = rows_of("small", 3, Work(0.01, ("AUM", EKFAC), None, folder, python))
    assert asked == [(python, "checkpoints"), (python, "score", PEER)]
    same = ["n", "val_loss", "val_accuracy", "test_accuracy", "gain", "lr", "seed"]
    by_aum, by_ekfac = (rows.loc[rows["method"] == m, same].to_numpy() for m in ("AUM", EKFAC))
    assert len(by_aum) == 1
    np.testing.assert_array_equal(by_aum, by_ekfac)


def test_table_has_the_mean_gain_of_each_method_and_count() -> None:
    name = next(iter(from_scratch.TASKS))
    rows = [(name, 0.02, s, NO_REMOVAL, 0, 0.9, 0.0) for s in (0, 1)]
    rows += [(name, 0.02, s, m, 10, 0.9, gain) for m in METHODS for s, gain in ((0, 1.0), (1, 2.0))]
    columns = ["task", "lr", "seed", "method", "n", "test_accuracy", "gain"]
    lines = table_of(pd.DataFrame(rows, columns=columns)).splitlines()
    assert lines[0] == f"`{name}`, lr 0.02, 2 trials, No Removal 90.00 ± 0.00 %"
    assert lines[2] == "| method | n = 10 |"
    assert lines[4:] == [f"| {method} | +1.50 ± 0.71 |" for method in METHODS]
