"""Where in the last epoch the worst images of a method were trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from utils.columns import INDEX
from utils.output.results import Results
from utils.training.steps import Step, load_steps

N_SEATED, N_PARTS = 200, 10
"""Worst images that are looked at, and parts of the epoch; fewer where it has fewer steps."""
Seats = tuple[int, np.ndarray]
"""The n worst images of a trial that are counted, and how many times the share that chance gives
was used in each part (n_parts,)."""


def seats(results: Results, methods: Sequence[str]) -> dict[str, Seats]:
    """`seats_of_worst` of each method, over the trials whose steps are there.

    None where an epoch is a single step.
    """
    found: dict[str, Seats] = {}
    paths = results.paths
    steps = {seed: load_steps(paths.steps(seed)) for seed in paths.trained()}
    steps = {seed: own for seed, own in steps.items() if len(_last_epoch(own)) > 1}
    for method in methods:
        seeds = [seed for seed, _ in paths.influences(method) if seed in steps]
        if seeds:
            tables = [results.influence(method, seed) for seed in seeds]
            found[method] = seats_of_worst(tables, [steps[seed] for seed in seeds])
    return found


def seats_of_worst(tables: Sequence[pd.DataFrame], steps: Sequence[Sequence[Step]]) -> Seats:
    """Where in the last epoch the worst images of a method were trained on.

    Args:
        tables: the influence table of each trial.
        steps: the recorded steps of each trial.

    Returns:
        The n worst of each trial that are counted, and their share in each part (n_parts,) over
        that of all images: 1 by chance, also where the parts differ in size.
    """
    n = min(N_SEATED, min(map(len, tables)) // 2)
    ratios = [_seats(t, s, n) for t, s in zip(tables, steps, strict=True)]
    return n, np.mean(ratios, axis=0)


def _seats(table: pd.DataFrame, steps: Sequence[Step], n: int) -> np.ndarray:
    last = [step.indices for step in _last_epoch(steps)]
    n_parts = min(N_PARTS, len(last))
    part = np.empty(len(table), int)
    for number, indices in enumerate(last):
        part[indices] = number * n_parts // len(last)
    worst = part[table[INDEX].to_numpy()[:n]]
    found, expected = (np.bincount(parts, minlength=n_parts) for parts in (worst, part))
    return (found / max(n, 1)) / (expected / len(part))


def _last_epoch(steps: Sequence[Step]) -> list[Step]:
    return [step for step in steps if step.epoch == steps[-1].epoch]
