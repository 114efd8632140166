"""Derivatives of nets that look a parameter up several times by its name, as nnabla's nets do."""

from __future__ import annotations

import numpy as np

from influence_functions.gauss_newton import GaussNewton
from tests.helpers.numbers import SINGLE, assert_close
from tests.helpers.tiny import digit_images
from tests.helpers.users_models import tied, tied_looked_up_once
from utils.training.adjoint import Arrays, StepAdjoint, flattened
from utils.training.network import Network
from utils.training.sgd import Optimiser, step_batch
from utils.training.steps import Step


def derivatives(model) -> list[np.ndarray]:
    """By weight, by theta, and a product with the Gauss-Newton matrix."""
    network, data = Network(model, (1, 8, 8), 10, seed=3), digit_images(0, 7)
    rng = np.random.default_rng(0)
    v: Arrays = {name: rng.standard_normal(p.shape) for name, p in network.theta.items()}
    x, y = step_batch(data, Step(0, np.arange(7), np.zeros(7, np.uint64), 0.1), augmented=False)
    by_weight, by_theta, _ = StepAdjoint(network, Optimiser()).derivatives(x, y, v, {})
    product = GaussNewton(network).product(data, v)
    return [by_weight, flattened(by_theta), flattened(product)]


def test_every_use_of_a_parameter_counts() -> None:
    for found, expected in zip(derivatives(tied), derivatives(tied_looked_up_once), strict=True):
        assert np.abs(expected).max() > 0
        assert_close(found, expected, SINGLE)
