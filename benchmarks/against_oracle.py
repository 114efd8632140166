"""The same recorded training in double precision, compared with the product's single precision."""

from __future__ import annotations

from functools import partial
from typing import cast

import nnabla as nn
import numpy as np

from benchmarks import tasks
from benchmarks.oracle import RELU, Batch, Examples, gelu, influence, leave_one_out, train
from benchmarks.recorded import RecordedTrial
from utils.data.images import ImageSet


def oracle_columns(trial: RecordedTrial) -> dict[str, np.ndarray]:
    """True changes and Hara_exact (n_train,) in double precision, all epochs covered."""
    steps = [Batch(step.indices, step.learning_rate) for step in trial.steps]
    training, validation = (
        inputs_of(trial, trial.data.training),
        inputs_of(trial, trial.data.validation),
    )
    decay = trial.optimiser.weight_decay
    start = [trial.state_before(0)[name].astype(np.float64) for name in trial.network.theta]
    smooth = _dense_of(trial).keywords.get("activation") is tasks.gelu
    activation = gelu() if smooth else RELU
    states = list(train(start, training, steps, decay, np.ones(len(training.y)), activation))
    return {
        "oracle: true": leave_one_out(start, training, steps, decay, validation, activation),
        "oracle: Hara_exact": influence(states, training, steps, decay, validation, activation),
    }


def inputs_of(trial: RecordedTrial, images: ImageSet) -> Examples:
    """The scaled inputs (n, 784) and labels of [H]'s dense nets."""
    x = _dense_of(trial).keywords["scaling"](images.images)
    return Examples(x.reshape(len(x), -1), images.labels.astype(np.float64))


def _dense_of(trial: RecordedTrial) -> partial[nn.Variable]:
    """The net of a trial, with the arguments that `dense` got."""
    return cast("partial[nn.Variable]", trial.network.model)
