"""Influence functions of [K] (Koh & Liang, ICML 2017) at the final parameters.

    I_i = <v, grad loss_i> / n,    (A + alpha I) v = grad L_val

A is the Gauss-Newton matrix of the mean training loss, or with `--if_solver sgd` its Hessian, as in
[H]. In both, BatchNorm normalises by its running statistics, as it does in L_val: then each
image's loss depends only on the parameters, and G is a sum over images.
"""

from __future__ import annotations

import logging
import math

import numpy as np

from influence_functions.gauss_newton import GaussNewton
from influence_functions.solvers import (
    Descent,
    Product,
    conjugate_gradients,
    descend,
    largest_eigenvalue,
)
from utils.console import progress
from utils.data.images import ImageSet, normalise
from utils.methods import Scores, Solved
from utils.options import GAUSS_NEWTON
from utils.signals import stop_if_asked
from utils.training.adjoint import Arrays, StepAdjoint, by_name, flattened, loss_gradient
from utils.training.evaluation import batches_of
from utils.training.trial import Trial

log = logging.getLogger("data_cleansing")

TOLERANCE = 0.01
"""The relative residual that conjugate gradients are to reach."""
MOST_PRODUCTS = 100
"""Products with G at most, including the products for alpha and for the final residual."""
POWER = 3
"""Power iterations for the largest eigenvalue of G, from which alpha follows."""
SHARE = 0.1
"""Alpha as a share of G's largest eigenvalue; a much smaller one predicts worse (fidelity.md)."""
AT_OPTIMUM = 1e-3
"""A state counts as an optimum if the gradient of the training loss is at most this share of the
gradient of the validation loss."""
OPTIMUM_SHARE = 1e-6
"""The same at an optimum, where no damping is needed."""
USUAL_PRODUCTS = 12
"""Products with G of a usual solution, for the estimate of a run's time."""
SAMPLE = 1000
"""G is a mean over at most so many images; of more, a sample is drawn by the trial's seed."""
MARGIN = 0.95
"""Part of the tolerance that conjugate gradients aim at; the rest is for rounding."""
NO_SOLUTION = 1.0
"""The relative residual of v = 0; a solution by [H]'s solver must be below it."""


def influence_functions(trial: Trial) -> Scores:
    """Influence functions of [K] at the final parameters, images not augmented."""
    trial.network.load(trial.final_state())
    scores = score(trial)
    if scores.solved:
        _log_solution(trial.seed, scores.solved)
    return scores


def score(trial: Trial) -> Scores:
    """Influence functions at the network's present state, by the trial's solver."""
    target = loss_gradient(trial.network, trial.data.validation).u
    return (_by_gauss_newton if trial.if_solver == GAUSS_NEWTON else _by_sgd)(trial, target)


def _log_solution(seed: int, solved: Solved) -> None:
    log.info("Trial %d: Influence_functions %s", seed, solved.words)
    if not solved.reached:
        log.warning(
            "Trial %d: the solver of Influence_functions did not reach a relative residual of "
            "%.2g but %.2g: its scores are inaccurate. Raise --damping above %.2g, or check them "
            "with --verify.", seed, solved.wanted, solved.residual, solved.damping,
        )  # fmt: skip


def epochs_of_products(trial: Trial) -> float:
    """About how many double backwards of each training image the scores take.

    A descent that diverges takes more: one pass for each iterate that it kept.
    """
    if trial.if_solver != GAUSS_NEWTON:
        return 3.0
    return 1.0 + USUAL_PRODUCTS * min(SAMPLE, trial.n_train) / trial.n_train


# ---------------------------------------------------------------- the Gauss-Newton matrix


def _by_gauss_newton(trial: Trial, target: Arrays) -> Scores:
    matrix = GaussNewton(trial.network, trial.optimiser.weight_decay)
    sample, g = sample_of(trial.data.training, trial.seed), flattened(target)

    def product(v: np.ndarray) -> np.ndarray:
        return flattened(matrix.product(sample, by_name(v, target)))

    damping, n_for_damping = _damping(trial, product, g)
    n_left = MOST_PRODUCTS - n_for_damping - 1  # one is for the final residual
    numbers = progress(range(1, n_left + 1), f"trial {trial.seed}: infl, solve")
    solution = conjugate_gradients(product, g, damping, TOLERANCE * MARGIN, numbers)
    solved = Solved(
        solver=trial.if_solver,
        damping=damping,
        residual=relative_residual(product(solution.v), solution.v, g, damping),
        wanted=TOLERANCE,
        n_products=n_for_damping + solution.n_products + 1,
        n_images=len(sample),
        n_train=trial.n_train,
    )
    return Scores(matrix.influence(trial.data.training, by_name(solution.v, target)), solved=solved)


def _damping(trial: Trial, product: Product, g: np.ndarray) -> tuple[float, int]:
    """Alpha, and the products with G that it took: `--damping`, else from the eigenvalues of G."""
    if trial.damping is not None:
        return trial.damping, 0
    share = OPTIMUM_SHARE if at_optimum(trial, g) else SHARE
    return share * largest_eigenvalue(product, g, POWER) or 1.0, POWER


def at_optimum(trial: Trial, g: np.ndarray) -> bool:
    """Whether the gradient of the mean training loss nearly vanishes, as [K] assumes.

    Args:
        trial: its network is in the state to judge.
        g: the gradient of the validation loss (P,), for comparison.
    """
    theta = {name: p.d for name, p in trial.network.theta.items()}
    gradient = flattened(loss_gradient(trial.network, trial.data.training).u)
    gradient += trial.optimiser.weight_decay * flattened(theta)
    return float(np.linalg.norm(gradient)) <= AT_OPTIMUM * float(np.linalg.norm(g))


def sample_of(data: ImageSet, seed: int) -> ImageSet:
    """The images over which G is a mean: all, or `SAMPLE` of them."""
    if len(data) <= SAMPLE:
        return data
    rows = np.sort(np.random.default_rng([seed, 8]).permutation(len(data))[:SAMPLE])
    return ImageSet(data.images[rows], data.labels[rows], ())


# ---------------------------------------------------------------- the Hessian, as [H]


def _by_sgd(trial: Trial, target: Arrays) -> Scores:
    """By [H]'s solver; if the last iterate is no better than v = 0, by the best one before it."""
    data = trial.data.training
    adjoint_of = StepAdjoint(trial.network, trial.optimiser, test=True)
    solver = Descent(trial.damping or 0.0)
    *earlier, last = solve(adjoint_of, data, target, solver, trial.seed)

    def scored(v: Arrays) -> tuple[float, np.ndarray]:
        influence, product = predict_influence(adjoint_of, data, v)
        residual = relative_residual(
            flattened(product), flattened(v), flattened(target), solver.damping
        )
        return (residual if math.isfinite(residual) else math.inf), influence

    found = [scored(last)]
    if found[0][0] >= NO_SOLUTION:
        found += [scored(v) for v in earlier]
    residual, influence = min(found, key=lambda one: one[0])
    n_products, n = solver.n_passes + len(found), len(data)
    return Scores(
        influence,
        solved=Solved(trial.if_solver, solver.damping, residual, NO_SOLUTION, n_products, n, n),
    )


def solve(
    adjoint_of: StepAdjoint, data: ImageSet, target: Arrays, solver: Descent, seed: int
) -> list[Arrays]:
    """The iterates of `descend` for (H + alpha I) v = target, by parameter name.

    Args:
        adjoint_of: built with test=True, so that BatchNorm uses its running statistics.
        data: the n_train training images; H is the Hessian of their mean loss.
        target: the right-hand side by parameter name.
        solver: the solver's constants.
        seed: seed of the order of the batches.
    """

    def product(rows: np.ndarray, v: np.ndarray) -> np.ndarray:
        return flattened(_derivatives(adjoint_of, data, rows, by_name(v, target))[1])

    n_steps = solver.n_passes * solver.n_batches(len(data))
    numbers = progress(range(n_steps), f"trial {seed}: infl, solve")
    iterates = descend(product, len(data), flattened(target), solver, seed, numbers)
    return [by_name(v, target) for v in iterates]


def predict_influence(
    adjoint_of: StepAdjoint, data: ImageSet, v: Arrays, batch_size: int = 64
) -> tuple[np.ndarray, Arrays]:
    """One pass over the training images, which gives the influences and H v.

    Args:
        adjoint_of: built with test=True.
        data: the n training images.
        v: the solution by parameter name.
        batch_size: images at a time.

    Returns:
        I_i = +<v, grad loss_i> / n (n,), negative = harmful; and H v by parameter name.
    """
    influence = np.empty(len(data))
    product = {name: np.zeros_like(array) for name, array in v.items()}
    for rows in batches_of(len(data), batch_size):
        stop_if_asked()
        indices = np.arange(rows.start, rows.stop)
        share = len(indices) / len(data)
        by_weight, by_theta = _derivatives(adjoint_of, data, indices, v)
        influence[indices] = by_weight * share
        for name, part in by_theta.items():
            product[name] += share * part
    return influence, product


def _derivatives(
    adjoint_of: StepAdjoint, data: ImageSet, rows: np.ndarray, v: Arrays
) -> tuple[np.ndarray, Arrays]:
    """Derivatives of <v, grad L>, L the mean loss of `rows`: by w (|rows|,), and H v by theta."""
    x, y = normalise(data.images[rows]), data.labels[rows, None]
    by_weight, product, _ = adjoint_of.derivatives(x, y, v, {})
    return by_weight, product


def relative_residual(
    product: np.ndarray, v: np.ndarray, target: np.ndarray, damping: float
) -> float:
    """|A v + alpha v - target| / |target|; 0 where the target is 0.

    Args:
        product: A v (P,).
        v: the solution (P,).
        target: the right-hand side (P,).
        damping: alpha.
    """
    length = float(np.linalg.norm(target))
    return float(np.linalg.norm(product + damping * v - target)) / length if length else 0.0
