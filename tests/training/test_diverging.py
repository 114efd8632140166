"""Training that goes wrong: it stops at once and says where, or warns that nothing is learnt."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pandas as pd
import pytest

from benchmarks.kill_test import differing, files_of
from sgd_influence.guessing import guessing_loss, lucky_accuracy, no_better_than_guessing
from tests.helpers.runs import contents, sgd_influence
from tests.helpers.tiny import digit_images
from utils.training.network import Network
from utils.training.sgd import SGD, Optimiser
from utils.training.steps import plan_steps

RUN = "--model mlp --context cpu"
REMEDY = "the training diverges; choose a lower --lr (or --momentum) and another --output_dir; what"


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    return printed.removeprefix("eval_sgd_influence.py: error: ").strip()


def test_diverging_training_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sgd_influence(tmp_path, f"{RUN} --lr 1e9") == 2
    line = last_line(capsys)
    where = r"trial 0: the loss in epoch 1, step \d \(learning rate 1e\+09\) is (nan|inf): "
    assert re.match(where, line)
    assert REMEDY in line
    assert not list(tmp_path.glob("**/final_model.h5"))
    assert not list(tmp_path.glob("**/learning_curve.csv"))


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_what_was_done_before_is_kept(
    loss: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The second trial diverges in its third step of the second epoch."""
    more = f"{RUN} -nt 2 -e 3 -r 5 --methods Random"
    assert sgd_influence(tmp_path / "good", more) == 0
    step, n_trained = SGD.step, []

    def diverges(sgd: SGD, data, recorded, removed=None) -> float:
        if removed is None and recorded.epoch == 1:
            n_trained.append(recorded)
        bad = len(n_trained) == 4 + 3
        return loss if bad else step(sgd, data, recorded, removed)

    monkeypatch.setattr(SGD, "step", diverges)
    capsys.readouterr()
    assert sgd_influence(tmp_path / "bad", more) == 2
    expected = f"trial 1: the loss in epoch 2, step 3 (learning rate 0.05) is {loss}: {REMEDY}"
    line = last_line(capsys)
    assert line.startswith(expected)
    assert line in (tmp_path / "bad/run.log").read_text()
    good, kept = contents(tmp_path / "good"), contents(tmp_path / "bad")
    curve = "infl_results_sgd/seed_01/learning_curve.csv"
    assert good[curve].startswith(kept.pop(curve))
    per_trial = {name for name in good if not name.startswith("cleansed/")}
    first_trial = {name for name in per_trial if re.search(r"_0\.csv|seed_00", name)}
    assert kept == {name: good[name] for name in first_trial}
    monkeypatch.setattr(SGD, "step", step)
    assert sgd_influence(tmp_path / "bad", more) == 0
    assert "Trial 1: training resumes with epoch 2" in capsys.readouterr().out
    assert differing(tmp_path / "bad", files_of(tmp_path / "good")) == []


def test_diverging_retraining_says_what_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = SGD.step

    def diverges(sgd: SGD, data, recorded, removed=None) -> float:
        value = step(sgd, data, recorded, removed)
        return math.nan if removed is not None and removed.sum() == 5 else value

    monkeypatch.setattr(SGD, "step", diverges)
    assert sgd_influence(tmp_path, f"{RUN} --methods Random") == 2
    expected = "trial 0 without 5 images: the loss in epoch 2, step 1 (learning rate 0.05) is nan"
    assert expected in capsys.readouterr().err.splitlines()[-1]
    names = [path.name for path in tmp_path.glob("score/**/*.csv")]
    assert names == ["score_delete_worst_0_seed_0.csv"]


def test_loss_that_never_falls_is_one_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = f"{RUN} -e 6 -r 0 --methods Random --lr"
    assert sgd_influence(tmp_path / "flat", f"{more} 1e-9") == 0
    line = last_line(capsys)
    assert re.fullmatch(
        r"Trial 0: the training loss never falls below guessing: 2\.\d+ at best, 2\.30\d by "
        r"guessing; the scores mean nothing\. It took \d+ steps with --lr 1e-09: try another --lr, "
        r"more epochs, a smaller --batch_size or another --model\.",
        line,
    )
    assert sgd_influence(tmp_path / "falls", f"{more} 0.05") == 0
    assert capsys.readouterr().err == ""


def test_one_epoch_that_taught_something_is_no_warning() -> None:
    """Its training loss is from before its steps."""
    labels = np.arange(100) % 10
    curve = pd.DataFrame({"train_loss": [2.38], "val_loss": [1.98], "val_accuracy": [0.33]})
    assert no_better_than_guessing(curve, labels, labels) == ""
    longer = pd.concat([curve, curve])  # whose later training losses would tell
    for taught_nothing in (curve.assign(val_loss=2.35), longer):
        found = no_better_than_guessing(taught_nothing, labels, labels)
        assert "never falls below guessing" in found


def test_nothing_is_recommended_from_a_training_that_learnt_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sgd_influence(tmp_path, f"{RUN} -e 1 -r 0 5 --methods Ours Random --lr 1e-9") == 0
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    reason = "by Ours, its scores are not sound: in trial 0 the training loss never falls below "
    assert f"Recommended: remove none ({reason}" in printed.out
    assert "best tried, not recommended" in printed.out


def test_net_that_knows_no_validation_image_is_one_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It learns its images by heart; what it learnt says nothing of others."""
    monkeypatch.setattr("sgd_influence.guessing.lucky_accuracy", lambda labels: 0.999)
    assert sgd_influence(tmp_path, f"{RUN} -e 6 -r 0 --methods Random --lr 0.05") == 0
    assert re.fullmatch(
        r"Trial 0: the validation accuracy may be that of guessing: \d+\.\d% at the end, and "
        r"guessing reaches up to 99\.9%; the scores mean little then\. It took \d+ steps with "
        r"--lr 0\.05: try another --lr, more epochs, a smaller --batch_size or another --model\.",
        last_line(capsys),
    )
    about = json.loads((tmp_path / "summary/recommendation.json").read_text())["about"]
    assert "In trial 0 the validation accuracy may be that of guessing: " in about


def test_luck_names_the_largest_class() -> None:
    labels = np.repeat([0, 3], [90, 10])
    assert lucky_accuracy(labels) == pytest.approx(0.9 + 2 * math.sqrt(0.9 * 0.1 / 100))


@pytest.mark.parametrize(
    "accuracy, n, is_luck", [(0.95, 100, True), (0.97, 100, False), (1, 10, False), (0.5, 1, False)]
)
def test_luck_is_said_only_where_a_net_could_do_better(
    accuracy: float, n: int, is_luck: bool
) -> None:
    validation = np.repeat([0, 3], [n - n // 10, n // 10])
    curve = pd.DataFrame(
        {"train_loss": [0.1, 0.1], "val_loss": [0.1, 0.1], "val_accuracy": [1.0, accuracy]}
    )
    assert bool(no_better_than_guessing(curve, np.arange(10), validation)) == is_luck


def test_guessing_counts_the_classes_as_they_are() -> None:
    """The entropy of the labels: 0.325 nats for classes of 90 and 10 %."""
    labels = np.repeat([0, 3], [90, 10])
    assert guessing_loss(labels) == pytest.approx(-0.9 * math.log(0.9) - 0.1 * math.log(0.1))
    assert guessing_loss(np.arange(10)) == pytest.approx(math.log(10))


@pytest.mark.parametrize("net", ["dense", "dense_relu"])  # ReLU hides nan: its loss is finite
def test_batch_norm_of_one_image_is_not_called_divergence(
    net: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = f"--model tests.helpers.users_models:{net} --batch_size 59 -r 0 --methods Random"
    assert sgd_influence(tmp_path, more) == 2
    line = last_line(capsys)
    assert "a batch of one image has no variance; choose another --batch_size" in line
    assert "lower --lr" not in line


@pytest.mark.parametrize("removed", [[], [0]])
def test_maps_of_one_value_keep_their_statistics_finite(removed: list[int]) -> None:
    """Our own BatchNorm, which lies channels last."""

    def net(x: nn.Variable, n_classes: int, test: bool) -> nn.Variable:
        h = F.average_pooling(PF.convolution(x, 3, (3, 3), pad=(1, 1)), (8, 8))
        return PF.affine(PF.batch_normalization(h, batch_stat=not test), n_classes)

    sgd, data = SGD(Network(net, (1, 8, 8), 10), Optimiser()), digit_images(0, 5)
    first, second, last = plan_steps(0, 5, 1, 2, 0.1)
    assert len(last.indices) == 1
    mask = np.zeros(5, bool)
    mask[first.indices[removed]] = True
    for step in (first, second, last):
        sgd.step(data, step, mask)
    assert all(np.isfinite(array).all() for array in sgd.state().values())
