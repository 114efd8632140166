"""The networks by name, each an ordinary nnabla function (x, n_classes, test) -> logits."""

from __future__ import annotations

from collections.abc import Callable

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF

Model = Callable[[nn.Variable, int, bool], nn.Variable]


def six_convolutions(x: nn.Variable, n_classes: int, test: bool) -> nn.Variable:
    """Three blocks conv3x3 - BatchNorm - ReLU - conv3x3 - ReLU - maxpool2, then affine.

    Args:
        x: (|B|, C, H, W), H and W at least 8.
        n_classes: number of classes K.
        test: normalise by the running statistics instead of the batch's.

    Returns:
        (|B|, K) logits.
    """
    h = x
    for block, maps in enumerate((32, 64, 128), start=1):
        with nn.parameter_scope(f"block{block}"):
            h = PF.convolution(h, maps, (3, 3), pad=(1, 1), name="conv1")
            h = F.relu(PF.batch_normalization(h, batch_stat=not test))
            h = F.relu(PF.convolution(h, maps, (3, 3), pad=(1, 1), name="conv2"))
            h = F.max_pooling(h, (2, 2))
    return PF.affine(h, n_classes)


MODELS: dict[str, Model] = {"six_convolutions": six_convolutions}
