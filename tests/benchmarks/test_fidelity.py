"""The benchmark that holds scores against true retraining, on sets small enough for a test."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import nnabla as nn
import nnabla.functions as F
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

import benchmarks.fidelity as fidelity
from benchmarks.against_oracle import inputs_of, oracle_columns
from benchmarks.converged import EXACT, SOLVED, converged_columns, optimum
from benchmarks.fidelity import AGAIN, figures_of, jaccard, true_changes
from benchmarks.fidelity_pictures import FROM_SCRATCH, draw_from_scratch, draw_scatter
from benchmarks.make_archives import write_idx
from benchmarks.recorded import RecordedTrial, recorded_trial
from benchmarks.tasks import (
    SMOOTH_LR,
    TASKS,
    Task,
    dense,
    from_scratch,
    gelu,
    scaling_of,
)
from tests.helpers.tiny import digit_images
from utils.methods import METHODS
from utils.output.storage import read_csv, save_csv
from utils.training.models import smooth_convolutions
from utils.training.network import Network
from utils.training.sgd import Optimiser
from utils.training.steps import plan_steps

Activation = Callable[[nn.Variable], nn.Variable]
DECAY = 0.1
PRECISION = 0.999
"""Least Spearman correlation of single and double precision."""


def _trial(
    widths: tuple[int, ...], kind: str = "standardised", activation: Activation = F.relu
) -> RecordedTrial:
    training, validation = (digit_images(*rows, classes=(1, 7)) for rows in ((0, 40), (40, 80)))
    scaling = scaling_of(kind, training.images)
    model = partial(dense, widths=widths, scaling=scaling, activation=activation)
    network = Network(model, training.shape, 2, seed=1)
    steps, optimiser = plan_steps(1, 40, 3, 10, 0.1), Optimiser(weight_decay=DECAY, augmented=False)
    return recorded_trial(1, network, training, validation, steps, optimiser, 3, retrain_all=True)


@pytest.mark.parametrize("widths", [(), (4, 3)], ids=["logistic regression", "two hidden layers"])
@pytest.mark.parametrize("kind", ["standardised", "pixelwise", "unit"])
def test_single_precision_agrees_with_the_oracle(widths, kind):
    _assert_agrees_with_the_oracle(_trial(widths, kind))


def test_single_precision_agrees_with_the_oracle_of_a_smooth_net():
    _assert_agrees_with_the_oracle(_trial((4, 3), "standardised", gelu))


def _assert_agrees_with_the_oracle(trial: RecordedTrial) -> None:
    oracle = oracle_columns(trial)
    true = true_changes(trial, np.eye(40, dtype=bool), trial.state_before(0))
    assert (
        spearmanr(METHODS["Hara_exact"].score(trial), oracle["oracle: Hara_exact"]).statistic
        >= PRECISION
    )
    assert spearmanr(true, oracle["oracle: true"]).statistic >= PRECISION
    np.testing.assert_allclose(true, oracle["oracle: true"], atol=1e-5)


def test_last_epoch_alone_covers_less():
    trial = _trial((4, 3))
    last = np.concatenate([step.indices for step in trial.steps[8:]])
    assert sorted(last) == list(range(40))
    assert trial.covered == range(12)
    one = replace(trial, cover_epochs=1)
    assert one.covered == range(8, 12)
    assert not np.allclose(METHODS["Hara_exact"].score(one), METHODS["Hara_exact"].score(trial))


def test_influence_functions_at_the_optimum():
    """The product's scores, solved to the end, equal the exact inverse and predict removal."""
    columns = converged_columns(_trial(()))
    np.testing.assert_allclose(columns[SOLVED], columns[EXACT], atol=1e-3 * np.ptp(columns[EXACT]))
    assert spearmanr(columns[EXACT], columns["true"]).statistic > 0.95


def test_optimum_has_no_gradient():
    data = inputs_of(trial := _trial(()), trial.data.training)
    theta = optimum(data, DECAY)
    residual = (1 / (1 + np.exp(-data.x @ theta)) - data.y) @ data.x / 40 + DECAY * theta
    assert np.abs(residual).max() < 1e-6


def test_figures_are_those_of_known_rankings():
    values = np.arange(40.0)
    raw = pd.DataFrame({"task": "dnn", "seed": 0, "removal": range(40), "true": values,
                        "same": values, "turned": -values, "half known": values})  # fmt: skip
    raw.loc[20:, "half known"] = np.nan
    figures = figures_of(raw).set_index("method")
    assert figures["figure"].round(6).to_dict() == {"same": 1, "turned": -1, "half known": 1}
    assert jaccard(values, -values) == 1  # the extremes of both ends are taken together
    shifted = np.roll(values, 5)
    assert jaccard(values, shifted) == pytest.approx(15 / 25)


def test_page_has_a_table_of_nets_with_kinks_and_one_of_smooth_ones(tmp_path: Path, capsys) -> None:
    rows = [
        ("smooth_dnn", 0, "Hara_exact", 0.5),
        ("smooth_dnn", 1, "Hara_exact", 0.7),
        ("smooth_dnn", 0, "Random", 0.0),
        ("dnn", 0, "Hara_exact", 0.1),
        ("dnn_unit", 0, "Hara_exact", 0.2),
    ]
    columns = ["task", "seed", "method", "figure"]
    save_csv(pd.DataFrame(rows, columns=columns), tmp_path / "fidelity.csv")
    page = tmp_path / "page.md"
    places = [f"<!-- {name} -->\nold\n<!-- /{name} -->" for name in ("kinked", "smooth")]
    page.write_text("\nbetween\n".join(places))
    _run(["--out", str(tmp_path), "--page", str(page)], capsys, "--seeds")
    kinked, smooth = page.read_text().split("between")
    assert _shown_in(kinked) == ("`dnn`", "1", "0.10")
    assert _shown_in(smooth) == ("`smooth_dnn`", "2", "0.60 ± 0.14")


def _shown_in(block: str) -> tuple[str, ...]:
    """Task, seeds and figure of Hara_exact in the only row of a block of the page."""
    _, head, _, row, _ = block.strip().splitlines()
    cells = dict(zip(head.strip("| ").split(" | "), row.strip("| ").split(" | "), strict=False))
    return tuple(cells[name] for name in ("task", "seeds", "Hara_exact"))


def test_groups_are_a_tenth_and_the_same_for_a_seed():
    trial = _trial(())
    groups = Task("a", lambda seed, data: trial, n_groups=7).removals(trial)
    assert groups.shape == (7, 40)
    assert set(groups.sum(axis=1)) == {4}
    assert len({group.tobytes() for group in groups}) == 7
    assert TASKS["logreg"].removals(trial).sum() == 40


def test_one_training_is_judged_by_groups_of_both_sizes(monkeypatch: pytest.MonkeyPatch):
    built: list[int] = []
    scored: list[str] = []

    def build(seed: int, data: Path | None) -> RecordedTrial:
        built.append(seed)
        return _trial(())

    def predicted(task: Task, trial: RecordedTrial, quick: bool) -> dict[str, np.ndarray]:
        scored.append(task.name)
        return {"known": np.arange(40.0)}

    monkeypatch.setattr(fidelity, "scores_of", predicted)
    tasks = from_scratch("pair", build, n_groups=3, n_again=2)
    raw = fidelity.judge(fidelity.Work(tuple(tasks), 1, None, quick=False))
    assert (len(built), len(scored)) == (1, 1)
    assert raw["task"].tolist() == ["pair_2"] * 3 + ["pair_10"] * 3
    trial = _trial(())
    sums = [task.removals(trial) @ np.arange(40.0) for task in tasks]
    np.testing.assert_array_equal(raw["known"], np.concatenate(sums))
    assert [task.removals(trial).sum(axis=1).tolist() for task in tasks] == [[1] * 3, [4] * 3]
    assert raw[AGAIN].notna().tolist() == [True, True, False] * 2
    assert raw["true"][:3].abs().max() < raw["true"][3:].abs().max()


def test_rows_of_one_training_are_one_piece_of_work():
    options = fidelity._parse(["--seeds", "0", "1"])
    pieces = [[task.name for task in work.tasks] for work in fidelity._work_of(options)]
    assert pieces.count(["smooth_mnist_2", "smooth_mnist_10"]) == 2
    assert pieces.count(["logreg"]) == pieces.count(["logreg_converged"]) == 2
    assert sorted(chain.from_iterable(pieces)) == sorted([*TASKS] * 2)


def test_smooth_rows_differ_from_stock_ones_in_net_and_rate_alone():
    for name in ("small_2", "mnist_10"):
        stock, smooth = (_arguments(f"{net}_{name}") for net in ("stock", "smooth"))
        assert smooth == stock | {"model": smooth_convolutions, "lr": SMOOTH_LR}


def _arguments(name: str) -> dict[str, object]:
    build = TASKS[name].build
    assert isinstance(build, partial)
    return build.keywords


def test_picture_of_a_training_shows_the_methods_it_has(tmp_path: Path) -> None:
    values = np.arange(4.0)
    known = {"seed": 0, "true": values, "Hara_exact": values, "Ours_exact": values}
    raw = pd.DataFrame({"task": "mnist_cnn", **known})
    draw_scatter(raw, tmp_path / "a.png")
    draw_scatter(raw.assign(Hara=np.nan), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_picture_of_whole_trainings(tmp_path: Path):
    values = np.arange(4.0)
    rows = {"seed": 0, "true": values, "Hara_exact": values}
    raw = pd.concat([pd.DataFrame({"task": task, **rows}) for task in FROM_SCRATCH])
    draw_from_scratch(raw, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert FROM_SCRATCH.keys() <= TASKS.keys()


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Two tasks on a set of a few images; later runs replace their own rows alone."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (90, 28, 28), np.uint8)
    labels = np.resize(np.array([1, 7], np.uint8), 90)
    images[labels == 7, :14] //= 4
    write_idx(images, tmp_path / "t10k-images-idx3-ubyte.gz")
    write_idx(labels, tmp_path / "t10k-labels-idx1-ubyte.gz")
    monkeypatch.setattr("benchmarks.tasks.N_BINARY", 24)
    for name in ("logreg_unit", "dnn_unit"):
        task = TASKS[name]
        monkeypatch.setitem(TASKS, name, Task(name, task.build, group=0.0, n_again=24))
    run = partial(_run, ["--data", str(tmp_path), "--jobs", "1", "--out", str(tmp_path)], capsys)

    summary = run("--tasks", "logreg_unit", "dnn_unit", "--seeds", "0", "1")
    assert list(summary) == ["logreg_unit", "dnn_unit"]
    assert {AGAIN, *fidelity.JUDGED} <= summary["logreg_unit"].keys()
    assert summary["logreg_unit"]["Hara_exact"] > 0.8
    assert (tmp_path / "fidelity.png").read_bytes().startswith(b"\x89PNG")
    before = read_csv(tmp_path / "fidelity_raw.csv")
    assert len(before) == 2 * 2 * 24
    run("--tasks", "dnn_unit", "--seeds", "0")
    assert read_csv(tmp_path / "fidelity_raw.csv").equals(before)
    run("--tasks", "logreg_unit", "--seeds", "2")
    after = read_csv(tmp_path / "fidelity_raw.csv")
    assert after["seed"].unique().tolist() == [0, 1, 2]
    assert after[after["seed"] < 2].reset_index(drop=True).equals(before)


def _run(common: list[str], capsys, *more: str) -> dict[str, dict[str, float]]:
    fidelity.main([*common, *more])
    printed = capsys.readouterr().out.splitlines()
    return json.loads(printed[-1]) if printed else {}
