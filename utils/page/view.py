"""What the template of the page shows, made from the facts of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from utils.columns import IMAGE, LABEL
from utils.methods import CONTROL, METHODS, shown
from utils.output.figures import gain_figure, removal_figure, verification_panels
from utils.output.ranking import overlap_by_chance, shown_of
from utils.page.charts import (
    css_of,
    learning_chart,
    removal_chart,
    score_chart,
    seat_chart,
    verification_chart,
)
from utils.page.facts import Facts
from utils.page.svg import Chart

MOST_CLASSES = 20
"""Rows of the list of classes and of the matrix of confusions, at most."""
MOST_PAIRS = 24
N_COMPARED = 12
"""Images shown on which methods agree, and as many on which they do not."""


@dataclass(frozen=True)
class Tile:
    """An image of a gallery.

    Attributes:
        file: its path; name: without the folders.
        label: the name of its given class.
        predicted: the name of the class that the models predict, empty where unknown.
        confidence: its probability in per cent, as text.
        agrees: whether that is the given one.
        left_out: the models were trained without the image.
        influence: as text.
        rank: from 1.
        note: what else is known of it.
    """

    file: str
    name: str
    label: str
    predicted: str
    confidence: str
    agrees: bool
    left_out: bool
    influence: str
    rank: str
    note: str


@dataclass(frozen=True)
class Bar:
    """A row of a bar list: `share` and `expected` are fractions of the longest."""

    name: str
    count: int
    share: float
    expected: float
    text: str


@dataclass(frozen=True)
class Matrix:
    """Given (rows) against predicted labels (columns); cells: (count, shade 0 to 1, same label)."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[int, float, bool], ...]], ...]


@dataclass(frozen=True)
class MethodView:
    """The images on the page, as one method ranks them.

    Attributes:
        name: as in the paths of its files; shown: as people read it; css: its colour.
        quantity: what the column `influence` of its files holds.
        n_images: images ranked, each counted once.
        harmful, helpful: the galleries; harmful_title, helpful_title: their titles.
        n_worst: the worst images over which classes and confusions are counted.
        bars, more_classes: images per class, and a phrase about the classes not listed.
        matrix: confusions; None without predictions, or with too many classes.
        pairs: (given label, predicted label, count), the most frequent first.
        n_judged: images that have a prediction.
        n_removed: images that the cleansed data leave out; removed_file: the list of them.
    """

    name: str
    shown: str
    css: str
    quantity: str
    n_images: int
    harmful: tuple[Tile, ...]
    helpful: tuple[Tile, ...]
    harmful_title: str
    helpful_title: str
    n_worst: int
    bars: tuple[Bar, ...]
    more_classes: str
    matrix: Matrix | None
    pairs: tuple[tuple[str, str, int], ...]
    n_judged: int
    n_removed: int
    removed_file: str


def method_views(facts: Facts, worst: int, best: int) -> list[MethodView]:
    """The views of all methods, each with the `worst` worst and the `best` best images."""
    return [_method_view(facts, method, worst, best) for method in facts.methods]


def _method_view(facts: Facts, method: str, worst: int, best: int) -> MethodView:
    ranking = facts.rankings[method]
    harmful, helpful = shown_of(ranking, worst, best)
    titles = _gallery_titles(method)
    first = ranking.head(facts.n_worst(method))
    bars, more = class_bars(facts, first, ranking)
    judged = _judged(facts, first, method)
    none = ranking.head(0)
    listed_in = facts.removed_files.get(method)
    return MethodView(
        name=method,
        shown=shown(method),
        css=css_of(method),
        quantity=METHODS[method].quantity,
        n_images=len(ranking),
        harmful=_tiles(facts, harmful, method),
        helpful=_tiles(facts, helpful, method),
        harmful_title=titles[0],
        helpful_title=titles[1],
        n_worst=len(first),
        bars=bars,
        more_classes=more,
        matrix=confusion_matrix(facts, judged),
        pairs=_confused_pairs(facts, judged),
        n_judged=len(judged),
        n_removed=len(facts.removed.get(method, none)),
        removed_file=f"cleansed/{listed_in.name}" if listed_in else "",
    )


def _gallery_titles(method: str) -> tuple[str, str]:
    """Titles of the first and the last images of a ranking."""
    if method == CONTROL:
        return "first in a random order", "last in a random order"
    if METHODS[method].for_labels:
        return "most suspicious", "least suspicious"
    return "most harmful", "most helpful"


# ---------------------------------------------------------------- tiles


def _tiles(facts: Facts, rows: pd.DataFrame, method: str) -> tuple[Tile, ...]:
    tiles = []
    for row, file, label, value, rank in rows[[IMAGE, LABEL, "influence", "rank"]].itertuples():
        scored = "" if method == CONTROL else score(value), f"{int(rank):,}"
        tiles.append(tile(facts, row, (file, int(label)), method, scored))
    return tuple(tiles)


def tile(
    facts: Facts,
    row: int,
    named: tuple[str, int],
    method: str = "",
    scored: tuple[str, str] = ("", ""),
    note: str = "",
) -> Tile:
    """An image with its prediction.

    Args:
        facts: of the run.
        row: of the image.
        named: its file and its label.
        method: whose gallery it is in; empty for none.
        scored: its score and its rank, as text.
        note: what else is known of it.
    """
    (file, label), (influence, rank) = named, scored
    predicted, true = facts.prediction(row, method), (facts.flips or {}).get(row)
    flip = f"flipped, was {facts.name_of(true)}" if true is not None else ""
    return Tile(
        file=file,
        name=os.path.basename(file),
        label=facts.name_of(label),
        predicted=facts.name_of(predicted.label) if predicted else "",
        confidence=percent(predicted.confidence) if predicted else "",
        agrees=predicted is not None and predicted.label == label,
        left_out=predicted is not None and predicted.left_out,
        influence=influence,
        rank=rank,
        note=" · ".join(filter(None, (flip, note))),
    )


def percent(fraction: float) -> str:
    """A probability in per cent, never rounded up to certainty; spaces do not break."""
    text = "> 99.9 %" if fraction > 0.999 else f"{100 * fraction:.3g} %"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def score(value: float) -> str:
    """An influence with its sign, three figures."""
    return f"{value:+.3g}".replace("-", "−")


# ---------------------------------------------------------------- classes and confusions


def class_bars(
    facts: Facts, first: pd.DataFrame, ranking: pd.DataFrame
) -> tuple[tuple[Bar, ...], str]:
    """The worst images per class, and a phrase that counts the classes not listed."""
    counts = first[LABEL].value_counts(sort=False).sort_index()
    counts = counts.sort_values(ascending=False, kind="stable")
    expected = ranking[LABEL].value_counts(normalize=True) * len(first)
    listed = counts.head(MOST_CLASSES)
    longest = max(listed.max(), expected[listed.index].max()) if len(listed) else 1
    bars = tuple(
        Bar(facts.name_of(int(y)), int(n), n / longest, expected[y] / longest,
            f"{n} of {len(first)}; {expected[y]:.1f} expected by chance")
        for y, n in listed.items()
    )  # fmt: skip
    rest = counts.iloc[MOST_CLASSES:]
    return bars, f"{rest.sum()} more in {len(rest)} other classes" if len(rest) else ""


def _judged(facts: Facts, first: pd.DataFrame, method: str) -> pd.DataFrame:
    """Given and predicted labels of the worst images by a method that have a prediction."""
    predictions = [facts.prediction(row, method) for row in first.index]
    pairs = [(y, p.label) for y, p in zip(first[LABEL].astype(int), predictions, strict=True) if p]
    return pd.DataFrame(pairs, columns=["given", "predicted"])


def confusion_matrix(facts: Facts, judged: pd.DataFrame) -> Matrix | None:
    """Given against predicted labels; None without predictions, or with too many classes."""
    labels = sorted({*judged["given"], *judged["predicted"]})
    if not labels or len(labels) > MOST_CLASSES:
        return None
    table = pd.crosstab(judged["given"], judged["predicted"]).reindex(columns=labels, fill_value=0)
    darkest = table.to_numpy().max()
    rows = tuple(
        (facts.name_of(y), tuple((int(n), n / darkest, x == y) for x, n in row.items()))
        for y, row in table.iterrows()
    )
    return Matrix(tuple(map(facts.name_of, labels)), rows)


def _confused_pairs(facts: Facts, judged: pd.DataFrame) -> tuple[tuple[str, str, int], ...]:
    confused = judged[judged["given"] != judged["predicted"]]
    counts = confused.value_counts(sort=False).sort_values(ascending=False, kind="stable")
    return tuple(
        (facts.name_of(given), facts.name_of(predicted), int(n))
        for (given, predicted), n in counts.head(MOST_PAIRS).items()
    )


# ---------------------------------------------------------------- methods against each other


@dataclass(frozen=True)
class Comparison:
    """How far methods agree.

    Attributes:
        n: the number of worst images whose overlap is counted.
        by_chance: overlap of two random rankings in per cent, explained if it exceeds n / N.
        names: names of the methods.
        rows: per method, against each: overlap in per cent and rank correlation; None for itself.
        agreed, disputed: images among the worst for all methods, and images among the worst for
            one method and in the better half for another.
    """

    n: int
    by_chance: str
    names: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[str, str] | None, ...]], ...]
    agreed: tuple[Tile, ...]
    disputed: tuple[Tile, ...]


def comparison(facts: Facts, worst: int) -> Comparison | None:
    """Compare the rankings of all methods; None where there is one, or fewer than two images."""
    if len(facts.methods) < 2:
        return None
    tables = facts.rankings
    images = tables[facts.methods[0]][[IMAGE, LABEL]].sort_values([IMAGE, LABEL], kind="stable")
    every = pd.DataFrame({m: (t["rank"] - 1) / len(t) for m, t in tables.items()})
    places = every.reindex(images.index).dropna()
    if len(places) < 2:
        return None
    n = min(max(map(facts.n_worst, facts.methods)), len(places))
    first = {method: set(places[method].nsmallest(n).index) for method in places}
    correlation = places.corr("spearman")
    rows = tuple(
        (shown(a), tuple(_pair(first, correlation, a, b, n) if a != b else None for b in places))
        for a in places
    )
    ranked = places.drop(columns=CONTROL, errors="ignore")
    agreed, disputed = (
        tuple(_compared_tile(facts, row, images.loc[row], ranked.loc[row]) for row in rows)
        for rows in _compared(ranked, worst)
    )
    n_trials = tables[facts.methods[0]]["n_trials"][places.index].to_numpy()
    by_chance = f"{overlap_by_chance(n_trials, n):.0%}"
    if n_trials.min() < n_trials.max():
        by_chance += ", as images that few trials trained on come first or last more often"
    return Comparison(n, by_chance, tuple(map(shown, places)), rows, agreed, disputed)


def _pair(
    first: Mapping[str, set], correlation: pd.DataFrame, a: str, b: str, n: int
) -> tuple[str, str]:
    overlap = len(first[a] & first[b]) / n
    return f"{overlap:.0%}", f"{correlation.loc[a, b]:+.2f}".replace("-", "−")


def _compared(places: pd.DataFrame, worst: int) -> tuple[list[int], list[int]]:
    """Rows of images that all methods rank among the worst, and of images that they dispute.

    Args:
        places: per method, the share of the images that it ranks worse, by row.
        worst: how many images of a ranking are shown.
    """
    if places.shape[1] < 2:
        return [], []
    edge = worst / len(places)
    highest, lowest = places.max(axis=1), places.min(axis=1)
    agreed = highest[highest < edge]
    disputed = (lowest - highest)[(lowest < edge) & (highest > 0.5)]
    first, last = (by.sort_values(kind="stable").index[:N_COMPARED] for by in (agreed, disputed))
    return first.tolist(), last.tolist()


def _compared_tile(facts: Facts, row: int, image: pd.Series, places: pd.Series) -> Tile:
    ranks = " · ".join(f"{shown(method)} {_in_words(place)}" for method, place in places.items())
    return tile(facts, row, (image[IMAGE], int(image[LABEL])), note=ranks)


def _in_words(place: float) -> str:
    """Where in a ranking: `place` is the share of the images that are worse."""
    return f"worst {max(place, 0.001):.1%}" if place < 0.5 else f"best {max(1 - place, 0.001):.1%}"


# ---------------------------------------------------------------- flips


def flip_table(facts: Facts) -> tuple[tuple[str, ...], list[tuple[int, str, tuple[str, ...]]]]:
    """Names of methods, and per n: flips expected by chance and found by each method."""
    counts = sorted(int(n) for n in facts.summary["n_drops"].unique() if n > 0)
    rows = []
    for n in counts:
        found = [_flips_among(facts, table, n) for table in facts.rankings.values()]
        total = [_flips_among(facts, t, len(t)) / len(t) * n for t in facts.rankings.values()]
        rows.append((n, f"{np.mean(total):.1f}", tuple(map(str, found))))
    return tuple(map(shown, facts.methods)), rows


def _flips_among(facts: Facts, ranking: pd.DataFrame, n: int) -> int:
    return len((facts.flips or {}).keys() & set(ranking.index[:n]))


# ---------------------------------------------------------------- charts


def removal_charts(facts: Facts) -> list[Chart]:
    """What decides, and scores on validation and test images, against n removed."""
    titles = {
        "val_loss": "Validation loss",
        "val_accuracy": "Validation accuracy",
        "test_accuracy": "Test accuracy (decides nothing)",
    }
    charts = [
        removal_chart(removal_figure(facts.summary, column), title)
        for column, title in titles.items()
    ]
    if facts.recommendation:
        shows = gain_figure(facts.recommendation.gains, facts.recommendation.n_trials)
        title = "Mean probability of the validation labels (decides)"
        charts = [removal_chart(shows, title, bands_of_one=True), *charts]
    return [chart for chart in charts if chart]


def seat_charts(facts: Facts) -> list[Chart]:
    """When in the last epoch the worst images of each method were used."""
    return [seat_chart(facts.seats)] if facts.seats else []


def learning_charts(facts: Facts) -> list[Chart]:
    """Losses and accuracy of the trainings against the epoch."""
    if not facts.curves:
        return []
    curves = dict(facts.curves)
    losses = {"train_loss": "m0", "val_loss": "m2"}
    return [
        learning_chart(curves, losses, "Loss", "mean loss (nats)"),
        learning_chart(curves, {"val_accuracy": "m2"}, "Validation accuracy", "accuracy (%)"),
    ]


def verification_charts(facts: Facts) -> list[Chart]:
    """True against predicted changes, one chart per verified method."""
    if facts.verification is None:
        return []
    panels = verification_panels(facts.verification, facts.agreement)
    return [verification_chart(panel) for panel in panels]


def score_charts(facts: Facts) -> list[Chart]:
    """How the scores of each method but the control are distributed."""
    charts = []
    for method, ranking in facts.rankings.items():
        if method != CONTROL:
            scores = ranking["influence"].to_numpy()
            charts.append(score_chart(scores, facts.n_recommended(method), method))
    return charts


def class_names_of(facts: Facts, views: Sequence[MethodView]) -> list[str]:
    """The given classes of all images in the galleries, in the order of their labels."""
    shown_ones = {tile.label for view in views for tile in (*view.harmful, *view.helpful)}
    labels = {int(label) for table in facts.rankings.values() for label in table[LABEL].unique()}
    return [name for label in sorted(labels) if (name := facts.name_of(label)) in shown_ones]
