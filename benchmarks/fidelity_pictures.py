"""The pictures of docs/fidelity.md, from the rows of `benchmarks/fidelity.py`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure

from utils.methods import METHODS
from utils.output.storage import written_beside

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN_TASK, SHOWN_SEED = "mnist_cnn", 0
FROM_SCRATCH = {
    f"{net}_small_{percent}": f"{net} net, groups of {percent} %"
    for percent in (2, 10)
    for net in ("stock", "smooth")
}
"""Titles of the panels that show whole trainings, by task."""


def draw_figures(figures: pd.DataFrame, again: str, path: Path) -> None:
    """Draw mean and standard deviation of each method, a panel per task, and the truth's own.

    Args:
        figures: columns task, seed, method, figure.
        again: the "method" that is the truth computed a second time.
        path: the PNG file.
    """
    tasks = list(figures["task"].unique())
    n_rows = -(-len(tasks) // 4)
    figure = Figure(figsize=(13, 2.9 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, 4, squeeze=False, sharex=True).ravel()
    for axes, task in zip(panels, tasks, strict=False):
        _draw_task(axes, figures[figures["task"] == task], again)
        axes.set_title(task, fontsize=10)
        axes.tick_params(axis="x", labelbottom=True, labelsize=7)
    for axes in panels[len(tasks) :]:
        axes.set_axis_off()
    lines = [line for line in panels[0].get_lines() if line.get_label() == again]
    figure.legend(lines, [f"{again}: its agreement with itself"], loc="outside lower right")
    figure.suptitle("agreement with true retraining: Kendall's tau (logreg, dnn), or Spearman")
    _save(figure, path)


def _draw_task(axes: Axes, rows: pd.DataFrame, again: str) -> None:
    by_method = rows.groupby("method", sort=False)["figure"].agg(["mean", "std"])
    truth = by_method.loc[by_method.index == again, "mean"]
    by_method = by_method.drop(index=again, errors="ignore").iloc[::-1]
    axes.barh(by_method.index, by_method["mean"], xerr=by_method["std"], color="C0", alpha=0.7)
    axes.set_yticks(range(len(by_method)), by_method.index, fontsize=7)
    for mean in truth:
        axes.axvline(mean, color="black", linestyle="--", label=again)
    axes.axvline(0, color="0.6", linewidth=0.8)
    axes.set_xlim(-0.4, 1.05)


def draw_scatter(raw: pd.DataFrame, path: Path) -> None:
    """Draw predicted against true changes of one training, a panel per method.

    Args:
        raw: the rows of `judge`; those of `SHOWN_TASK` and `SHOWN_SEED` are drawn.
        path: the PNG file.
    """
    shown = raw[(raw["task"] == SHOWN_TASK) & (raw["seed"] == SHOWN_SEED)]
    shown = shown.dropna(axis="columns", how="all")  # methods that other tasks alone have
    methods = [name for name, method in METHODS.items() if method.predicts and name in shown]
    figure = Figure(figsize=(2.6 * len(methods), 3), layout="constrained")
    for axes, method in zip(figure.subplots(1, len(methods), sharey=True), methods, strict=True):
        _scatter(axes, shown, method, method)
    title = f"{SHOWN_TASK}, seed {SHOWN_SEED}: groups of a tenth of the images"
    _label(figure, title, "predicted change of the validation loss (nats)")
    _save(figure, path)


def draw_from_scratch(raw: pd.DataFrame, path: Path) -> None:
    """Draw the changes that Hara_exact predicts for whole trainings against the true ones.

    Args:
        raw: the rows of `judge`; those of the tasks `FROM_SCRATCH` and `SHOWN_SEED` are drawn.
        path: the PNG file.
    """
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    shown = raw[raw["seed"] == SHOWN_SEED]
    for axes, (task, title) in zip(figure.subplots(1, 4), FROM_SCRATCH.items(), strict=True):
        rows = shown[shown["task"] == task]
        agreement = rows["Hara_exact"].corr(rows["true"], method="spearman")
        _scatter(axes, rows, "Hara_exact", f"{title}\nSpearman {agreement:.2f}")
        axes.axline((0, 0), slope=1, color="0.6", linewidth=0.8)
    title = f"left out of the whole training, seed {SHOWN_SEED}; grey: predicted = true"
    _label(figure, title, "change of the validation loss predicted by Hara_exact (nats)")
    _save(figure, path)


def _scatter(axes: Axes, rows: pd.DataFrame, method: str, title: str) -> None:
    """The true changes against those that a method predicts."""
    axes.scatter(rows[method], rows["true"], s=12)
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=7)
    axes.locator_params(nbins=4)


def _label(figure: Figure, title: str, predicted: str) -> None:
    figure.suptitle(title, fontsize=10)
    figure.supxlabel(predicted, fontsize=9)
    figure.supylabel("true change (nats)", fontsize=9)


def _save(figure: Figure, path: Path) -> None:
    with written_beside(path) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})
