"""Wrong labels, from the margins that the training recorded. Nothing is trained again."""

from __future__ import annotations

import numpy as np

from utils.training.trial import Trial


def aum(trial: Trial) -> np.ndarray:
    """Area under the margin of Pleiss et al., NeurIPS 2020 (arXiv 2001.10528), equation 1.

    The mean over the epochs of (logit of the label) - (largest other logit). A net that learns
    what most images of a class share pulls an image with a wrong label towards its right one, until
    it has learnt the label by heart: the mean is low.

    Returns:
        (n_train,) float64 logits, the most suspicious lowest; not a change of the validation loss.
    """
    return trial.margins().mean(axis=0, dtype=np.float64)
