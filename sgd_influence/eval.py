"""Stage 3: remove the n most harmful images, retrain, and evaluate."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sgd_influence.outcomes import Outcomes
from utils.console import progress
from utils.evaluation import Evaluation
from utils.steps import by_epoch
from utils.trial import Trial

SCORE_COLUMNS = ["val_loss", "test_loss", "val_accuracy", "test_accuracy"]


def retrain_without(trial: Trial, removed: np.ndarray, description: str) -> pd.DataFrame:
    """Retrain from the recorded state in the recorded order, with the same augmentation.

    Args:
        trial: retrains from its `retrain_start`.
        removed: (n_train,) mask of the images left out, w_i = 0 of design section 4.
        description: what the progress bar says.

    Returns:
        A row of `SCORE_COLUMNS` per retrained epoch; losses are means, accuracies fractions.
    """
    return evaluate_without(trial, removed, description)[0]


def evaluate_without(
    trial: Trial, removed: np.ndarray, description: str
) -> tuple[pd.DataFrame, Outcomes]:
    """As `retrain_without`, with what the network makes of each image after the last epoch."""
    trial.sgd.load(trial.state_before(trial.retrain_start))
    rows = []
    for epoch, numbers in by_epoch(trial.steps, trial.retrain_start):
        for t in progress(numbers, f"{description}, epoch {epoch + 1}/{trial.n_epochs}"):
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


def worst(influence: pd.DataFrame, n: int) -> np.ndarray:
    """Mask (n_train,) of the n most harmful images of an influence table."""
    mask = np.zeros(len(influence), bool)
    mask[influence["datasource_index"].to_numpy()[:n]] = True
    return mask
