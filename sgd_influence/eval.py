"""Stage 3: remove the n most harmful images, retrain, and evaluate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sgd_influence.outcomes import Outcomes
from utils.console import progress
from utils.training.evaluation import Evaluation
from utils.training.steps import Step, by_epoch
from utils.training.trial import Trial

SCORE_COLUMNS = ["val_loss", "test_loss", "val_accuracy", "test_accuracy"]


def validation_loss_without(trial: Trial, removed: np.ndarray, description: str) -> float:
    """The mean validation loss (nats) after retraining without some images.

    The net is retrained from the recorded state in the recorded order, with the same augmentation.
    Steps before the first one with a removed image equal those of the training, and are repeated
    only from the last recorded state before it.

    Args:
        trial: retrains from its `retrain_start`.
        removed: (n_train,) mask of the images left out: w_i = 0 in equation (1) of
            docs/how_it_works.md.
        description: what the progress bar says.
    """
    for _ in _epochs_without(trial, removed, description):
        pass
    return trial.evaluator(trial.data.validation).loss


def evaluate_without(
    trial: Trial, removed: np.ndarray, description: str
) -> tuple[pd.DataFrame, Outcomes]:
    """Retrain as `validation_loss_without`, and evaluate after each epoch.

    Returns:
        A row of `SCORE_COLUMNS` per retrained epoch, losses being means and accuracies fractions;
        and the losses and predictions by image after the last epoch.
    """
    rows = []
    for _ in _epochs_without(trial, removed, description):
        validation = trial.evaluator(trial.data.validation)
        test = trial.evaluator(trial.data.test)
        rows.append((validation.loss, test.loss, validation.accuracy, test.accuracy))
    scores = pd.DataFrame(rows, columns=SCORE_COLUMNS)
    return scores, _outcomes(trial, removed, validation, test)


def _epochs_without(trial: Trial, removed: np.ndarray, description: str) -> Iterator[None]:
    """Retrain, and yield after each epoch."""
    for part in retrained_parts(trial, removed):
        if part.loads:
            trial.sgd.load(trial.state_before(part.start))
        bar = f"{description}, epoch {part.epoch + 1}/{trial.n_epochs}"
        for t in progress(range(part.start, part.end), bar):
            trial.take_step(t, removed)
        yield


def _outcomes(
    trial: Trial, removed: np.ndarray, validation: Evaluation, test: Evaluation
) -> Outcomes:
    left_out = np.flatnonzero(removed)
    probabilities = trial.evaluator.probabilities(trial.data.training.images[left_out])
    return Outcomes(
        val_losses=validation.losses,
        val_hits=validation.hits,
        test_hits=test.hits,
        removed=left_out,
        predicted=probabilities.argmax(axis=1).astype(np.int32),
        confidence=probabilities.max(axis=1),
    )


@dataclass(frozen=True)
class Part:
    """What is repeated of a retrained epoch.

    Attributes:
        epoch: its number.
        start: the step from which it is repeated.
        end: the step after its last one.
        loads: whether the recorded state before `start` is loaded; else the state is that after
            the previous part.
    """

    epoch: int
    start: int
    end: int
    loads: bool


def retrained_parts(trial: Trial, removed: np.ndarray) -> Iterator[Part]:
    """What is repeated of each epoch when the images of the mask (n_train,) are left out."""
    touched = first_touched(trial.steps, removed, trial.retrain_start)
    recorded = [t for t in (*trial.states_there(), len(trial.steps)) if t <= touched]
    reached = -1
    for epoch, numbers in by_epoch(trial.steps, trial.retrain_start):
        end = numbers[-1] + 1
        start = max(t for t in (*recorded, reached) if t <= end)
        yield Part(epoch, start, end, loads=start != reached)
        reached = end


def read_by_retraining(trial: Trial, removed: np.ndarray) -> list[Path]:
    """The files that a retraining without images reads."""
    return [trial.state_path(part.start) for part in retrained_parts(trial, removed) if part.loads]


def first_touched(steps: Sequence[Step], removed: np.ndarray, start: int) -> int:
    """The first step from `start` on that an image of the mask (n_train,) is part of, else T."""
    numbers = range(start, len(steps))
    return next((t for t in numbers if removed[steps[t].indices].any()), len(steps))


def worst(influence: pd.DataFrame, n: int) -> np.ndarray:
    """Mask (n_train,) of the n most harmful images of an influence table."""
    mask = np.zeros(len(influence), bool)
    mask[influence["datasource_index"].to_numpy()[:n]] = True
    return mask
