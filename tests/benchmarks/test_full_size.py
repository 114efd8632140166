"""The benchmark that retrains without the worst images by several arithmetics."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.full_size import figures_of, judge, scores_of, table_of
from eval_sgd_influence import COMMAND
from tests.helpers.runs import SMALL, sgd_influence
from utils.methods import METHODS
from utils.options import parse_options
from utils.output.folder import OutputFolder
from utils.run.pipeline import prepared
from utils.training.trial import Trial

SEED = 3
OPTIONS = f"{SMALL} --model mlp --cache steps --seed {SEED}"
BY_METHOD = {
    "Hara": "damped/true",
    "Hara_exact": "exact/true",
    "Ours": "damped/final",
    "Ours_exact": "exact/final",
}


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """The trial of a finished run."""
    output = tmp_path_factory.mktemp("run")
    assert sgd_influence(output, "--methods Random --no_report", OPTIONS) == 0
    options = parse_options(COMMAND, ["-o", str(output), *OPTIONS.split()])
    return prepared(options).trial(SEED, OutputFolder(output))


@pytest.mark.parametrize("method", BY_METHOD)
def test_a_variant_scores_as_the_method_of_the_same_arithmetic(trial: Trial, method: str) -> None:
    influence, growth = scores_of(trial, *BY_METHOD[method].split("/"))
    np.testing.assert_allclose(influence, METHODS[method].score(trial), rtol=1e-6, atol=1e-12)
    assert len(growth) == 4


def test_variants_differ(trial: Trial) -> None:
    names = ("damped", "exact", "gauss_newton", "no_hessian")
    scores = [scores_of(trial, variant, "true")[0] for variant in names]
    for k, one in enumerate(scores):
        for other in scores[:k]:
            assert np.abs(one - other).max() > 1e-3 * np.abs(one).max()


def test_rows_are_kept_and_their_gains_are_over_the_trial_without_removal(
    trial: Trial, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = argparse.Namespace(work=tmp_path, variants=["damped/true"], counts=[2, 5])
    judge(trial, "digits", chosen)
    rows = figures_of(tmp_path)
    assert rows[["variant", "n"]].to_numpy().tolist() == [
        ["damped-true", 2],
        ["damped-true", 5],
        ["none", 0],
    ]
    unchanged = rows.loc[rows["n"] == 0, "test_accuracy"].iloc[0]
    gains = 100 * (rows["test_accuracy"] - unchanged)
    assert rows["gain"].tolist() == pytest.approx(gains.tolist())
    removed = rows[rows["n"] > 0]
    assert removed["growth"].ge(1).all() and removed["seats"].between(0, 1).all()
    capsys.readouterr()
    judge(trial, "digits", chosen)
    assert capsys.readouterr().out == ""  # nothing was computed again


def test_a_cell_says_of_how_many_trials_it_is_where_they_are_fewer() -> None:
    rows = [(s, "none", 0, 0.0) for s in (0, 1)]
    rows += [(0, "damped-true", 40, 0.5), (0, "damped-true", 200, 1.0)]
    rows += [(1, "damped-true", 200, 2.0)]
    table = pd.DataFrame(rows, columns=["seed", "variant", "n", "gain"])
    known = {"dataset": "digits", "test_accuracy": 0.9, "growth": 1, "lowest": -0.1, "seats": 0.1}
    known["val_accuracy"] = 0.9
    (row,) = table_of(table.assign(**known)).splitlines()[-1:]
    assert row.split(" | ")[1:4] == ["2", "+0.50 (1 trial)", "+1.50 ± 0.71"]
