"""The benchmark that counts recommendations on clean images and on wrong labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.null_test import (
    AGREEMENT,
    CRITERIA,
    Choice,
    Seen,
    agreed,
    fall,
    figures_of,
    judged,
    main,
    passing,
)
from benchmarks.small_sets import flipped_digits
from sgd_influence.outcomes import Outcomes
from sgd_influence.recommend import Tried, recommend
from utils.columns import IMAGE, LABEL
from utils.data.datasets import prepare


def flips_by_part(folder: Path) -> dict[str, tuple[int, int]]:
    """How many images each CSV file has, and how many of them with a wrong label."""
    source = prepare("digits", None, False)
    true = pd.concat([source.training, source.test]).set_index(IMAGE)[LABEL]
    found = {}
    for path in folder.glob("*.csv"):
        table = pd.read_csv(path)
        assert table[LABEL].between(0, 9).all()
        wrong = true[table[IMAGE]].to_numpy() != table[LABEL].to_numpy()
        found[path.stem] = len(table), int(wrong.sum())
    return found


def test_a_tenth_of_the_training_labels_is_flipped_and_no_other(tmp_path: Path) -> None:
    sets = flips_by_part(flipped_digits(tmp_path, 3))
    assert sets == {"train": (300, 30), "validation": (200, 0), "test": (400, 0)}


def test_a_tenth_of_all_labels_but_those_of_the_test_images_is_flipped(tmp_path: Path) -> None:
    sets = flips_by_part(flipped_digits(tmp_path, 3, validation=False))
    assert sets == {"train": (500, 50), "test": (400, 0)}


def outcomes(losses: list[float]) -> Outcomes:
    nothing, hits = np.empty(0), np.array(losses) < 1
    return Outcomes(np.array(losses), hits, hits, nothing, nothing, nothing)


BEFORE, AFTER = outcomes([0.5, 3.0, 0.7]), outcomes([0.25, 5.0, 0.75])
SEEN = Seen(
    labels=np.array([0, 1, 2]),
    right=np.array([True, False, True]),
    held=np.array([[0.9, 0.05, 0.05], [0.95, 0.01, 0.04], [0.1, 0.1, 0.8]]),
)


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        ("loss", [0.25, 5.0, 0.75]),
        ("accuracy", [0, 1, 0]),
        ("probability", (1 - np.exp([-0.25, -5.0, -0.75])).tolist()),
        ("capped_loss", [0.25, np.log(10), 0.75]),
        ("median", [0.05, 0.05, 0.05]),
        ("signs", [-1, 1, 1]),
        ("right_labels", [0.25, 0.75]),
    ],
)
def test_criteria(criterion: str, expected: list[float]) -> None:
    found = CRITERIA[criterion](AFTER, BEFORE, SEEN)
    assert found.val_losses.tolist() == pytest.approx(expected)
    assert len(found.val_hits) == len(expected)


def test_labels_that_nets_of_held_out_images_contradict_do_not_pass() -> None:
    rng = np.random.default_rng(0)
    right = rng.integers(0, 4, 300)
    given = np.where(np.arange(300) < 30, (right + 1) % 4, right)
    held = np.full((300, 4), 0.02)
    held[np.arange(300), right] = 0.94
    kept = passing(Seen(given, right == given, held))
    assert kept.tolist() == (right == given).tolist()


def tried(losses: dict[int, list[float]]) -> Tried:
    """By n, the loss in each trial."""
    return {
        ("Hara", n, seed): outcomes([loss] * 3)
        for n, by_trial in losses.items()
        for seed, loss in enumerate(by_trial)
    }


def test_agreement_needs_every_trial() -> None:
    some = tried({0: [0.5, 0.5], 1: [0.4, 0.45], 2: [0.1, 0.6]})
    assert agreed(some, ["Hara"], [0, 1]).n == 1
    assert agreed(some, ["Hara"], [0]).n == 2
    none = tried({0: [0.5, 0.5], 2: [0.1, 0.6]})
    assert agreed(none, ["Hara"], [0, 1]) == Choice(0, 0.0)


def test_probability_is_what_the_product_judges_by() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        levels = np.cumsum([0.3, *rng.normal(0.1, 0.1, 5)])
        some = {
            ("Hara", n, 0): replace(
                outcomes([0.0] * 50), val_losses=np.maximum(0, 2 - level + rng.normal(size=50))
            )
            for n, level in enumerate(levels)
        }
        seen = {0: replace(SEEN, right=np.ones(50, bool))}
        again = recommend(judged(some, CRITERIA["probability"], seen), ["Hara"], [0], score=fall)
        assert again.overall.n == recommend(some, ["Hara"], [0]).overall.n


def test_figures_of_all_trials_together_and_of_each_alone() -> None:
    answers = [
        {"loss": (Choice(5, 2.0), Choice(0, 0.0), Choice(1, 1.0))},
        {"loss": (Choice(0, 0.0), Choice(0, 0.0), Choice(0, 0.0))},
    ]
    assert figures_of(answers)["loss"] == {
        "runs": 2, "removal": 1, "test_gain": 1.0,
        "runs_alone": 4, "removal_alone": 1, "test_gain_alone": 0.25,
    }  # fmt: skip


def test_last_line_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--tasks", "digits", "--seeds", "1", "--model", "mlp"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["digits"]
    assert found.keys() == {"first_seed", "trials", *CRITERIA, AGREEMENT}
    assert found["loss"].keys() == {"runs", "removal", "test_gain"}
