"""The charts of a run: accuracy, learning curves, verification, distributions of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from utils.methods import METHODS, NO_REMOVAL, shown
from utils.output.figures import (
    RANDOM,
    Curve,
    GroupPoints,
    RemovalFigure,
    VerificationPanel,
    in_words,
)
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
from utils.units import counted

N_BINS = 48
MOST_WIDTHS = 3
"""Widths in the style of curves that others run along."""
MOST_DOTS = 500
"""Learning curves with more points than this show a line without dots."""


def css_of(method: str) -> str:
    """The class of the style that gives a method its colour, the same in all charts."""
    return f"m{list(METHODS).index(method)}" if method in METHODS else "base"


def removal_chart(shows: RemovalFigure, title: str, bands_of_one: bool = False) -> Chart | None:
    """A score or gain against n removed, with bands.

    Args:
        shows: what is drawn.
        title: of the chart.
        bands_of_one: a single trial has bands too.

    Returns:
        None where nothing was removed.
    """
    curves, unit = shows.curves, shows.unit
    if not shows.counts or len(curves) < 2:
        return None
    x = count_axis(shows.counts, shows.x_label)
    y = y_axis([v for c in curves for v in (*c.mean, *c.low, *c.high)], shows.y_label)
    paths: list[Path] = []
    points: tuple[Dot, ...] = ()
    shapes = [_band_and_line(curve, x, y) for curve in curves]
    paths += [band for band, _ in shapes]
    paths += [path for curve in curves for path in _hidden(curve, x, y)]
    paths += [mean for _, mean in shapes]
    for curve in curves:
        if curve.method != NO_REMOVAL:
            rows = list(zip(curve.n.tolist(), curve.mean.tolist(), strict=True))
            titles = [f"{curve.label}, n = {n}: {mean:.4g} {unit}" for n, mean in rows]
            points += dots(rows, x, y, css_of(curve.method), titles)
    legend = tuple((css_of(curve.method), curve.label) for curve in curves)
    mean = f"Mean of {shows.n_trials} trials; band" if shows.n_trials > 1 else "Band"
    note = f"{mean}: {shows.band}." if shows.n_trials > 1 or bands_of_one else ""
    note = " ".join(filter(None, (note, shows.left_out and f"{shows.left_out}.")))
    return Chart(title, _described(curves, unit), x, y, tuple(paths), points, legend, note)


def _hidden(curve: Curve, x: Axis, y: Axis) -> list[Path]:
    """The stretches of a curve that others run along, wider than these."""
    rows = list(zip(curve.n.tolist(), curve.mean.tolist(), strict=True))
    css = css_of(curve.method)
    return [
        line(rows[k : k + 2], x, y, f"{css} under{min(count, MOST_WIDTHS)}")
        for k, count in enumerate(curve.beneath.tolist())
        if count
    ]


def _band_and_line(curve: Curve, x: Axis, y: Axis) -> tuple[Path, Path]:
    """Band and mean of a method; No Removal spans the whole frame."""
    mean, lower, upper = (
        list(zip(curve.n.tolist(), values.tolist(), strict=True))
        for values in (curve.mean, curve.low, curve.high)
    )
    if curve.method == NO_REMOVAL:
        mean, lower, upper = ([(x.low, v[0][1]), (x.high, v[0][1])] for v in (mean, lower, upper))
    css = css_of(curve.method)
    if len(mean) == 1:  # an area without width would not be seen
        return line(lower + upper, x, y, f"{css} interval"), line(mean, x, y, css, curve.label)
    return band(lower, upper, x, y, css), line(mean, x, y, css, curve.label)


def _described(curves: Sequence[Curve], unit: str) -> str:
    texts = []
    for curve in curves:
        flat = curve.method == NO_REMOVAL
        rows = zip(curve.n.tolist(), curve.mean.tolist(), strict=True)
        several = [f"{mean:.4g} {unit}" + ("" if flat else f" at {n}") for n, mean in rows]
        texts.append(f"{curve.label}: {', '.join(several[:1] if flat else several)}")
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
            name = f"{in_words(column)}, seed {seed}"
            paths.append(line(rows, x, y, css, name))
            if len(values) <= MOST_DOTS:
                titles = [f"{name}, epoch {e}: {v:.4g}" for e, v in rows]
                points += dots(rows, x, y, f"{css} small", titles)
    legend = tuple((css, in_words(column)) for column, css in columns.items())
    last = [f"{in_words(c)} {factor * t[c].iloc[-1]:.4g}" for t in curves.values() for c in columns]
    described = f"After the last epoch: {', '.join(last)}"
    return Chart(title, described, x, y, tuple(paths), points, legend)


def verification_chart(panel: VerificationPanel) -> Chart:
    """True against predicted changes of the validation loss when groups of images are removed."""
    css = css_of(panel.method)
    predicted, true = (
        [v for points in panel.points for v in getattr(points, name)]
        for name in ("predicted", "true")
    )
    x, y = x_axis([0, *predicted], panel.x_label), y_axis([0, *true], panel.y_label)
    zero: list[Points] = [[(0, y.low), (0, y.high)], [(x.low, 0), (x.high, 0)]]
    points: tuple[Dot, ...] = ()
    for group in panel.points:
        rows = list(zip(group.predicted, group.true, strict=True))
        named = zip(group.names, rows, strict=True)
        titles = [f"{name}: predicted {p:.4g}, true {t:.4g}" for name, (p, t) in named]
        points += dots(rows, x, y, _look(css, group), titles)
    legend = tuple((_look(css, group), group.label) for group in panel.points[::-1])
    lines = tuple(line(ends, x, y, "zero") for ends in zero)
    note = _agreement(panel)
    return Chart(panel.label, note, x, y, lines, points, legend, note)


def _look(css: str, group: GroupPoints) -> str:
    return css if group.kind == RANDOM else f"{css} hollow"


def _agreement(panel: VerificationPanel) -> str:
    """Agreement of a method with true retraining, as a sentence; empty where unknown."""
    if not panel.of_random or not panel.of_ranking:
        return ""
    text = f"Spearman's correlation over random groups: {panel.of_random.worded}; "
    return f"{text}over groups cut from the rankings: {panel.of_ranking.worded}."


def score_chart(influence: np.ndarray, n: int, method: str) -> Chart:
    """Histogram of the scores, with counts on a log scale.

    Args:
        influence: (N,) in nats, in the order of the ranking; over several trials that is not the
            order of the mean scores.
        n: how many images would be removed.
        method: the method that computed the scores.
    """
    counts, edges = np.histogram(influence, bins=N_BINS)
    removed, _ = np.histogram(influence[:n], bins=edges)
    unit = METHODS[method].unit
    x, y = x_axis(edges.tolist(), unit), log_y_axis(int(counts.max()), "images (log scale)")
    css = css_of(method)
    kinds = ((counts, css, ""), (removed, f"{css} cut", " to remove"))
    paths = [
        bar(a, b, many, x, y, look, f"{counted(many, 'image')}{what} from {a:.3g} to {b:.3g}")
        for numbers, look, what in kinds
        for many, a, b in zip(numbers.tolist(), edges[:-1], edges[1:], strict=True)
        if many
    ]
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
