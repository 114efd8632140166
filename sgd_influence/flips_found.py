"""How many of the labels that `--flip_labels` flipped the methods found."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd

from sgd_influence.label_issues import ISSUE
from utils.columns import IMAGE
from utils.console import RESULT
from utils.data.flips import COLUMNS, INDEX, SEED
from utils.data.source import TRAINING
from utils.output.paths import OutputPaths, latest
from utils.output.storage import read_csv

log = logging.getLogger("data_cleansing")


def say_what_was_found(paths: OutputPaths, methods: Sequence[str], seeds: Sequence[int]) -> None:
    """Say of each method how many of its worst images were flips, mean over the trials."""
    if not paths.flipped_labels.exists():
        return
    flips = read_csv(paths.flipped_labels, COLUMNS)
    n = round(flips[SEED].isin(seeds).sum() / len(seeds))
    for method in methods if n else ():
        found, chance = np.mean([_found(paths, flips, method, s, n) for s in seeds], axis=0)
        log.log(
            RESULT, "Of the %d worst by %s, %s were flipped labels (expected by chance: %.3g)",
            n, method, f"{found:.1f}".removesuffix(".0"), chance,
        )  # fmt: skip
    if n and paths.label_issues.exists():
        log.log(
            RESULT, "%s", _said_of_suspects(paths, set(flips.loc[flips[SEED].isin(seeds), IMAGE]))
        )


def _said_of_suspects(paths: OutputPaths, flipped: set[str]) -> str:
    """How many of the training images whose labels look wrong are among the flipped ones."""
    table = read_csv(latest(paths.label_issues), (IMAGE, "set", ISSUE))
    suspects = table.loc[(table["set"] == TRAINING) & (table[ISSUE] == 1), IMAGE]
    hits = f"{suspects.isin(flipped).sum():,} of the {len(flipped):,} flipped labels"
    return f"The {len(suspects):,} training images whose labels look wrong have {hits}"


def _found(
    paths: OutputPaths, flips: pd.DataFrame, method: str, seed: int, n: int
) -> tuple[int, float]:
    """In one trial: flips among the n worst, and those expected there by chance."""
    ranking = read_csv(paths.influence(method, seed), (INDEX,))[INDEX]
    wrong = ranking.isin(flips.loc[flips[SEED] == seed, INDEX])
    return int(wrong[:n].sum()), n * wrong.mean()
