"""Stage 1: train the network and record what repeats each step exactly.

A training that was cut off goes on from the start of the epoch it was in.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd

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
from utils.training.evaluation import softmax
from utils.training.network import Network, State
from utils.training.sgd import margins_of
from utils.training.steps import archive_of, by_epoch
from utils.training.trial import Trial

log = logging.getLogger("data_cleansing")

COLUMNS = ["epoch", "train_loss", "val_loss", "val_accuracy"]


def train_epoch(trial: Trial, epoch: int) -> None:
    """One epoch, from the state that the one before it left.

    Written: the states that `--cache` keeps, the margins, the label record, the row of the learning
    curve, and the state that the next epoch begins with, which goes when it is passed unless it is
    kept; after the last epoch the final state, which marks the training as finished. The label
    record of the epoch before goes with the state that this epoch began with.
    """
    numbers = dict(by_epoch(trial.steps))[epoch]
    curve, margins = _curve(trial)[:epoch], _margins(trial, epoch)
    record = _label_record(trial, epoch)
    trial.sgd.load(trial.state_before(numbers[0]) if epoch else _initial_state(trial))
    seen = np.zeros((trial.n_train, trial.network.n_classes), np.float32)
    loss = _train_steps(trial, epoch, numbers, margins[epoch], seen)
    trial.folder.save_array(margins, trial.folder.margins(trial.seed))
    validation = trial.evaluator(trial.data.validation)
    curve.append((epoch, loss, validation.loss, validation.accuracy))
    log.debug(
        "Trial %d, epoch %d: training loss %.4f, validation loss %.4f, accuracy %.4f",
        trial.seed, epoch, *curve[-1][1:],
    )  # fmt: skip
    table = pd.DataFrame(curve, columns=COLUMNS)
    trial.folder.save_csv(table, trial.folder.learning_curve(trial.seed))
    if record is not None:
        record = with_epoch(record, trial, epoch, seen)
        path = trial.folder.label_record(trial.seed, epoch + 1)
        trial.folder.save_bytes(record_bytes(record), path)
    _mark_epoch(trial, numbers[-1] + 1)
    remove_passed_records(trial, epoch + 1)


def remove_passed_records(trial: Trial, n_epochs: int) -> None:
    """Remove the label records of fewer epochs: a run that was killed may have left one."""
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
    """The parameters that the trial's seed gives, whatever its network has been used for since."""
    net = trial.network
    return Network(net.model, net.image_shape, net.n_classes, trial.seed, net.conv).state()


def _curve(trial: Trial) -> list[tuple[int, float, float, float]]:
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
    """That of the epochs before; None where an earlier version trained them and kept none."""
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
    """Remove the states before step t with which an epoch began, but for those kept."""
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
            "Trial %d: the %s. Try another --lr (it was %g), more epochs, a smaller --batch_size "
            "(there were %d steps in all) or another --model.",
            trial.seed, problem, trial.steps[0].learning_rate, len(trial.steps),
        )  # fmt: skip


def no_better_than_guessing(
    curve: pd.DataFrame, training: np.ndarray, validation: np.ndarray
) -> str:
    """What shows that a net learnt nothing; empty if nothing does.

    Args:
        curve: the learning curve.
        training: labels (n_train,).
        validation: labels (n_val,).
    """
    if never := loss_never_falls(curve, training):
        return f"{never}; the scores mean nothing"
    accuracy, lucky = curve["val_accuracy"].iloc[-1], lucky_accuracy(validation)
    if accuracy <= lucky < 1:
        last = f"{accuracy:.1%} at the end, and guessing reaches {lucky:.1%}"
        return f"validation accuracy may be luck: {last}; the scores mean little then"
    return ""


def loss_never_falls(curve: pd.DataFrame, training: np.ndarray) -> str:
    """What shows it, of the arguments of `no_better_than_guessing`; empty if it falls."""
    loss, guessing = curve["train_loss"].min(), guessing_loss(training)
    if loss < 0.99 * guessing:
        return ""
    return f"training loss never falls: {loss:.3f} at best, and guessing gives {guessing:.3f}"


def lucky_accuracy(labels: np.ndarray) -> float:
    """The accuracy on `labels` (N,) of naming their largest class, plus two standard errors."""
    share = float(np.bincount(labels).max()) / len(labels)
    return share + 2 * float(np.sqrt(share * (1 - share) / len(labels)))


def guessing_loss(labels: np.ndarray) -> float:
    """Cross-entropy (nats) of guessing by the shares of the classes in `labels` (n_train,)."""
    shares = np.bincount(labels)[np.unique(labels)] / len(labels)
    return float(-(shares * np.log(shares)).sum())


def _train_steps(
    trial: Trial, epoch: int, numbers: list[int], margins: np.ndarray, seen: np.ndarray
) -> float:
    """Take an epoch's steps; returns the mean loss of the training batches.

    Args:
        trial: that is trained.
        epoch: from 0.
        numbers: of its steps.
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
