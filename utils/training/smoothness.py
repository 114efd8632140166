"""How smooth a training is in the weights of its images: whether derivatives can predict removals.

Two retrainings give each image the weight 1 + h s_i and 1 - h s_i instead of 1, with random signs
s_i. The vector of the weights moves as far as by removing h^2 of the images. With the vectors of
the validation images' losses (n_val,)

    d+ = losses(1 + h s) - losses(1),   d- = losses(1) - losses(1 - h s)
    smoothness = <d+, d-> / (|d+| |d-|)

a smooth training has 1. One in which chance alone decides, whatever the weights, has -1/2, as both
differences contain the same losses(1). Where chance makes up the share c of the mean square of a
change, the smoothness is 1 - 3/2 c.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from utils.console import progress

if TYPE_CHECKING:
    from utils.training.trial import Trial  # imports nnabla, which the page does without

SHIFT = 0.1
"""h."""
SIGNS = (1, -1)
SMOOTH = 0.5
"""Below this, chance makes up more than a third of the mean square of a change."""

Losses = npt.NDArray[np.floating]


def moved_weights(seed: int, n_train: int, sign: int) -> npt.NDArray[np.float64]:
    """The weights 1 + sign h s (n_train,), with s drawn by the seed of the trial."""
    signs = np.random.default_rng([seed, 9]).choice([-1.0, 1.0], n_train)
    return 1 + sign * SHIFT * signs


def retrain_moved(trial: Trial, sign: int) -> Losses:
    """Retrain as removals do, with moved weights.

    Args:
        trial: retrains from its `retrain_start`.
        sign: 1 or -1, the direction in which the weights are moved.

    Returns:
        (n_val,) float32, the loss of each validation image (nats).

    Raises:
        UserError: a loss of the retraining is not finite.
    """
    weights = moved_weights(trial.seed, trial.n_train, sign)
    trial.sgd.load(trial.state_before(trial.retrain_start))
    bar = f"trial {trial.seed}: weights moved by {sign * SHIFT:+g}"
    for t in progress(range(trial.retrain_start, len(trial.steps)), bar):
        trial.take_weighted_step(t, weights)
    return trial.evaluator(trial.data.validation).losses


def smoothness_of(unchanged: Losses, plus: Losses, minus: Losses) -> float:
    """The smoothness, from losses (n_val,) each; nan where they did not change."""
    forward = plus - unchanged.astype(np.float64)
    backward = unchanged - minus.astype(np.float64)
    length = float(np.linalg.norm(forward) * np.linalg.norm(backward))
    return float(forward @ backward) / length if length else math.nan


def smoothness_words(smoothness: float, learnt: bool = True) -> str:
    """What the mean over the trials tells, with a remedy where it is low; empty for nan.

    Args:
        smoothness: the mean.
        learnt: the training loss falls in all trials.
    """
    if math.isnan(smoothness):
        return ""
    words = (
        f"Smoothness of the training: {smoothness:.2f} (1: removals of about "
        f"{100 * SHIFT**2:g} % of the images have predictable effects; 0 or below: chance decides)."
    )
    if not learnt:
        return f"{words} It says nothing here: the training loss never falls."
    if smoothness >= SMOOTH:
        return words
    return (
        f"{words} Scores predict removals of this size poorly in this training, whatever larger "
        "groups show; use a lower --lr and, if the net has kinks, one without (--preset smooth)."
    )
