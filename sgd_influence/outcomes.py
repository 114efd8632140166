"""Losses and hits of a retrained network on each image, kept with the scores of its removal."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from utils.output.storage import load_npz, npz_bytes


@dataclass(frozen=True)
class Outcomes:
    """Losses and predictions of a network retrained without n images, after its last epoch.

    Attributes:
        val_losses: (n_val,) float32, the cross-entropy of each validation image in nats.
        val_hits: (n_val,) bool, whether the network predicts the validation image's label.
        test_hits: (n_test,) bool, the same of the test images.
        removed: (n,) int64, the `datasource_index` of the images left out, ascending.
        predicted: (n,) int32, the class that the network gives them.
        confidence: (n,) float32, the probability of that class.
    """

    val_losses: np.ndarray
    val_hits: np.ndarray
    test_hits: np.ndarray
    removed: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray

    @property
    def val_probabilities(self) -> np.ndarray:
        """(n_val,) float64, the probability of each validation image's label."""
        return np.exp(-self.val_losses.astype(np.float64))


def archive_of(outcomes: Outcomes) -> bytes:
    """The outcomes as one compressed NumPy archive without pickles."""
    return npz_bytes(asdict(outcomes))


def load_outcomes(path: Path) -> Outcomes:
    """Read outcomes from the file of their archive.

    Raises:
        UserError: the file is missing, truncated or not such an archive.
    """
    return load_npz(path, "archive of outcomes", lambda arrays: Outcomes(**arrays))
