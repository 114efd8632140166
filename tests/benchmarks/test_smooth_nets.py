"""The benchmark that holds nets and trainings against retraining from scratch."""

from __future__ import annotations

import nnabla as nn
import numpy as np
import pandas as pd
import pytest

from benchmarks import smooth_nets, tasks
from benchmarks.reproduction_tables import filled
from benchmarks.smooth_nets import Setting, rows_of, smooth_net, table_of
from tests.helpers.runs import ROOT
from tests.helpers.tiny import digit_images
from utils.output.storage import read_csv
from utils.training.models import smooth_convolutions
from utils.training.network import Network

SMALL = {"n_train": 64, "n_epochs": 2, "model": smooth_net(widths=(4, 4, 4))}


def test_row_of_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = digit_images(0, 700)
    monkeypatch.setattr(tasks, "small_mnist", lambda *_: (digits.images, digits.labels))
    monkeypatch.setitem(smooth_nets.SETTINGS, "small", Setting("small", SMALL))
    (row,) = rows_of("small", 3, None, n_groups=6).to_dict("records")
    assert (row["setting"], row["seed"], row["groups"]) == ("small", 3, 6)
    assert row["small"] > 0.9 and row["large"] > 0.9  # 2 steps of a net without kinks
    assert 0 < row["accuracy"] < 1 and row["smoothness"] > 0.9
    late = Setting("late", SMALL, unscored=1)
    monkeypatch.setitem(smooth_nets.SETTINGS, "late", late)
    (later,) = rows_of("late", 3, None, n_groups=6).to_dict("records")
    assert later["accuracy"] == row["accuracy"] and later["small"] > 0.9
    assert later["small"] != row["small"] or later["smoothness"] != row["smoothness"]


def test_net_of_the_usual_parts_is_the_built_in_one() -> None:
    ours, built_in = (Network(net, (1, 8, 8), 10, 3) for net in (smooth_net(), smooth_convolutions))
    names = zip(ours.state(), built_in.state(), strict=True)
    rng = np.random.default_rng(0)
    state = {name: rng.random(array.shape, np.float32) for name, array in ours.state().items()}
    ours.load(state)
    built_in.load({theirs: state[own] for own, theirs in names})
    x = nn.Variable.from_numpy_array(rng.random((4, 1, 8, 8), np.float32))
    logits = [net.logits(x, test=True) for net in (ours, built_in)]
    for y in logits:
        y.forward()
    np.testing.assert_allclose(logits[0].d, logits[1].d, rtol=1e-5)


def test_table_has_the_mean_of_each_setting() -> None:
    name, setting = next(iter(smooth_nets.SETTINGS.items()))
    rows = [(name, 0, 50, 0.9, 0.5, None, 0.8), (name, 1, 50, 1.0, 0.7, 0.62, 0.9)]
    columns = ["setting", "seed", "groups", "small", "large", "smoothness", "accuracy"]
    table = table_of(pd.DataFrame(rows, columns=columns)).splitlines()
    cells = "2 | 0.62 | 0.95 ± 0.07 | 0.60 ± 0.14 | 85.0 ± 7.1"
    assert table[2:] == [f"| {setting.words} | {cells} |"]


def test_figures_of_the_page_are_those_of_the_results() -> None:
    text = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
    assert filled(text, {"smooth_nets": table_of(read_csv(smooth_nets.RESULTS))}) == text
