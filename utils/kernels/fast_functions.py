"""Functions of a net by NumPy's BLAS and compiled loops, in the place of nnabla's on a CPU.

Why: with these a training step on one core takes a seventh of the time with nnabla 1.39's own.
This is the one module that puts them in (`--conv fast`). A row of `FAST` can be deleted when
nnabla's function is as fast on a CPU, and the module with its last row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

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
from utils.kernels.maps import MapMaxPooling, MapReLU

Function = Callable[..., nn.Variable]


def fast_relu(x: nn.Variable, inplace: bool = False) -> nn.Variable | None:
    """`F.relu` of what lies channels last, else None."""
    return channels_first(MapReLU()(channels_last(x))) if lies_channels_last(x) else None


def fast_max_pooling(
    x: nn.Variable,
    kernel: Sequence[int],
    stride: Sequence[int] | None = None,
    ignore_border: bool = True,
    pad: Sequence[int] | None = None,
    channel_last: bool = False,
) -> nn.Variable | None:
    """`F.max_pooling` of what lies channels last in windows that fill the maps, else None."""
    kernel = tuple(kernel)
    plain = tuple(stride or kernel) == kernel and not any(pad or ()) and not channel_last
    fills = len(kernel) == 2 and all(n % k == 0 for n, k in zip(x.shape[-2:], kernel, strict=True))
    if not (plain and fills and lies_channels_last(x)):
        return None
    return channels_first(MapMaxPooling(*kernel)(channels_last(x)))


FAST: dict[str, Callable[..., nn.Variable | None]] = {
    "convolution": fast_convolution,
    "batch_normalization": fast_batch_normalization,
    "relu": fast_relu,
    "max_pooling": fast_max_pooling,
}
"""By nnabla's name: a function of the same arguments, which gives None for what it cannot do."""

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
    def function(x: nn.Variable, *arguments: object, **options: object) -> nn.Variable:
        y = fast(x, *arguments, **options) if on_cpu() and isinstance(x, nn.Variable) else None
        return stock(x, *arguments, **options) if y is None else y

    return function
