"""Stage 1: train the network and record what repeats each step exactly.

A training that was cut off goes on from the start of the epoch it was in.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd

from utils.console import progress
from utils.network import save_state
from utils.steps import by_epoch, save_steps
from utils.storage import read_csv, remove, save_array, save_csv
from utils.trial import Trial

log = logging.getLogger("data_cleansing")

COLUMNS = ["epoch", "train_loss", "val_loss", "val_accuracy"]
MIN_STEPS = 20
"""Before as many steps a loss that has not fallen says nothing."""


def train(trial: Trial) -> None:
    """Train from the trial's initial parameters, or from the last epoch that began.

    Written: the steps (indices, augmentation seeds, learning rate), the states that `--cache`
    keeps, after every epoch the margins, the learning curve and the state that the next one begins
    with, which goes when it is passed unless it is kept, and, last, the final state.
    """
    save_steps(trial.steps, trial.paths.steps(trial.seed))
    start, curve = _finished_epochs(trial)
    margins = np.zeros((trial.n_epochs, trial.n_train), np.float32)
    if start > 0:
        margins[: len(curve)] = trial.margins()[: len(curve)]
        trial.sgd.load(trial.state_before(start))
        log.info("Trial %d: training goes on with epoch %d", trial.seed, len(curve) + 1)
    for epoch, numbers in by_epoch(trial.steps, start):
        loss = _train_epoch(trial, epoch, numbers, margins[epoch])
        save_array(margins, trial.paths.margins(trial.seed))
        validation = trial.evaluator(trial.data.validation)
        curve.append((epoch, loss, validation.loss, validation.accuracy))
        log.debug(
            "Trial %d, epoch %d: training loss %.4f, validation loss %.4f, accuracy %.4f",
            trial.seed, epoch, *curve[-1][1:],
        )  # fmt: skip
        save_csv(pd.DataFrame(curve, columns=COLUMNS), trial.paths.learning_curve(trial.seed))
        _mark_epoch(trial, numbers[-1] + 1)
    save_state(trial.sgd.state(), trial.paths.final_model(trial.seed), durable=True)
    _warn_if_nothing_is_learnt(trial, [loss for _, loss, *_ in curve])


def _finished_epochs(trial: Trial) -> tuple[int, list[tuple[int, float, float, float]]]:
    """The step to go on from, and the rows of the learning curve before it."""
    path = trial.paths.learning_curve(trial.seed)
    rows = (
        list(read_csv(path, COLUMNS)[COLUMNS].itertuples(index=False, name=None))
        if path.exists()
        else []
    )
    for epoch in range(min(len(rows), trial.n_epochs - 1), 0, -1):
        start = trial.epoch_starts[epoch]
        kept = [t for t in trial.kept_steps if t < start]
        files = [trial.state_path(t) for t in (start, *kept)]
        if all(path.exists() for path in (*files, trial.paths.margins(trial.seed))):
            return start, rows[:epoch]
    return 0, []


def _mark_epoch(trial: Trial, t: int) -> None:
    """Write the state before step t, with which an epoch begins, and remove those passed."""
    if t < len(trial.steps):
        save_state(trial.sgd.state(), trial.state_path(t), durable=True)
    for start in trial.epoch_starts:
        passed = trial.state_path(start)
        if start < t and start not in trial.kept_steps and passed.exists():
            remove(passed)


def _warn_if_nothing_is_learnt(trial: Trial, losses: Sequence[float]) -> None:
    """Warn if the mean training loss of no epoch in `losses` is below what guessing gives."""
    guessing = guessing_loss(trial.data.training.labels)
    if len(trial.steps) >= MIN_STEPS and min(losses) >= 0.99 * guessing:
        log.warning(
            "Trial %d: the training loss never falls: %.3f at best, and guessing gives %.3f; the "
            "scores mean nothing. Try another --lr (it was %g), more epochs or another --model.",
            trial.seed, min(losses), guessing, trial.steps[0].learning_rate,
        )  # fmt: skip


def guessing_loss(labels: np.ndarray) -> float:
    """Cross-entropy (nats) of guessing by the shares of the classes in `labels` (n_train,)."""
    shares = np.bincount(labels)[np.unique(labels)] / len(labels)
    return float(-(shares * np.log(shares)).sum())


def _train_epoch(trial: Trial, epoch: int, numbers: list[int], margins: np.ndarray) -> float:
    """One epoch; returns the mean loss of the training batches and fills `margins` (n_train,)."""
    description = f"trial {trial.seed}: train, epoch {epoch + 1}/{trial.n_epochs}"
    loss = 0.0
    for t in progress(numbers, description):
        if t in trial.kept_steps:
            save_state(trial.sgd.state(), trial.state_path(t))
        loss += trial.take_step(t)
        margins[trial.steps[t].indices] = trial.sgd.margins
    return loss / trial.n_train
