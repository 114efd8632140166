"""The networks by name, each an ordinary nnabla function (x, n_classes, test) -> logits."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF

from utils.errors import UserError, did_you_mean
from utils.training.nnp_file import SUFFIX, read_nnp

ROOT = Path(__file__).parents[2]
"""The folder of the packages."""
PACKAGES = ("utils", "sgd_influence", "influence_functions")
"""Names that a user's modules cannot have."""

Layer = Callable[[nn.Variable], nn.Variable]
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
    return three_blocks(x, n_classes, test, (32, 64, 128))


def three_blocks(x: nn.Variable, n_classes: int, test: bool, widths: Sequence[int]) -> nn.Variable:
    """`six_convolutions` with other numbers of maps, one for each of its blocks."""
    h = x
    for block, maps in enumerate(widths, start=1):
        with nn.parameter_scope(f"block{block}"):
            h = PF.convolution(h, maps, (3, 3), pad=(1, 1), name="conv1")
            h = F.relu(PF.batch_normalization(h, batch_stat=not test))
            h = F.relu(PF.convolution(h, maps, (3, 3), pad=(1, 1), name="conv2"))
            h = F.max_pooling(h, (2, 2))
    return PF.affine(h, n_classes)


def smooth_convolutions(x: nn.Variable, n_classes: int, test: bool) -> nn.Variable:
    """Three blocks (conv3x3 - BatchNorm - Swish) twice - average pooling, then affine.

    A net without kinks, of six_convolutions' size: its training depends smoothly on the weights of
    the images, so that scores over all epochs predict training from scratch.

    Args and returns as `six_convolutions`.
    """
    h = x
    for block, maps in enumerate((32, 64, 128), start=1):
        with nn.parameter_scope(f"block{block}"):
            h = F.swish(_convolution_bn(h, maps, 1, test, "conv1"))
            h = F.swish(_convolution_bn(h, maps, 1, test, "conv2"))
            h = F.average_pooling(h, (2, 2))
    return PF.affine(h, n_classes)


def resnet(x: nn.Variable, n_classes: int, test: bool) -> nn.Variable:
    """A small residual net: conv3x3, three residual blocks with 32, 64, 128 maps, global pooling.

    Args and returns as `six_convolutions`; the second and third block halve height and width.
    """
    return _residual_net(x, n_classes, test, F.relu)


def smooth_resnet(x: nn.Variable, n_classes: int, test: bool) -> nn.Variable:
    """`resnet` with Swish in the place of ReLU: a net without kinks. Args and returns as there."""
    return _residual_net(x, n_classes, test, F.swish)


def _residual_net(x: nn.Variable, n_classes: int, test: bool, activation: Layer) -> nn.Variable:
    h = activation(_convolution_bn(x, 32, 1, test, "stem"))
    for block, (maps, stride) in enumerate(((32, 1), (64, 2), (128, 2)), start=1):
        with nn.parameter_scope(f"block{block}"):
            h = _residual_block(h, maps, stride, test, activation)
    return PF.affine(F.global_average_pooling(h), n_classes)


def _residual_block(
    x: nn.Variable, maps: int, stride: int, test: bool, activation: Layer
) -> nn.Variable:
    h = activation(_convolution_bn(x, maps, stride, test, "conv1"))
    h = _convolution_bn(h, maps, 1, test, "conv2")
    keeps_shape = stride == 1 and x.shape[1] == maps
    h = h + (x if keeps_shape else _convolution_bn(x, maps, stride, test, "shortcut"))
    return activation(h)


def _convolution_bn(x: nn.Variable, maps: int, stride: int, test: bool, name: str) -> nn.Variable:
    with nn.parameter_scope(name):
        h = PF.convolution(x, maps, (3, 3), (1, 1), (stride, stride), with_bias=False)
        return PF.batch_normalization(h, batch_stat=not test)


def mlp(x: nn.Variable, n_classes: int, test: bool) -> nn.Variable:
    """Two hidden layers of 256 and 128 ReLU units. Args and returns as `six_convolutions`."""
    h = F.relu(PF.affine(x, 256, name="hidden1"))
    h = F.relu(PF.affine(h, 128, name="hidden2"))
    return PF.affine(h, n_classes)


MODELS: dict[str, Model] = {
    function.__name__: function
    for function in (six_convolutions, smooth_convolutions, resnet, smooth_resnet, mlp)
}


def find_model(name: str) -> Model:
    """The model of a name in `MODELS`, of a .nnp file, or of the user's own "module:function".

    A module is looked for in the working directory first, as `python -m` does.

    Raises:
        UserError: there is no such model, its module cannot be imported, or its file holds none
            that can be scored.
    """
    if name in MODELS:
        return MODELS[name]
    if is_nnp(name):
        return read_nnp(name)
    if ":" not in name:
        raise UserError(
            f"--model {name}: not known; known are {', '.join(MODELS)}, or give your own as "
            f"module:function or a {SUFFIX} file{did_you_mean(name, MODELS)}"
        )
    with _working_directory_first():
        try:
            model = resolve_name(name)
        except (Exception, SystemExit) as error:
            remedy = _own_package(name, error)
            remedy = remedy or "check the name and run in the folder of the module"
            if isinstance(error, SystemExit):
                remedy = 'put what its script runs under if __name__ == "__main__":'
            raise UserError(
                f"--model {name}: cannot be imported ({describe(error)}); {remedy}"
            ) from error
    if not callable(model):
        raise UserError(f"--model {name}: is not a function; give (x, n_classes, test) -> logits")
    return model


def is_nnp(name: str) -> bool:
    """Whether a model is named by a .nnp file."""
    return name not in MODELS and name.lower().endswith(SUFFIX)


def _own_package(name: str, error: BaseException) -> str:
    """What to do where a module of the user's has the name of a package here; else empty.

    Args:
        name: as in `--model`.
        error: of its import.
    """
    missing = error.name if isinstance(error, ImportError) else name.partition(":")[0]
    package = (missing or "").partition(".")[0]
    for theirs in (Path.cwd() / f"{package}.py", Path.cwd() / package):
        if package in PACKAGES and theirs.exists() and not theirs.samefile(ROOT / package):
            return f"this program has a package {package} itself: rename {theirs}"
    return ""


@contextmanager
def _working_directory_first() -> Iterator[None]:
    sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        sys.path.pop(0)


def describe(error: BaseException) -> str:
    """An exception in one line: its type, its text, and the line of code that raised it."""
    text = " ".join(str(error).split())[:300]
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {text}{where}"
