"""The ranking of a method over all trials of a folder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from utils.columns import IMAGE, LABEL
from utils.output.paths import OutputPaths
from utils.output.storage import read_csv

SHOWN_WORST, SHOWN_BEST = 40, 20
"""Images per method that the page shows at most."""
N_DRAWS = 100
"""Random rankings that chance is found from."""
COLUMNS = (IMAGE, LABEL, "influence", "datasource_index")


def ranked(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join the influence tables of a method's trials, the most harmful image first.

    An image's place is the mean of its rank fraction, its rank from 0 over the number of rows, in
    the trials that trained on it; equal ones go by name. An image that bears several labels counts
    as several.

    The fewer trials trained on an image the more its place scatters: by chance, too, the first and
    the last images of all are mostly such.

    Returns:
        A row per image and label with the columns x:image, y:label, influence (mean over its
        trials, in nats or what the method scores in), place (0 to 1), n_trials and rank (from 1).
    """
    return joined(tables, [IMAGE, LABEL]).reset_index(drop=True)


def joined(tables: Sequence[pd.DataFrame], by: str | list[str]) -> pd.DataFrame:
    """Join influence tables, the images with the lowest mean place first; equal ones in order.

    Args:
        tables: of each trial, the most harmful image first.
        by: the column or columns that tell images apart.

    Returns:
        x:image and y:label, those where the image was worst; influence and place, means over the
        n_trials that have it; rank from 1. The index is `by`.
    """
    placed = [table.assign(place=np.arange(len(table)) / len(table)) for table in tables]
    images = pd.concat(placed).sort_values("place", kind="stable").groupby(by)
    means = images[["influence", "place"]].mean().assign(n_trials=images.size())
    table = images[[IMAGE, LABEL]].first().join(means).sort_values("place", kind="stable")
    return table.assign(rank=np.arange(1, len(table) + 1))


def overlap_by_chance(n_trials: np.ndarray, n: int) -> float:
    """The share of the n first of one random ranking that is among those of another.

    Over several trials it is more than n of all: the images of few trials come first in both.

    Args:
        n_trials: how many trials trained on each image (N,).
        n: 1 to N.
    """
    if (n_trials == n_trials[0]).all():
        return n / len(n_trials)
    rng = np.random.default_rng(0)
    seen = np.arange(n_trials.max()) < n_trials[:, None]
    first = np.zeros((N_DRAWS, len(n_trials)), bool)
    for row in first:
        places = rng.random(seen.shape).mean(axis=1, where=seen)
        row[np.argpartition(places, n - 1)[:n]] = True
    share = first.mean(axis=0)  # how often each image is among the first
    pairs = (N_DRAWS * share.dot(share) - share.sum()) / (N_DRAWS - 1)  # of two different draws
    return float(pairs / n)


def rankings(paths: OutputPaths, methods: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The ranking of each of the methods that the folder has influences of."""
    files = {method: [path for _, path in paths.influences(method)] for method in methods}
    return {
        method: ranked([read_csv(path, COLUMNS) for path in found])
        for method, found in files.items()
        if found
    }


def shown_of(ranking: pd.DataFrame, worst: int, best: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The first `worst` rows of a ranking and its last `best`, the last one first; none in both."""
    harmful = ranking.head(worst)
    helpful = ranking.iloc[len(harmful) :].tail(best)
    return harmful, helpful[::-1]
