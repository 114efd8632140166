"""`--flip_labels`: an experiment with wrong training labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from utils.columns import INDEX, LABEL, SEED, TO
from utils.data.source import Source
from utils.data.splits import TrialData
from utils.errors import UserError
from utils.output.folder import OutputFolder
from utils.output.results import FLIPPED, Results

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


def flipped(labels: Int32, n_classes: int, fraction: float, seed: int) -> Int32:
    """Give some images the label of another class, drawn uniformly.

    Args:
        labels: (n,), 0 to K - 1.
        n_classes: K.
        fraction: share of the images, rounded to a whole number of them.
        seed: draws the images and their new labels.
    """
    rng = np.random.default_rng([seed, 5])
    rows = rng.permutation(len(labels))[: round(fraction * len(labels))]
    wrong = labels.copy()
    wrong[rows] = (labels[rows] + rng.integers(1, n_classes, len(rows))) % n_classes
    return wrong


def with_flips(data: TrialData, source: Source, fraction: float, seed: int) -> TrialData:
    """The data of a trial with flipped training labels; its CSV files stay as they are.

    The share is of all images that trials draw their training images from, so that an image has
    one label in all of them; those that a trial holds for validation keep theirs.

    Raises:
        UserError: the share comes to no image.
    """
    given = source.training[LABEL].to_numpy(np.int32)
    wrong = flipped(given, source.n_classes, fraction, seed)
    if np.array_equal(wrong, given):
        what = f"of {len(given)} images that is none; give a larger share"
        raise UserError(f"--flip_labels {fraction:g}: {what}")
    training = data.training
    labels = wrong[training.rows]
    return replace(data, training=replace(training, labels=labels), given_labels=training.labels)


def record_flips(data: TrialData, seed: int, folder: OutputFolder, results: Results) -> None:
    """Note the flipped labels of a trial, if there are any, next to those of other trials.

    A row per image: `label` is the one that the data set gives, `flipped_to` the one trained on.
    """
    if data.given_labels is None:
        return
    rows = np.flatnonzero(data.training.labels != data.given_labels)
    images = [data.training.paths[row] for row in rows]
    labels = data.given_labels[rows], data.training.labels[rows]
    table = pd.DataFrame(dict(zip(FLIPPED, (rows, images, *labels, seed), strict=True)))
    there = results.flips()
    if there is not None:
        table = pd.concat([there[there[SEED] != seed], table])
    table = table.sort_values([SEED, INDEX], kind="stable")
    folder.save_csv(table, folder.flipped_labels)
    results.keep(table, folder.flipped_labels)


def labels_trained_on(labels: Int64, results: Results, seed: int) -> Int64:
    """The labels that a trial trained on, with its flips.

    Args:
        labels: (n_train,) of the trial's training images, as the data set gives them.
        results: the tables of the run.
        seed: of the trial.
    """
    trained, flips = labels.copy(), results.flips()
    if flips is not None:
        flips = flips[flips[SEED] == seed]
        trained[flips[INDEX].to_numpy()] = flips[TO].to_numpy()
    return trained


def what_if(share: float | None) -> str:
    """What a recommendation says where labels were flipped; empty where none were (None)."""
    if share is None:
        return ""
    flipped = f"{100 * share:g} % of the images have a flipped label (--flip_labels)"
    remedy = "look at the lists under cleansed/, but do not use them"
    return f"this is an experiment: {flipped}, so {remedy}"
