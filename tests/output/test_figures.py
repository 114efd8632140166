"""What the figures show."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from utils.output.figures import Interval, removal_figure, verification_panels

SUMMARY = pd.DataFrame(
    [
        ("Random", 1, None, None, 0.6, 1.5),
        ("Hara", 1, None, None, 0.9, 1.2),
        ("Hara", 10, None, None, 0.98, 1.0),
        ("No Removal", 1, None, None, 0.8, 1.3),
        ("No Removal", 10, None, None, 0.8, 1.3),
        ("Random", 1, "mean", None, 0.5, 1.5),
        ("Random", 1, None, "std", 0.1, 0.2),
        ("Hara", 10, "mean", None, 0.98, 1.0),
        ("Hara", 1, "mean", None, 0.9, 1.2),
        ("Hara", 1, None, "std", 0.05, 0.1),
        ("Hara", 10, None, "std", 0.05, 0.1),
        ("No Removal", 1, "mean", None, 0.8, 1.3),
        ("No Removal", 10, "mean", None, 0.8, 1.3),
    ],
    columns=["method", "n_drops", "mean", "std", "test_accuracy", "val_loss"],
).assign(seed=[*[0] * 5, *[None] * 8])


def test_accuracies_are_per_cent_with_a_band_that_ends_at_100() -> None:
    figure = removal_figure(SUMMARY, "test_accuracy")
    none, hara, random = figure.curves
    assert (none.method, hara.method, random.method) == ("No Removal", "Hara", "Random")
    assert hara.n.tolist() == [1, 10] and figure.counts == (1, 10)
    assert hara.mean.tolist() == pytest.approx([90, 98])
    assert hara.low.tolist() == pytest.approx([85, 93])
    assert hara.high.tolist() == pytest.approx([95, 100])
    assert figure.y_label == "test accuracy (%)" and figure.unit == "%"
    assert none.low.tolist() == none.mean.tolist() == none.high.tolist()  # one trial


def test_a_curve_that_others_run_along_is_known() -> None:
    table = SUMMARY[SUMMARY["mean"] == "mean"]
    ours = table[table["method"] == "Hara"].assign(method="Ours")
    crossing = table[table["method"] == "Hara"].assign(method="AUM", test_accuracy=[0.98, 0.5])
    both = pd.concat([table, ours, crossing])
    figure = removal_figure(both, "test_accuracy")
    beneath = {curve.method: curve.beneath.tolist() for curve in figure.curves}
    assert beneath == {"No Removal": [0], "Hara": [1], "Ours": [0], "AUM": [0], "Random": []}


def test_removals_that_only_some_trials_made_are_left_out() -> None:
    """They cannot be compared with the mean of No Removal over all trials."""
    of_one = [("Hara", 1000, None, None, 0.1, 9.9, 0), ("Hara", 1000, "mean", None, 0.1, 9.9, None)]
    second = SUMMARY[SUMMARY["seed"] == 0].assign(seed=1)
    second = second[second["method"] != "Random"]
    table = pd.concat([SUMMARY, second, pd.DataFrame(of_one, columns=SUMMARY.columns)])
    figure = removal_figure(table, "test_accuracy")
    assert [curve.method for curve in figure.curves] == ["No Removal", "Hara"]
    assert figure.curves[1].n.tolist() == [1, 10] and figure.counts == (1, 10)
    words = "Not drawn, because only some trials made these removals: "
    assert figure.left_out == f"{words}Hara n = 1,000; Random n = 1"
    assert removal_figure(SUMMARY, "test_accuracy").left_out == ""


def test_losses_stay_nats() -> None:
    figure = removal_figure(SUMMARY, "val_loss")
    assert figure.curves[1].high.tolist() == pytest.approx([1.3, 1.1])
    assert figure.y_label == "validation loss (nats)"


def test_panels_hold_groups_and_agreement() -> None:
    table = pd.DataFrame(
        {
            "method": ["Hara", "Hara", "AUM"],
            "kind": ["random", "ranking", "random"],
            "group": ["random 1", "Hara part 1 of 1", "random 1"],
            "predicted": [0.1, 0.2, 3.0],
            "true": [0.3, 0.4, 0.3],
        }
    )
    agreement = pd.DataFrame(
        {"method": ["Hara"], "random": [-0.5], "low": [-0.75], "high": [0.1], "ranking": [0.25]}
    )
    hara, aum = verification_panels(table, agreement)
    ranking, random = hara.points
    assert random.names == ("random 1",)
    assert (random.predicted.tolist(), random.true.tolist()) == ([0.1], [0.3])
    assert ranking.names == ("Hara part 1 of 1",)
    assert hara.of_random is not None and hara.of_ranking is not None
    assert hara.of_random.worded == "−0.50 (95 % interval −0.75 to 0.10)"
    assert hara.of_random.bracketed == "-0.50 [-0.75, 0.10]"
    assert hara.of_ranking.worded == "0.25" and np.isnan(hara.of_ranking.low)
    assert Interval(0.5, 0.501, 0.499).bracketed == Interval(0.5, 0.501, 0.499).worded == "0.50"
    assert Interval(np.nan, np.nan, np.nan).bracketed == "unknown"
    assert hara.x_label != aum.x_label
    assert aum.of_random is None and not aum.points[0].names
