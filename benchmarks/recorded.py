"""A training whose every state is kept in memory, for benchmarks and tests on small problems."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sgd_influence.infl import sweep
from utils.adjoint import Adjoint, StepAdjoint, loss_gradient
from utils.evaluation import Evaluator
from utils.images import ImageSet
from utils.network import Network, State
from utils.sgd import SGD, Optimiser
from utils.steps import Step


class Recorded:
    """A finished training, from which scores and true retraining are computed.

    Attributes:
        sgd: the trainer; its network is at whatever state was used last.
        states: the state before each step.
        final: the state after the last one.
    """

    def __init__(
        self, network: Network, data: ImageSet, steps: Sequence[Step], optimiser: Optimiser
    ) -> None:
        self.data, self.steps, self.optimiser = data, steps, optimiser
        self.sgd = SGD(network, optimiser)
        self.evaluator = Evaluator(network)
        self.states: list[State] = []
        for step in steps:
            self.states.append(self.sgd.state())
            self.sgd.step(data, step)
        self.final = self.sgd.state()

    def validation_gradient(self, validation: ImageSet) -> Adjoint:
        """(u_T, v_T) at the final state."""
        self.sgd.load(self.final)
        return loss_gradient(self.sgd.network, validation)

    def influence(
        self,
        validation: ImageSet,
        start: int = 0,
        state_before: Callable[[int], State] | None = None,
    ) -> np.ndarray:
        """The sweep (n_train,) over the steps from `start` on, at the true states by default."""
        return sweep(
            StepAdjoint(self.sgd.network, self.optimiser),
            self.data,
            self.steps,
            state_before or self.states.__getitem__,
            self.validation_gradient(validation),
            range(len(self.steps) - 1, start - 1, -1),
        )

    def loss_without(self, removed: np.ndarray, validation: ImageSet, start: int = 0) -> float:
        """The validation loss after repeating the steps from `start` on without some images.

        Args:
            removed: (n_train,) mask of the images left out.
            validation: the images of the loss.
            start: the first step that is repeated.
        """
        self.sgd.load(self.states[start])
        for step in self.steps[start:]:
            self.sgd.step(self.data, step, removed)
        return self.evaluator(validation).loss
