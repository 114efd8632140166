"""The benchmark that removes by each ranking and trains again from the first step."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import from_scratch
from benchmarks.from_scratch import METHODS, Task, rows_of, table_of
from utils.methods import NO_REMOVAL


def test_rows_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Task("digits", "--flip_labels 0.1 -r 0 5 -e 2 --model mlp --n_test 100", (64, 50))
    monkeypatch.setitem(from_scratch.TASKS, "small", small)
    rows = rows_of("small", 3, 0.01, None, tmp_path)
    assert rows.groupby("method")["n"].apply(list).to_dict() == {
        NO_REMOVAL: [0], **{method: [5] for method in METHODS}
    }  # fmt: skip
    assert set(rows["task"]) == {"small"} and set(rows["seed"]) == {3}
    assert set(rows["lr"]) == {0.01}
    unchanged = rows.loc[rows["method"] == NO_REMOVAL, "test_accuracy"].iloc[0]
    assert rows["gain"].tolist() == pytest.approx(
        (100 * (rows["test_accuracy"] - unchanged)).tolist()
    )


def test_table_has_the_mean_gain_of_each_method_and_count() -> None:
    name = next(iter(from_scratch.TASKS))
    rows = [(name, 0.02, s, NO_REMOVAL, 0, 0.9, 0.0) for s in (0, 1)]
    rows += [(name, 0.02, s, m, 10, 0.9, gain) for m in METHODS for s, gain in ((0, 1.0), (1, 2.0))]
    columns = ["task", "lr", "seed", "method", "n", "test_accuracy", "gain"]
    lines = table_of(pd.DataFrame(rows, columns=columns)).splitlines()
    assert lines[0] == f"`{name}`, lr 0.02, 2 trials, No Removal 90.00 ± 0.00 %"
    assert lines[2] == "| method | n = 10 |"
    assert lines[4:] == [f"| {method} | +1.50 ± 0.71 |" for method in METHODS]
