"""The memory that a batch takes in a net, told from the shapes before anything is computed."""

from __future__ import annotations

import nnabla as nn

from utils.errors import UserError
from utils.output.usage import memory_limit
from utils.training.device import on_gpu
from utils.units import shown_bytes

TRAINED, SCORED = 1.5, 3.5
"""How many times the bytes of its activations a batch takes at least, in training and in a sweep.

Measured: 1.6 and 3.8 to 4.1 (six_convolutions, smooth_convolutions and resnet, 64 images of 96 px).
"""
SINGLE = 4
"""Bytes of a number."""


def check_memory_of(logits: nn.Variable, n_images: int, scored: bool, remedy: str) -> None:
    """Refuse images or batches for which there cannot be enough memory.

    Args:
        logits: of the training graph, for any number of images.
        n_images: that are computed at once.
        scored: by a sweep too, not only trained on.
        remedy: what to do.

    Raises:
        UserError: they take more than there is; on a GPU, whose memory is another, never.
    """
    needed = (SCORED if scored else TRAINED) * n_images * _bytes_of_an_image(logits)
    limit = memory_limit()
    if not on_gpu() and needed > limit.size:
        raise UserError(
            f"{n_images} images at once take about {shown_bytes(needed)} of memory in this net, "
            f"but only {shown_bytes(limit.size)} are available ({limit.of}); {remedy}"
        )


def _bytes_of_an_image(logits: nn.Variable) -> float:
    """Of the outputs of all functions; those computed in place count too."""
    sizes: list[int] = []
    logits.visit(lambda function: sizes.extend(output.size for output in function.outputs))
    return sum(sizes) * SINGLE / logits.shape[0]
