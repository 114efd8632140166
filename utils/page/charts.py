"""The charts of a run: accuracy, learning curves, verification, distributions of scores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from utils.methods import METHODS, NO_REMOVAL, shown
from utils.page.seats import Seats
from utils.page.svg import (
    Axis,
    Chart,
    Dot,
    Path,
    Points,
    band,
    bar,
    count_axis,
    dots,
    line,
    log_y_axis,
    x_axis,
    y_axis,
)

N_BINS = 48
MOST_DOTS = 500
"""Learning curves with more points than this show a line without dots."""
Row = tuple[float, float, float, float]
"""n removed; the mean, and one standard deviation below and above it."""


def css_of(method: str) -> str:
    """The class of the style that gives a method its colour, the same in all charts."""
    return f"m{list(METHODS).index(method)}" if method in METHODS else "base"


def removal_chart(summary: pd.DataFrame, column: str, title: str) -> Chart | None:
    """A score against n removed, with bands of one standard deviation.

    Args:
        summary: the table of scores.
        column: which score; accuracies are shown in per cent, losses in nats.
        title: of the chart.

    Returns:
        None where nothing was removed.
    """
    counts = sorted(int(n) for n in summary["n_drops"].unique() if n > 0)
    factor, unit = (100, "%") if column.endswith("accuracy") else (1, "nats")
    curves = _curves(summary, column, factor)
    if not counts or len(curves) < 2:
        return None
    x = count_axis(counts, "images removed, worst first (log scale)")
    y = y_axis([v for rows in curves.values() for row in rows for v in row[1:]], unit)
    paths: list[Path] = []
    points: tuple[Dot, ...] = ()
    for method, rows in curves.items():
        paths += _line_and_band(method, rows, x, y)
        if method != NO_REMOVAL:
            titles = [f"{shown(method)}, n = {n}: {mean:.4g} {unit}" for n, mean, *_ in rows]
            points += dots([row[:2] for row in rows], x, y, css_of(method), titles)
    legend = tuple((css_of(method), shown(method)) for method in curves)
    n_trials = summary["seed"].nunique()
    note = f"Mean of {n_trials} trials; band: one standard deviation." if n_trials > 1 else ""
    return Chart(title, _described(curves, unit), x, y, tuple(paths), points, legend, note)


def _line_and_band(method: str, rows: list[Row], x: Axis, y: Axis) -> list[Path]:
    """Mean and band of a method; No Removal spans the whole frame."""
    if method == NO_REMOVAL:
        rows = [(x.low, *rows[0][1:]), (x.high, *rows[0][1:])]
    lower, upper = [(n, low) for n, _, low, _ in rows], [(n, high) for n, _, _, high in rows]
    mean = line([(n, mean) for n, mean, *_ in rows], x, y, css_of(method), shown(method))
    return [band(lower, upper, x, y, css_of(method)), mean]


def _curves(summary: pd.DataFrame, column: str, factor: float) -> dict[str, list[Row]]:
    """Per method rows of n, mean, mean - std and mean + std, times a factor; none above 100 %."""
    means, deviations = (
        summary[summary[kind] == kind].set_index(["method", "n_drops"])[column] * factor
        for kind in ("mean", "std")
    )
    around = deviations.reindex(means.index).fillna(0)
    most = factor if column.endswith("accuracy") else np.inf
    curves: dict[str, list[Row]] = {}
    for (method, n), mean in means.sort_index(level="n_drops", kind="stable").items():
        spread = around[method, n]
        high = min(mean + spread, most)
        curves.setdefault(method, []).append((int(n), mean, mean - spread, high))
    return {m: curves[m] for m in [NO_REMOVAL, *METHODS] if m in curves}


def _described(curves: dict[str, list[Row]], unit: str) -> str:
    texts = []
    for method, rows in curves.items():
        flat = method == NO_REMOVAL
        several = [f"{mean:.4g} {unit}" + ("" if flat else f" at {n:.0f}") for n, mean, *_ in rows]
        texts.append(f"{shown(method)}: {', '.join(several[:1] if flat else several)}")
    return "; ".join(texts)


def learning_chart(
    curves: dict[int, pd.DataFrame], columns: dict[str, str], title: str, unit: str
) -> Chart:
    """Columns of the learning curves of all trials against the epoch.

    Args:
        curves: by seed.
        columns: class of the style by column.
        title: of the chart.
        unit: label of the vertical axis; with a % in it, values are shown in per cent.
    """
    factor = 100 if "%" in unit else 1
    values = np.concatenate([t[list(columns)].to_numpy().ravel() for t in curves.values()]) * factor
    epochs = [1, *(len(table) for table in curves.values())]
    x, y = x_axis(epochs, "epoch"), y_axis(values, unit)
    paths: list[Path] = []
    points: tuple[Dot, ...] = ()
    for seed, table in curves.items():
        for column, css in columns.items():
            rows = [(e + 1, factor * v) for e, v in zip(table["epoch"], table[column], strict=True)]
            name = f"{_words(column)}, seed {seed}"
            paths.append(line(rows, x, y, css, name))
            if len(values) <= MOST_DOTS:
                titles = [f"{name}, epoch {e}: {v:.4g}" for e, v in rows]
                points += dots(rows, x, y, f"{css} small", titles)
    legend = tuple((css, _words(column)) for column, css in columns.items())
    last = [f"{_words(c)} {factor * t[c].iloc[-1]:.4g}" for t in curves.values() for c in columns]
    described = f"After the last epoch: {', '.join(last)}"
    return Chart(title, described, x, y, tuple(paths), points, legend)


def _words(column: str) -> str:
    long = {"val": "validation", "train": "training"}
    return " ".join(long.get(word, word) for word in column.split("_"))


def verification_chart(table: pd.DataFrame, method: str, note: str) -> Chart:
    """True against predicted changes of the validation loss when groups of images are removed."""
    rows, css = table[table["method"] == method], css_of(method)
    unit = "predicted change (nats)" if METHODS[method].predicts else "sum of scores"
    x, y = x_axis([0, *rows["predicted"]], unit), y_axis([0, *rows["true"]], "true change (nats)")
    zero: list[Points] = [[(0, y.low), (0, y.high)], [(x.low, 0), (x.high, 0)]]
    points: tuple[Dot, ...] = ()
    for kind, look in (("ranking", f"{css} hollow"), ("random", css)):
        own = rows[rows["kind"] == kind]
        columns = own[["group", "predicted", "true"]].itertuples(index=False)
        titles = [f"{group}: predicted {p:.4g}, true {t:.4g}" for group, p, t in columns]
        points += dots(list(zip(own["predicted"], own["true"], strict=True)), x, y, look, titles)
    legend = ((css, "random groups"), (f"{css} hollow", "groups cut from the rankings"))
    lines = tuple(line(ends, x, y, "zero") for ends in zero)
    return Chart(shown(method), note, x, y, lines, points, legend, note)


def score_chart(influence: np.ndarray, cut: float | None, method: str) -> Chart:
    """Histogram of the scores, with counts on a log scale.

    Args:
        influence: (N,) in nats.
        cut: the influence of the last image that would be removed; None for none.
        method: the method that computed the scores.
    """
    counts, edges = np.histogram(influence, bins=N_BINS)
    unit = METHODS[method].unit
    x, y = x_axis(edges.tolist(), unit), log_y_axis(int(counts.max()), "images (log scale)")
    paths = [
        bar(a, b, n, x, y, f"{css_of(method)}{'' if cut is None or a > cut else ' cut'}",
            f"{n} images from {a:.3g} to {b:.3g}")
        for n, a, b in zip(counts.tolist(), edges[:-1], edges[1:], strict=True)
        if n
    ]  # fmt: skip
    if x.low < 0 < x.high:
        paths.append(line([(0, y.low), (0, y.high)], x, y, "zero"))
    note = f"{np.mean(influence < 0):.0%} of the scores are below 0."
    return Chart(shown(method), note, x, y, tuple(paths), note=note)


def seat_chart(seats: Mapping[str, Seats]) -> Chart:
    """In which part of the last epoch the worst images were used, compared with chance.

    Args:
        seats: per method, the number of worst images per trial, and per part (n_parts,) how many
            times the share of all images.
    """
    n_parts = len(next(iter(seats.values()))[1])
    highest = max(ratios.max() for _, ratios in seats.values())
    x = x_axis([0.5, n_parts + 0.5], f"part of the last epoch (1 first, {n_parts} last)")
    y = y_axis([0, 1, highest], "times as many as by chance")
    paths = [line([(x.low, 1), (x.high, 1)], x, y, "zero", "by chance")]
    points: tuple[Dot, ...] = ()
    for method, (n, ratios) in seats.items():
        rows = list(enumerate(ratios.tolist(), start=1))
        paths.append(line(rows, x, y, css_of(method), shown(method)))
        titles = [f"{shown(method)}, part {part}: {v:.2f} times chance, of {n}" for part, v in rows]
        points += dots(rows, x, y, css_of(method), titles)
    legend = tuple((css_of(method), shown(method)) for method in seats)
    counted = " or ".join(sorted({f"{n:,}" for n, _ in seats.values()}))
    note = (
        f"The {counted} worst images of each trial. Dotted: by chance. A sound ranking is flat; a "
        "rise at the end means that it favours images used last."
    )
    text = [f"{shown(m)}: {r[-1]:.1f} times chance in the last part" for m, (_, r) in seats.items()]
    return Chart(
        "Place in the last epoch", "; ".join(text), x, y, tuple(paths), points, legend, note
    )
