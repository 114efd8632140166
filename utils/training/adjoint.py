"""The adjoint of one training step: all |B| influences and the adjoint before it, from one graph.

Equations (5) and (6) of docs/how_it_works.md. With q = u' - p' (u', p' the adjoints of parameters
and velocity after the step)

    S(theta, r, w) = -eta <q, grad_theta L(theta; w)> + <v', r'(theta, r; w)>

is the part of J_t that depends on theta, r and w other than linearly; one double backward gives

    u = u' + dS/dtheta,    v = dS/dr,    p = -mu q,    dJ/dw_i = dS/dw_i.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import lru_cache

import nnabla as nn
import nnabla.functions as F
import numpy as np

from utils.data.images import ImageSet
from utils.kernels.batch_norm import RunningStatistics, weighted_batch_normalization
from utils.kernels.smoothed_relu import smoothed_kinks
from utils.signals import stop_if_asked
from utils.training.evaluation import batches_of, evaluation_batch
from utils.training.gradients import gradient_graph
from utils.training.network import Network
from utils.training.sgd import Optimiser

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Adjoint:
    """Derivatives of the final validation loss by the state, in double precision, by name.

    Attributes:
        u: by the parameters theta.
        v: by the running statistics r.
        p: by the velocity; empty without momentum.
    """

    u: Arrays
    v: Arrays
    p: Arrays = field(default_factory=dict)

    @property
    def length(self) -> float:
        """|u|, the Euclidean norm over all parameters."""
        return math.sqrt(sum(float(np.vdot(array, array)) for array in self.u.values()))


@dataclass(frozen=True)
class _ScoringGraph:
    x: nn.Variable
    y: nn.Variable
    w: nn.Variable
    q: dict[str, nn.Variable]
    v: dict[str, nn.Variable]
    before: dict[str, nn.Variable]
    value: nn.Variable


class StepAdjoint:
    """The scoring graph S of a network, built once per batch size.

    Args:
        network: its current parameters are the theta and r of the step.
        optimiser: its momentum mu and its L2 coefficient.
        test: normalise by running statistics, as influence functions do.
        kink_width: over how much of a ReLU's inputs the curvature of its kink is spread, in
            their root mean squares (`utils.kernels.smoothed_relu`); 0 leaves it out.
    """

    def __init__(
        self, network: Network, optimiser: Optimiser, test: bool = False, kink_width: float = 0.0
    ) -> None:
        self.network = network
        self.optimiser = optimiser
        self.test = test
        self.through_statistics = not test
        self.kink_width = kink_width
        self._graph = lru_cache(maxsize=2)(self._build)

    def __call__(
        self, x: np.ndarray, y: np.ndarray, learning_rate: float, after: Adjoint
    ) -> tuple[np.ndarray, Adjoint]:
        """Pull the adjoint back over one step.

        Args:
            x: (|B|, C, H, W) float32 batch as it was trained on.
            y: (|B|, 1) labels.
            learning_rate: eta_t.
            after: the adjoint of s_{t+1}.

        Returns:
            dJ_t/dw (|B|,) float64 at w = 1, and the adjoint of s_t.
        """
        q = {name: u - after.p.get(name, 0.0) for name, u in after.u.items()}
        direction = {name: -learning_rate * q_k for name, q_k in q.items()}
        by_weight, by_theta, by_statistics = self.derivatives(x, y, direction, after.v)
        u = {name: after.u[name] + g for name, g in by_theta.items()}
        momentum = self.optimiser.momentum
        p = {name: -momentum * q_k for name, q_k in q.items()} if momentum else {}
        return by_weight, Adjoint(u, after.v | by_statistics, p)

    def derivatives(
        self, x: np.ndarray, y: np.ndarray, direction: Arrays, v: Arrays
    ) -> tuple[np.ndarray, Arrays, Arrays]:
        """Derivatives of <direction, grad_theta L(theta; w)> + <v, r'(theta, r; w)> at w = 1.

        Args:
            x: (|B|, C, H, W) float32.
            y: (|B|, 1) labels.
            direction: by parameter name.
            v: by the name of the running statistics; unused with test=True.

        Returns:
            By w (|B|,), by theta (with L alone: the Hessian-vector product) and by r, float64.
        """
        graph = self._graph(len(x))
        graph.x.d, graph.y.d, graph.w.d = x, y, 1.0
        for name, variable in graph.q.items():
            variable.d = direction[name]
        for name, variable in graph.v.items():
            variable.d = v[name]
        for leaf in (graph.w, *graph.before.values(), *self.network.theta.values()):
            leaf.grad.zero()
        graph.value.forward(clear_no_need_grad=True)
        graph.value.backward(clear_buffer=True)
        by_weight = graph.w.g[:, 0].astype(np.float64)
        return by_weight, _gradients(self.network.theta), _gradients(graph.before)

    def batch_normalization(self, w: nn.Variable) -> AbstractContextManager[RunningStatistics]:
        """The BatchNorm of graphs that are built in the block; w: (|B|, 1) example weights."""
        return weighted_batch_normalization(w)

    def _build(self, batch_size: int) -> _ScoringGraph:
        x = nn.Variable((batch_size, *self.network.image_shape))
        y = nn.Variable((batch_size, 1))
        w = nn.Variable((batch_size, 1), need_grad=True)
        with self.batch_normalization(w) as running, smoothed_kinks(self.kink_width):
            losses = cross_entropy(self.network.logits(x, self.test), y)
        q = {name: nn.Variable(p.shape) for name, p in self.network.theta.items()}
        value = self._step_term(F.sum(w * losses) / batch_size, F.sum(w) / batch_size, q)
        after = self._by_name(running.after) if self.through_statistics else {}
        v = {name: nn.Variable(r.shape) for name, r in after.items()}
        value = sum((F.sum(v[name] * r) for name, r in after.items()), value)
        before = self._by_name(running.before) if after else {}
        return _ScoringGraph(x, y, w, q, v, before, value)

    def _step_term(
        self, loss: nn.Variable, mean_weight: nn.Variable, q: dict[str, nn.Variable]
    ) -> nn.Variable:
        """<q, grad_theta (loss + mean(w) lambda/2 |theta|^2)>."""
        theta = self.network.theta
        gradients = dict(zip(theta, gradient_graph(loss, list(theta.values())), strict=True))
        term = sum(F.sum(q[name] * gradient) for name, gradient in gradients.items())
        if self.optimiser.weight_decay:
            inner = sum(F.sum(q[name] * parameter) for name, parameter in theta.items())
            term = term + self.optimiser.weight_decay * mean_weight * inner
        return term

    def _by_name(self, values: dict[nn.Variable, nn.Variable]) -> dict[str, nn.Variable]:
        return {k: values[r] for k, r in self.network.statistics.items() if r in values}


class DampedAdjoint(StepAdjoint):
    """The step of [H]'s published code, which nearly leaves the Hessian out.

        u_t = u_{t+1} - (eta_t / |B_t|) H_t u_{t+1}

    H_t is the Hessian of the batch's MEAN loss, so that its product is divided by the batch size
    once more than in the exact step. The running statistics count as constants.
    """

    def __init__(self, network: Network, optimiser: Optimiser) -> None:
        super().__init__(network, optimiser)
        self.through_statistics = False

    def derivatives(
        self, x: np.ndarray, y: np.ndarray, direction: Arrays, v: Arrays
    ) -> tuple[np.ndarray, Arrays, Arrays]:
        """As the exact one without statistics, the Hessian-vector product divided by |B|."""
        by_weight, by_theta, none = super().derivatives(x, y, direction, v)
        return by_weight, {name: g / len(x) for name, g in by_theta.items()}, none


def flattened(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """All arrays as one vector (P,), in the order of the mapping."""
    return np.concatenate([array.ravel() for array in arrays.values()])


def by_name(vector: np.ndarray, like: Mapping[str, np.ndarray]) -> Arrays:
    """The inverse of `flattened`: arrays with the names and shapes of `like` from a vector (P,)."""
    ends = np.cumsum([array.size for array in like.values()])[:-1]
    parts = zip(like.items(), np.split(vector, ends), strict=True)
    return {name: part.reshape(array.shape) for (name, array), part in parts}


def cross_entropy(logits: nn.Variable, y: nn.Variable) -> nn.Variable:
    """(|B|, 1) losses; nnabla's fused function has no second derivative for a batch of one."""
    labels = F.one_hot(y, (logits.shape[1],))
    return -F.sum(labels * F.log_softmax(logits), axis=1, keepdims=True)


def _gradients(variables: Mapping[str, nn.Variable]) -> Arrays:
    return {name: variable.g.astype(np.float64) for name, variable in variables.items()}


@dataclass(frozen=True)
class _EvaluationGraph:
    x: nn.Variable
    y: nn.Variable
    loss_sum: nn.Variable
    running: RunningStatistics


def loss_gradient(network: Network, data: ImageSet) -> Adjoint:
    """(u_T, v_T) = d L / d(theta, r) of the mean loss L over `data` at the network's state.

    The network normalises by its running statistics, as it does when it is evaluated.
    """
    build = lru_cache(maxsize=2)(lambda size: _evaluation_loss(network, size))
    u = {name: np.zeros(p.shape) for name, p in network.theta.items()}
    v = {name: np.zeros(r.shape) for name, r in network.statistics.items()}
    for rows in batches_of(len(data), evaluation_batch(network.image_shape)):
        stop_if_asked()
        graph = build(rows.stop - rows.start)
        before = graph.running.before
        leaves = {k: before[r] for k, r in network.statistics.items() if r in before}
        _backward(graph, data, rows, [*network.theta.values(), *leaves.values()])
        for total, variables in ((u, network.theta), (v, leaves)):
            for name, variable in variables.items():
                total[name] += variable.g / len(data)
    return Adjoint(u, v)


def _evaluation_loss(network: Network, batch_size: int) -> _EvaluationGraph:
    x = nn.Variable((batch_size, *network.image_shape))
    y = nn.Variable((batch_size, 1))
    with weighted_batch_normalization(nn.Variable((batch_size, 1))) as running:
        losses = F.softmax_cross_entropy(network.logits(x, test=True), y)
    return _EvaluationGraph(x, y, F.sum(losses), running)


def _backward(
    graph: _EvaluationGraph, data: ImageSet, rows: slice, leaves: list[nn.Variable]
) -> None:
    for leaf in leaves:
        leaf.grad.zero()
    graph.x.d, graph.y.d = data.batch(rows), data.labels[rows, None]
    graph.loss_sum.forward(clear_no_need_grad=True)
    graph.loss_sum.backward(clear_buffer=True)
