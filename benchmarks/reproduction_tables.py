"""Pictures and tables of docs/reproduction.md, from the rows of `benchmarks/reproduction.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from utils.methods import CONTROL, METHODS, NO_REMOVAL
from utils.options import CACHES
from utils.output.storage import save_bytes, written_beside
from utils.training.kept_states import kept_steps
from utils.training.models import six_convolutions
from utils.training.network import Network, hdf5_of
from utils.units import counted, shown_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAPER_AXES = {"mnist": "0.7 to 1.1", "cifar10": "15.5 to 17.5"}
"""Misclassification (%) that the axes of [H]'s figure span, by experiment/Sec72/ViewResults.ipynb
of sato9hara/sgd-influence. The curves themselves are in a figure only."""

SCHEDULES = ((50_000, 32), (50_000, 64), (7_000, 64))
"""(training images, batch) whose storage is compared."""

FEW = 3
"""Trials from which on a change is compared with its standard error."""

WIDE, LINEAR = 5, 2
"""If a change is above `WIDE` points, those above `LINEAR` are drawn on a logarithmic scale."""
POINTS = (-20, -10, -5, -2, -1, 0, 1, 2, 5, 10, 20, 50)
"""Changes with a line and a label."""


def errors_of(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores with the misclassification of the test images in per cent, and its change.

    Returns:
        The rows in the order of the methods, with two more columns: error, and change, in points
        against n = 0 of the trial.
    """
    rows = scores.assign(error=100 * (1 - scores["test_accuracy"]))
    trial = ["run", "dataset", "seed"]
    unchanged = rows[rows["method"] == NO_REMOVAL].set_index(trial)["error"]
    order = {NO_REMOVAL: -1} | {method: place for place, method in enumerate(METHODS)}
    return rows.assign(
        change=rows["error"] - rows.set_index(trial).index.map(unchanged)
    ).sort_values("method", key=lambda names: names.map(order), kind="stable")


def draw_runs(scores: pd.DataFrame, folder: Path) -> None:
    """Draw a picture per run, reproduction_<run>.png: paired changes against n removed."""
    for run, rows in errors_of(scores).groupby("run"):
        datasets = list(rows["dataset"].unique())
        figure = Figure(figsize=(5.5 * len(datasets), 4), layout="constrained")
        for axes, dataset in zip(figure.subplots(1, len(datasets), squeeze=False)[0], datasets,
                                 strict=True):  # fmt: skip
            _draw(axes, rows[rows["dataset"] == dataset], f"{dataset}, run '{run}'")
        with written_beside(folder / f"reproduction_{run}.png") as temporary:
            figure.savefig(temporary, dpi=110, metadata={"Software": None})


def _draw(axes: Axes, rows: pd.DataFrame, title: str) -> None:
    """The mean paired changes; bars are standard errors, moved apart so that they can be seen."""
    removed = rows[rows["n_drops"] > 0]
    for number, (method, of_method) in enumerate(removed.groupby("method", sort=False)):
        change = of_method.groupby("n_drops")["change"].agg(["mean", "sem"]).fillna(0.0)
        axes.errorbar(
            change.index * 1.04 ** (number - 1.5), change["mean"], change["sem"], capsize=3,
            marker="os^Dv"[number % 5], label=f"{method}{_missing(of_method, rows)}",
        )  # fmt: skip
    axes.axhline(0, color="black", linestyle="--", linewidth=0.8)
    _label(axes, rows, title)


def _label(axes: Axes, rows: pd.DataFrame, title: str) -> None:
    counts = sorted(rows.loc[rows["n_drops"] > 0, "n_drops"].unique())
    unchanged = rows.loc[rows["method"] == NO_REMOVAL, "error"]
    axes.set_xscale("log")
    axes.set_xlim(counts[0] / 1.5, counts[-1] * 1.5)
    axes.set_xticks(counts, [f"{n:,}" for n in counts], rotation=45 if len(counts) > 6 else 0)
    if rows["change"].abs().max() > WIDE:  # 30,000 removals cost ten times what others gain
        axes.set_yscale("symlog", linthresh=LINEAR)
        axes.yaxis.set_major_locator(FixedLocator(POINTS))
        axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    printed = f"{counted(len(unchanged), 'trial')}, {NO_REMOVAL} {mean_and_deviation(unchanged)} %"
    axes.set_title(f"{title}\n{printed}", fontsize=10)
    axes.set_xlabel("training images removed (log scale)")
    axes.set_ylabel("change of misclassification (points)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left")


# ---------------------------------------------------------------- the page


def fill_page(page: Path, blocks: Mapping[str, str]) -> None:
    """Put blocks into a page, between the comments that name them."""
    text = filled(page.read_text(encoding="utf-8"), blocks)
    save_bytes(text.encode("utf-8"), page)


def filled(text: str, blocks: Mapping[str, str]) -> str:
    """`text` with each block between its comments `<!-- name -->` and `<!-- /name -->`."""
    for name, block in blocks.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"one place named {name} is needed")
        before, rest = text.split(begin)
        text = f"{before}{begin}{block}\n{end}{rest.split(end)[1]}"
    return text


def blocks_of(scores: pd.DataFrame, runs: pd.DataFrame) -> dict[str, str]:
    """The tables by name: runs, errors, chosen, storage."""
    return {
        "runs": runs_table(runs),
        "errors": errors_tables(scores),
        "chosen": chosen_table(scores),
        "storage": storage_table(),
    }


def runs_table(runs: pd.DataFrame) -> str:
    """How each run was made: a row per run and data set."""
    rows = [
        (
            "run",
            "data set",
            "seeds",
            "options",
            "CPU minutes a trial, at most",
            "machine",
            "commits",
        )
    ]
    for (run, dataset), trials in runs.groupby(["run", "dataset"], sort=False):
        seeds = ", ".join(map(str, trials["seed"]))
        most = trials["cpu_seconds"].max()  # 0: it was put together from parts, and not timed
        minutes = f"{most / 60:.1f}" if most else ""
        machines = "; ".join(trials["machine"].unique())
        options = "; ".join(f"`{given}`" for given in trials["options"].unique())
        commits = ", ".join(trials["commit"].dropna().unique())
        rows.append((run, dataset, seeds, options, minutes, machines, commits))
    return markdown(rows)


def errors_tables(scores: pd.DataFrame) -> str:
    """Misclassification and its paired change of each run and data set, and what they say."""
    parts = []
    for (run, dataset), rows in errors_of(scores).groupby(["run", "dataset"], sort=False):
        n_trials = rows["seed"].nunique()
        parts.append(f"**{dataset}, run `{run}`, {counted(n_trials, 'trial')}**")
        parts.append(markdown(_error_rows(rows, PAPER_AXES[str(dataset)])))
        parts.append(verdict(rows))
    return "\n\n".join(parts)


def _error_rows(rows: pd.DataFrame, paper: str) -> list[tuple[str, ...]]:
    counts = sorted(rows.loc[rows["n_drops"] > 0, "n_drops"].unique())
    unchanged = rows.loc[rows["method"] == NO_REMOVAL, "error"]
    table = [("misclassified, %", *(f"n = {n:,}" for n in counts))]
    table.append((NO_REMOVAL, *([mean_and_deviation(unchanged)] * len(counts))))
    trials = rows[rows["n_drops"] > 0].groupby("n_drops")["seed"].nunique()
    if trials.nunique() > 1:
        table.append(("trials", *(str(trials[n]) for n in counts)))
    for method, of_method in rows[rows["n_drops"] > 0].groupby("method", sort=False):
        by_count, own = dict(iter(of_method.groupby("n_drops"))), of_method["seed"].nunique()
        named = {
            "error": f"{method}{_missing(of_method, rows)}",
            "change": f"{method}, change in points",
        }
        for column, name in named.items():
            sign = "+" if column == "change" else ""
            cells = (  # not every method with every n
                cell(by_count[n][column], min(own, trials[n]), sign) if n in by_count else ""
                for n in counts
            )
            table.append((name, *cells))
    return [*table, ("[H], full sets: its figure's axis", *([paper] * len(counts)))]


def _missing(of_method: pd.DataFrame, rows: pd.DataFrame) -> str:
    there, n_trials = of_method["seed"].nunique(), rows["seed"].nunique()
    return "" if there == n_trials else f" (not run in {n_trials - there} of {n_trials} trials)"


def verdict(rows: pd.DataFrame) -> str:
    """One line: which changes are further from 0 than twice their standard error.

    Those of fewer than `FEW` trials are left out.
    """
    clear = []
    removed = rows[rows["n_drops"] > 0]
    for (method, n), group in removed.groupby(["method", "n_drops"], sort=False):
        change, error = group["change"].mean(), group["change"].sem()
        if len(group) >= FEW and abs(change) > 2 * error:
            clear.append(f"{method} at n = {n:,} ({change:+.2f})")
    printed = ", ".join(clear) or "none"
    return (
        f"Changes beyond twice their standard error, of n with {FEW} trials or more (negative is "
        f"better): {printed}."
    )


def chosen_table(scores: pd.DataFrame) -> str:
    """The change of run `full` at the n that each trial's validation loss chooses, by method.

    Of the n > 0 that a method has in all of its trials, the one with the lowest loss is chosen.
    """
    head = ("data set", "method", "n chosen, by trial", "change in points", "standard error")
    table: list[tuple[str, ...]] = [(*head, "change less Random's, paired")]
    full = errors_of(scores[scores["run"] == "full"])
    if full.empty:
        return "No trial was run."
    for dataset, rows in full[full["n_drops"] > 0].groupby("dataset", sort=False):
        chosen = {m: _chosen(own) for m, own in rows.groupby("method", sort=False)}
        for method, best in chosen.items():
            change = best["change"]
            compared = CONTROL in chosen and method != CONTROL
            paired = _paired(change, chosen[CONTROL]["change"]) if compared else ""
            counts = ", ".join(f"{n:,}" for n in best["n_drops"])
            row = (str(dataset), str(method), counts, mean_and_deviation(change, "+"))
            table.append((*row, f"{change.sem():.2f}" if len(change) > 1 else "", paired))
    return markdown(table)


def _paired(change: pd.Series, control: pd.Series) -> str:
    """The mean of `change` less that of the control, over the trials that have both."""
    less = (change - control).dropna()
    note = "" if len(less) == len(change) else f" ({counted(len(less), 'trial')})"
    return f"{mean_and_deviation(less, '+')}{note}" if len(less) else ""


def _chosen(rows: pd.DataFrame) -> pd.DataFrame:
    """The row of the lowest validation loss in each trial, by seed."""
    in_all = rows.groupby("n_drops")["seed"].transform("nunique") == rows["seed"].nunique()
    common = rows[in_all].reset_index(drop=True)
    return common.loc[common.groupby("seed")["val_loss"].idxmin()].set_index("seed")


def mean_and_deviation(values: pd.Series, sign: str = "", digits: int = 2) -> str:
    """Mean ± standard deviation (n - 1); of one value it alone."""
    deviation = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():{sign}.{digits}f}{deviation}"


def cell(values: pd.Series, usual: int, sign: str = "") -> str:
    """Mean and deviation of the trials; with their number where they are fewer than usual."""
    note = "" if len(values) == usual else f" ({counted(len(values), 'trial')})"
    return mean_and_deviation(values, sign) + note


def storage_table() -> str:
    """Parameter files of the last epoch by the product's own rule, and bytes of a real file."""
    network = Network(six_convolutions, (1, 32, 32), 10, 0)
    size = len(hdf5_of(network.state()))
    table: list[tuple[str, ...]] = [
        ("images, batch", "one state of T, as [S] counts", *(f"`{cache}`" for cache in CACHES))
    ]
    for n_images, batch in SCHEDULES:
        covered = range(-(-n_images // batch))
        files = (1 + len(kept_steps(cache, covered, 0)) for cache in CACHES)
        cells = (f"{n:,} files, {shown_bytes(n * size)}" for n in files)
        table.append((f"{n_images:,}, {batch}", f"1/{len(covered):,}", *cells))
    return markdown(table)


def markdown(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows as a table, the first one its head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
