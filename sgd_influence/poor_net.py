"""Whether a net is too poor for the label check to estimate the number of wrong labels.

A net that has not learnt the classes cannot tell a wrong label from an image that it finds hard.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sgd_influence.guessing import guessing_loss
from sgd_influence.label_check import GOOD_NET, Checked
from utils.columns import LABEL
from utils.data.flips import labels_trained_on
from utils.data.images import ImageSet
from utils.data.source import Source
from utils.data.splits import load_rows, split_of_trial
from utils.options import Options
from utils.output.results import Results
from utils.output.storage import read_csv
from utils.units import counted

STEEP = 0.05
"""A training with more of the fall of its loss in the last quarter of the epochs is too short."""
FEWEST_EPOCHS = 4
"""Of a training whose loss has a last quarter."""
FITTED = 0.25
"""Below this share of the loss of guessing a net is taken to fit its training images."""
UNFIT = 0.5
"""No label is judged by a net below both this accuracy and a logistic regression's."""
FAR = 2.0
"""Nor, below `GOOD_NET`, by one with more than so many times the errors of the regression. On 400
digits with right labels, a net with 35 % errors, where the regression has 7.5 %, marked 54 labels.
"""
LEAST_POWER = 0.4
"""Nor by a net below the share of the most frequent class to this power: .40 with ten equal
classes, .76 with two, .96 where nine of ten images are of one class. The fewer the classes, the
more the errors of a net look like wrong labels: on 600 cats and dogs of CIFAR-10 with right labels,
a net with an accuracy of .63 found 172 wrong ones."""
FAST_MOMENTUM, FEW_EPOCHS = 0.5, 10
"""The check is worse with this momentum or more and a falling rate, and with fewer epochs."""
MOST_TRAINED, MOST_TESTED = 2000, 2000
"""Images that the logistic regression is trained and tested on, at most."""
SIDE = 8
"""Pixels that images are shrunk to for the logistic regression, by averaging."""


@dataclass(frozen=True)
class Learnt:
    """How much the nets of the checked trials learnt; means over the trials.

    Attributes:
        accuracy: of the nets on their validation images, a fraction.
        pixels: the same of a logistic regression, trained and tested on the same images.
        falling: the share of the fall of the training loss in the last quarter of the epochs; nan
            if that is not known.
        frequent: the share of the most frequent class among the validation images.
        n_tested: the validation images of a trial.
        loss: the training loss at the end, as a share of that of guessing.
        n_epochs: of the training.
    """

    accuracy: float
    pixels: float
    falling: float
    frequent: float
    n_tested: int
    loss: float
    n_epochs: int

    @property
    def sound(self) -> bool:
        """Whether the nets are at least as good as the regressions, and trained to the end."""
        return self.accuracy >= self.pixels and self.falling <= STEEP

    @property
    def cautious(self) -> float:
        """The accuracy by Laplace's rule of succession: of few images it is nearer to a half."""
        return (self.accuracy * self.n_tested + 1) / (self.n_tested + 2)


def learnt(options: Options, source: Source, results: Results, seeds: Sequence[int]) -> Learnt:
    """How much the nets of some trials learnt.

    Args:
        options: as parsed.
        source: the images of the data set.
        results: the tables of the run.
        seeds: of the trials.

    Raises:
        UserError: a learning curve or an image cannot be read.
    """
    curves = [read_csv(results.paths.learning_curve(seed)) for seed in seeds]
    splits = [split_of_trial(options, source, seed) for seed in seeds]
    tested = [split.validation for split in splits]
    labels = source.images[LABEL].to_numpy(np.int64)
    guessing = [guessing_loss(labels[split.training]) for split in splits]
    last = [curve["train_loss"].iloc[-1] for curve in curves]
    return Learnt(
        accuracy=float(np.mean([curve["val_accuracy"].iloc[-1] for curve in curves])),
        pixels=float(np.mean([_pixels(options, source, results, seed) for seed in seeds])),
        falling=float(np.mean([still_falling(c["train_loss"].to_numpy()) for c in curves])),
        frequent=float(np.mean([np.bincount(labels[rows]).max() / len(rows) for rows in tested])),
        n_tested=len(tested[0]),
        loss=float(np.mean(last) / np.mean(guessing)) if np.mean(guessing) else 1.0,
        n_epochs=min(map(len, curves)),
    )


def _pixels(options: Options, source: Source, results: Results, seed: int) -> float:
    """Accuracy of a logistic regression on the images of a trial, or on a sample of them."""
    split = split_of_trial(options, source, seed)
    given = source.images[LABEL].to_numpy(np.int64)[split.training]
    chosen = _sample(len(given), MOST_TRAINED)
    training = _images(source, split.training[chosen])
    labels = labels_trained_on(given, results, seed)[chosen].astype(np.int32)
    tested = split.validation[_sample(len(split.validation), MOST_TESTED)]
    return pixel_accuracy(replace(training, labels=labels), _images(source, tested))


def _sample(n: int, most: int) -> npt.NDArray[np.int64]:
    """Numbers below n, ascending: all of them, or `most` drawn ones."""
    return np.sort(np.random.default_rng(0).permutation(n)[:most])


def _images(source: Source, rows: npt.NDArray[np.int64]) -> ImageSet:
    return load_rows(source, rows, lambda _: "", "reading images")


def poor_net(found: Learnt, checked: Checked) -> str:
    """Why the number of wrong labels is a lower bound: a sentence; empty if it is an estimate."""
    if checked.good:
        return ""
    problems = []
    if found.accuracy < found.pixels:
        problems.append(_compared(found))
    if found.n_epochs < FEWEST_EPOCHS:
        problems.append(f"it was trained for fewer than {FEWEST_EPOCHS} epochs")
    elif math.isnan(found.falling):
        problems.append("its training loss does not fall")
    if found.falling > STEEP:
        share = f"{found.falling:.0%} of its fall is in the last quarter of the epochs"
        problems.append(f"its training loss is still falling ({share})")
    if checked.accuracy < GOOD_NET:
        problems.append(
            f"it is right about an estimated {checked.accuracy:.0%} of the images, and "
            f"{GOOD_NET:.0%} are needed to count labels of a similar class"
        )
    what = f"The net is not good enough to estimate the number: {'; '.join(problems)}"
    return f"{what}. {_remedy(found)}"


def unfit_net(found: Learnt) -> str:
    """Why no label can be judged: a sentence; empty if labels can be judged.

    A net that is wrong about most images, and more often than a logistic regression on pixels,
    knows too little of the classes: its errors and wrong labels look alike. So does one that is
    wrong more than twice as often as the regression, or hardly better than naming the most frequent
    class for every image.
    """
    far_behind = found.accuracy < GOOD_NET and 1 - found.accuracy > FAR * (1 - found.pixels)
    if found.accuracy < min(UNFIT, found.pixels) or far_behind:
        return f"The net has learnt too little: {_compared(found)}. {_remedy(found)}"
    least = found.frequent**LEAST_POWER
    if found.cautious < least:
        tested = counted(found.n_tested, "validation image")
        what = (
            f"it is right about {found.accuracy:.1%} of {tested}, {found.frequent:.1%} of which "
            f"are of one class; about {least:.1%} are needed"
        )
        return f"The net has learnt too little: {what}. {_remedy(found)}"
    return ""


def _compared(found: Learnt) -> str:
    return (
        f"it is right about {found.accuracy:.1%} of the validation images, a logistic regression "
        f"on their pixels about {found.pixels:.1%}"
    )


def _remedy(found: Learnt) -> str:
    if found.falling > STEEP or found.n_epochs < FEWEST_EPOCHS:
        return "Train longer (-e)"
    if math.isnan(found.falling):
        return "Use another --lr or --model"
    if found.loss < FITTED:
        return "It fits its training images well already: add images, or use another --model"
    return "Train longer (-e), or use another --model or --lr"


def harmful_options(options: Options) -> str:
    """Which options are known to make the label check worse: a sentence; empty for none.

    Measured on 3,000 photos with 16.6 % wrong labels of annotators: AUC .78 with the defaults, .69
    with a cosine schedule and momentum .9, .75 with 8 epochs in batches of 16.
    """
    given, remedies = [], []
    if options.momentum >= FAST_MOMENTUM and options.lr_schedule != "constant":
        given.append(f"--momentum {options.momentum:g} --lr_schedule {options.lr_schedule}")
        remedies.append(f"a constant rate or a momentum below {FAST_MOMENTUM:g}")
    if options.n_epochs < FEW_EPOCHS:
        given.append(f"--n_epochs {options.n_epochs}")
        remedies.append(f"at least {FEW_EPOCHS} epochs")
    if not given:
        return ""
    what = f"{' and '.join(given)}: known to find fewer wrong labels than the defaults"
    return f"{what}; use {' and '.join(remedies)}"


def still_falling(losses: npt.NDArray[np.float64]) -> float:
    """The share of the whole fall of the training loss (n_epochs,) in the last quarter; 0 to 1.

    nan if it does not fall, or has fewer than `FEWEST_EPOCHS` epochs.
    """
    whole = losses[0] - losses.min()
    if len(losses) < FEWEST_EPOCHS or whole <= 0:
        return math.nan
    before = losses[: -max(1, len(losses) // 4)].min()
    return float(max(0.0, before - losses.min()) / whole)


def pixel_accuracy(training: ImageSet, held_out: ImageSet) -> float:
    """Accuracy on held-out images of a logistic regression on shrunk pixels; a fraction."""
    from sklearn.exceptions import ConvergenceWarning  # takes half a second, and few need it
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = small_pixels(training.images[:]), training.labels
    x_test, y_test = small_pixels(held_out.images[:]), held_out.labels
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
