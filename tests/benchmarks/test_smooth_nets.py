"""The benchmark that holds nets and trainings against retraining from scratch."""

from __future__ import annotations

import pandas as pd
import pytest

from benchmarks import smooth_nets, tasks
from benchmarks.smooth_nets import rows_of, smooth_net, table_of
from tests.helpers.tiny import digit_images
from utils.training.models import smooth_convolutions
from utils.training.network import Network

SMALL = {"n_train": 64, "n_epochs": 2, "model": smooth_net(widths=(4, 4, 4))}


def test_row_of_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = digit_images(0, 700)
    monkeypatch.setattr(tasks, "small_mnist", lambda *_: (digits.images, digits.labels))
    monkeypatch.setitem(smooth_nets.SETTINGS, "small", SMALL)
    (row,) = rows_of("small", 3, None, n_groups=6).to_dict("records")
    assert (row["setting"], row["seed"], row["groups"]) == ("small", 3, 6)
    assert row["small"] > 0.9 and row["large"] > 0.9  # 4 steps of a net without kinks
    assert 0 < row["accuracy"] < 1


def test_net_of_the_usual_parts_is_the_built_in_one() -> None:
    nets = [Network(model, (1, 8, 8), 10, 3) for model in (smooth_net(), smooth_convolutions)]
    sizes = [sorted(p.size for p in net.theta.values()) for net in nets]
    assert sizes[0] == sizes[1]
    kinds = [sorted(name for name, _ in net.functions()) for net in nets]
    assert [k for k in kinds[0] if k != "MulScalar"] == kinds[1]  # by 1.0


def test_table_has_the_mean_of_each_setting() -> None:
    name = next(iter(smooth_nets.SETTINGS))
    rows = [(name, 0, 50, 0.9, 0.5, 0.8), (name, 1, 50, 1.0, 0.7, 0.9)]
    columns = ["setting", "seed", "groups", "small", "large", "accuracy"]
    table = table_of(pd.DataFrame(rows, columns=columns)).splitlines()
    assert table[2:] == [f"| {name} | 2 | 0.95 ± 0.07 | 0.60 ± 0.14 | 85.0 ± 7.1 |"]
