"""Small data and nets that the tests share."""

from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
from sklearn.datasets import load_digits

from utils.adjoint import StepAdjoint, loss_gradient
from utils.evaluation import Evaluator
from utils.images import ImageSet
from utils.network import Network, State
from utils.sgd import SGD, Optimiser
from utils.steps import Step


def digit_images(start: int, stop: int, classes: tuple[int, ...] = tuple(range(10))) -> ImageSet:
    """Rows `start` to `stop` of scikit-learn's digits of some classes, 8x8, labelled from 0."""
    values, labels = load_digits(return_X_y=True)
    wanted = np.flatnonzero(np.isin(labels, classes))[start:stop]
    images = (values[wanted] * 15).astype(np.uint8).reshape(-1, 8, 8, 1)
    return ImageSet(images, np.searchsorted(classes, labels[wanted]).astype(np.int32), ())


def smooth_net(x: nn.Variable, n_classes: int, test: bool) -> nn.Variable:
    """A net with BatchNorm and without kinks: tanh and average pooling."""
    h = PF.convolution(x, 3, (3, 3), pad=(1, 1), name="conv1")
    h = F.tanh(PF.batch_normalization(h, batch_stat=not test))
    h = F.average_pooling(h, (2, 2))
    h = F.tanh(PF.batch_normalization(PF.affine(h, 6, name="hidden"), batch_stat=not test,
                                      name="bn2"))  # fmt: skip
    return PF.affine(h, n_classes)


def dense_net(x: nn.Variable, n_classes: int, test: bool) -> nn.Variable:
    """A net without BatchNorm, small enough for its whole Hessian."""
    return PF.affine(F.tanh(PF.affine(F.average_pooling(x, (4, 4)), 3, name="hidden")), n_classes)


def logistic_regression(x: nn.Variable, n_classes: int, test: bool) -> nn.Variable:
    """One affine layer."""
    return PF.affine(x, n_classes)


class Recorded:
    """A training with every state kept in memory.

    Attributes:
        sgd: the trainer, its network at the final state.
        states: the state before each step.
        final: the state after the last one.
    """

    def __init__(
        self, network: Network, data: ImageSet, steps: list[Step], optimiser: Optimiser
    ) -> None:
        self.data, self.steps, self.optimiser = data, steps, optimiser
        self.sgd = SGD(network, optimiser)
        self.states: list[State] = []
        for step in steps:
            self.states.append(self.sgd.state())
            self.sgd.step(data, step)
        self.final = self.sgd.state()

    def adjoint_of(self) -> StepAdjoint:
        """The scoring graph of a training step."""
        return StepAdjoint(self.sgd.network, self.optimiser)

    def loss_without(self, removed: np.ndarray, start: int, validation: ImageSet) -> float:
        """The validation loss after repeating the steps from `start` on without some images."""
        self.sgd.load(self.states[start])
        for step in self.steps[start:]:
            self.sgd.step(self.data, step, removed)
        return Evaluator(self.sgd.network)(validation).loss

    def validation_gradient(self, validation: ImageSet):
        """(u_T, v_T) at the final state."""
        self.sgd.load(self.final)
        return loss_gradient(self.sgd.network, validation)
