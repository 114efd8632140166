"""The benchmark that counts recommendations on clean and on flipped digits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.null_test import by_accuracy, flipped_digits, main
from sgd_influence.outcomes import Outcomes
from utils.columns import IMAGE, LABEL
from utils.data.datasets import prepare


def test_a_tenth_of_the_training_labels_is_flipped_and_no_other(tmp_path: Path) -> None:
    source = prepare("digits", None, False)
    true = pd.concat([source.training, source.test]).set_index(IMAGE)[LABEL]
    flips = {}
    for part in ("train", "validation", "test"):
        table = pd.read_csv(flipped_digits(tmp_path, 3) / f"{part}.csv")
        flips[part] = int((true[table[IMAGE]].to_numpy() != table[LABEL].to_numpy()).sum())
        assert len(table) == {"train": 300, "validation": 200, "test": 400}[part]
        assert table[LABEL].between(0, 9).all()
    assert flips == {"train": 30, "validation": 0, "test": 0}


def test_accuracy_takes_the_place_of_the_loss() -> None:
    hits, nothing = np.array([True, False, True]), np.empty(0)
    outcomes = Outcomes(np.array([5.0, 6.0, 7.0]), hits, hits, nothing, nothing, nothing)
    assert by_accuracy({("Hara", 0, 0): outcomes})["Hara", 0, 0].val_losses.tolist() == [0, 1, 0]


def test_last_line_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--tasks", "digits", "--seeds", "1", "--model", "mlp"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["digits"]
    assert found.keys() == {
        "first_seed", "seeds", "removal_by_loss", "removal_by_accuracy", "test_gain_by_loss",
        "test_gain_by_accuracy",
    }  # fmt: skip
    assert found["seeds"] == 1
    assert found["removal_by_loss"] in (0, 1)
