"""BatchNorm from primitive functions, with example weights and running statistics to differentiate.

nnabla's fused BatchNorm knows no example weights and gives no derivative for its running
statistics. While a scoring graph is built, `weighted_batch_normalization` puts this one in its
place; a net written with `PF.batch_normalization` needs no change.

`fast_batch_normalization` is the same in fewer passes over the maps, for training on a CPU.

Delete the first when nnabla's BatchNorm takes example weights and its running statistics can be
differentiated, the second when nnabla's own is as fast on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import nnabla as nn
import nnabla.functions as F
import numpy as np

from utils.kernels.channels_last import channels_first, channels_last, lies_channels_last
from utils.kernels.maps import MapAffine, MapFollow, MapMoments


@dataclass
class RunningStatistics:
    """The running statistics that a graph reads and leaves behind.

    Attributes:
        before: for each statistics parameter r, a leaf with r's data and a gradient of its own.
        after: for each, the expression of its value after the batch, rho r + (1 - rho) stats.
    """

    before: dict[nn.Variable, nn.Variable] = field(default_factory=dict)
    after: dict[nn.Variable, nn.Variable] = field(default_factory=dict)

    def current(self, parameter: nn.Variable) -> nn.Variable:
        """The value of `parameter` at this place of the graph."""
        if parameter not in self.before:
            self.before[parameter] = parameter.get_unlinked_variable(need_grad=True)
        return self.after.get(parameter, self.before[parameter])

    def update(self, parameter: nn.Variable, batch_value: nn.Variable, decay: float) -> None:
        """Let `parameter` follow the batch: rho r + (1 - rho) batch_value."""
        self.after[parameter] = decay * self.current(parameter) + (1 - decay) * batch_value


@contextmanager
def weighted_batch_normalization(weights: nn.Variable) -> Iterator[RunningStatistics]:
    """Build graphs whose BatchNorm weighs the examples of the batch.

    Args:
        weights: (|B|, 1), the example weights w of equation (2) in docs/how_it_works.md.

    Yields:
        The running statistics of the graph built inside the block. At w = 1 the outputs,
        gradients and statistics equal those of the fused function.
    """
    running = RunningStatistics()

    def batch_normalization(
        x: nn.Variable,
        beta: nn.Variable | None,
        gamma: nn.Variable | None,
        mean: nn.Variable,
        variance: nn.Variable,
        axes: Sequence[int] = (1,),
        decay_rate: float = 0.9,
        eps: float = 1e-05,
        batch_stat: bool = True,
        output_stat: bool = False,
    ) -> nn.Variable:
        if output_stat:
            raise NotImplementedError("batch_normalization with output_stat=True has no weights")
        beta = F.constant(0.0, mean.shape) if beta is None else beta  # with no_bias and no_scale
        gamma = F.constant(1.0, mean.shape) if gamma is None else gamma
        if not batch_stat:
            moments = Moments(running.current(mean), running.current(variance))
            return _normalised(x, moments, gamma, beta, eps)
        moments, total = _weighted_moments(x, weights, axes)
        running.update(mean, moments.mean, decay_rate)
        running.update(variance, unbiased(moments.variance, total), decay_rate)
        return _normalised(x, moments, gamma, beta, eps)

    def fused_batch_normalization(
        x: nn.Variable,
        beta: nn.Variable | None,
        gamma: nn.Variable | None,
        mean: nn.Variable,
        variance: nn.Variable,
        z: nn.Variable | None = None,
        axes: Sequence[int] = (1,),
        decay_rate: float = 0.9,
        eps: float = 1e-05,
        batch_stat: bool = True,
        nonlinearity: str = "relu",
        output_stat: bool = False,
    ) -> nn.Variable:
        h = batch_normalization(
            x, beta, gamma, mean, variance, axes, decay_rate, eps, batch_stat, output_stat
        )
        h = h if z is None else h + z
        return F.relu(h) if nonlinearity == "relu" else h

    replaced = (F.batch_normalization, F.fused_batch_normalization)
    F.batch_normalization = batch_normalization
    F.fused_batch_normalization = fused_batch_normalization
    try:
        yield running
    finally:
        F.batch_normalization, F.fused_batch_normalization = replaced


@dataclass(frozen=True)
class Moments:
    """Mean and variance by map, of the shape of the running statistics."""

    mean: nn.Variable
    variance: nn.Variable


def unbiased(variance: nn.Variable, total: nn.Variable) -> nn.Variable:
    """The unbiased variance, from that of `total` values; 0 for a single value."""
    return variance * total / F.maximum_scalar(total - 1, 0.5)


def _weighted_moments(
    x: nn.Variable, weights: nn.Variable, axes: Sequence[int]
) -> tuple[Moments, nn.Variable]:
    """Weighted moments over all axes but `axes`: weights sum to m = (sum w) * (size of the map).

    Each example is summed over its map first, so that only small arrays are weighted.
    """
    maps = [axis for axis in range(1, x.ndim) if axis not in axes]
    ones = (1,) * (x.ndim - 1)
    map_size = float(np.prod([x.shape[axis] for axis in maps]))
    w = F.reshape(weights, (x.shape[0], *ones), inplace=False)
    total = F.reshape(F.sum(weights) * map_size, (1, *ones), inplace=False)

    def weighted_mean(by_example: nn.Variable) -> nn.Variable:
        return F.sum(w * by_example, 0, keepdims=True) / total

    if lies_channels_last(x) and tuple(axes) == (1,):
        means, squares = map(channels_first, MapMoments()(channels_last(x)))
        mean = weighted_mean(map_size * means)
        return Moments(mean, weighted_mean(squares + map_size * (means - mean) ** 2)), total
    mean = weighted_mean(_sum(x, maps))
    return Moments(mean, weighted_mean(_sum((x - mean) ** 2, maps))), total


def _sum(x: nn.Variable, axes: Sequence[int]) -> nn.Variable:
    return F.sum(x, axes, keepdims=True) if axes else x


def _normalised(
    x: nn.Variable, moments: Moments, gamma: nn.Variable, beta: nn.Variable, eps: float
) -> nn.Variable:
    scale = gamma * (moments.variance + eps) ** -0.5
    if lies_channels_last(x) and scale.shape == (1, x.shape[1], 1, 1):
        shift = beta - moments.mean * scale
        return channels_first(
            MapAffine()(channels_last(x), channels_last(scale), channels_last(shift))
        )
    return (x - moments.mean) * scale + beta


def fast_batch_normalization(
    x: nn.Variable,
    beta: nn.Variable | None,
    gamma: nn.Variable | None,
    mean: nn.Variable,
    variance: nn.Variable,
    axes: Sequence[int] = (1,),
    decay_rate: float = 0.9,
    eps: float = 1e-05,
    batch_stat: bool = True,
    output_stat: bool = False,
) -> nn.Variable | None:
    """`F.batch_normalization` of what lies channels last, with beta and gamma; else None.

    As with nnabla's, the running statistics follow the batch's whenever the output is computed.
    """
    shape = (1, x.shape[1], *[1] * (x.ndim - 2))
    if output_stat or not lies_channels_last(x) or beta is None or gamma is None:
        return None
    if any(p.shape != shape for p in (beta, gamma, mean, variance)):
        return None
    if not batch_stat:
        return _normalised(x, Moments(mean, variance), gamma, beta, eps)
    moments, _ = _weighted_moments(x, F.constant(1.0, (x.shape[0], 1)), axes)
    total = x.size / x.shape[1]
    followed = Moments(
        MapFollow(follower=mean, decay=decay_rate, factor=1.0)(moments.mean),
        MapFollow(follower=variance, decay=decay_rate, factor=total / max(total - 1, 0.5))(
            moments.variance
        ),
    )
    return _normalised(x, followed, gamma, beta, eps)
