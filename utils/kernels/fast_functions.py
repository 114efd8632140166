"""Functions of a net by NumPy's BLAS and compiled loops, in the place of nnabla's on a CPU.

Why: with these a training step on one core takes a seventh of the time with nnabla 1.39's own.
This is the one module that puts them in (`--conv fast`). A row of `FAST` can be deleted when
nnabla's function is as fast on a CPU, and the module with its last row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import mod

import nnabla as nn
import nnabla.functions as F

from utils.kernels.batch_norm import fast_batch_normalization
from utils.kernels.channels_last import (
    channels_first,
    channels_last,
    channels_last_in_use,
    lies_channels_last,
    on_cpu,
)
from utils.kernels.convolution import fast_convolution
from utils.kernels.maps import MapAveragePooling, MapMaxPooling, MapReLU
from utils.kernels.swish import MapSwish

Function = Callable[..., nn.Variable]


def fast_relu(x: nn.Variable, inplace: bool = False) -> nn.Variable | None:
    """`F.relu` of what lies channels last, else None."""
    return channels_first(MapReLU()(channels_last(x))) if lies_channels_last(x) else None


def fast_swish(x: nn.Variable) -> nn.Variable | None:
    """`F.swish` of what lies channels last, else None."""
    return channels_first(MapSwish()(channels_last(x))) if lies_channels_last(x) else None


def fast_add2(x0: nn.Variable, x1: nn.Variable, inplace: bool = False) -> nn.Variable | None:
    """`F.add2`, the + of variables, where both lie channels last and have one shape, else None."""
    if x0.shape != x1.shape or not (lies_channels_last(x0) and lies_channels_last(x1)):
        return None
    return channels_first(STOCK["add2"](channels_last(x0), channels_last(x1)))


def fast_max_pooling(
    x: nn.Variable,
    kernel: Sequence[int],
    stride: Sequence[int] | None = None,
    ignore_border: bool = True,
    pad: Sequence[int] | None = None,
    channel_last: bool = False,
) -> nn.Variable | None:
    """`F.max_pooling` of what lies channels last in windows that fill the maps, else None."""
    return _pooled(MapMaxPooling, x, kernel, stride, pad, channel_last)


def fast_average_pooling(
    x: nn.Variable,
    kernel: Sequence[int],
    stride: Sequence[int] | None = None,
    ignore_border: bool = True,
    pad: Sequence[int] | None = None,
    channel_last: bool = False,
    including_pad: bool = True,
) -> nn.Variable | None:
    """`F.average_pooling` of what lies channels last in windows that fill the maps, else None."""
    return _pooled(MapAveragePooling, x, kernel, stride, pad, channel_last)


def _pooled(
    pooling: type[MapMaxPooling | MapAveragePooling],
    x: nn.Variable,
    kernel: Sequence[int],
    stride: Sequence[int] | None,
    pad: Sequence[int] | None,
    channel_last: bool,
) -> nn.Variable | None:
    """The pooled x, if it lies channels last and windows of two dimensions fill its maps."""
    side_by_side = len(kernel) == 2 and tuple(stride or kernel) == tuple(kernel)
    if channel_last or any(pad or ()) or not side_by_side or not lies_channels_last(x):
        return None
    if any(map(mod, x.shape[-2:], kernel)):
        return None
    return channels_first(pooling(*kernel)(channels_last(x)))


FAST: dict[str, Callable[..., nn.Variable | None]] = {
    "convolution": fast_convolution,
    "batch_normalization": fast_batch_normalization,
    "relu": fast_relu,
    "swish": fast_swish,
    "add2": fast_add2,
    "max_pooling": fast_max_pooling,
    "average_pooling": fast_average_pooling,
}
"""By nnabla's name: a function of the same arguments, which gives None for what it cannot do."""

OUTPUT_OPTIONS = frozenset({"n_outputs", "outputs"})
"""Arguments of all of nnabla's functions that none in `FAST` has."""

STOCK: dict[str, Function] = {name: getattr(F, name) for name in FAST}


@contextmanager
def fast_functions() -> Iterator[None]:
    """Build graphs whose functions on a CPU are those of `FAST` where they can be.

    A net written with nnabla's functions needs no change. What another module has put in the
    place of nnabla's function stays.
    """
    own = [name for name in FAST if getattr(F, name) is STOCK[name]]
    for name in own:
        setattr(F, name, _fast_or_stock(FAST[name], STOCK[name]))
    try:
        with channels_last_in_use():
            yield
    finally:
        for name in own:
            setattr(F, name, STOCK[name])


def _fast_or_stock(fast: Callable[..., nn.Variable | None], stock: Function) -> Function:
    def function(*inputs: object, **options: object) -> nn.Variable:
        at_once = any(isinstance(a, nn.NdArray) for a in (*inputs, *options.values()))
        usual = OUTPUT_OPTIONS.isdisjoint(options) and not at_once
        y = fast(*inputs, **options) if usual and on_cpu() else None
        return stock(*inputs, **options) if y is None else y

    return function
