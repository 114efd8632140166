"""SGD as a chain of states: equations (2) and (3) of docs/how_it_works.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import nnabla as nn
import nnabla.functions as F
import nnabla.solvers as S
import numpy as np

from utils.data.images import ImageSet
from utils.kernels.batch_norm import weighted_batch_normalization
from utils.training.network import Network, State
from utils.training.steps import Step

VELOCITY = "velocity/"
GRAPHS = 64
"""Graphs that are kept, a retraining's batches being of many sizes; a kept one takes 1 or 2 MB."""


@dataclass(frozen=True)
class Optimiser:
    """What a step needs besides its batch.

    Attributes:
        momentum: mu of m' = mu m + eta g, theta' = theta - m'; 0 is plain SGD without velocity.
        weight_decay: lambda of the L2 term lambda/2 |theta|^2 that belongs to each example's loss.
        augmented: crop and flip the training images by their recorded seeds.
    """

    momentum: float = 0.0
    weight_decay: float = 0.0
    augmented: bool = True


@dataclass(frozen=True)
class _StepGraph:
    """A step's forward pass.

    Attributes:
        x: images (|B|, C, H, W).
        y: labels (|B|, 1).
        logits: (|B|, K).
        loss_sum: the sum of the losses, weighted by w.
        w: the weights of the examples (|B|, 1); None where each counts once.
        after: by running statistic, its value after the step; empty without w, where the forward
            pass itself updates them.
    """

    x: nn.Variable
    y: nn.Variable
    logits: nn.Variable
    loss_sum: nn.Variable
    w: nn.Variable | None = None
    after: Mapping[nn.Variable, nn.Variable] = field(default_factory=dict)


class SGD:
    """Takes training steps on a network, and repeats recorded ones exactly.

    Attributes:
        logits: of the examples of the last batch (|B|, K), before the step was taken.
    """

    def __init__(self, network: Network, optimiser: Optimiser) -> None:
        self.network = network
        self.optimiser = optimiser
        self.logits = np.empty((0, network.n_classes), np.float32)
        self._graph = lru_cache(GRAPHS)(self._build)
        self._weighted_graph = lru_cache(maxsize=2)(self._build_weighted)  # whole and last batch
        self._solver = S.Momentum(1.0, optimiser.momentum) if optimiser.momentum else S.Sgd(1.0)
        self._solver.set_parameters(network.theta)

    def state(self) -> State:
        """A copy of s_t: parameters, running statistics, velocity."""
        return self.network.state() | {k: v.d.copy() for k, v in self._velocity().items()}

    @property
    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array of a state, by name."""
        return {name: array.shape for name, array in self.state().items()}

    def load(self, state: State) -> None:
        """Set s_t; a state without velocity starts it at zero."""
        self.network.load(state)
        for name, velocity in self._velocity().items():
            velocity.d = state.get(name, 0.0)

    def step(self, data: ImageSet, step: Step, removed: np.ndarray | None = None) -> float:
        """Take one recorded step, optionally without the images of the mask `removed` (n_train,).

        Removal is w_i = 0: the gradient is the sum over what is left divided by the ORIGINAL
        |B|, and BatchNorm sees what is left. In a batch left empty the velocity alone moves the
        parameters.

        Returns:
            The sum of the losses of the examples left, before the step.
        """
        kept = np.ones(len(step.indices), bool) if removed is None else ~removed[step.indices]
        if not kept.any():
            if self.optimiser.momentum:
                for p in self.network.theta.values():
                    p.g[...] = 0.0  # after zero_grad(), nnabla's solver skips a parameter
                self._solver.set_learning_rate(step.learning_rate)
                self._solver.update()
            return 0.0
        graph = self._graph(int(kept.sum()))
        graph.x.d, graph.y.d = step_batch(data, step, kept, self.optimiser.augmented)
        return self._descend(graph, step, float(kept.sum()))

    def weighted_step(self, data: ImageSet, step: Step, weights: np.ndarray) -> float:
        """Take one recorded step with the images weighted by `weights` (n_train,).

        They are at least 0, and not all 0 in a batch. The gradient is the weighted sum divided by
        |B|; BatchNorm sees the weighted batch.

        Returns:
            The weighted sum of the losses, before the step.
        """
        w = weights[step.indices]
        graph = self._weighted_graph(len(w))
        assert graph.w is not None
        graph.x.d, graph.y.d = step_batch(data, step, augmented=self.optimiser.augmented)
        graph.w.d = w[:, None]
        loss = self._descend(graph, step, float(w.sum()))
        for statistic, after in graph.after.items():
            statistic.d = after.d
        return loss

    def _descend(self, graph: _StepGraph, step: Step, total_weight: float) -> float:
        """Step along the gradient of the graph's examples, whose weights sum to `total_weight`."""
        batch_size = len(step.indices)
        nn.forward_all([graph.loss_sum, *graph.after.values()], clear_no_need_grad=True)
        self.logits = graph.logits.d.copy()
        self._solver.zero_grad()
        graph.loss_sum.backward(1.0 / batch_size, clear_buffer=True)
        if self.optimiser.weight_decay:
            self._solver.weight_decay(self.optimiser.weight_decay * total_weight / batch_size)
        self._solver.set_learning_rate(step.learning_rate)
        self._solver.update()
        graph.x.data.clear()  # many graphs are kept
        return float(graph.loss_sum.d)

    def _build(self, batch_size: int) -> _StepGraph:
        x = nn.Variable((batch_size, *self.network.image_shape))
        y = nn.Variable((batch_size, 1))
        logits = self.network.logits(x, test=False)
        loss_sum = F.sum(F.softmax_cross_entropy(logits, y))
        logits.persistent = loss_sum.persistent = True
        return _StepGraph(x, y, logits, loss_sum)

    def _build_weighted(self, batch_size: int) -> _StepGraph:
        x = nn.Variable((batch_size, *self.network.image_shape))
        y, w = nn.Variable((batch_size, 1)), nn.Variable((batch_size, 1))
        with weighted_batch_normalization(w) as running:
            logits = self.network.logits(x, test=False)
        loss_sum = F.sum(w * F.softmax_cross_entropy(logits, y))
        for variable in (logits, loss_sum, *running.after.values()):
            variable.persistent = True
        return _StepGraph(x, y, logits, loss_sum, w, running.after)

    def _velocity(self) -> dict[str, nn.Variable]:
        states = self._solver.get_states() if self.optimiser.momentum else {}
        return {VELOCITY + name: state.pstate["m"] for name, state in states.items()}


def margins_of(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The logit of each image's label minus the largest other logit.

    Args:
        logits: (N, K) float32.
        labels: (N,).

    Returns:
        (N,) float32; negative where another class is held for more likely.
    """
    own = np.arange(logits.shape[1]) == labels[:, None]
    others = np.where(own, -np.inf, logits).max(axis=1)
    return (logits[own] - others).astype(np.float32)


def step_batch(
    data: ImageSet, step: Step, kept: np.ndarray | slice = slice(None), augmented: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """The batch of a recorded step: x (|B|, C, H, W) float32 and y (|B|, 1)."""
    indices = step.indices[kept]
    x = data.batch(indices, step.seeds[kept] if augmented else None)
    return x, data.labels[indices, None]
