"""Products with the Gauss-Newton matrix, equation (10) of docs/how_it_works.md, and the solvers."""

from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest

from influence_functions import gauss_newton
from influence_functions.gauss_newton import GaussNewton
from influence_functions.infl import predict_influence
from influence_functions.solvers import (
    Descent,
    conjugate_gradients,
    descend,
    largest_eigenvalue,
)
from tests.helpers.numbers import SINGLE, assert_close
from tests.helpers.tiny import digit_images, smooth_net
from utils.data.images import ImageSet, normalise
from utils.training.adjoint import Arrays, StepAdjoint, flattened
from utils.training.evaluation import softmax
from utils.training.network import Network
from utils.training.sgd import SGD, Optimiser
from utils.training.steps import Step

CENTRAL_DIFFERENCE = 1e-3
"""Relative error of a vector of central differences in float32."""
N = 9
DECAY = 0.1


def kinked_net(x: nn.Variable, n_classes: int, test: bool) -> nn.Variable:
    """BatchNorm, ReLU and max pooling, small enough for its whole Jacobian."""
    h = PF.convolution(x, 4, (3, 3), pad=(1, 1), name="conv")
    h = F.max_pooling(F.relu(PF.batch_normalization(h, batch_stat=not test)), (4, 4))
    h = F.relu(PF.batch_normalization(PF.affine(h, 5, name="hidden"), batch_stat=not test,
                                      name="bn2"))  # fmt: skip
    return PF.affine(h, n_classes)


@pytest.fixture(autouse=True)
def batches_of_4(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the last batch, of one image, is an odd one."""
    monkeypatch.setattr(gauss_newton, "BATCH", 4)


def trained(model, conv: str = "fast") -> tuple[Network, ImageSet, Arrays]:
    """A net whose running statistics are those of images, its images, and a direction."""
    network, data = Network(model, (1, 8, 8), 10, seed=3, conv=conv), digit_images(0, N)
    sgd = SGD(network, Optimiser(augmented=False))
    for _ in range(5):
        sgd.step(data, Step(0, np.arange(N), np.zeros(N, np.uint64), 0.1))
    rng = np.random.default_rng(0)
    return network, data, {k: rng.standard_normal(p.shape) for k, p in network.theta.items()}


def logits_of(network: Network, data: ImageSet) -> nn.Variable:
    return network.logits(nn.Variable.from_numpy_array(normalise(data.images)), test=True)


def pulled_back(network: Network, logits: nn.Variable, a: np.ndarray) -> np.ndarray:
    """J^T a (P,), by nnabla's plain backward."""
    for parameter in network.theta.values():
        parameter.grad.zero()
    logits.forward()
    logits.backward(nn.NdArray.from_numpy_array(a))
    return flattened({k: p.g.astype(np.float64) for k, p in network.theta.items()})


# ------------------------------------------------------ the matrix


def test_product_equals_central_differences_on_a_smooth_net() -> None:
    """G v = J^T dp/n, dp the change of the probabilities along v."""
    network, data, v = trained(smooth_net)
    product = flattened(GaussNewton(network).product(data, v))

    state, logits, along = network.state(), logits_of(network, data), []
    for step in (1e-3, -1e-3):
        network.load({k: a + step * v[k] if k in v else a for k, a in state.items()})
        logits.forward()
        along.append(softmax(logits.d.astype(np.float64)))
    network.load(state)
    change = (along[0] - along[1]) / 2e-3
    assert_close(product, pulled_back(network, logits, change / N), CENTRAL_DIFFERENCE)


@pytest.mark.parametrize("conv", ["fast", "nnabla"])
def test_product_equals_the_explicit_matrix_where_there_are_kinks(conv: str) -> None:
    network, data, v = trained(kinked_net, conv)
    logits = logits_of(network, data)
    units = np.eye(logits.size).reshape(-1, *logits.shape)
    jacobian = np.stack([pulled_back(network, logits, unit) for unit in units])
    p = softmax(logits.d.astype(np.float64))
    expected = DECAY * flattened(v)
    for i in range(N):
        rows = jacobian[10 * i : 10 * i + 10]
        curvature = np.diag(p[i]) - np.outer(p[i], p[i])
        expected += rows.T @ curvature @ rows @ flattened(v) / N

    product = GaussNewton(network, DECAY).product(data, v)

    assert_close(flattened(product), expected, SINGLE)


@pytest.mark.parametrize("model", [smooth_net, kinked_net])
def test_influence_equals_the_product_of_gradients(model) -> None:
    network, data, v = trained(model)
    adjoint_of = StepAdjoint(network, Optimiser(weight_decay=DECAY), test=True)
    expected, _ = predict_influence(adjoint_of, data, v)
    assert_close(GaussNewton(network, DECAY).influence(data, v), expected, SINGLE)


def test_products_leave_the_net_as_it_was() -> None:
    """Its parameters and statistics, and that it can be trained on."""
    network, data, v = trained(kinked_net)
    sgd, before = SGD(network, Optimiser(augmented=False)), network.state()
    GaussNewton(network).product(data, v)
    assert all(np.array_equal(network.state()[name], array) for name, array in before.items())
    sgd.step(data, Step(0, np.arange(N), np.zeros(N, np.uint64), 0.1))
    assert all(not np.array_equal(network.state()[k], before[k]) for k in network.theta)


# ------------------------------------------------------ conjugate gradients


def positive(n: int = 30, rank: int = 20, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A positive semi-definite matrix (n, n) of eigenvalues from 1e-3 to 10, and a vector (n,)."""
    rng = np.random.default_rng(seed)
    base = np.linalg.qr(rng.standard_normal((n, n)))[0][:, :rank]
    return (base * np.geomspace(1e-3, 10, rank)) @ base.T, rng.standard_normal(n)


def residual_of(matrix: np.ndarray, v: np.ndarray, g: np.ndarray, damping: float) -> float:
    return float(np.linalg.norm(matrix @ v + damping * v - g) / np.linalg.norm(g))


def test_conjugate_gradients_equal_a_dense_solve() -> None:
    matrix, g = positive()
    solution = conjugate_gradients(matrix.__matmul__, g, 0.01, 1e-10, range(1, 101))
    assert_close(solution.v, np.linalg.solve(matrix + 0.01 * np.eye(30), g), 1e-8)
    assert solution.residual <= 1e-10
    assert solution.n_products <= 40


def test_conjugate_gradients_stop_at_the_tolerance() -> None:
    matrix, g = positive()
    solution = conjugate_gradients(matrix.__matmul__, g, 0.01, 0.01, range(1, 101))
    assert solution.residual == pytest.approx(residual_of(matrix, solution.v, g, 0.01))
    assert solution.residual <= 0.01
    before = conjugate_gradients(matrix.__matmul__, g, 0.01, 0.01, range(1, solution.n_products))
    assert before.residual > 0.01


def test_the_iterate_with_the_smallest_residual_is_given() -> None:
    """The residual of conjugate gradients rises now and then."""
    matrix, g = positive()
    found = [
        conjugate_gradients(matrix.__matmul__, g, 1e-6, 1e-12, range(1, k + 1))
        for k in range(1, 16)
    ]
    residuals = [residual_of(matrix, solution.v, g, 1e-6) for solution in found]
    assert [solution.residual for solution in found] == pytest.approx(residuals)
    assert residuals == sorted(residuals, reverse=True)
    assert len(set(residuals)) < len(residuals), "it never rose"
    assert [solution.n_products for solution in found] == list(range(1, 16))


def test_equations_without_content() -> None:
    g = np.ones(4)
    nothing = conjugate_gradients(np.zeros((4, 4)).__matmul__, 0 * g, 0.1, 0.01, range(1, 9))
    assert (nothing.v == 0).all() and nothing.residual == 0
    flat = conjugate_gradients(np.zeros((4, 4)).__matmul__, g, 0.1, 0.01, range(1, 9))
    assert flat.v == pytest.approx(10 * g)
    singular = conjugate_gradients(np.zeros((4, 4)).__matmul__, g, 0.0, 0.01, range(1, 9))
    assert np.isfinite(singular.v).all()
    assert largest_eigenvalue(np.zeros((4, 4)).__matmul__, g, 5) == 0


def test_largest_eigenvalue() -> None:
    matrix, g = positive()
    assert largest_eigenvalue(matrix.__matmul__, g, 60) == pytest.approx(10)
    assert 1 < largest_eigenvalue(matrix.__matmul__, g, 3) <= 10


# ------------------------------------------------------ [H]'s SGD


def test_descent_that_diverges_keeps_its_way() -> None:
    """Iterates of 1, 2, 4, ... steps, all finite, from where it still was better than zero."""
    matrix, g = positive()
    solver = Descent(damping=0.1, learning_rate=30.0, batch_size=5)
    *way, end = descend(lambda rows, v: matrix @ v, 30, g, solver, 0, range(12))
    assert residual_of(matrix, end, g, 0.1) > 10
    assert all(np.isfinite(v).all() for v in way)
    calm = Descent(damping=0.1, learning_rate=1e-3, batch_size=5)
    *way, _ = descend(lambda rows, v: matrix @ v, 30, g, calm, 0, range(12))
    assert len(way) == 4
    assert residual_of(matrix, way[0], g, 0.1) < 1
