"""Stage 3: remove the n most harmful images, retrain, and evaluate."""

from __future__ import annotations

import numpy as np
import pandas as pd

from utils.console import progress
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
    trial.sgd.load(trial.state_before(trial.retrain_start))
    rows = []
    for epoch, numbers in by_epoch(trial.steps, trial.retrain_start):
        for t in progress(numbers, f"{description}, epoch {epoch + 1}/{trial.n_epochs}"):
            trial.take_step(t, removed)
        validation = trial.evaluator(trial.data.validation)
        test = trial.evaluator(trial.data.test)
        rows.append((validation.loss, test.loss, validation.accuracy, test.accuracy))
    return pd.DataFrame(rows, columns=SCORE_COLUMNS)


def worst(influence: pd.DataFrame, n: int) -> np.ndarray:
    """Mask (n_train,) of the n most harmful images of an influence table."""
    mask = np.zeros(len(influence), bool)
    mask[influence["datasource_index"].to_numpy()[:n]] = True
    return mask
