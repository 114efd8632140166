"""Influence functions of [K] (Koh & Liang, ICML 2017) at the final parameters."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np

from utils.adjoint import Arrays, StepAdjoint, loss_gradient
from utils.console import progress
from utils.evaluation import batches_of
from utils.images import ImageSet, normalise
from utils.trial import Trial

log = logging.getLogger("data_cleansing")


@dataclass(frozen=True)
class Solver:
    """SGD with momentum for (H + alpha I) v = grad L_val, as in the code of [H].

    Attributes:
        damping: alpha.
        learning_rate: step length of the solver.
        momentum: its momentum.
        n_passes: passes over the training images.
        batch_size: images per Hessian-vector product.
    """

    damping: float
    learning_rate: float = 0.005
    momentum: float = 0.9
    n_passes: int = 2
    batch_size: int = 64


def solve(
    adjoint_of: StepAdjoint, data: ImageSet, target: Arrays, solver: Solver, seed: int
) -> Arrays:
    """Solve (H + alpha I) v = target by SGD on v^T (H + alpha I) v / 2 - v^T target.

    Args:
        adjoint_of: built with test=True, so that BatchNorm uses its running statistics.
        data: the n_train training images; H is the Hessian of their mean loss.
        target: the right-hand side by parameter name.
        solver: the solver's constants.
        seed: seed of the order of the batches.

    Returns:
        v by parameter name, float64.
    """
    rng = np.random.default_rng([seed, 2])
    v = {name: np.zeros_like(g) for name, g in target.items()}
    velocity = {name: np.zeros_like(g) for name, g in target.items()}
    n_batches = len(batches_of(len(data), solver.batch_size))
    for step in progress(range(solver.n_passes * n_batches), f"trial {seed}: infl, solve"):
        if step % n_batches == 0:
            order = rng.permutation(len(data))
        rows = order[step % n_batches * solver.batch_size :][: solver.batch_size]
        product = _derivatives(adjoint_of, data, rows, v)[1]
        for name, residual in product.items():
            residual += solver.damping * v[name] - target[name]
            velocity[name] = solver.momentum * velocity[name] - solver.learning_rate * residual
            v[name] += velocity[name]
    return v


def predict_influence(
    adjoint_of: StepAdjoint, data: ImageSet, v: Arrays, batch_size: int = 64
) -> np.ndarray:
    """I_i = +<v, grad loss_i> / n for every training image: (n_train,), negative = harmful."""
    influence = np.empty(len(data))
    for rows in batches_of(len(data), batch_size):
        indices = np.arange(rows.start, rows.stop)
        by_weight, _ = _derivatives(adjoint_of, data, indices, v)
        influence[indices] = by_weight * len(indices) / len(data)
    return influence


def influence_functions(trial: Trial) -> np.ndarray:
    """Influence functions of [K] with [H]'s solver: 2 passes, images not augmented."""
    trial.network.load(trial.final_state())
    adjoint_of = StepAdjoint(trial.network, trial.optimiser, test=True)
    target = loss_gradient(trial.network, trial.data.validation).u
    v = solve(adjoint_of, trial.data.training, target, Solver(trial.damping), trial.seed)
    return predict_influence(adjoint_of, trial.data.training, v)


def _derivatives(
    adjoint_of: StepAdjoint, data: ImageSet, rows: np.ndarray, v: Arrays
) -> tuple[np.ndarray, Arrays]:
    """Derivatives of <v, grad L>, L the mean loss of `rows`: by w (|rows|,), and H v by theta."""
    x, y = normalise(data.images[rows]), data.labels[rows, None]
    by_weight, product, _ = adjoint_of.derivatives(x, y, v, {})
    return by_weight, product
