"""One trial: the data, the network and the recorded training that its stages share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from utils.evaluation import Evaluator, check_finite
from utils.network import Network, State
from utils.paths import OutputPaths
from utils.sgd import SGD, Optimiser
from utils.splits import TrialData
from utils.steps import Step, first_step


@dataclass(frozen=True)
class Trial:
    """What the stages of one trial work on; everything in it follows from its seed.

    Attributes:
        seed: the seed of the initial parameters, the batches, the augmentation and the split.
        data: training, validation and test images.
        network: carries whatever state a stage loads.
        optimiser: what the training steps need beside their batches.
        steps: the steps of the whole training, as recorded or, before it, as planned.
        retrain_all: removals retrain from the first step, not from the last epoch.
        cover_epochs: over how many last epochs the scores sweep.
        damping: alpha of influence functions.
        paths: the files of the run.
    """

    seed: int
    data: TrialData
    network: Network
    optimiser: Optimiser
    steps: list[Step]
    retrain_all: bool
    cover_epochs: int
    damping: float
    paths: OutputPaths

    @property
    def n_train(self) -> int:
        """Number of training images."""
        return len(self.data.training)

    @property
    def n_epochs(self) -> int:
        """Training length in epochs."""
        return self.steps[-1].epoch + 1

    @property
    def covered_start(self) -> int:
        """The step from which on the sweep covers the training."""
        return first_step(self.steps, self.n_epochs - self.cover_epochs)

    @property
    def retrain_start(self) -> int:
        """The step at which the training after a removal begins."""
        return 0 if self.retrain_all else first_step(self.steps, self.n_epochs - 1)

    @cached_property
    def sgd(self) -> SGD:
        """Takes steps on the network."""
        return SGD(self.network, self.optimiser)

    @cached_property
    def evaluator(self) -> Evaluator:
        """Evaluates the network."""
        return Evaluator(self.network)

    def take_step(self, t: int, removed: np.ndarray | None = None) -> float:
        """Take step t of the whole training, without the images of the mask `removed` (n_train,).

        Returns:
            The sum of the losses of the examples left, before the step.

        Raises:
            UserError: the loss is not finite; the line names epoch, step and learning rate.
        """
        step = self.steps[t]
        loss = self.sgd.step(self.data.training, step, removed)
        if not math.isfinite(loss):
            number = t - first_step(self.steps, step.epoch) + 1
            without = "" if removed is None else f" without {removed.sum()} images"
            check_finite(
                loss,
                f"trial {self.seed}{without}: the loss in epoch {step.epoch + 1}, step {number} "
                f"(learning rate {step.learning_rate:g})",
            )
        return loss

    def keeps_state(self, t: int) -> bool:
        """Whether the training keeps the state before step t."""
        return t == 0 or t >= self.covered_start

    def state_path(self, t: int) -> Path:
        """The file of the state before step t of the whole training."""
        epoch = self.steps[t].epoch
        return self.paths.model_step(self.seed, epoch, t - first_step(self.steps, epoch))

    def state_before(self, t: int) -> State:
        """The recorded state s_t before step t of the whole training."""
        return self.network.read(self.state_path(t))

    def final_state(self) -> State:
        """The recorded state s_T after the last step."""
        return self.network.read(self.paths.final_model(self.seed))
