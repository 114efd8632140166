"""Influence functions where their theory holds: logistic regression at its optimum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.sparse.linalg import LinearOperator, cg
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from benchmarks.against_oracle import inputs_of
from benchmarks.oracle import Examples
from benchmarks.recorded import RecordedTrial
from influence_functions.infl import predict_influence, relative_residual, score
from utils.options import SGD_SOLVER
from utils.training.adjoint import StepAdjoint, by_name, flattened, loss_gradient

TOLERANCE, MOST_PRODUCTS = 1e-4, 2000
"""Relative residual and Hessian-vector products at which conjugate gradients end."""
SOLVED = "Influence_functions, solved"
EXACT = "Influence_functions, exact inverse"
DEFAULT, BY_SGD = "Influence_functions", "Influence_functions (sgd)"


def converged_columns(trial: RecordedTrial) -> dict[str, np.ndarray]:
    """Influence functions at the optimum compared with training to convergence without each image.

    Returns:
        The true changes (n,) of the validation loss by scikit-learn's Newton method, and the
        scores by the product's solver, by the reference's, by conjugate gradients to the end
        without damping, and by the exact inverse of the Hessian in double precision.
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
        DEFAULT: score(trial).influence,
        BY_SGD: score(replace(trial, if_solver=SGD_SOLVER, damping=0.1)).influence,
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

    def product(v: np.ndarray) -> np.ndarray:
        return flattened(predict_influence(adjoint_of, data, by_name(v, target), len(data))[1])

    right = flattened(target)
    hessian = LinearOperator((len(right), len(right)), matvec=product, dtype=np.float64)
    solution, _ = cg(hessian, right, rtol=TOLERANCE, maxiter=MOST_PRODUCTS)
    v = by_name(solution, target)
    influence, image = predict_influence(adjoint_of, data, v, len(data))
    residual = relative_residual(flattened(image), solution, right, 0.0)
    print(f"seed {trial.seed}: conjugate gradients end at a relative residual of {residual:.1e}")
    return influence


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
