"""What a run says of the solver of influence functions, and writes where it does not get there."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from influence_functions import infl
from influence_functions.solvers import Descent
from tests.helpers.runs import influence_functions, record, save_manifest
from utils.methods import METHODS, Solved
from utils.output.manifest import Manifest
from utils.output.paths import OutputPaths
from utils.output.storage import read_csv

ALONE = "-r 0 --methods Influence_functions --model mlp"


def solved_in(output: Path) -> Solved:
    """What the manifest says of trial 0."""
    known = json.loads((output / "manifest.json").read_text(encoding="utf-8"))
    assert Manifest.read(OutputPaths(output)).intact
    return Solved(**known["solves"]["Influence_functions"]["0"])


def influence_in(output: Path) -> np.ndarray:
    path = output / "influence/Influence_functions/influence_influence_functions_0.csv"
    return read_csv(path)["influence"].to_numpy()


def test_a_stock_run_solves_and_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert influence_functions(tmp_path, ALONE) == 0
    printed = capsys.readouterr()
    words = r"solved to 0\.\d+ % \(conjugate gradients, \d+ products, damping [\d.]+\)"
    (line,) = re.findall(f"Trial 0: Influence_functions ({words})", printed.out)
    assert "solver" not in printed.err
    assert line in (tmp_path / "run.log").read_text(encoding="utf-8")
    assert line in (tmp_path / "report/index.html").read_text(encoding="utf-8")
    solved = solved_in(tmp_path)
    assert solved.words == line
    assert solved.solver == "gauss_newton"
    assert solved.residual <= 0.01
    assert solved.n_images == solved.n_train == 60
    assert influence_in(tmp_path).any()


def test_a_large_set_is_solved_over_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(infl, "SAMPLE", 25)
    assert influence_functions(tmp_path / "a", ALONE) == 0
    assert ", over a sample of 25 of 60 training images)" in capsys.readouterr().out
    assert influence_functions(tmp_path / "b", ALONE) == 0
    assert np.array_equal(influence_in(tmp_path / "a"), influence_in(tmp_path / "b"))
    assert len(influence_in(tmp_path / "a")) == 60


def test_a_solve_that_does_not_get_there_warns_and_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(infl, "MOST_PRODUCTS", 4)
    assert influence_functions(tmp_path, f"{ALONE} --damping 1e-6") == 0
    printed = capsys.readouterr()
    assert "did not reach a relative residual of 0.01 but " in printed.err
    assert "Raise --damping above 1e-06" in printed.err
    solved = solved_in(tmp_path)
    assert not solved.reached
    assert solved.n_products == 4
    page = (tmp_path / "report/index.html").read_text(encoding="utf-8")
    assert f'<p class="warn">Influence functions, trial 0: {solved.words}.</p>' in page
    assert influence_in(tmp_path).any()


def test_sgd_that_diverges_warns_and_writes_its_best_iterate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sgd = f"{ALONE} --if_solver sgd"
    assert influence_functions(tmp_path / "calm", sgd) == 0
    calm = solved_in(tmp_path / "calm")
    assert calm.words.startswith("solved to ")
    assert calm.words.endswith("% (SGD, 3 products, damping 0.1)")
    capsys.readouterr()

    monkeypatch.setattr(infl, "Descent", partial(Descent, learning_rate=1e3))
    assert influence_functions(tmp_path / "wild", f"{sgd} --damping 0.001") == 0
    printed = capsys.readouterr()
    assert "the solver of Influence_functions did not reach a relative residual of 1" in printed.err
    wild = solved_in(tmp_path / "wild")
    assert wild.residual > 1 and np.isfinite(wild.residual)
    assert np.isfinite(influence_in(tmp_path / "wild")).all()
    warnings = Manifest.read(OutputPaths(tmp_path / "wild")).warnings
    assert "a zero vector has 1" in " ".join(warnings["Influence_functions"]["0"])


def test_sgd_that_diverges_late_gives_an_iterate_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def iterates(adjoint_of, data, target, solver, seed):
        return [{k: scale * g for k, g in target.items()} for scale in (1e-6, 1e-4, 1e3, np.nan)]

    monkeypatch.setattr(infl, "solve", iterates)
    assert influence_functions(tmp_path, f"{ALONE} --if_solver sgd") == 0
    solved = solved_in(tmp_path)
    assert solved.n_products == 2 + 4
    assert solved.residual < 1
    assert solved.reached


def test_scores_of_another_solver_or_damping_are_not_mixed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert influence_functions(tmp_path, f"{ALONE} --if_solver sgd") == 0
    assert influence_functions(tmp_path, ALONE) == 2
    printed = capsys.readouterr().err
    assert "--damping was 0.1, now chosen by the solver" in printed
    assert "--if_solver was sgd, now gauss_newton" in printed
    assert influence_functions(tmp_path, "-r 0 --methods Random --model mlp") == 0
    assert influence_functions(tmp_path, f"{ALONE} --if_solver sgd") == 0
    assert influence_functions(tmp_path, f"{ALONE} --if_solver sgd --damping 7") == 2
    assert "--damping was 0.1, now 7.0" in capsys.readouterr().err


def test_what_was_computed_from_a_ranking_keeps_its_damping(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sgd = f"{ALONE} --if_solver sgd --verify 6"
    assert influence_functions(tmp_path, sgd) == 0
    for kind in ("influence", "score"):  # what was removed, then what was verified, stays
        shutil.rmtree(tmp_path / kind / "Influence_functions")
        assert influence_functions(tmp_path, f"{sgd} --damping 7") == 2
        assert "--damping was 0.1, now 7.0" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "verification")
    assert influence_functions(tmp_path, f"{sgd} --damping 7") == 0


def test_folders_of_earlier_versions_hold_scores_by_sgd(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert influence_functions(tmp_path, f"{ALONE} --if_solver sgd") == 0
    soundness = OutputPaths(tmp_path).soundness("Influence_functions", 0)
    known = json.loads(soundness.read_text(encoding="utf-8"))
    del known["solved"]
    soundness.write_text(json.dumps(known), encoding="utf-8")
    record(tmp_path, soundness)
    manifest = Manifest.read(OutputPaths(tmp_path))
    del manifest.options["if_solver"]
    manifest.solves = {}
    save_manifest(manifest)
    capsys.readouterr()
    assert influence_functions(tmp_path, ALONE) == 2
    assert "--if_solver was sgd, now gauss_newton" in capsys.readouterr().err
    assert influence_functions(tmp_path, f"{ALONE} --if_solver sgd") == 0


def test_the_estimate_counts_products_over_the_sample() -> None:
    sizes = [("gauss_newton", 500, 13), ("gauss_newton", 6000, 3), ("sgd", 6000, 3)]
    for solver, n_train, epochs in sizes:
        trial: Any = SimpleNamespace(if_solver=solver, n_train=n_train)
        assert METHODS["Influence_functions"].epochs_in(trial) == epochs
    assert METHODS["Hara"].epochs_in(trial) is None
    assert METHODS["AUM"].epochs_in(trial) == 0


@pytest.mark.parametrize("damping", ["0", "-1", "nan", "inf"])
def test_damping_is_above_zero(damping, tmp_path, capsys):
    assert influence_functions(tmp_path, f"--damping={damping}") == 2
    assert "must be a number above 0" in capsys.readouterr().err
