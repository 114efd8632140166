"""Stage 1: train the network and record what repeats each step exactly."""

from __future__ import annotations

import logging

import pandas as pd

from utils.console import progress
from utils.evaluation import check_finite
from utils.network import save_state
from utils.steps import by_epoch, save_steps
from utils.storage import save_csv
from utils.trial import Trial

log = logging.getLogger("data_cleansing")


def train(trial: Trial) -> None:
    """Train from the trial's initial parameters.

    Written: the steps (indices, augmentation seeds, learning rate), the states that `--cache`
    keeps, the learning curve and, last, the final state.
    """
    save_steps(trial.steps, trial.paths.steps(trial.seed))
    curve = []
    for epoch, numbers in by_epoch(trial.steps):
        loss = _train_epoch(trial, epoch, numbers)
        validation = trial.evaluator(trial.data.validation)
        curve.append((epoch, loss, validation.loss, validation.accuracy))
        log.debug(
            "Trial %d, epoch %d: training loss %.4f, validation loss %.4f, accuracy %.4f",
            trial.seed, epoch, *curve[-1][1:],
        )  # fmt: skip
    columns = ["epoch", "train_loss", "val_loss", "val_accuracy"]
    save_csv(pd.DataFrame(curve, columns=columns), trial.paths.learning_curve(trial.seed))
    save_state(trial.sgd.state(), trial.paths.final_model(trial.seed))


def _train_epoch(trial: Trial, epoch: int, numbers: list[int]) -> float:
    """One epoch; returns the mean loss of the training batches."""
    description = f"trial {trial.seed}: train, epoch {epoch + 1}/{trial.n_epochs}"
    loss = 0.0
    for t in progress(numbers, description):
        if t in trial.kept_steps:
            save_state(trial.sgd.state(), trial.state_path(t))
        loss += trial.sgd.step(trial.data.training, trial.steps[t])
        where = f"epoch {epoch + 1}, step {t - numbers[0] + 1}"
        check_finite(loss, f"the loss in {where} (learning rate {trial.steps[t].learning_rate:g})")
    return loss / trial.n_train
