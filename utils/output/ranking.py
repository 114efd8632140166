"""The ranking of a method over all trials of a folder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from utils.columns import IMAGE, LABEL

SHOWN_WORST, SHOWN_BEST = 40, 20
"""Images per method that the page shows at most."""
N_DRAWS = 100
"""Random rankings that chance is found from."""


def ranked(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join the influence tables of a method's trials as `joined` does; equal places go by name.

    The fewer trials trained on an image the more its place scatters: by chance, too, the first and
    the last images of all are mostly such.
    """
    table = joined(tables).sort_values(["place", IMAGE, LABEL], kind="stable")
    return table.assign(rank=np.arange(1, len(table) + 1))


def joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join influence tables, the image with the lowest mean place first; equal ones by row.

    An image's place is the mean of its rank fraction, its rank from 0 over the number of rows, in
    the trials that trained on it.

    Args:
        tables: of each trial by row, the most harmful image first.

    Returns:
        By row: x:image and y:label, the one trained on (a flipped one with `--flip_labels`);
        influence (in nats or what the method scores in) and place (0 to 1), means over the n_trials
        that have the image; rank from 1.
    """
    placed = [table.assign(place=np.arange(len(table)) / len(table)) for table in tables]
    images = pd.concat(placed).sort_values("place", kind="stable").groupby(level=0)
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


def shown_of(ranking: pd.DataFrame, worst: int, best: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The first `worst` rows of a ranking and its last `best`, the last one first; none in both."""
    harmful = ranking.head(worst)
    helpful = ranking.iloc[len(harmful) :].tail(best)
    return harmful, helpful[::-1]
