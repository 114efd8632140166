"""Small data and nets that the tests share."""

from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
from sklearn.datasets import load_digits

from utils.data.images import ImageSet


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
