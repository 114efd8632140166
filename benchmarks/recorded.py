"""Trainings whose every state is kept in memory, for benchmarks and tests on small problems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sgd_influence.infl import sweep
from utils.data.images import ImageSet
from utils.data.splits import SplitFiles, TrialData
from utils.options import GAUSS_NEWTON, STEPS
from utils.output.folder import OutputFolder
from utils.training.adjoint import Adjoint, StepAdjoint, loss_gradient
from utils.training.evaluation import Evaluator
from utils.training.network import Network, State
from utils.training.sgd import SGD, Optimiser, margins_of
from utils.training.steps import Step
from utils.training.trial import Trial


class Recorded:
    """A finished training, from which scores and true retraining are computed.

    Attributes:
        sgd: the trainer; its network is at whatever state was used last.
        states: the state before each step.
        margins: of each image in each epoch (n_epochs, n_train).
        losses: the mean loss of each batch before its step.
        final: the state after the last one.
    """

    def __init__(
        self, network: Network, data: ImageSet, steps: Sequence[Step], optimiser: Optimiser
    ) -> None:
        self.data, self.steps, self.optimiser = data, steps, optimiser
        self.sgd = SGD(network, optimiser)
        self.evaluator = Evaluator(network)
        self.states: list[State] = []
        self.losses: list[float] = []
        self.margins = np.zeros((steps[-1].epoch + 1, len(data)), np.float32)
        for step in steps:
            self.states.append(self.sgd.state())
            self.losses.append(self.sgd.step(data, step) / len(step.indices))
            labels = data.labels[step.indices]
            self.margins[step.epoch, step.indices] = margins_of(self.sgd.logits, labels)
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
        ).influence

    def loss_without(
        self,
        removed: np.ndarray,
        validation: ImageSet,
        start: int = 0,
        state: State | None = None,
    ) -> float:
        """The validation loss after repeating the steps from `start` on without some images.

        Args:
            removed: (n_train,) mask of the images left out.
            validation: the images of the loss.
            start: the first step that is repeated.
            state: where it begins; None is the recorded state before that step.
        """
        self.retrain_without(removed, start, state)
        return self.evaluator(validation).loss

    def retrain_without(
        self, removed: np.ndarray, start: int = 0, state: State | None = None
    ) -> None:
        """Repeat the steps as `loss_without` does; the network is then at the end of them."""
        self.sgd.load(self.states[start] if state is None else state)
        for step in self.steps[start:]:
            self.sgd.step(self.data, step, removed)


@dataclass(frozen=True)
class RecordedTrial(Trial):
    """A trial for the product's methods whose states are in memory, not in files."""

    recorded: Recorded

    def states_there(self) -> list[int]:
        """The covered steps: each state of the training is there."""
        return list(self.covered)

    def state_before(self, t: int) -> State:
        """The recorded state s_t; s_T for t = T."""
        return self.recorded.final if t == len(self.steps) else self.recorded.states[t]

    def margins(self) -> np.ndarray:
        """The recorded margins (n_epochs, n_train)."""
        return self.recorded.margins


def recorded_trial(
    seed: int,
    network: Network,
    training: ImageSet,
    validation: ImageSet,
    steps: list[Step],
    optimiser: Optimiser,
    cover_epochs: int,
    retrain_all: bool = False,
    if_solver: str = GAUSS_NEWTON,
    damping: float | None = None,
) -> RecordedTrial:
    """Train and keep every state; the arguments are those of `Trial`. Nothing is written."""
    nowhere = Path("/nonexistent")
    files = SplitFiles(nowhere, nowhere, nowhere)
    return RecordedTrial(
        seed=seed,
        data=TrialData(training, validation, validation, files),
        network=network,
        optimiser=optimiser,
        steps=steps,
        retrain_all=retrain_all,
        cover_epochs=cover_epochs,
        if_solver=if_solver,
        damping=damping,
        cache=STEPS,
        cache_memory=0,
        folder=OutputFolder(nowhere),
        recorded=Recorded(network, training, steps, optimiser),
    )
