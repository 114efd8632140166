"""The scores, equations (1)-(9) of docs/how_it_works.md, against loops, differences, retraining."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import nnabla as nn
import nnabla.functions as F
import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks.recorded import Recorded
from influence_functions.infl import predict_influence, score, solve
from influence_functions.solvers import Descent
from tests.helpers.numbers import SINGLE, assert_close
from tests.helpers.tiny import dense_net, digit_images, logistic_regression, smooth_net
from tests.helpers.users_models import without_bias_and_scale
from utils.data.images import ImageSet
from utils.kernels.batch_norm import weighted_batch_normalization
from utils.training.adjoint import (
    Adjoint,
    Arrays,
    DampedAdjoint,
    StepAdjoint,
    loss_gradient,
)
from utils.training.evaluation import Evaluator
from utils.training.models import Model
from utils.training.network import Network
from utils.training.sgd import SGD, Optimiser, step_batch
from utils.training.steps import Step, plan_steps

CENTRAL_DIFFERENCE = 1e-3
"""Relative error of a vector of central differences in float32."""
RANK_CORRELATION = 0.95
"""Least Spearman correlation with true leave-one-out on smooth convex problems."""

OPTIMISERS = {
    "plain": Optimiser(),
    "momentum": Optimiser(momentum=0.9),
    "L2": Optimiser(weight_decay=0.1),
    "momentum and L2": Optimiser(momentum=0.9, weight_decay=0.1),
}


# ------------------------------------------------------ a. one graph against naive loops


@pytest.mark.parametrize("optimiser", [Optimiser(), Optimiser(weight_decay=0.1)], ids=str)
@pytest.mark.parametrize(
    ("model", "test"), [(dense_net, False), (smooth_net, True)], ids=["no BatchNorm", "test mode"]
)
def test_step_equals_naive_loops(model, test, optimiser):
    """[H]: I_i = (eta/|B|) <u, grad loss_i> and u = u' - eta H u', example by example and
    column by column of the Hessian."""
    data, rate = digit_images(0, 7), 0.3
    network = Network(model, (1, 8, 8), 10, seed=3)
    rng = np.random.default_rng(0)
    after = {name: rng.standard_normal(p.shape) for name, p in network.theta.items()}
    x, y = step_batch(data, Step(0, np.arange(7), np.zeros(7, np.uint64), rate), augmented=False)

    by_weight, before = StepAdjoint(network, optimiser, test)(
        x, y, rate, Adjoint(after, {k: np.zeros(r.shape) for k, r in network.statistics.items()})
    )

    gradients = [_gradient(network, x[i : i + 1], y[i : i + 1], test) for i in range(7)]
    decay = optimiser.weight_decay * _flat({name: p.d for name, p in network.theta.items()})
    influence = np.array([rate / 7 * _flat(after) @ (g + decay) for g in gradients])
    assert_close(-by_weight, influence, SINGLE)
    hessian = _hessian(network, x, y, test)
    hessian += optimiser.weight_decay * np.eye(len(hessian))
    assert_close(_flat(before.u), _flat(after) - rate * hessian @ _flat(after), SINGLE)


def test_damped_step_equals_naive_loops():
    """[H]'s code: I_i = (eta/|B|) <u, grad loss_i> and u = u' - (eta/|B|) H u', H of the mean."""
    data, rate = digit_images(0, 7), 0.3
    network = Network(dense_net, (1, 8, 8), 10, seed=3)
    rng = np.random.default_rng(0)
    after = {name: rng.standard_normal(p.shape) for name, p in network.theta.items()}
    x, y = step_batch(data, Step(0, np.arange(7), np.zeros(7, np.uint64), rate), augmented=False)

    by_weight, before = DampedAdjoint(network, Optimiser())(x, y, rate, Adjoint(after, {}))

    gradients = [_gradient(network, x[i : i + 1], y[i : i + 1], False) for i in range(7)]
    assert_close(-by_weight, np.array([rate / 7 * _flat(after) @ g for g in gradients]), SINGLE)
    hessian = _hessian(network, x, y, False)
    assert_close(_flat(before.u), _flat(after) - rate / 7 * hessian @ _flat(after), SINGLE)


def test_damped_sweep_takes_running_statistics_for_constants():
    """In a net with BatchNorm their adjoint v neither changes nor adds anything."""
    network, data = Network(smooth_net, (1, 8, 8), 10, seed=3), digit_images(0, 9)
    after = loss_gradient(network, digit_images(100, 130))
    x, y = step_batch(data, Step(0, np.arange(9), np.zeros(9, np.uint64), 0.1), augmented=False)
    damped = DampedAdjoint(network, Optimiser())
    by_weight, before = damped(x, y, 0.1, after)
    without = damped(x, y, 0.1, Adjoint(after.u, {name: 0 * a for name, a in after.v.items()}))
    assert np.array_equal(by_weight, without[0])
    assert all(np.array_equal(before.v[name], array) for name, array in after.v.items())


def _flat(arrays) -> np.ndarray:
    return np.concatenate([np.ravel(a).astype(np.float64) for a in arrays.values()])


def _gradient(network: Network, x: np.ndarray, y: np.ndarray, test: bool) -> np.ndarray:
    """Gradient of the mean loss by all parameters (P,)."""
    loss = _loss(network, x, y, test)
    for p in network.theta.values():
        p.grad.zero()
    loss.forward()
    loss.backward()
    return _flat({name: p.g.copy() for name, p in network.theta.items()})


def _hessian(network: Network, x: np.ndarray, y: np.ndarray, test: bool) -> np.ndarray:
    """The Hessian (P, P) of the mean loss, a column at a time."""
    theta = list(network.theta.values())
    with weighted_batch_normalization(nn.Variable.from_numpy_array(np.ones((len(x), 1)))):
        loss = _loss(network, x, y, test)
    gradients = [F.reshape(g, (-1,), inplace=False) for g in nn.grad([loss], theta)]
    gradient = F.concatenate(*gradients, axis=0)
    column_of = nn.Variable(gradient.shape)
    entry = F.sum(gradient * column_of)
    columns = []
    for unit in np.eye(gradient.size):
        column_of.d = unit
        for p in theta:
            p.grad.zero()
        entry.forward()
        entry.backward()
        columns.append(_flat({i: p.g for i, p in enumerate(theta)}))
    return np.stack(columns, axis=1)


def _loss(network: Network, x: np.ndarray, y: np.ndarray, test: bool) -> nn.Variable:
    logits = network.logits(nn.Variable.from_numpy_array(x), test)
    return F.mean(F.softmax_cross_entropy(logits, nn.Variable.from_numpy_array(y)))


# ------------------------------------------------------ b. the sweep against central differences


@pytest.mark.parametrize("covered", ["last epoch", "all epochs"])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_sweep_equals_central_differences(name, covered):
    """The influences of a recorded training with BatchNorm, augmentation and a short last batch
    equal central differences of the final validation loss in w_i."""
    steps = plan_steps(seed=1, n_train=42, n_epochs=2, batch_size=16, learning_rate=0.1)
    start = 3 if covered == "last epoch" else 0
    error = error_of_sweep(smooth_net, steps, OPTIMISERS[name], start, range(0, 42, 4))
    assert error < CENTRAL_DIFFERENCE


def with_a_frozen_parameter(x: nn.Variable, n_classes: int, test: bool) -> nn.Variable:
    two = np.full((1, 1, 1, 1), 2.0)
    scale = nn.parameter.get_parameter_or_create("scale", two.shape, two, need_grad=False)
    return smooth_net(scale * x, n_classes, test)


def test_sweep_of_a_net_with_a_frozen_parameter() -> None:
    """Which is no running statistic, though it is not trained."""
    steps = plan_steps(seed=1, n_train=24, n_epochs=1, batch_size=16, learning_rate=0.1)
    error = error_of_sweep(with_a_frozen_parameter, steps, Optimiser(), 0, range(0, 24, 4))
    assert error < CENTRAL_DIFFERENCE


def test_sweep_of_batch_normalization_without_bias_or_scale() -> None:
    steps = plan_steps(seed=1, n_train=24, n_epochs=1, batch_size=16, learning_rate=0.1)
    error = error_of_sweep(without_bias_and_scale, steps, Optimiser(), 0, range(0, 24, 4))
    assert error < CENTRAL_DIFFERENCE


def error_of_sweep(
    model: Model, steps: list[Step], optimiser: Optimiser, start: int, images: range
) -> float:
    """Relative error of the vector of influences of `images`, covering the steps from `start`."""
    n_train = 1 + max(step.indices.max() for step in steps)
    data, validation = digit_images(0, n_train), digit_images(100, 160)
    recorded = Recorded(Network(model, (1, 8, 8), 10, seed=1), data, steps, optimiser)

    influence = recorded.influence(validation, start)

    wide = _central_differences(recorded, start, validation, images, h=0.1)
    narrow = _central_differences(recorded, start, validation, images, h=0.05)
    truth = (4 * narrow - wide) / 3  # without the error of order h^2
    return float(np.linalg.norm(influence[images] - truth) / np.linalg.norm(truth))


def _central_differences(
    recorded: Recorded, start: int, validation: ImageSet, images: range, h: float
) -> np.ndarray:
    """-dL_val/dw_i for some images, by repeating the weighted training from step `start` on."""
    trainer = WeightedTraining(recorded)
    evaluate = Evaluator(recorded.sgd.network)
    values = []
    for i in images:
        losses = []
        for change in (h, -h):
            weights = np.ones(len(recorded.data))
            weights[i] += change
            trainer.run(start, weights)
            losses.append(evaluate(validation).loss)
        values.append(-(losses[0] - losses[1]) / (2 * h))
    return np.array(values)


class WeightedTraining:
    """Equations (2) and (3) of docs/how_it_works.md for any example weights, written naively."""

    def __init__(self, recorded: Recorded) -> None:
        self.recorded = recorded
        self.network = recorded.sgd.network
        self.graphs = {size: self._build(size) for size in {len(s.indices) for s in recorded.steps}}

    def _build(self, size: int):
        x, y, w = nn.Variable((size, 1, 8, 8)), nn.Variable((size, 1)), nn.Variable((size, 1))
        with weighted_batch_normalization(w) as running:
            losses = F.softmax_cross_entropy(self.network.logits(x, test=False), y)
        loss = F.sum(w * losses) / size
        for variable in (loss, *running.after.values()):
            variable.persistent = True
        return x, y, w, loss, running

    def run(self, start: int, weights: np.ndarray) -> None:
        """Leave the network at the state after the last step."""
        self.network.load(self.recorded.states[start])
        velocity = {
            name: self.recorded.states[start].get(f"velocity/{name}", np.zeros(p.shape)).copy()
            for name, p in self.network.theta.items()
        }
        for step in self.recorded.steps[start:]:
            self._step(step, weights[step.indices], velocity)

    def _step(self, step: Step, weights: np.ndarray, velocity: dict[str, np.ndarray]) -> None:
        x, y, w, loss, running = self.graphs[len(step.indices)]
        x.d, y.d = step_batch(self.recorded.data, step)
        w.d = weights[:, None]
        for p in self.network.theta.values():
            p.grad.zero()
        nn.forward_all([loss, *running.after.values()])
        loss.backward()
        optimiser = self.recorded.optimiser
        for name, p in self.network.theta.items():
            gradient = p.g + optimiser.weight_decay * weights.mean() * p.d
            velocity[name] = optimiser.momentum * velocity[name] + step.learning_rate * gradient
            p.d = p.d - velocity[name]
        for r, after in running.after.items():
            r.d = after.d


# ------------------------------------------------------ c. convex problems against retraining


def test_hara_equals_leave_one_out_on_logistic_regression():
    data, validation = digit_images(0, 60, classes=(3, 8)), digit_images(60, 200, classes=(3, 8))
    steps = plan_steps(seed=2, n_train=60, n_epochs=3, batch_size=8, learning_rate=0.05)
    optimiser = Optimiser(weight_decay=0.05, augmented=False)
    network = Network(logistic_regression, (1, 8, 8), 2, seed=2)
    recorded = Recorded(network, data, steps, optimiser)

    influence = recorded.influence(validation)

    base = recorded.loss_without(np.zeros(60, bool), validation)
    truth = [recorded.loss_without(np.arange(60) == i, validation) - base for i in range(60)]
    assert spearmanr(influence, truth).statistic >= RANK_CORRELATION


@pytest.mark.parametrize("solver", ["gauss_newton", "sgd"])
def test_influence_functions_equal_leave_one_out_at_convergence(solver):
    n = 40
    data, validation = digit_images(0, n, classes=(3, 8)), digit_images(60, 200, classes=(3, 8))
    network = Network(logistic_regression, (1, 8, 8), 2, seed=2)
    optimiser = Optimiser(momentum=0.9, weight_decay=0.1, augmented=False)
    whole_batch = Step(0, np.arange(n), np.zeros(n, np.uint64), 0.01)
    recorded = Recorded(network, data, [whole_batch] * 1500, optimiser)

    final = recorded.validation_gradient(validation)
    by_solver = {"gauss_newton": _by_gauss_newton, "sgd": _by_sgd}[solver]
    influence = by_solver(network, data, validation, final.u)

    truth = _leave_one_out_at_convergence(recorded, validation, n_steps=300)
    assert spearmanr(influence, truth).statistic >= RANK_CORRELATION


def _by_gauss_newton(
    network: Network, data: ImageSet, validation: ImageSet, target: Arrays
) -> np.ndarray:
    """By the product's defaults, which leave the damping out at an optimum."""
    trial: Any = SimpleNamespace(
        seed=0, network=network, data=SimpleNamespace(training=data, validation=validation),
        optimiser=Optimiser(weight_decay=0.1), if_solver="gauss_newton", damping=None,
        n_train=len(data),
    )  # fmt: skip
    scores = score(trial)
    assert scores.solved is not None
    assert scores.solved.reached
    assert scores.solved.damping < 1e-3
    return scores.influence


def _by_sgd(network: Network, data: ImageSet, validation: ImageSet, target: Arrays) -> np.ndarray:
    adjoint_of = StepAdjoint(network, Optimiser(weight_decay=0.1), test=True)
    exact = Descent(damping=0.0, learning_rate=0.01, n_passes=600, batch_size=len(data))
    v = solve(adjoint_of, data, target, exact, seed=0)[-1]
    return predict_influence(adjoint_of, data, v)[0]


def _leave_one_out_at_convergence(
    recorded: Recorded, validation: ImageSet, n_steps: int
) -> list[float]:
    sgd, evaluate, losses = recorded.sgd, Evaluator(recorded.sgd.network), []
    for i in range(-1, len(recorded.data)):  # -1: nothing removed
        sgd.load(recorded.final)
        for _ in range(n_steps):
            sgd.step(recorded.data, recorded.steps[0], np.arange(len(recorded.data)) == i)
        losses.append(evaluate(validation).loss)
    return [loss - losses[0] for loss in losses[1:]]


# ------------------------------------------------------ d. BatchNorm from primitives


@pytest.mark.parametrize("shape", [(6, 3, 4, 5), (6, 3)], ids=["maps", "vectors"])
@pytest.mark.parametrize("batch_stat", [True, False], ids=["training", "test"])
def test_weighted_batch_normalization_equals_fused_one(shape, batch_stat):
    """At w = 1: value, gradients and running statistics (of unbiased variance)."""
    fused = _normalised(shape, batch_stat, weighted=False)
    weighted = _normalised(shape, batch_stat, weighted=True)
    for actual, expected in zip(weighted, fused, strict=True):
        assert_close(actual, expected, SINGLE)


def _normalised(shape, batch_stat: bool, weighted: bool) -> list[np.ndarray]:
    """Output, gradients of x, beta, gamma, and running mean and variance after the batch."""
    rng = np.random.default_rng(5)
    one = (1, 3, *[1] * (len(shape) - 2))
    x, beta, gamma = (
        nn.Variable.from_numpy_array(rng.standard_normal(s)).apply(need_grad=True)
        for s in (shape, one, one)
    )
    mean = nn.Variable.from_numpy_array(rng.standard_normal(one)).apply(need_grad=False)
    variance = nn.Variable.from_numpy_array(rng.uniform(0.5, 2, one)).apply(need_grad=False)
    arguments = (x, beta, gamma, mean, variance, [1], 0.9, 1e-5, batch_stat)
    if weighted:
        with weighted_batch_normalization(
            nn.Variable.from_numpy_array(np.ones((shape[0], 1)))
        ) as running:
            y = F.batch_normalization(*arguments)
        after = [running.after.get(r, r) for r in (mean, variance)]
    else:
        y, after = F.batch_normalization(*arguments), [mean, variance]
    for variable in (x, beta, gamma):
        variable.grad.zero()
    nn.forward_all([y, *[r for r in after if r.parent]])
    statistics = [r.d.copy() for r in after]
    y.backward(rng.standard_normal(shape).astype(np.float32))
    return [y.d, x.g, beta.g, gamma.g, *statistics]


def test_weight_zero_equals_removal():
    """One step with w_i = 0 in the weighted training equals the step without i."""
    data = digit_images(0, 12)
    step = plan_steps(seed=0, n_train=12, n_epochs=1, batch_size=12, learning_rate=0.1)[0]
    network = Network(smooth_net, (1, 8, 8), 10, seed=1)
    recorded = Recorded(network, data, [step], Optimiser(weight_decay=0.1))
    removed = np.isin(np.arange(12), [2, 5])

    WeightedTraining(recorded).run(0, np.where(removed, 0.0, 1.0))
    weighted = network.state()
    sgd = SGD(network, recorded.optimiser)
    sgd.load(recorded.states[0])
    sgd.step(data, step, removed)
    assert_close(_flat(weighted), _flat(network.state()), SINGLE)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_replayed_steps_are_byte_equal(name):
    data = digit_images(0, 42)
    steps = plan_steps(seed=4, n_train=42, n_epochs=2, batch_size=16, learning_rate=0.1)
    recorded = Recorded(Network(smooth_net, (1, 8, 8), 10, seed=4), data, steps, OPTIMISERS[name])
    replayed = SGD(Network(smooth_net, (1, 8, 8), 10, seed=5), OPTIMISERS[name])
    replayed.load(recorded.states[2])
    for step in steps[2:]:
        replayed.step(data, step)
    state = replayed.state()
    assert state.keys() == recorded.final.keys()
    assert all(state[key].tobytes() == value.tobytes() for key, value in recorded.final.items())
