"""What the figures show, for the PNG files and for the page: series, intervals and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from utils.methods import METHODS, NO_REMOVAL, shown
from utils.units import shown_ends

RANDOM, RANKING = "random", "ranking"
"""Kinds of groups that `--verify` removes."""
GROUPS = {RANKING: "groups cut from the rankings", RANDOM: "random groups"}


# ---------------------------------------------------------------- removal


@dataclass(frozen=True)
class Curve:
    """A score of one method against the number of images removed.

    Attributes:
        method: as in the paths of its files; label: its name for people.
        n: (K,) images removed, ascending.
        mean, low, high: (K,) mean over the trials, and the ends of its band: one standard deviation
            below and above, an accuracy never above 100 %; of a gain, its 95 % interval.
        beneath: (K - 1,) how many later curves run along each stretch between neighbouring n, and
            hide it unless it is drawn wider.
    """

    method: str
    label: str
    n: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    beneath: np.ndarray


@dataclass(frozen=True)
class RemovalFigure:
    """A score against n removed.

    Attributes:
        curves: No Removal first, then the methods in the order of their table.
        counts: the n above 0 that were tried, ascending.
        n_trials: over which the means go.
        unit: of the score: %, nats or points.
        x_label, y_label: of the axes.
        band: what lies between `low` and `high` of a curve.
        left_out: what is not drawn, in words without a full stop; empty if nothing.
    """

    curves: tuple[Curve, ...]
    counts: tuple[int, ...]
    n_trials: int
    unit: str
    x_label: str
    y_label: str
    band: str
    left_out: str = ""


REMOVED = "training images removed, the most harmful first (log scale)"


def removal_figure(summary: pd.DataFrame, column: str) -> RemovalFigure:
    """A score of the summary table against n removed, of the removals that all trials made.

    Others cannot be compared with the mean of No Removal, which goes over all trials.

    Args:
        summary: the table.
        column: which score; accuracies become per cent, losses stay nats.
    """
    factor, unit = (100, "%") if column.endswith("accuracy") else (1, "nats")
    summary, left_out = _of_all_trials(summary)
    there = set(summary["method"])
    methods = [method for method in (NO_REMOVAL, *METHODS) if method in there]
    return RemovalFigure(
        curves=_layered([_curve(summary, method, column, factor) for method in methods]),
        counts=tuple(sorted(int(n) for n in _tried(summary) if n > 0)),
        n_trials=summary["seed"].nunique(),
        unit=unit,
        x_label=REMOVED,
        y_label=f"{in_words(column)} ({unit})",
        band="one standard deviation",
        left_out=left_out,
    )


def _of_all_trials(summary: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The rows of removals that all trials made, and words on the others."""
    removal = [summary["method"], summary["n_drops"]]
    n_trials = summary["seed"].groupby(removal).transform("nunique")
    whole = n_trials == summary["seed"].nunique()
    some = summary.loc[~whole, ["method", "n_drops"]].drop_duplicates().groupby("method")["n_drops"]
    named = [
        f"{shown(method)} n = {', '.join(f'{int(n):,}' for n in sorted(counts))}"
        for method, counts in some
    ]
    words = "Not drawn, because only some trials made these removals: " if named else ""
    return summary[whole], words + "; ".join(named)


def _tried(summary: pd.DataFrame) -> set[int]:
    """The n that were removed."""
    return set(summary.loc[summary["method"] != NO_REMOVAL, "n_drops"])


def gain_figure(gains: Mapping[str, Sequence[Sequence[float]]], n_trials: int) -> RemovalFigure:
    """The gain that decides the recommendation, against n removed.

    Args:
        gains: by method, a row (n, gain, lower and upper end of its 95 % interval) per removal, in
            points of the mean probability of the validation labels.
        n_trials: that the gains are means of.
    """
    rows: dict[str, Sequence[Sequence[float]]] = {NO_REMOVAL: [(0, 0, 0, 0)], **gains}
    return RemovalFigure(
        curves=_layered([_gain_curve(method, own) for method, own in rows.items() if len(own)]),
        counts=tuple(sorted({int(n) for own in gains.values() for n, *_ in own})),
        n_trials=n_trials,
        unit="points",
        x_label=REMOVED,
        y_label="gain over No Removal (points)",
        band="95 % interval",
    )


def _gain_curve(method: str, rows: Sequence[Sequence[float]]) -> Curve:
    n, mean, low, high = np.array(rows, np.float64).T
    beneath = np.zeros(len(n) - 1, np.int64)
    return Curve(method, shown(method), n.astype(np.int64), mean, low, high, beneath)


def _layered(curves: Sequence[Curve]) -> tuple[Curve, ...]:
    """The curves with `beneath`."""
    means = np.concatenate([curve.mean for curve in curves]) if curves else np.zeros(1)
    near = 0.01 * float(np.ptp(means))
    return tuple(
        replace(
            curve, beneath=sum((_along(curve, c, near) for c in curves[i + 1 :]), curve.beneath)
        )
        for i, curve in enumerate(curves)
    )


def _along(one: Curve, other: Curve, near: float) -> np.ndarray:
    """Which stretches (K - 1,) of a curve another follows within `near`."""
    means = pd.Series(other.mean, other.n).reindex(one.n).to_numpy()
    close = np.abs(one.mean - means) <= near
    return (close[1:] & close[:-1]).astype(np.int64)


def _curve(summary: pd.DataFrame, method: str, column: str, factor: int) -> Curve:
    own = summary[summary["method"] == method].set_index("n_drops")
    means, deviations = (own[own[kind] == kind][column] for kind in ("mean", "std"))
    mean = factor * means.sort_index(kind="stable")
    spread = (factor * deviations).reindex(mean.index).fillna(0)
    most = factor if column.endswith("accuracy") else np.inf
    return Curve(
        method=method,
        label=shown(method),
        n=mean.index.to_numpy(np.int64),
        mean=mean.to_numpy(),
        low=(mean - spread).to_numpy(),
        high=np.minimum(mean + spread, most).to_numpy(),
        beneath=np.zeros(max(0, len(mean) - 1), np.int64),
    )


def in_words(column: str) -> str:
    """The name of a score's column for people."""
    long = {"val": "validation", "train": "training"}
    return " ".join(long.get(word, word) for word in column.split("_"))


# ---------------------------------------------------------------- verification


@dataclass(frozen=True)
class Interval:
    """A figure and the ends of its 95 % interval; nan where they are not known."""

    value: float
    low: float
    high: float

    @property
    def bracketed(self) -> str:
        """As short as in a table."""
        ends = self._ends
        return f"{self._shown} [{ends[0]}, {ends[1]}]" if ends else self._shown

    @property
    def worded(self) -> str:
        """As in a sentence."""
        ends = self._ends
        text = f"{self._shown} (95 % interval {ends[0]} to {ends[1]})" if ends else self._shown
        return text.replace("-", "−")

    @property
    def _shown(self) -> str:
        return "unknown" if np.isnan(self.value) else f"{self.value:.2f}"

    @property
    def _ends(self) -> tuple[str, str] | None:
        return shown_ends((self.low, self.high), sign="")


@dataclass(frozen=True)
class GroupPoints:
    """Groups of images of one kind: their names, and (K,) predicted and true changes (nats)."""

    kind: str
    label: str
    names: tuple[str, ...]
    predicted: np.ndarray
    true: np.ndarray


@dataclass(frozen=True)
class VerificationPanel:
    """True against predicted changes of the validation loss when groups are removed by a method.

    Attributes:
        method: as in the paths of its files; label: its name for people.
        points: the groups cut from the rankings, and the random ones.
        of_random, of_ranking: Spearman's correlation over the random groups, and over those cut
            from the rankings; None where the table does not have it.
        x_label, y_label: of the axes.
    """

    method: str
    label: str
    points: tuple[GroupPoints, ...]
    of_random: Interval | None
    of_ranking: Interval | None
    x_label: str
    y_label: str = "true change of validation loss (nats)"


def verification_panels(
    table: pd.DataFrame, agreement: pd.DataFrame | None
) -> list[VerificationPanel]:
    """A panel for each method of the verification table, in its order.

    Args:
        table: a row per method and group.
        agreement: a row per method; None where it is not there.
    """
    known = {} if agreement is None else agreement.set_index("method").to_dict("index")
    return [
        _panel(table[table["method"] == method], method, known.get(method))
        for method in table["method"].unique()
    ]


def _panel(rows: pd.DataFrame, method: str, known: dict[str, float] | None) -> VerificationPanel:
    nan, predicts = float("nan"), METHODS[method].predicts
    random = ranking = None
    if known is not None:
        random = Interval(known["random"], known["low"], known["high"])
        ends = (known.get(end, nan) for end in ("ranking_low", "ranking_high"))
        ranking = Interval(known["ranking"], *ends)  # earlier versions wrote no interval
    return VerificationPanel(
        method=method,
        label=shown(method),
        points=tuple(_points(rows[rows["kind"] == kind], kind) for kind in GROUPS),
        of_random=random,
        of_ranking=ranking,
        x_label="predicted change (nats)" if predicts else "sum of the scores",
    )


def _points(rows: pd.DataFrame, kind: str) -> GroupPoints:
    changes = (rows[name].to_numpy() for name in ("predicted", "true"))
    return GroupPoints(kind, GROUPS[kind], tuple(rows["group"]), *changes)
