"""What a training records for the label check, next to the margins of its training images.

For each image, the mean over the epochs of the net's class probabilities: before each step that
trains on it or, for images that the trial holds out, after each epoch. Epoch e = 1, 2, ... has the
weight e, because early epochs tell little. For held-out images, the margins of each epoch too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from utils.output.storage import load_npz, npz_bytes, unreadable
from utils.training.sgd import margins_of
from utils.training.trial import Trial

Float16 = npt.NDArray[np.float16]
Float32 = npt.NDArray[np.float32]
BYTES_PER_CLASS = 2
"""Of a mean probability, float16."""
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class LabelRecord:
    """What a trial has recorded after some epochs.

    Attributes:
        training: (n_train, K), weighted mean over the epochs of the softmax before the image's
            step, augmented and with the batch's statistics.
        validation: (n_val, K), the same of the softmax after the epoch.
        test: (n_test, K), the same.
        validation_margins: (n_epochs, n_val), after each epoch; 0 in epochs to come.
        test_margins: (n_epochs, n_test), the same.
    """

    training: Float16
    validation: Float16
    test: Float16
    validation_margins: Float32
    test_margins: Float32


def empty_record(trial: Trial) -> LabelRecord:
    """The record of a trial before its first epoch."""
    data, k, n_epochs = trial.data, trial.network.n_classes, trial.n_epochs
    return LabelRecord(
        training=np.zeros((len(data.training), k), np.float16),
        validation=np.zeros((len(data.validation), k), np.float16),
        test=np.zeros((len(data.test), k), np.float16),
        validation_margins=np.zeros((n_epochs, len(data.validation)), np.float32),
        test_margins=np.zeros((n_epochs, len(data.test)), np.float32),
    )


def with_epoch(
    record: LabelRecord, trial: Trial, epoch: int, seen: Float32, of_validation: Float32
) -> LabelRecord:
    """The record after one more epoch.

    Args:
        record: of the epochs before; its margins are filled in place.
        trial: its network is in the state at the end of the epoch.
        epoch: its number, from 0.
        seen: (n_train, K) softmax of each training image before its step.
        of_validation: (n_val, K) softmax of the validation images after the epoch.
    """
    of_test = trial.evaluator.probabilities(trial.data.test.images)
    record.validation_margins[epoch] = _margins(of_validation, trial.data.validation.labels)
    record.test_margins[epoch] = _margins(of_test, trial.data.test.labels)
    return LabelRecord(
        training=_mean(record.training, seen, epoch),
        validation=_mean(record.validation, of_validation, epoch),
        test=_mean(record.test, of_test, epoch),
        validation_margins=record.validation_margins,
        test_margins=record.test_margins,
    )


def _margins(softmax: Float32, labels: npt.NDArray[np.int32]) -> Float32:
    """Margins (N,) of probabilities (N, K): their logarithms are logits up to a constant."""
    return margins_of(np.log(np.maximum(softmax, _TINY)), labels)


def _mean(mean: Float16, more: Float32, count: int) -> Float16:
    """The weighted mean after one more epoch; `count` epochs are in `mean`."""
    single = mean.astype(np.float32)
    return (single + (more - single) * (2 / (count + 2))).astype(np.float16)


def record_bytes(record: LabelRecord) -> bytes:
    """A record as one compressed NumPy archive without pickles."""
    return npz_bytes({f.name: getattr(record, f.name) for f in fields(record)})


def load_record(path: Path, like: Sequence[int]) -> LabelRecord:
    """Read the file of `record_bytes`.

    Args:
        path: the file.
        like: n_epochs, n_train, n_val, n_test, K.

    Raises:
        UserError: the file is not there, cut short, no such archive or of other sizes.
    """
    record = load_npz(path, "label record", lambda arrays: LabelRecord(**arrays))
    shapes = [getattr(record, field.name).shape for field in fields(record)]
    n_epochs, *sizes, k = like
    if shapes != [*((n, k) for n in sizes), *((n_epochs, n) for n in sizes[1:])]:
        raise unreadable(path, "is incomplete", f"its arrays have the shapes {shapes}")
    return record


def sizes_of(trial: Trial) -> tuple[int, int, int, int, int]:
    """n_epochs, n_train, n_val, n_test, K of a trial."""
    data = trial.data
    sets = len(data.training), len(data.validation), len(data.test)
    return trial.n_epochs, *sets, trial.network.n_classes
