"""Images channels last in memory between functions that compute that way.

A function of this kind takes `channels_last(x)` and gives `channels_first(y)`: to a net all maps
are (|B|, C, H, W). Where one such function follows another, the transpositions between them are
part of no graph that is computed.

Why: the loops and tiles of convolution.py and maps.py run along the channels, while nnabla's nets
have them before the rows. Delete together with those two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import nnabla as nn
import nnabla.functions as F

TO_FIRST, TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)

_in_use = ContextVar("channels last in use", default=False)


@contextmanager
def channels_last_in_use() -> Iterator[None]:
    """Where `lies_channels_last` may be true: graphs of the CPU that are not all nnabla's own."""
    token = _in_use.set(True)
    try:
        yield
    finally:
        _in_use.reset(token)


def on_cpu() -> bool:
    """Whether graphs are built for nnabla's CPU functions."""
    return bool(nn.get_current_context().backend == ["cpu:float"])


def channels_last(x: nn.Variable) -> nn.Variable:
    """x (|B|, C, H, W) as (|B|, H, W, C)."""
    return x.parent.inputs[0] if lies_channels_last(x) else F.transpose(x, TO_LAST)


def channels_first(x: nn.Variable) -> nn.Variable:
    """x (|B|, H, W, C) as (|B|, C, H, W)."""
    return F.transpose(x, TO_FIRST)


def lies_channels_last(x: nn.Variable) -> bool:
    """Whether x (|B|, C, H, W) is a transposition of what lies channels last."""
    f = x.parent
    if f is None or f.info.type_name != "Transpose" or not (_in_use.get() and on_cpu()):
        return False
    return tuple(f.info.args["axes"]) == TO_FIRST
