"""Whether a net is too poor for the label check to estimate the number of wrong labels.

A net that has not learnt the classes cannot tell a wrong label from an image that it finds hard.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sgd_influence.label_check import GOOD_NET, Checked
from utils.data.images import ImageSet
from utils.options import Options
from utils.output.storage import read_csv
from utils.training.trial import Trial

STEEP = 0.05
"""A training with more of the fall of its loss in the last quarter of the epochs is too short."""
UNFIT = 0.5
"""Below this share of a logistic regression's accuracy no label is judged."""
FAST_MOMENTUM, FEW_EPOCHS = 0.5, 10
"""The check is worse with this momentum or more and a falling rate, and with fewer epochs."""
MOST_TRAINED, MOST_TESTED = 2000, 2000
"""Images that the logistic regression is trained and tested on, at most."""
SIDE = 8
"""Pixels that images are shrunk to for the logistic regression, by averaging."""


def poor_net(trial: Trial, seeds: Sequence[int], checked: Checked) -> str:
    """Why the number of wrong labels is a lower bound: a sentence; empty if it is an estimate.

    Args:
        trial: one of the run, with its images.
        seeds: of the trials that were checked.
        checked: what the check found.

    Raises:
        UserError: a learning curve cannot be read.
    """
    curves = _curves(trial, seeds)
    falling = np.mean([still_falling(curve["train_loss"].to_numpy()) for curve in curves])
    accuracy, pixels = _accuracies(trial, curves)
    problems = []
    if accuracy < pixels:
        both = (
            f"{accuracy:.0%} of the validation images, a logistic regression on pixels {pixels:.0%}"
        )
        problems.append(f"it is right about {both}")
    if falling > STEEP:
        problems.append(
            f"{falling:.0%} of the fall of its loss is in the last quarter of the epochs"
        )
    if not checked.good:
        what = f"it tells about {checked.accuracy:.0%} of the images apart"
        problems.append(f"{what}, and labels of a similar class count from {GOOD_NET:.0%} on")
    if not problems:
        return ""
    return f"Train longer (-e) for the number of wrong labels. The net: {'; '.join(problems)}"


def unfit_net(trial: Trial, seeds: Sequence[int]) -> str:
    """Why no label can be judged: a sentence; empty if labels can be judged.

    A net that is right less than half as often as a logistic regression on pixels knows too little
    of the classes: nearly every label looks wrong to it. The arguments and errors are those of
    `poor_net`.
    """
    accuracy, pixels = _accuracies(trial, _curves(trial, seeds))
    if accuracy >= UNFIT * pixels:
        return ""
    return (
        f"The net has learnt too little: it is right about {accuracy:.0%} of the validation "
        f"images, a logistic regression on pixels {pixels:.0%}; train longer (-e)"
    )


def _curves(trial: Trial, seeds: Sequence[int]) -> list[pd.DataFrame]:
    return [read_csv(trial.folder.learning_curve(seed)) for seed in seeds]


def _accuracies(trial: Trial, curves: Sequence[pd.DataFrame]) -> tuple[float, float]:
    """Mean accuracy on validation images of the final nets, and of a logistic regression."""
    accuracy = float(np.mean([curve["val_accuracy"].iloc[-1] for curve in curves]))
    return accuracy, pixel_accuracy(trial.data.training, trial.data.validation)


def harmful_options(options: Options) -> str:
    """Which options are known to make the label check worse: a sentence; empty for none.

    Measured on 3,000 photos with 16.6 % wrong labels of annotators: AUC .78 with the defaults, .69
    with a cosine schedule and momentum .9, .75 with 8 epochs in batches of 16.
    """
    given = []
    if options.momentum >= FAST_MOMENTUM and options.lr_schedule != "constant":
        given.append(f"--momentum {options.momentum:g} --lr_schedule {options.lr_schedule}")
    if options.n_epochs < FEW_EPOCHS:
        given.append(f"--n_epochs {options.n_epochs}")
    if not given:
        return ""
    return f"{' and '.join(given)}: known to find fewer wrong labels than the defaults"


def still_falling(losses: npt.NDArray[np.float64]) -> float:
    """The share of the whole fall of the training loss (n_epochs,) in the last quarter; 0 to 1."""
    whole = losses[0] - losses.min()
    if len(losses) < 4 or whole <= 0:
        return 1.0
    before = losses[: -max(1, len(losses) // 4)].min()
    return float(max(0.0, before - losses.min()) / whole)


def pixel_accuracy(training: ImageSet, held_out: ImageSet) -> float:
    """Accuracy on held-out images of a logistic regression on shrunk pixels; a fraction."""
    rng = np.random.default_rng(0)
    parts = [
        (small_pixels(images.images[rows]), images.labels[rows])
        for images, most in ((training, MOST_TRAINED), (held_out, MOST_TESTED))
        for rows in [np.sort(rng.permutation(len(images))[:most])]
    ]
    (x, y), (x_test, y_test) = parts
    if len(np.unique(y)) == 1:
        return float((y_test == y[0]).mean())
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near enough to compare with
        return float(model.fit(x, y).score(x_test, y_test))


def small_pixels(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Images (N, H, W, C) shrunk to `SIDE` x `SIDE` at most by averaging: (N, features)."""
    n, height, width = images.shape[:3]
    rows, columns = (np.array_split(np.arange(size), min(SIDE, size)) for size in (height, width))
    by_row = np.stack([images[:, part].mean(axis=1) for part in rows], axis=1)
    both = np.stack([by_row[:, :, part].mean(axis=2) for part in columns], axis=2)
    return both.reshape(n, -1)
