"""A network of a .nnp file as a model: (x, n_classes, test) -> logits.

A .nnp file describes a graph by nnabla's protobuf messages. nnabla's own loader builds it with the
stored parameters and a BatchNorm that is fixed; here each call builds it for its batch, with fresh
parameters by nnabla's seed, and with those functions of a net that other modules replace.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import nnabla as nn
import nnabla.functions as F
import numpy as np
from nnabla.core.graph_def import _create_initializer
from nnabla.initializer import ConstantInitializer, UniformInitializer, calc_uniform_lim_glorot
from nnabla.utils import nnabla_pb2
from nnabla.utils.load_function import _create_function_instance

from utils.errors import UserError

REPLACED = {
    "Convolution": "convolution", "ReLU": "relu", "Swish": "swish", "Add2": "add2",
    "MaxPooling": "max_pooling", "AveragePooling": "average_pooling",
}  # fmt: skip
"""Functions that are called by name, because other modules replace them while a graph is built."""
BATCH_NORM = ("BatchNormalization", "FusedBatchNormalization")
STATISTICS = ("mean", "variance")
WEIGHTS = ("Convolution", "DepthwiseConvolution", "Deconvolution", "Affine")
NORMS = (*BATCH_NORM, "LayerNormalization", "GroupNormalization", "InstanceNormalization")

Message = Any
"""A protobuf message; its classes are made at run time."""


@dataclass(frozen=True)
class NnpNet:
    """A network of a .nnp file.

    Attributes:
        file: as in `--model`.
        definition: the message `Network`, without loops, serialised.
        image: the variable that takes the images.
        logits: the variable that gives the logits.
        remark: what of the file is left out, in words; empty for nothing.
    """

    file: str
    definition: bytes
    image: str
    logits: str
    remark: str = ""

    def __call__(self, x: nn.Variable, n_classes: int, test: bool) -> nn.Variable:
        """(|B|, C, H, W) images to (|B|, n_classes) logits.

        Raises:
            UserError: the network takes images of another shape, or has another number of classes.
        """
        network = _network(self.definition)
        self._check(network, x.shape[1:], n_classes)
        variables = {variable.name: variable for variable in network.variable}
        values = {self.image: x}
        for function in functions_between(network, self.image, self.logits):
            known = _first_known(function, values)
            inputs = [
                values[name] if name in values else _parameter(variables[name], function, at, known)
                for at, name in enumerate(function.input)
            ]
            ready = _for_batch(function, inputs, x.shape[0], _saved_batch(network, self.image))
            values.update(zip(function.output, _applied(ready, inputs, test), strict=True))
        logits = values[self.logits]
        flat = (x.shape[0], n_classes)
        return logits if logits.shape == flat else F.reshape(logits, flat, inplace=False)

    def _check(self, network: Message, image_shape: tuple[int, ...], n_classes: int) -> None:
        """Raise a UserError unless the network fits the data."""
        variables = {variable.name: variable for variable in network.variable}
        wanted = per_image(variables[self.image])
        where = f"--model {self.file}: network {network.name}"
        if wanted != image_shape:
            remedy = _shape_remedy(wanted, image_shape)
            raise UserError(
                f"{where} takes images of {by_x(wanted)}, the data are {by_x(image_shape)}; "
                f"{remedy}"
            )
        classes = math.prod(per_image(variables[self.logits]))
        if classes != n_classes:
            raise UserError(
                f"{where} has {classes} classes, the data have {n_classes}; change the outputs of "
                f"its last layer ({self.logits}) to {n_classes}, or give other data"
            )


@lru_cache(maxsize=4)
def _network(definition: bytes) -> Message:
    network = nnabla_pb2.Network()
    network.ParseFromString(definition)
    return network


def per_image(variable: Message) -> tuple[int, ...]:
    """The shape of a variable for one image: without the batch."""
    return tuple(variable.shape.dim[1:])


def by_x(shape: Sequence[int]) -> str:
    """A shape in words."""
    return "x".join(map(str, shape)) if shape else "one number"


def _shape_remedy(wanted: tuple[int, ...], there: tuple[int, ...]) -> str:
    """The options that bring the data to a network's shape, where there are such options."""
    square = len(wanted) == 3 and wanted[0] in (1, 3) and wanted[1] == wanted[2]
    if not square:
        return "change its input to square images, 1xNxN or 3xNxN"
    given = [] if wanted[1:] == there[1:] else [f"--image_size {wanted[1]}"]
    given += [] if wanted[0] == there[0] else [f"--color {'gray' if wanted[0] == 1 else 'rgb'}"]
    return f"give {' '.join(given)}, or change its input"


def functions_between(network: Message, image: str, logits: str) -> list[Message]:
    """The functions that `logits` needs, each after those that it needs, else as in the file.

    Raises:
        ValueError: they need each other in a circle.
    """
    maker = {name: at for at, f in enumerate(network.function) for name in f.output}
    wanted: set[int] = set()
    waiting = [logits]
    while waiting:
        name = waiting.pop()
        if name != image and maker.get(name, -1) not in wanted | {-1}:
            wanted.add(maker[name])
            waiting += network.function[maker[name]].input
    made = {name for at in wanted for name in network.function[at].output} - {image}
    return _in_order([network.function[at] for at in sorted(wanted)], made)


def _in_order(functions: list[Message], made: set[str]) -> list[Message]:
    """Functions sorted so that each comes after the makers of its inputs, of those in `made`."""
    ordered: list[Message] = []
    while functions:
        later = []
        for function in functions:
            if made.isdisjoint(function.input):
                ordered.append(function)
                made -= set(function.output)
            else:
                later.append(function)
        if len(later) == len(functions):
            raise ValueError(f"{later[0].name} needs its own output")
        functions = later
    return ordered


def _first_known(function: Message, values: dict[str, nn.Variable]) -> nn.Variable | None:
    """The first input of a function that is no parameter."""
    return next((values[name] for name in function.input if name in values), None)


# ---------------------------------------------------------------- parameters


def _parameter(variable: Message, function: Message, at: int, x: nn.Variable | None) -> nn.Variable:
    """A parameter of the current scope; a new one has the values that nnabla's seed gives.

    Args:
        variable: its definition, with the initializer that the file records, if any.
        function: that takes it.
        at: as which of its inputs.
        x: the images' input of the function.

    Raises:
        ValueError: the file names no known initializer, and the function has no usual one.
    """
    role = input_names(function)[at]
    shape = tuple(variable.shape.dim)
    initializer = _create_initializer(variable, nn.random.prng)
    if initializer is None and not variable.initializer.type:
        initializer = _usual_initializer(function, role, shape, x)
    if initializer is None:
        kind = variable.initializer.type
        which = f"its initializer {kind} is not known" if kind else "the file has no initializer"
        raise ValueError(f"no start for {variable.name} of {function.type}: {which}")
    need_grad = role not in STATISTICS
    return nn.parameter.get_parameter_or_create(variable.name, shape, initializer, need_grad)


def input_names(function: Message) -> list[str]:
    """What each input of a function is; a number where that does not matter."""
    names = [str(at) for at in range(len(function.input))]
    if function.type in WEIGHTS:
        names[1:3] = ["weight", "bias"][: len(names) - 1]
    if function.type in NORMS:
        flags = parameter_message(function)
        left_out = {
            name
            for name, flag in (("beta", "no_bias"), ("gamma", "no_scale"))
            if getattr(flags, flag, False)
        }
        parameters = [name for name in ("beta", "gamma", *STATISTICS) if name not in left_out]
        return ["x", *parameters, "z"][: len(names)]
    if function.type == "PReLU":
        names[1:2] = ["slope"]
    return names


def _usual_initializer(
    function: Message, role: str, shape: tuple[int, ...], x: nn.Variable | None
) -> Any:
    """What nnabla's parametric function of the same name starts from; None for others."""
    if role == "weight" and x is not None:
        return UniformInitializer(calc_uniform_lim_glorot(*_fans(function, shape, x)))
    constant = {
        "bias": 0.0, "beta": 0.0, "gamma": 1.0, "mean": 0.0, "variance": 1.0, "slope": 0.25,
    }  # fmt: skip
    return ConstantInitializer(constant[role]) if role in constant else None


def _fans(
    function: Message, shape: tuple[int, ...], x: nn.Variable
) -> tuple[int, int, tuple[int, ...]]:
    """Maps in, maps out and the kernel, as nnabla counts them for a weight of this shape."""
    parameter = parameter_message(function)
    if function.type == "Affine":
        return math.prod(x.shape[parameter.base_axis :]), math.prod(shape[1:]), (1, 1)
    last = getattr(parameter, "channel_last", False)
    channels = x.shape[-1 if last else parameter.base_axis]
    kernel = shape[1:-1] if last else shape[2:]
    if function.type == "DepthwiseConvolution":
        return channels * parameter.multiplier, channels, shape[1:]
    if function.type == "Deconvolution":
        return (shape[-1] if last else shape[1]) * parameter.group, channels, kernel
    return channels, shape[0], kernel


# ---------------------------------------------------------------- functions


def parameter_message(function: Message) -> Message:
    """The settings of a function: its field `..._param`; the function itself without one."""
    wanted = function.type.lower()
    for field in function.DESCRIPTOR.fields:
        if field.name.replace("_", "") == f"{wanted}param":
            return getattr(function, field.name)
    return function


def _saved_batch(network: Message, image: str) -> int:
    """The batch size that a file has where it should have none, which is -1."""
    first = next(v.shape.dim[0] for v in network.variable if v.name == image)
    return int(first)


def _for_batch(function: Message, inputs: Sequence[nn.Variable], batch: int, saved: int) -> Message:
    """A copy of a function for another batch size, which leaves its input as it is."""
    ready = type(function)()
    ready.CopyFrom(function)
    parameter = parameter_message(ready)
    if getattr(parameter, "inplace", False):
        parameter.inplace = False
    shape = getattr(parameter, "shape", None)
    if shape is not None and shape.dim and shape.dim[0] in (-1, saved):
        shape.dim[0] = batch
    if function.type == "Slice" and len(parameter.stop) == inputs[0].ndim:
        stop = parameter.stop[0]
        whole = parameter.start[0] == 0 and (saved == stop or (saved == -1 and stop > 1))
        if whole and inputs[0].shape[0] == batch:
            parameter.stop[0] = batch
    return ready


def _applied(function: Message, inputs: list[nn.Variable], test: bool) -> Sequence[nn.Variable]:
    """The outputs of a function; BatchNorm follows `test`, whatever the file has."""
    if function.type == "Identity":
        return inputs
    instance = _create_function_instance(nn.get_current_context(), function)
    if function.type in BATCH_NORM:
        return [_batch_norm(function, instance.arguments, inputs, test)]
    if function.type in REPLACED:
        return [getattr(F, REPLACED[function.type])(*inputs, **instance.arguments)]
    outputs = instance(*inputs, n_outputs=len(function.output), auto_forward=False)
    return outputs if isinstance(outputs, tuple) else [outputs]


def _batch_norm(
    function: Message, arguments: dict[str, Any], inputs: list[nn.Variable], test: bool
) -> nn.Variable:
    named = dict(zip(input_names(function), inputs, strict=True))
    for name, constant in (("beta", 0.0), ("gamma", 1.0)):
        if name not in named:
            named[name] = F.constant(constant, named["mean"].shape)
    kept = {
        name: _as_written(value) if isinstance(value, float) else value
        for name, value in arguments.items()
        if name not in ("batch_stat", "no_scale", "no_bias")
    }
    fused = function.type != "BatchNormalization"
    normalise = F.fused_batch_normalization if fused else F.batch_normalization
    return normalise(**named, **kept, batch_stat=not test)


def _as_written(value: float) -> float:
    """A number such as 0.9 that the file keeps in single precision, 0.8999999761581421."""
    return float(str(np.float32(value)))
