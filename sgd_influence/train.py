"""Stage 1: train the network and record what repeats each step exactly.

A training that was interrupted resumes at the start of its epoch.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sgd_influence.guessing import no_better_than_guessing
from sgd_influence.label_record import (
    LabelRecord,
    empty_record,
    load_record,
    record_bytes,
    sizes_of,
    with_epoch,
)
from utils.console import progress
from utils.output.storage import read_csv
from utils.training.evaluation import Evaluation, softmax
from utils.training.models import describe
from utils.training.network import Network, State
from utils.training.nnp_save import nnp_of
from utils.training.sgd import margins_of
from utils.training.steps import archive_of, by_epoch
from utils.training.trial import Trial
from utils.units import counted

log = logging.getLogger("data_cleansing")

COLUMNS = ["epoch", "train_loss", "val_loss", "val_accuracy"]
CurveRow = tuple[int, float, float, float]
"""A row of the learning curve, with these columns."""


def train_epoch(trial: Trial, epoch: int) -> None:
    """Train one epoch, from the state after the epoch before.

    Writes the states that `--cache` keeps, the margins, the row of the learning curve, the label
    record and, last, the state after the epoch; the state after the last epoch marks the training
    as finished. Then removes the state that this epoch began with, unless it is kept, and the
    label record of the epoch before.
    """
    numbers = dict(by_epoch(trial.steps))[epoch]
    curve, margins = _curve(trial)[:epoch], _margins(trial, epoch)
    record = _label_record(trial, epoch)
    trial.sgd.load(trial.state_before(numbers[0]) if epoch else _initial_state(trial))
    seen = np.zeros((trial.n_train, trial.network.n_classes), np.float32)
    loss = _train_steps(trial, epoch, numbers, margins[epoch], seen)
    trial.folder.save_array(margins, trial.folder.margins(trial.seed))
    validation, of_validation = trial.evaluator.with_probabilities(trial.data.validation)
    _save_curve(trial, [*curve, _curve_row(trial, epoch, loss, validation)])
    if record is not None:
        record = with_epoch(record, trial, epoch, seen, of_validation)
        path = trial.folder.label_record(trial.seed, epoch + 1)
        trial.folder.save_bytes(record_bytes(record), path)
    _mark_epoch(trial, numbers[-1] + 1)
    remove_passed_records(trial, epoch + 1)


def _curve_row(trial: Trial, epoch: int, loss: float, validation: Evaluation) -> CurveRow:
    """The row of the learning curve for an epoch with this mean training loss; logged."""
    row = epoch, loss, validation.loss, validation.accuracy
    log.debug(
        "Trial %d, epoch %d: training loss %.4f, validation loss %.4f, accuracy %.4f",
        trial.seed, *row,
    )  # fmt: skip
    return row


def _save_curve(trial: Trial, curve: Sequence[CurveRow]) -> None:
    table = pd.DataFrame(curve, columns=COLUMNS)
    trial.folder.save_csv(table, trial.folder.learning_curve(trial.seed))


def remove_passed_records(trial: Trial, n_epochs: int) -> None:
    """Remove label records of fewer epochs; a killed run may have left one."""
    for earlier in range(1, n_epochs):
        path = trial.folder.label_record(trial.seed, earlier)
        if path.exists():
            trial.folder.remove(path)


def record_steps(trial: Trial) -> None:
    """Write the steps (indices, augmentation seeds, learning rates), unless they are there."""
    path = trial.folder.steps(trial.seed)
    if not path.exists():
        trial.folder.save_bytes(archive_of(trial.steps), path)


def read_by_epoch(trial: Trial, epoch: int) -> list[Path]:
    """The files that `train_epoch` reads."""
    if not epoch:
        return []
    records = [trial.folder.learning_curve(trial.seed), trial.folder.margins(trial.seed)]
    if trial.folder.label_record(trial.seed, epoch).exists():
        records.append(trial.folder.label_record(trial.seed, epoch))
    return [*records, trial.state_path(trial.epoch_starts[epoch])]


def _initial_state(trial: Trial) -> State:
    """The initial parameters by the trial's seed, whatever its network was used for since."""
    net = trial.network
    return Network(net.model, net.image_shape, net.n_classes, trial.seed, net.conv).state()


def _curve(trial: Trial) -> list[CurveRow]:
    """The rows of the learning curve that is there."""
    path = trial.folder.learning_curve(trial.seed)
    if not path.exists():
        return []
    return list(read_csv(path, COLUMNS)[COLUMNS].itertuples(index=False, name=None))


def _margins(trial: Trial, epoch: int) -> np.ndarray:
    """The margins (n_epochs, n_train) of the epochs before `epoch`, with room for the others."""
    margins = np.zeros((trial.n_epochs, trial.n_train), np.float32)
    if epoch:
        margins[:epoch] = trial.margins()[:epoch]
    return margins


def _label_record(trial: Trial, epoch: int) -> LabelRecord | None:
    """The record of the epochs before; None if an earlier version trained them without one."""
    path = trial.folder.label_record(trial.seed, epoch)
    if not epoch:
        return empty_record(trial)
    return load_record(path, sizes_of(trial)) if path.exists() else None


def epochs_done(trial: Trial) -> int:
    """How many epochs are finished and need not be trained again."""
    for epoch in range(min(len(_curve(trial)), trial.n_epochs - 1), 0, -1):
        start = trial.epoch_starts[epoch]
        kept = [t for t in trial.kept_steps if t < start]
        files = [trial.state_path(t) for t in (start, *kept)]
        if all(path.exists() for path in (*files, trial.folder.margins(trial.seed))):
            return epoch
    return 0


def _mark_epoch(trial: Trial, t: int) -> None:
    """Write the state after an epoch, before step t; the final one last, as it marks the end."""
    if t < len(trial.steps):
        trial.save_state(t, durable=True)
    _remove_passed(trial, t)
    if t == len(trial.steps):
        trial.save_state(t, durable=True)


def _remove_passed(trial: Trial, t: int) -> None:
    """Remove states before step t with which an epoch began, unless they are kept."""
    for start in trial.epoch_starts:
        passed = trial.state_path(start)
        if start < t and start not in trial.kept_steps and passed.exists():
            trial.folder.remove(passed)


def warn_if_nothing_is_learnt(trial: Trial) -> None:
    """Warn if the training is no better than guessing, on training or on validation images."""
    problem = no_better_than_guessing(
        read_csv(trial.folder.learning_curve(trial.seed), COLUMNS),
        trial.data.training.labels,
        trial.data.validation.labels,
    )
    if problem:
        log.warning(
            "Trial %d: the %s. It took %s with --lr %g: try another --lr, more epochs, a smaller "
            "--batch_size or another --model.",
            trial.seed, problem, counted(len(trial.steps), "step"), trial.steps[0].learning_rate,
        )  # fmt: skip


def write_nnp(trial: Trial) -> None:
    """Write the trained net with its graph, where nnabla can save it; else a warning says why."""
    path, state = trial.folder.final_nnp(trial.seed), trial.final_state()
    try:
        content = nnp_of(trial.network, state)
    except Exception as error:  # of a net of the user's own
        log.warning("%s: is not written, nnabla cannot save the net: %s", path, describe(error))
        return
    trial.folder.save_bytes(content, path)


def _train_steps(
    trial: Trial, epoch: int, numbers: list[int], margins: np.ndarray, seen: np.ndarray
) -> float:
    """Take an epoch's steps; returns the mean loss of the training images.

    Args:
        trial: to train.
        epoch: from 0.
        numbers: of the epoch's steps.
        margins: (n_train,), filled.
        seen: (n_train, K) probabilities before each image's step, filled.
    """
    description = f"trial {trial.seed}: train, epoch {epoch + 1}/{trial.n_epochs}"
    loss = 0.0
    for t in progress(numbers, description):
        if t in trial.kept_steps:
            trial.save_state(t)
        loss += trial.take_step(t)
        indices, logits = trial.steps[t].indices, trial.sgd.logits
        margins[indices] = margins_of(logits, trial.data.training.labels[indices])
        seen[indices] = softmax(logits)
    return loss / trial.n_train
