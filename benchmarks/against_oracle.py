"""The same recorded training in double precision, compared with the product's single precision."""

from __future__ import annotations

from functools import partial
from typing import cast

import nnabla as nn
import numpy as np

from benchmarks.oracle import Batch, Examples, influence, leave_one_out, train
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
    states = list(train(start, training, steps, decay, np.ones(len(training.y))))
    return {
        "oracle: true": leave_one_out(start, training, steps, decay, validation),
        "oracle: Hara_exact": influence(states, training, steps, decay, validation),
    }


def inputs_of(trial: RecordedTrial, images: ImageSet) -> Examples:
    """The scaled inputs (n, 784) and labels of [H]'s dense nets."""
    model = cast("partial[nn.Variable]", trial.network.model)
    x = model.keywords["scaling"](images.images)
    return Examples(x.reshape(len(x), -1), images.labels.astype(np.float64))
