"""One trial: the data, the network and the recorded training that its stages share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from utils.data.splits import TrialData
from utils.errors import UserError
from utils.options import Options
from utils.output.folder import OutputFolder
from utils.output.storage import load_array
from utils.training.adjoint import Adjoint, loss_gradient
from utils.training.evaluation import Evaluator, check_finite
from utils.training.kept_states import kept_steps
from utils.training.models import Model
from utils.training.network import Network, State, hdf5_of, load_state
from utils.training.sgd import SGD, Optimiser
from utils.training.steps import Step, by_epoch


@dataclass(frozen=True)
class Trial:
    """What the stages of one trial work on; everything in it follows from its seed.

    Attributes:
        seed: the seed of the initial parameters, the batches, the augmentation and the split.
        data: training, validation and test images.
        network: carries whatever state a stage loads.
        optimiser: what the training steps need besides their batches.
        steps: the steps of the whole training, as recorded or, before it, as planned.
        retrain_all: removals retrain from the first step, not from the last epoch.
        cover_epochs: over how many last epochs the scores sweep.
        if_solver: of influence functions, as in `--if_solver`.
        damping: their alpha; None: their solver chooses it.
        cache: which states of the training are kept on disk: steps, recompute or final.
        cache_memory: bytes that replayed states may take in memory.
        folder: the output folder.
    """

    seed: int
    data: TrialData
    network: Network
    optimiser: Optimiser
    steps: list[Step]
    retrain_all: bool
    cover_epochs: int
    if_solver: str
    damping: float | None
    cache: str
    cache_memory: int
    folder: OutputFolder

    @property
    def n_train(self) -> int:
        """Number of training images."""
        return len(self.data.training)

    @property
    def sizes(self) -> str:
        """How many images of what shape the sets have, in words."""
        data, (channels, height, width) = self.data, self.network.image_shape
        parts = f"{len(data.training):,} training, {len(data.validation):,} validation"
        return f"{parts}, {len(data.test):,} test images of {channels}x{height}x{width}"

    @property
    def n_epochs(self) -> int:
        """Training length in epochs."""
        return self.steps[-1].epoch + 1

    @cached_property
    def epoch_starts(self) -> list[int]:
        """The number of the first step of each epoch."""
        return [numbers[0] for _, numbers in by_epoch(self.steps)]

    @property
    def covered_start(self) -> int:
        """The step from which on the sweep covers the training."""
        return self.epoch_starts[-self.cover_epochs]

    @property
    def covered(self) -> range:
        """The numbers of the steps that the sweep covers."""
        return range(self.covered_start, len(self.steps))

    @property
    def retrain_start(self) -> int:
        """The step at which the training after a removal begins."""
        return 0 if self.retrain_all else self.epoch_starts[-1]

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
        loss = self.sgd.step(self.data.training, self.steps[t], removed)
        self._check_loss(loss, t, "" if removed is None else f" without {removed.sum()} images")
        return loss

    def take_weighted_step(self, t: int, weights: np.ndarray) -> float:
        """Take step t of the whole training with the images weighted by `weights` (n_train,).

        Returns and raises as `take_step`, the losses weighted.
        """
        loss = self.sgd.weighted_step(self.data.training, self.steps[t], weights)
        self._check_loss(loss, t, " with moved weights of its images")
        return loss

    def _check_loss(self, loss: float, t: int, how: str) -> None:
        if not math.isfinite(loss):
            step = self.steps[t]
            number = t - self.epoch_starts[step.epoch] + 1
            check_finite(
                loss,
                f"trial {self.seed}{how}: the loss in epoch {step.epoch + 1}, step {number} "
                f"(learning rate {step.learning_rate:g})",
            )

    @cached_property
    def final_gradient(self) -> Adjoint:
        """(u_T, v_T), the derivatives of the mean validation loss by the final state s_T."""
        self.network.load(self.final_state())
        return loss_gradient(self.network, self.data.validation)

    @cached_property
    def kept_steps(self) -> list[int]:
        """The steps before which the training keeps its state, ascending."""
        return kept_steps(self.cache, self.covered, self.retrain_start)

    def states_there(self) -> list[int]:
        """The steps whose states are on disk, whatever cache the training had, ascending."""
        may_be = sorted({0, self.retrain_start, *self.covered})
        return [t for t in may_be if self.state_path(t).exists()]

    def state_path(self, t: int) -> Path:
        """The file of the state before step t of the whole training; of s_T for t = T."""
        if t == len(self.steps):
            return self.folder.final_model(self.seed)
        epoch = self.steps[t].epoch
        return self.folder.model_step(self.seed, epoch, t - self.epoch_starts[epoch])

    def state_before(self, t: int) -> State:
        """The recorded state s_t before step t of the whole training; s_T for t = T.

        Raises:
            UserError: its file is not there or damaged, or it is not a state of this network.
        """
        return load_state(self.state_path(t), self.state_shapes)

    def save_state(self, t: int, *, durable: bool = False) -> None:
        """Record the state of the network as that before step t of the whole training."""
        self.folder.save_bytes(hdf5_of(self.sgd.state()), self.state_path(t), durable=durable)

    def final_state(self) -> State:
        """The recorded state s_T after the last step."""
        return self.state_before(len(self.steps))

    def margins(self) -> np.ndarray:
        """What each training image's margin was in each epoch (n_epochs, n_train) float32.

        The margin is the logit of its label minus the largest other one, before the step that it
        was in, augmented and with the batch's statistics.

        Raises:
            UserError: they were not recorded, or the file is damaged.
        """
        path = self.folder.margins(self.seed)
        if not path.exists():
            raise UserError(
                f"{path}: is not there, an earlier version did not record it; leave AUM out of "
                f"--methods, or delete {path.parent}, and the same command trains the trial again"
            )
        return load_array(path, (self.n_epochs, self.n_train))

    @cached_property
    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array of a state, by name."""
        return self.sgd.state_shapes

    @property
    def state_bytes(self) -> int:
        """What a state takes in memory: single precision."""
        return 4 * sum(math.prod(shape) for shape in self.state_shapes.values())


def make_trial(
    options: Options,
    seed: int,
    data: TrialData,
    steps: list[Step],
    model: Model,
    n_classes: int,
    damping: float | None,
    folder: OutputFolder,
) -> Trial:
    """The trial of a seed, as the options want it, with a network of that seed."""
    network = Network(model, data.training.shape, n_classes, seed, options.conv)
    return Trial(
        seed=seed,
        data=data,
        network=network,
        optimiser=Optimiser(options.momentum, options.weight_decay),
        steps=steps,
        retrain_all=options.retrain_all,
        cover_epochs=options.n_covered_epochs,
        if_solver=options.if_solver,
        damping=damping,
        cache=options.cache,
        cache_memory=options.cache_memory,
        folder=folder,
    )
