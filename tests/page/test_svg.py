"""The axes and bands of the page's charts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from utils.output.figures import gain_figure, removal_figure
from utils.page.charts import learning_chart, removal_chart, score_chart
from utils.page.svg import LABEL_WIDTH, x_axis


@pytest.mark.parametrize(
    "values", [(-0.0079, 0.004), (-7.9e-5, 4e-5), (0, 3), (-1234.5, 1234.5), (0.101, 0.1011)]
)
def test_labels_of_an_axis_have_room(values: tuple[float, float]) -> None:
    axis = x_axis(values, "score")
    labels = [f"{tick:.{axis.decimals}f}" for tick in axis.ticks]
    assert len(labels) >= 2
    for a, b, text in zip(axis.ticks, axis.ticks[1:], labels, strict=False):
        assert axis(b) - axis(a) > LABEL_WIDTH * len(text)
    assert 0 in axis.ticks or not values[0] < 0 < values[1]


def test_the_bars_of_scores_mark_the_first_of_the_ranking() -> None:
    """Over several trials a ranking is not in the order of the mean scores."""
    chart = score_chart(np.array([-3.0, 1.0, -2.0, 4.0]), 2, "Hara")
    marked = [path.title for path in chart.paths if " cut" in path.css]
    assert [title.partition(" from ")[0] for title in marked] == ["1 image to remove"] * 2
    assert [title.rpartition(" to ")[0].rpartition(" ")[2] for title in marked] == ["-3", "0.938"]


def test_one_epoch_has_one_tick() -> None:
    curve = pd.DataFrame({"epoch": [0], "train_loss": [4.05]})
    chart = learning_chart({0: curve}, {"train_loss": "m0"}, "Loss", "nats")
    assert chart.x.ticks == (1,)


def test_no_band_is_above_all_images() -> None:
    summary = pd.DataFrame(
        {
            "method": ["No Removal"] * 3 + ["Hara"] * 3,
            "n_drops": [0] * 3 + [5] * 3,
            "mean": [None, "mean", None] * 2,
            "std": [None, None, "std"] * 2,
            "seed": [0, None, None] * 2,
            "val_accuracy": [0.9, 0.9, 0.02, 0.99, 0.99, 0.05],
        }
    )
    chart = removal_chart(removal_figure(summary, "val_accuracy"), "Validation accuracy")
    assert chart
    assert chart.y.high < 101


@pytest.mark.parametrize("n_rows", [1, 2])
def test_the_interval_of_a_single_removal_is_drawn_as_a_line(n_rows: int) -> None:
    rows = [(10, 0.2, -0.3, 0.7), (20, 0.1, -0.4, 0.6)][:n_rows]
    chart = removal_chart(gain_figure({"Hara": rows}, 1), "Gain", bands_of_one=True)
    assert chart
    x, y = chart.x, chart.y
    around = [path for path in chart.paths if path.css == "line m0 interval"]
    expected = [f"M{x(10)} {y(-0.3)}L{x(10)} {y(0.7)}"] if n_rows == 1 else []
    assert [path.d for path in around] == expected
    areas = [path.css for path in chart.paths if path.css.startswith("band")]
    assert areas == (["band base"] if n_rows == 1 else ["band base", "band m0"])
