"""Influence functions of [K] (Koh & Liang, ICML 2017) at the final parameters."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np

from utils.console import progress
from utils.data.images import ImageSet, normalise
from utils.errors import UserError
from utils.training.adjoint import Arrays, StepAdjoint, loss_gradient
from utils.training.evaluation import batches_of
from utils.training.trial import Trial

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


NO_SOLUTION, DIVERGENCE = 1.0, 10.0
"""Relative residuals: that of v = 0, and from which on a solve is one that diverges."""
DIVERGED = 1e4
"""Passes end where |v| exceeds |g| / alpha, the most in a convex problem, by this factor."""
TINY = 1e-300
"""Keeps |v|^2 of a gradient of zeros above 0."""


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
        v by parameter name, float64; of any size where the passes diverge, but finite.
    """
    rng = np.random.default_rng([seed, 2])
    v = {name: np.zeros_like(g) for name, g in target.items()}
    velocity = {name: np.zeros_like(g) for name, g in target.items()}
    longest = DIVERGED * _norm(target) / solver.damping if solver.damping else math.inf
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
        if not _norm(v) <= longest:
            break
    return v


def predict_influence(
    adjoint_of: StepAdjoint, data: ImageSet, v: Arrays, batch_size: int = 64
) -> tuple[np.ndarray, Arrays]:
    """One pass over the training images, which gives the influences and, beside them, H v.

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
        indices = np.arange(rows.start, rows.stop)
        share = len(indices) / len(data)
        by_weight, by_theta = _derivatives(adjoint_of, data, indices, v)
        influence[indices] = by_weight * share
        for name, part in by_theta.items():
            product[name] += share * part
    return influence, product


@dataclass(frozen=True)
class Scored:
    """What influence functions say, and how far their solver came.

    Attributes:
        influence: (n,).
        residual: |(H + alpha I) v - g| / |g|.
        curvature: <v, H v> / <v, v>.
    """

    influence: np.ndarray
    residual: float
    curvature: float


def score(trial: Trial) -> Scored:
    """Influence functions at the network's present state, by [H]'s solver: 2 passes."""
    adjoint_of = StepAdjoint(trial.network, trial.optimiser, test=True)
    target = loss_gradient(trial.network, trial.data.validation).u
    v = solve(adjoint_of, trial.data.training, target, Solver(trial.damping), trial.seed)
    influence, product = predict_influence(adjoint_of, trial.data.training, v)
    residual = relative_residual(product, v, target, trial.damping)
    return Scored(influence, residual, _dot(v, product) / max(_dot(v, v), TINY))


def influence_functions(trial: Trial) -> np.ndarray:
    """Influence functions of [K] at the final parameters, images not augmented.

    Raises:
        UserError: the solve diverges.
    """
    trial.network.load(trial.final_state())
    scored = score(trial)
    if not scored.residual <= DIVERGENCE:
        raise _divergence(trial, scored.residual, scored.curvature)
    _say_residual(trial.seed, scored.residual)
    return scored.influence


def _say_residual(seed: int, residual: float) -> None:
    log.info(
        "Trial %d: Influence_functions solved to a relative residual of %.2f "
        "(0 is exact, 1 as far off as no solution)", seed, residual,
    )  # fmt: skip
    if residual > NO_SOLUTION:
        log.warning(
            "Trial %d: the solver of Influence_functions is further off than no solution: their "
            "scores are rough. Raise --damping, or check them with --verify.", seed,
        )  # fmt: skip


def relative_residual(product: Arrays, v: Arrays, target: Arrays, damping: float) -> float:
    """|(H + alpha I) v - target| / |target|.

    Args:
        product: H v by parameter name.
        v: the solution.
        target: the right-hand side.
        damping: alpha.
    """
    residual = {k: product[k] + damping * v[k] - target[k] for k in target}
    return _norm(residual) / _norm(target) if _norm(target) else 0.0


def _divergence(trial: Trial, residual: float, curvature: float) -> UserError:
    """The error of a diverged solve; `curvature` is <v, H v> / <v, v>.

    Damping above a negative curvature makes H + alpha I positive; it cannot mend steps that are
    too long for a large positive one.
    """
    remedy = "leave Influence_functions out of --methods, or train with a lower --lr"
    if curvature + trial.damping < 0:
        scored = trial.folder.influence("Influence_functions", trial.seed).parent.exists()
        where = ", in another --output_dir, since other trials have scores" if scored else ""
        enough = float(f"{max(10 * trial.damping, -2 * curvature):.1g}")
        remedy = f"raise --damping from {trial.damping:g} to {enough:g}{where}"
    return UserError(
        f"influence functions diverge in trial {trial.seed}: the relative residual is "
        f"{residual:.2g}, the loss curves by {curvature:.2g} along the solution, the damping is "
        f"{trial.damping:g}; {remedy}"
    )


def _dot(a: Arrays, b: Arrays) -> float:
    return float(sum(np.vdot(a[name], b[name]) for name in a))


def _norm(a: Arrays) -> float:
    return math.sqrt(_dot(a, a))


def _derivatives(
    adjoint_of: StepAdjoint, data: ImageSet, rows: np.ndarray, v: Arrays
) -> tuple[np.ndarray, Arrays]:
    """Derivatives of <v, grad L>, L the mean loss of `rows`: by w (|rows|,), and H v by theta."""
    x, y = normalise(data.images[rows]), data.labels[rows, None]
    by_weight, product, _ = adjoint_of.derivatives(x, y, v, {})
    return by_weight, product
