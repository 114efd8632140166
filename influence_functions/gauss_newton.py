"""Products with the Gauss-Newton matrix of the mean training loss, equation (10) of how_it_works.

    G = (1/n) sum_i J_i^T (diag(p_i) - p_i p_i^T) J_i + lambda I

J_i (K, P) is the derivative of the logits of image i, p_i are its probabilities, and the matrix in
the middle is the Hessian of softmax cross-entropy by the logits. J q needs no forward mode:
<q, J^T a> is linear in `a`, so its gradient by `a` is J q.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import nnabla as nn
import nnabla.functions as F
import numpy as np

from utils.data.images import ImageSet, normalise
from utils.kernels.batch_norm import weighted_batch_normalization
from utils.signals import stop_if_asked
from utils.training.adjoint import Arrays
from utils.training.evaluation import batches_of, softmax
from utils.training.gradients import gradient_graph
from utils.training.network import Network

BATCH = 64
"""Images at a time; it does not change results, as BatchNorm uses running statistics."""


@dataclass(frozen=True)
class _TangentGraph:
    x: nn.Variable
    a: nn.Variable
    q: dict[str, nn.Variable]
    value: nn.Variable
    logits: nn.Variable


@dataclass(frozen=True)
class _LogitsGraph:
    x: nn.Variable
    logits: nn.Variable


class GaussNewton:
    """G at the network's state, BatchNorm by its running statistics, images not augmented.

    Args:
        network: G is taken at its current parameters.
        weight_decay: lambda of the L2 term.
    """

    def __init__(self, network: Network, weight_decay: float = 0.0) -> None:
        self.network = network
        self.weight_decay = weight_decay
        self._tangent_graph = lru_cache(maxsize=2)(self._build_tangent)
        self._logits_graph = lru_cache(maxsize=2)(self._build_logits)

    def product(self, data: ImageSet, v: Arrays) -> Arrays:
        """G v by parameter name, float64; G is of the mean loss over `data`."""
        total = {name: self.weight_decay * array for name, array in v.items()}
        for rows in batches_of(len(data), BATCH):
            stop_if_asked()
            x = normalise(data.images[rows])
            logits, tangent = self._along(x, v)
            pulled = self._pull_back(x, loss_curvature(logits, tangent) / len(data))
            for name, part in pulled.items():
                total[name] += part
        return total

    def influence(self, data: ImageSet, v: Arrays) -> np.ndarray:
        """I_i = <v, grad loss_i> / n (n,) float64, the L2 term included."""
        theta = self.network.theta
        decay = self.weight_decay * sum(float(np.vdot(v[k], p.d)) for k, p in theta.items())
        parts = []
        for rows in batches_of(len(data), BATCH):
            stop_if_asked()
            logits, tangent = self._along(normalise(data.images[rows]), v)
            own = np.arange(logits.shape[1]) == data.labels[rows, None]
            parts.append(((softmax(logits) - own) * tangent).sum(axis=1))
        return (np.concatenate(parts) + decay) / len(data)

    def _along(self, x: np.ndarray, v: Arrays) -> tuple[np.ndarray, np.ndarray]:
        """Logits of x (|B|, C, H, W) and their derivative J v along v, (|B|, K) float64 each."""
        graph = self._tangent_graph(len(x))
        graph.x.d, graph.a.d = x, 0.0
        for name, variable in graph.q.items():
            variable.d = v[name]
        graph.a.grad.zero()
        with _constant(self.network.theta):
            graph.value.forward()
            graph.value.backward(clear_buffer=True)
        return graph.logits.d.astype(np.float64), graph.a.g.astype(np.float64)

    def _pull_back(self, x: np.ndarray, a: np.ndarray) -> Arrays:
        """J^T a by parameter name, of a (|B|, K)."""
        graph, theta = self._logits_graph(len(x)), self.network.theta
        graph.x.d = x
        for parameter in theta.values():
            parameter.grad.zero()
        graph.logits.forward(clear_no_need_grad=True)
        graph.logits.backward(nn.NdArray.from_numpy_array(a), clear_buffer=True)
        return {name: parameter.g.astype(np.float64) for name, parameter in theta.items()}

    def _build_tangent(self, batch_size: int) -> _TangentGraph:
        """The graph of <q, J^T a>, of which only `a` has a gradient.

        The variables of the net are marked as constants; otherwise `backward` would also compute
        second derivatives of the net, which are not used.
        """
        x, logits = self._logits_of(batch_size)
        a = nn.Variable(logits.shape, need_grad=True)
        theta = self.network.theta
        q = {name: nn.Variable(p.shape) for name, p in theta.items()}
        gradients = gradient_graph(F.sum(logits * a), list(theta.values()))
        value = sum(F.sum(q[k] * g) for k, g in zip(theta, gradients, strict=True))
        logits.visit(_hold_outputs)
        logits.persistent = True
        return _TangentGraph(x, a, q, value, logits)

    def _build_logits(self, batch_size: int) -> _LogitsGraph:
        return _LogitsGraph(*self._logits_of(batch_size))

    def _logits_of(self, batch_size: int) -> tuple[nn.Variable, nn.Variable]:
        x = nn.Variable((batch_size, *self.network.image_shape))
        with weighted_batch_normalization(nn.Variable((batch_size, 1))):
            return x, self.network.logits(x, test=True)


def loss_curvature(logits: np.ndarray, tangent: np.ndarray) -> np.ndarray:
    """(diag(p) - p p^T) t for each row of logits (N, K) and tangents t (N, K)."""
    p = softmax(logits)
    return p * (tangent - (p * tangent).sum(axis=1, keepdims=True))


def _hold_outputs(function: nn.function.Function) -> None:
    for output in function.outputs:
        output.need_grad = False


@contextmanager
def _constant(parameters: Mapping[str, nn.Variable]) -> Iterator[None]:
    """Compute no gradients of these parameters."""
    for parameter in parameters.values():
        parameter.need_grad = False
    try:
        yield
    finally:
        for parameter in parameters.values():
            parameter.need_grad = True
