"""ReLU with the curvature of its kink, which no derivative sees.

The derivative of ReLU jumps from 0 to 1 where its input x is 0. Leaving an image out moves x a
little, for some examples across that kink; an exact Hessian holds nothing of this. Spread over a
small width s, the jump is a curvature: the second derivative of the mean of ReLU over inputs
x + s * (standard normal), which is phi(x / s) / s with the standard normal density phi.

Why: nnabla's ReLU has a second derivative of zero. Delete if the method Hara_smoothed is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import nnabla as nn
import nnabla.functions as F

from utils.kernels.channels_last import channels_first, channels_last, lies_channels_last
from utils.kernels.maps import TINY, MapSmoothReLU


@contextmanager
def smoothed_kinks(width: float) -> Iterator[None]:
    """Build graphs whose ReLU has a second derivative; values and first derivatives stay exact.

    Args:
        width: s in root mean squares of the inputs that a ReLU sees in the batch; 0 builds
            nnabla's own ReLU.
    """
    stock = F.relu

    def relu(x: nn.Variable, inplace: bool = False, **others: object) -> nn.Variable:
        if lies_channels_last(x):
            return channels_first(MapSmoothReLU(width=width)(channels_last(x)))
        fixed = F.identity(x).apply(need_grad=False)
        return stock(x, False, **others) + _curvature(x, fixed, width) + _order(fixed)

    if width:
        F.relu = relu
    try:
        yield
    finally:
        F.relu = stock


def _curvature(x: nn.Variable, fixed: nn.Variable, width: float) -> nn.Variable:
    """phi(x_0 / s) / s * (x - x_0)^2 / 2 at x_0 = x: zero, its derivative too."""
    s = width * (F.mean(fixed**2, range(x.ndim), keepdims=True) + TINY) ** 0.5
    density = F.exp(-0.5 * (fixed / s) ** 2) / (math.sqrt(2 * math.pi) * s)
    return 0.5 * density.apply(need_grad=False) * (x - fixed) ** 2


def _order(fixed: nn.Variable) -> nn.Variable:
    """A constant below 0 for inputs below 0, in their order and too small to matter.

    Of a window whose inputs are all below 0, max pooling then takes the one next to its kink.
    """
    return (TINY * F.minimum_scalar(fixed, 0.0)).apply(need_grad=False)
