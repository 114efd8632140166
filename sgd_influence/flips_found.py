"""How many of the labels that `--flip_labels` flipped the methods found."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd

from utils.columns import INDEX, ROW, SEED, SET
from utils.console import RESULT
from utils.data.label_table import IS_ISSUE
from utils.data.source import TRAINING
from utils.output.results import Results

log = logging.getLogger("data_cleansing")


def say_what_was_found(results: Results, methods: Sequence[str], seeds: Sequence[int]) -> None:
    """Log how many of the worst images of each method had flipped labels, mean over the trials."""
    flips = results.flips()
    if flips is None:
        return
    n = round(flips[SEED].isin(seeds).sum() / len(seeds))
    for method in methods if n else ():
        found, chance = np.mean([_found(results, flips, method, s, n) for s in seeds], axis=0)
        log.log(
            RESULT, "Of the %d worst by %s, %s were flipped labels (expected by chance: %.3g)",
            n, method, f"{found:.1f}".removesuffix(".0"), chance,
        )  # fmt: skip
    if n and results.paths.label_issues.exists():
        log.log(RESULT, "%s", _flips_among_suspects(results, set(results.given_labels())))


def _flips_among_suspects(results: Results, flipped: set[int]) -> str:
    """How many of the training images whose labels look wrong are among the flipped ones."""
    table = results.table(results.paths.latest(results.paths.label_issues), (SET, ROW, IS_ISSUE))
    suspects = table.loc[(table[SET] == TRAINING) & (table[IS_ISSUE] == 1), ROW]
    if suspects.empty:
        return f"The label check found none of the {len(flipped):,} flipped labels"
    hits = f"{suspects.isin(flipped).sum():,} of the {len(flipped):,} flipped labels"
    return f"The labels of {len(suspects):,} training images look wrong: {hits} are among them"


def _found(
    results: Results, flips: pd.DataFrame, method: str, seed: int, n: int
) -> tuple[int, float]:
    """In one trial: flips among the n worst, and those expected there by chance."""
    ranking = results.influence(method, seed)[INDEX]
    wrong = ranking.isin(flips.loc[flips[SEED] == seed, INDEX])
    return int(wrong[:n].sum()), n * wrong.mean()
