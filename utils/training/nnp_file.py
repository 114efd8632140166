"""Reads a .nnp file and finds the network in it whose output is a class.

A .nnp file is a zip archive with the networks as protobuf text (`*.nntxt`) and the parameters.
Neural Network Console writes several networks: one to train, one to validate and one to run, which
an executor names and which has neither loss nor augmentation. Only the graph is used: the
parameters start fresh in each trial.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from nnabla.core.graph_def import ProtoGraph, ProtoNetwork
from nnabla.utils import nnabla_pb2

from utils.errors import UserError
from utils.files import check_regular
from utils.training.nnp_net import (
    BATCH_NORM,
    NnpNet,
    by_x,
    functions_between,
    parameter_message,
    per_image,
)

SUFFIX = ".nnp"
TEXTS = (".nntxt", ".prototxt")
LARGEST = 64 * 2**20
"""Bytes of a network's text above which the file is not read."""
CROSS_ENTROPY, CATEGORICAL = "SoftmaxCrossEntropy", "CategoricalCrossEntropy"
CLASS_LOSSES = (CROSS_ENTROPY, CATEGORICAL)
OTHER_LOSSES = (
    "SigmoidCrossEntropy", "BinaryCrossEntropy", "SquaredError", "AbsoluteError", "HuberLoss",
    "EpsilonInsensitiveLoss", "KLMultinomial",
)  # fmt: skip
MONITORS = ("TopNError", "BinaryError", "ConfusionMatrix")
SOFTMAX = ("Softmax", "LogSoftmax")
NO_LOGITS = ("Sigmoid", "HardSigmoid", "LogSigmoid", "BinarySigmoid")
AFTER_LOSS = ("Mean", "Sum", "Reshape", "Identity", "ReduceMean", "ReduceSum")
LOOPS = ("RepeatStart", "RepeatEnd")
RECURRENT = ("RecurrentInput", "RecurrentOutput", "Delay", "RNN", "LSTM", "GRU")
AUGMENTATION = ("ImageAugmentation", "RandomFlip", "RandomShift", "RandomCrop", "RandomErase")
SCALING = ("MulScalar", "AddScalar", "MeanSubtraction", "Identity")
DIVISORS = ("group", "num_groups", "multiplier", "kernel", "stride", "dilation")
"""Settings by which nnabla divides: a 0 ends the process."""
ONLY_TRAINING = (*AUGMENTATION, "Dropout", "VATNoise")
"""Functions of random values, which networks to validate and to run are written without."""

Message = Any
"""A protobuf message; its classes are made at run time."""


class _Unfit(Exception):
    """Why a network cannot be scored.

    Args:
        network: its name.
        reason: what is wrong with it, in words.
    """

    def __init__(self, network: str, reason: str) -> None:
        super().__init__(f"network {network}: {reason}")


def read_nnp(name: str) -> NnpNet:
    """The network of a .nnp file whose output is a class.

    Args:
        name: the path, as in `--model`.

    Raises:
        UserError: the file cannot be read, is no .nnp file, is damaged, or holds no network that
            can be scored; the line says why for each network.
    """
    content = _content(name)
    reasons = []
    for network in _by_preference(content):
        try:
            return _net(name, content, network)
        except _Unfit as reason:
            reasons.append(str(reason))
        except Exception as error:  # a message without what every file has
            what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            reasons.append(f"network {network.name}: cannot be read ({what})")
    found = "; ".join(dict.fromkeys(reasons)) or "holds no network"
    raise UserError(f"--model {name}: {found}")


# ---------------------------------------------------------------- the file


def _content(name: str) -> Message:
    """The networks, optimizers and executors of a .nnp file."""
    try:
        check_regular(name)
        text = _text(Path(name))
        content = nnabla_pb2.NNablaProtoBuf()
        text_format.Parse(text, content)
    except OSError as error:
        raise UserError(f"--model {name}: {error.strerror or error}; give a .nnp file") from error
    except Exception as error:
        what = "is damaged, cut short or no .nnp file that nnabla 1.39 can read"
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"--model {name}: {what} ({reason}); write it again") from error
    return content


def _text(path: Path) -> str:
    """The text of the networks in a .nnp file, all parts of which are whole."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
        if damaged:
            raise zipfile.BadZipFile(f"{damaged} is damaged")
        parts = [part for part in archive.infolist() if part.filename.endswith(TEXTS)]
        if not parts:
            raise ValueError("it has no *.nntxt")
        if sum(part.file_size for part in parts) > LARGEST:
            raise ValueError(f"its *.nntxt has more than {LARGEST:,} bytes")
        return "\n".join(archive.read(part).decode("utf-8") for part in parts)


def _by_preference(content: Message) -> list[Message]:
    """The networks: first those of executors, then those without a loss, last those to train."""
    run = [executor.network_name for executor in content.executor]
    trained = {optimizer.network_name for optimizer in content.optimizer}

    def place(network: Message) -> tuple[bool, bool, bool]:
        has_loss = bool(_of_types(network, (*CLASS_LOSSES, *OTHER_LOSSES)))
        return network.name not in run, has_loss, network.name in trained

    return sorted(content.network, key=place)


def _of_types(network: Message, types: Sequence[str]) -> list[Message]:
    return [function for function in network.function if function.type in types]


# ---------------------------------------------------------------- a network


@dataclass(frozen=True)
class _Graph:
    """A network without loops, with its variables and their makers by name."""

    network: Message
    variables: dict[str, Message]
    makers: dict[str, Message]

    @classmethod
    def of(cls, network: Message) -> _Graph:
        """The graph of a network; raises `_Unfit` where it is none."""
        variables = {variable.name: variable for variable in network.variable}
        makers = {name: function for function in network.function for name in function.output}
        for function in network.function:
            unknown = [n for n in (*function.input, *function.output) if n not in variables]
            if unknown:
                raise _Unfit(network.name, f"{function.name} has an unknown variable {unknown[0]}")
        return cls(network, variables, makers)

    def users(self, name: str) -> list[Message]:
        """The functions that take a variable."""
        return [function for function in self.network.function if name in function.input]

    def is_output(self, name: str) -> bool:
        """Whether nothing takes a variable, monitors aside; what these give is no output."""
        takers = [user for user in self.users(name) if user.type not in MONITORS]
        return not takers and self.makers[name].type not in MONITORS

    def is_data(self, name: str) -> bool:
        """Whether a variable comes from the data: nothing makes it, and it is no parameter."""
        return name not in self.makers and self.variables[name].type != "Parameter"


def _net(name: str, content: Message, network: Message) -> NnpNet:
    """The model of a network; raises `_Unfit` if it has no class output or cannot be scored."""
    _check_functions(network)
    graph = _Graph.of(_without_loops(network))
    _check_training(content, network)
    logits = _logits(content, graph)
    try:
        needed = functions_between(graph.network, "", logits)
    except ValueError as error:
        raise _Unfit(network.name, str(error)) from error
    inputs = {n for function in needed for n in function.input if graph.is_data(n)}
    if len(inputs) != 1:
        named = ", ".join(sorted(inputs)) or "none"
        what = f"a class depends on one image, here on {len(inputs)} inputs ({named})"
        raise _Unfit(network.name, what)
    image, skipped = _after_preprocessing(graph, inputs.pop())
    remark = _remark(content, network, skipped)
    return NnpNet(name, graph.network.SerializeToString(deterministic=True), image, logits, remark)


def _check_functions(network: Message) -> None:
    recurrent = sorted({function.type for function in _of_types(network, RECURRENT)})
    if recurrent:
        what = f"{', '.join(recurrent)}: recurrent nets cannot be scored"
        raise _Unfit(network.name, what)
    for function in _of_types(network, BATCH_NORM):
        if len(function.output) != 1:
            what = f"{function.name} gives its statistics out, which cannot be scored"
            raise _Unfit(network.name, what)
    for function in network.function:
        zero = _zero_setting(function)
        if zero:
            raise _Unfit(network.name, f"{function.name} has {zero} 0; give 1 or more")


def _zero_setting(function: Message) -> str:
    """The first of `DIVISORS` that is 0; empty for none."""
    settings = parameter_message(function)
    for name in DIVISORS:
        value = getattr(settings, name, 1)
        if 0 in getattr(value, "dim", [value]):
            return name
    return ""


def _without_loops(network: Message) -> Message:
    """The network with the content of its loops written out."""
    if not _of_types(network, LOOPS):
        return network
    content = nnabla_pb2.NNablaProtoBuf()
    content.network.append(network)
    try:
        graph = ProtoGraph.from_proto(content)
        looped = next(iter(graph.networks.values()))
        for variable in network.variable:
            known = looped.parameters.get(variable.name) or looped.variables[variable.name]
            known.initializer = variable.initializer
        return _message(looped.expand_loop_control())
    except Exception as error:
        raise _Unfit(network.name, f"its loops cannot be read ({error})") from error


def _message(network: ProtoNetwork) -> Message:
    """The message of a network whose initializers are messages."""
    flat = nnabla_pb2.Network(name=network.name, batch_size=network.batch_size)
    for variable in (*network.variables.values(), *network.parameters.values()):
        written = flat.variable.add(name=variable.name, type=variable.type)
        written.shape.dim.extend(variable.shape)
        written.initializer.CopyFrom(variable.initializer)
    for function in network.functions.values():
        written = flat.function.add()
        written.CopyFrom(function.proto)
    return flat


def _check_training(content: Message, network: Message) -> None:
    """Refuse a net that is trained by another loss, be it in another network of the file."""
    trained = {optimizer.network_name for optimizer in content.optimizer}
    for other in content.network:
        if other.name == network.name or other.name in trained or not trained:
            losses = sorted({function.type for function in _of_types(other, OTHER_LOSSES)})
            if losses:
                what = (
                    f"is trained by {', '.join(losses)}; only softmax cross-entropy can be scored"
                )
                raise _Unfit(other.name, what)


def _logits(content: Message, graph: _Graph) -> str:
    """The variable with the logits: what the loss or the output of a class starts from."""
    losses = _of_types(graph.network, CLASS_LOSSES)
    if len(losses) > 1:
        raise _Unfit(graph.network.name, f"it has {len(losses)} losses, one can be scored")
    if losses:
        _check_after_loss(graph, losses[0])
        logits, softmax = _before_softmax(graph, losses[0].input[0])
        if losses[0].type == CATEGORICAL and not softmax:
            raise _Unfit(
                graph.network.name, f"{CATEGORICAL} without a Softmax before it cannot be scored"
            )
    else:
        logits, _ = _before_softmax(graph, _output(content, graph))
    _check_logits(graph, logits)
    return logits


def _check_after_loss(graph: _Graph, loss: Message) -> None:
    """Refuse a loss that is not softmax cross-entropy alone."""
    waiting = list(loss.output)
    while waiting:
        for user in graph.users(waiting.pop()):
            if user.type not in AFTER_LOSS:
                raise _Unfit(
                    graph.network.name, f"its loss is not {loss.type} alone ({user.type} follows)"
                )
            waiting += user.output


def _output(content: Message, graph: _Graph) -> str:
    """The one output of a network without a loss: that of its executor, else what nothing takes."""
    named = {
        output.variable_name
        for executor in content.executor
        if executor.network_name == graph.network.name
        for output in executor.output_variable
        if output.variable_name in graph.makers
    }
    outputs = sorted(named or {name for name in graph.makers if graph.is_output(name)})
    if len(outputs) != 1:
        named_all = ", ".join(outputs) or "none"
        raise _Unfit(
            graph.network.name, f"one output can be scored, here are {len(outputs)} ({named_all})"
        )
    return outputs[0]


def _before_softmax(graph: _Graph, name: str) -> tuple[str, bool]:
    """The variable that a softmax is taken of, and whether one is; the variable itself if not."""
    softmax = False
    for maker in _makers(graph, name):
        if maker.type != "Identity" and (softmax or maker.type not in SOFTMAX):
            break
        softmax |= maker.type in SOFTMAX
        name = maker.input[0]
    return name, softmax


def _makers(graph: _Graph, name: str) -> Iterator[Message]:
    """The maker of a variable, that of its first input, and so on."""
    seen = set()
    while name in graph.makers and name not in seen:
        seen.add(name)
        yield graph.makers[name]
        name = graph.makers[name].input[0] if graph.makers[name].input else ""


def _check_logits(graph: _Graph, logits: str) -> None:
    shape, maker = per_image(graph.variables[logits]), graph.makers.get(logits)
    if maker is None:
        raise _Unfit(graph.network.name, f"its output {logits} is computed from nothing")
    if not shape or shape[0] < 2 or set(shape[1:]) - {1}:
        what = f"its output {logits} is {by_x(shape)} per image"
        raise _Unfit(graph.network.name, f"{what}, not one number for each of two or more classes")
    if maker.type in NO_LOGITS:
        raise _Unfit(
            graph.network.name,
            f"its output {logits} is a {maker.type}; only a Softmax can be scored",
        )


def _after_preprocessing(graph: _Graph, image: str) -> tuple[str, list[str]]:
    """The variable that takes the images after scaling and augmentation, and what these were."""
    skipped = []
    while len(users := graph.users(image)) == 1:
        (user,) = users
        before, after = (graph.variables[name] for name in (image, user.output[0]))
        if user.type not in (*SCALING, *AUGMENTATION) or per_image(before) != per_image(after):
            break
        skipped.append(user.type)
        image = user.output[0]
    return image, [kind for kind in skipped if kind != "Identity"]


def _remark(content: Message, network: Message, skipped: Sequence[str]) -> str:
    """What of the file is left out, in words."""
    own = {function.type for function in network.function}
    others = {f.type for other in content.network for f in _of_types(other, ONLY_TRAINING)}
    left_out = [*dict.fromkeys(skipped), *sorted(others - own - set(skipped))]
    parts = []
    if left_out:
        parts.append(
            f"network {network.name} is trained, without {', '.join(left_out)}; images are "
            "normalised and augmented by this program"
        )
    scaled = _scaled_rates(content)
    if scaled:
        parts.append(f"every parameter learns with --lr, {', '.join(scaled)} too")
    return "; ".join(parts)


def _scaled_rates(content: Message) -> list[str]:
    """The parameters that the file trains with another learning rate, BatchNorm's aside."""
    statistics = {
        name
        for network in content.network
        for function in _of_types(network, BATCH_NORM)
        for name in list(function.input)[1:]
    }
    rates = {
        parameter.variable_name: parameter.learning_rate_multiplier
        for optimizer in content.optimizer
        for parameter in optimizer.parameter_variable
        if parameter.variable_name not in statistics
    }
    return sorted(name for name, rate in rates.items() if rate != 1.0 and any(rates.values()))[:3]
