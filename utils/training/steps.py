"""The recorded steps of a training: what is needed to repeat each one exactly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.output.storage import arrays_in, load_npz, npz_bytes

MOST_STEPS = 10_000_000
"""Steps that a training may have: each takes some hundred bytes of memory and of its file."""


@dataclass(frozen=True)
class Step:
    """One SGD step.

    Attributes:
        epoch: the epoch it belongs to, from 0.
        indices: (|B|,) int64, rows of the trial's training CSV, in the order of the batch.
        seeds: (|B|,) uint64, the seed of each example's crop and flip.
        learning_rate: eta_t.
    """

    epoch: int
    indices: np.ndarray
    seeds: np.ndarray
    learning_rate: float


def learning_rates(schedule: str, rate: float, n_steps: int) -> np.ndarray:
    """The learning rate of each step (n_steps,).

    Args:
        schedule: constant; step (a tenth of it after half of the steps, a hundredth after three
            quarters); or cosine (rate/2 (1 + cos(pi t/T)) before step t of T).
        rate: the first step's.
        n_steps: T.
    """
    progress = np.arange(n_steps) / n_steps
    factors = {
        "constant": np.ones(n_steps),
        "step": np.select([progress < 0.5, progress < 0.75], [1.0, 0.1], 0.01),
        "cosine": (1 + np.cos(np.pi * progress)) / 2,
    }
    return rate * factors[schedule]


def count_steps(n_train: int, n_epochs: int, batch_size: int) -> int:
    """The steps of a training; the last batch of an epoch may be short.

    Raises:
        UserError: more than `MOST_STEPS`.
    """
    n_steps = n_epochs * -(-n_train // batch_size)
    if n_steps > MOST_STEPS:
        raise UserError(
            f"{n_epochs:,} epochs are {n_steps:,} steps, and {MOST_STEPS:,} at most are recorded; "
            "choose fewer epochs (-e) or a larger --batch_size"
        )
    return n_steps


def plan_steps(
    seed: int,
    n_train: int,
    n_epochs: int,
    batch_size: int,
    learning_rate: float,
    schedule: str = "constant",
) -> list[Step]:
    """All steps of a training, drawn from `seed` alone; the last batch of an epoch may be short.

    The augmentation seed of an example depends on (seed, epoch, example) and on nothing else,
    so that leaving one image out moves no other's crop or flip.
    """
    steps: list[Step] = []
    n_steps = count_steps(n_train, n_epochs, batch_size)
    rates = iter(learning_rates(schedule, learning_rate, n_steps))
    for epoch in range(n_epochs):
        order = np.random.default_rng([seed, epoch]).permutation(n_train)
        seeds = np.random.SeedSequence([seed, epoch]).generate_state(n_train, np.uint64)
        for start in range(0, n_train, batch_size):
            batch = order[start : start + batch_size]
            steps.append(Step(epoch, batch, seeds[batch], float(next(rates))))
    return steps


def by_epoch(steps: Sequence[Step], start: int = 0) -> Iterator[tuple[int, list[int]]]:
    """(epoch, the numbers of its steps) from step `start` on."""
    for epoch, numbers in groupby(range(start, len(steps)), key=lambda t: steps[t].epoch):
        yield epoch, list(numbers)


def archive_of(steps: Sequence[Step]) -> bytes:
    """The steps as one uncompressed NumPy archive without pickles."""
    arrays = {
        "epoch": np.array([step.epoch for step in steps], np.int64),
        "size": np.array([len(step.indices) for step in steps], np.int64),
        "learning_rate": np.array([step.learning_rate for step in steps], np.float64),
        "indices": np.concatenate([step.indices for step in steps]),
        "seeds": np.concatenate([step.seeds for step in steps]),
    }
    return npz_bytes(arrays, compressed=False)


def load_steps(path: Path) -> list[Step]:
    """Read steps from the file of their archive.

    Raises:
        UserError: the file is not there, cut short or not a step record.
    """
    return load_npz(path, "step record", _steps_of)


def steps_in(archive: bytes) -> list[Step]:
    """The steps of which `archive_of` made the archive."""
    return _steps_of(arrays_in(archive))


def _steps_of(arrays: Mapping[str, np.ndarray]) -> list[Step]:
    ends = np.cumsum(arrays["size"])[:-1]
    indices, seeds = (np.split(arrays[name], ends) for name in ("indices", "seeds"))
    epochs, rates = arrays["epoch"].tolist(), arrays["learning_rate"].tolist()
    return [Step(*fields) for fields in zip(epochs, indices, seeds, rates, strict=True)]
