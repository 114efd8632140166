"""Stage 3: remove the n most harmful images, retrain, and evaluate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sgd_influence.outcomes import Outcomes
from utils.console import progress
from utils.evaluation import Evaluation
from utils.steps import Step, by_epoch
from utils.trial import Trial

SCORE_COLUMNS = ["val_loss", "test_loss", "val_accuracy", "test_accuracy"]


def retrain_without(trial: Trial, removed: np.ndarray, description: str) -> pd.DataFrame:
    """Retrain from the recorded state in the recorded order, with the same augmentation.

    Args:
        trial: retrains from its `retrain_start`.
        removed: (n_train,) mask of the images left out, w_i = 0 of design section 4.
        description: what the progress bar says.

    Steps before the first one that a removed image takes part in are those of the training: of
    them only what no recorded state makes needless is repeated.

    Returns:
        A row of `SCORE_COLUMNS` per retrained epoch; losses are means, accuracies fractions.
    """
    return evaluate_without(trial, removed, description)[0]


def evaluate_without(
    trial: Trial, removed: np.ndarray, description: str
) -> tuple[pd.DataFrame, Outcomes]:
    """As `retrain_without`, with what the network makes of each image after the last epoch."""
    rows, reached = [], -1
    for epoch, start, end in retrained_parts(trial, removed):
        if start != reached:
            trial.sgd.load(trial.state_before(start))
        reached = end
        bar = f"{description}, epoch {epoch + 1}/{trial.n_epochs}"
        for t in progress(range(start, end), bar):
            trial.take_step(t, removed)
        validation = trial.evaluator(trial.data.validation)
        test = trial.evaluator(trial.data.test)
        rows.append((validation.loss, test.loss, validation.accuracy, test.accuracy))
    scores = pd.DataFrame(rows, columns=SCORE_COLUMNS)
    return scores, _outcomes(trial, removed, validation, test)


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


def retrained_parts(trial: Trial, removed: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Of each retrained epoch its number, the step from which it is repeated, and its end.

    The state is loaded where a part does not start at the end of the one before it.
    """
    touched = first_touched(trial.steps, removed, trial.retrain_start)
    recorded = [t for t in (*trial.states_there(), len(trial.steps)) if t <= touched]
    reached = -1
    for epoch, numbers in by_epoch(trial.steps, trial.retrain_start):
        end = numbers[-1] + 1
        yield epoch, max(t for t in (*recorded, reached) if t <= end), end
        reached = end


def read_by_retraining(trial: Trial, removed: np.ndarray) -> list[Path]:
    """The files that `evaluate_without` reads."""
    before, read = -1, []
    for _, start, end in retrained_parts(trial, removed):
        if start != before:
            read.append(trial.state_path(start))
        before = end
    return read


def first_touched(steps: Sequence[Step], removed: np.ndarray, start: int) -> int:
    """The first step from `start` on that an image of the mask (n_train,) is part of, else T."""
    numbers = range(start, len(steps))
    return next((t for t in numbers if removed[steps[t].indices].any()), len(steps))


def worst(influence: pd.DataFrame, n: int) -> np.ndarray:
    """Mask (n_train,) of the n most harmful images of an influence table."""
    mask = np.zeros(len(influence), bool)
    mask[influence["datasource_index"].to_numpy()[:n]] = True
    return mask
