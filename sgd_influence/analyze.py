"""Stage 4: the summary table, the picture and the closing table of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sgd_influence.eval import SCORE_COLUMNS
from sgd_influence.verify import Agreement
from utils.storage import written_beside

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NO_REMOVAL = "No Removal"
SUMMARY_COLUMNS = [*SCORE_COLUMNS, "method", "seed", "n_drops", "mean", "std"]

Scores = Mapping[tuple[str, int, int], pd.DataFrame]
"""The score file of each (method, seed, n)."""


def summarise(scores: Scores) -> pd.DataFrame:
    """The summary table, in the reference's row kinds.

    A row per (method, seed, n) holds the scores of the last retrained epoch. Rows with `mean`
    or `std` in the column of that name and an empty seed hold the means and the standard
    deviations (n - 1 in the denominator; empty with one trial) over the trials. n = 0 becomes the
    method `No Removal`, repeated for every n.

    Returns:
        A table with the columns `SUMMARY_COLUMNS`.
    """
    counts = sorted({n for _, _, n in scores if n > 0}) or [0]
    last = {key: table.iloc[-1][SCORE_COLUMNS].to_dict() for key, table in scores.items()}
    unchanged = {seed: row for (_, seed, n), row in last.items() if n == 0}
    rows = [
        row | {"method": NO_REMOVAL, "seed": seed, "n_drops": n}
        for seed, row in unchanged.items()
        for n in counts
    ]
    rows += [
        row | {"method": method, "seed": seed, "n_drops": n}
        for (method, seed, n), row in last.items()
        if n > 0
    ]
    by_seed = pd.DataFrame(rows)
    groups = by_seed.groupby(["method", "n_drops"], sort=False)[SCORE_COLUMNS]
    means = groups.mean().reset_index().assign(mean="mean")
    deviations = groups.std().reset_index().assign(std="std")
    summary = pd.concat([by_seed, means, deviations], ignore_index=True)
    return summary.reindex(columns=SUMMARY_COLUMNS).astype({"seed": "Int64"})


@dataclass(frozen=True)
class Choice:
    """The n that a method would remove, chosen on validation accuracy.

    Accuracies are fractions of the test images, means over the trials.
    """

    method: str
    n: int
    test_accuracy: float
    no_removal: float

    @property
    def gain(self) -> float:
        """Test accuracy gained over No Removal."""
        return self.test_accuracy - self.no_removal


def choose(summary: pd.DataFrame, methods: Sequence[str]) -> list[Choice]:
    """Per method the n best on mean VALIDATION accuracy, ties to the smaller, 0 included."""
    means = summary[summary["mean"] == "mean"].sort_values("n_drops", kind="stable")
    baseline = means[means["method"] == NO_REMOVAL].iloc[0]
    choices = []
    for method in methods:
        tried = pd.concat(
            [baseline.to_frame().T.assign(n_drops=0), means[means["method"] == method]]
        )
        best = tried.iloc[tried["val_accuracy"].astype(float).argmax()]
        accuracy, no_removal = float(best["test_accuracy"]), float(baseline["test_accuracy"])
        choices.append(Choice(method, int(best["n_drops"]), accuracy, no_removal))
    return choices


def closing_table(choices: list[Choice], agreements: Mapping[str, Agreement]) -> str:
    """The choices as lines for the terminal, with the agreement where the run was verified."""
    head = f"{'method':<20} {'n removed':>9} {'test accuracy':>14} {NO_REMOVAL:>11} "
    head += f"{'gain (points)':>14}"
    lines = [head + (f" {'agreement':>10}" if agreements else "")]
    for c in choices:
        line = f"{c.method:<20} {c.n:>9} {c.test_accuracy:>13.2%} {c.no_removal:>11.2%} "
        line += f"{100 * c.gain:>+14.2f}"
        lines.append(line + (f" {agreements[c.method].random:>10.2f}" if agreements else ""))
    return "\n".join(lines)


def draw(summary: pd.DataFrame, title: str, path: Path) -> None:
    """Draw test accuracy against n removed: a line and a band (one standard deviation) a method.

    Args:
        summary: the table of `summarise`.
        title: says data set, sizes, epochs and trials.
        path: the PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, method in enumerate(_in_drawing_order(summary)):
        _draw_method(axes, summary[summary["method"] == method], method, number)
    _label(axes, summary, title)
    with written_beside(path) as temporary:
        figure.savefig(temporary, dpi=150, metadata={"Software": None})


def _in_drawing_order(summary: pd.DataFrame) -> list[str]:
    methods = [m for m in summary["method"].unique() if m != NO_REMOVAL]
    return [NO_REMOVAL, *methods]


def _draw_method(axes: Axes, rows: pd.DataFrame, method: str, number: int) -> None:
    mean = rows[rows["mean"] == "mean"].sort_values("n_drops")
    deviation = rows[rows["std"] == "std"].sort_values("n_drops")["test_accuracy"].to_numpy()
    n, accuracy = mean["n_drops"].to_numpy(), 100 * mean["test_accuracy"].to_numpy()
    color = "black" if method == NO_REMOVAL else f"C{number - 1}"
    low, high = accuracy - 100 * deviation, accuracy + 100 * deviation
    if method == NO_REMOVAL:
        axes.axhline(accuracy[0], color=color, linestyle="--", label=method)
        axes.axhspan(low[0], high[0], color=color, alpha=0.08, linewidth=0)
        return
    label = method.replace("_", " ")
    axes.plot(n, accuracy, color=color, marker="os^Dv"[(number - 1) % 5], label=label)
    axes.fill_between(n, low, high, color=color, alpha=0.15, linewidth=0)


def _label(axes: Axes, summary: pd.DataFrame, title: str) -> None:
    counts = sorted(n for n in summary["n_drops"].unique() if n > 0)
    axes.set_xscale("log")
    if counts:
        axes.set_xlim(counts[0] / 1.5, counts[-1] * 1.5)
        axes.set_xticks(counts, [f"{n:,}" for n in counts], rotation=45 if len(counts) > 6 else 0)
        axes.minorticks_off()
    else:
        axes.set_xticks([])
        axes.minorticks_off()
        axes.text(0.5, 0.6, "nothing was removed (-r 0)", transform=axes.transAxes, ha="center")
    n_trials = summary["seed"].nunique()
    band = f"mean of {n_trials} trials, band: one standard deviation" if n_trials > 1 else "1 trial"
    axes.set_title(f"{title}\n{band}", fontsize=11)
    axes.set_xlabel("training images removed, the most harmful first (log scale)")
    axes.set_ylabel("test accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend()
