"""Influence functions where their theory holds: logistic regression at its optimum."""

from __future__ import annotations

import math

import numpy as np
from scipy.sparse.linalg import LinearOperator, cg
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from benchmarks.against_oracle import inputs_of
from benchmarks.oracle import Examples
from benchmarks.recorded import RecordedTrial
from influence_functions.infl import predict_influence, relative_residual, score
from utils.training.adjoint import Arrays, StepAdjoint, loss_gradient

TOLERANCE, MOST_PRODUCTS = 1e-4, 2000
"""Relative residual and Hessian-vector products at which conjugate gradients end."""
SOLVED = "Influence_functions, solved"
EXACT = "Influence_functions, exact inverse"
TWO_PASSES = "Influence_functions"


def converged_columns(trial: RecordedTrial) -> dict[str, np.ndarray]:
    """Influence functions at the optimum beside training to convergence without each image.

    Returns:
        The true changes (n,) of the validation loss by scikit-learn's Newton method, and the
        scores by the product's solver, by that solver when it has converged, and by the exact
        inverse of the Hessian in double precision.
    """
    training, validation = (
        _with_ones(inputs_of(trial, part)) for part in (trial.data.training, trial.data.validation)
    )
    decay, everything = trial.optimiser.weight_decay, np.arange(len(training.y))
    theta = optimum(training, decay)
    losses = [
        logistic_loss(optimum(training[np.delete(everything, i)], decay), validation)
        for i in everything
    ]
    weight, bias = trial.network.theta.values()
    weight.d, bias.d = theta[:-1, None], theta[-1:]
    return {
        "true": np.array(losses) - logistic_loss(theta, validation),
        TWO_PASSES: score(trial).influence,  # whatever their residual
        SOLVED: solved_influence(trial),
        EXACT: exact_influence(theta, training, decay, validation),
    }


def solved_influence(trial: RecordedTrial) -> np.ndarray:
    """Influence functions (n,) at the network's state, without damping and solved to the end.

    SciPy's conjugate gradients on the product's Hessian-vector products; their residual is printed.
    """
    adjoint_of = StepAdjoint(trial.network, trial.optimiser, test=True)
    data = trial.data.training
    target = loss_gradient(trial.network, trial.data.validation).u
    shapes = {name: array.shape for name, array in target.items()}

    def product(v: np.ndarray) -> np.ndarray:
        return _flat(predict_influence(adjoint_of, data, _by_name(v, shapes), len(data))[1])

    right = _flat(target)
    hessian = LinearOperator((len(right), len(right)), matvec=product, dtype=np.float64)
    solution, _ = cg(hessian, right, rtol=TOLERANCE, maxiter=MOST_PRODUCTS)
    v = _by_name(solution, shapes)
    influence, image = predict_influence(adjoint_of, data, v, len(data))
    residual = relative_residual(image, v, target, 0.0)
    print(f"seed {trial.seed}: conjugate gradients end at a relative residual of {residual:.1e}")
    return influence


def _flat(arrays: Arrays) -> np.ndarray:
    return np.concatenate([array.ravel() for array in arrays.values()])


def _by_name(flat: np.ndarray, shapes: dict[str, tuple[int, ...]]) -> Arrays:
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])[:-1]
    parts = zip(shapes.items(), np.split(flat, ends), strict=True)
    return {name: part.reshape(shape) for (name, shape), part in parts}


def _with_ones(data: Examples) -> Examples:
    return Examples(np.column_stack([data.x, np.ones(len(data.x))]), data.y)


def optimum(data: Examples, decay: float) -> np.ndarray:
    """theta (d,) that minimises the mean loss + decay/2 |theta|^2, by Newton's method."""
    fit = LogisticRegression(
        C=1 / (decay * len(data.y)), fit_intercept=False, solver="newton-cholesky", tol=1e-10
    )
    return np.asarray(fit.fit(data.x, data.y).coef_[0])


def logistic_loss(theta: np.ndarray, data: Examples) -> float:
    """Mean cross-entropy in nats."""
    z = data.x @ theta
    return float(np.mean(np.logaddexp(0.0, z) - data.y * z))


def exact_influence(
    theta: np.ndarray, data: Examples, decay: float, validation: Examples
) -> np.ndarray:
    """<(H + lambda I)^-1 grad L_val, grad loss_i + lambda theta> / n, (n,)."""
    p = expit(data.x @ theta)
    hessian = (data.x.T * (p * (1 - p))) @ data.x / len(p) + decay * np.eye(len(theta))
    error = expit(validation.x @ theta) - validation.y
    v = np.linalg.solve(hessian, validation.x.T @ error / len(error))
    return ((p - data.y) * (data.x @ v) + decay * (theta @ v)) / len(p)
