"""Small .nnp files, as nnabla and as Neural Network Console write them."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import nnabla as nn
import nnabla.functions as F
from nnabla.utils.save import save

from utils.training.models import Model

SIDE = 8
"""Of the images, which are gray."""
CLASSES = 10


def save_model(
    path: Path,
    model: Model,
    loss: bool = False,
    channels: int = 1,
    classes: int = CLASSES,
    batch_size: int = 4,
    **options: bool,
) -> None:
    """Save a model by nnabla, as it is trained.

    Args:
        path: of the .nnp file.
        model: to save.
        loss: save the mean loss in the place of the logits.
        channels: of the images.
        classes: how many.
        batch_size: of the graph that is saved.
        options: of nnabla's `save`.
    """
    with nn.parameter_scope("", scope={}):
        x = nn.Variable((batch_size, channels, SIDE, SIDE))
        t = nn.Variable((batch_size, 1))
        logits = model(x, classes, False)
        y = F.mean(F.softmax_cross_entropy(logits, t)) if loss else logits
        names = {"x": x, "t": t} if loss else {"x": x}
        network = {"name": "net", "batch_size": 4, "outputs": {"y": y}, "names": names}
        save(str(path), {"networks": [network]}, **options)


def write_nnp(path: Path, text: str) -> Path:
    """Write networks as an archive like Neural Network Console's."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("nnp_version.txt", "0.1\n")
        archive.writestr("net.nntxt", text)
        archive.writestr("parameter.protobuf", b"")
    return path


@dataclass
class Layers:
    """A network in protobuf text, one layer after the other."""

    name: str
    shape: tuple[int, ...] = (1, SIDE, SIDE)
    last: str = "Input"
    parts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._variable("Input", "Buffer", (-1, *self.shape))

    def add(
        self,
        kind: str,
        settings: str = "",
        shape: tuple[int, ...] | None = None,
        parameters: tuple[tuple[str, tuple[int, ...], str], ...] = (),
        data: tuple[str, ...] = (),
    ) -> Layers:
        """Add a layer, named after its kind.

        Args:
            kind: of nnabla's functions.
            settings: its parameter message.
            shape: of its output per image, if it is another one.
            parameters: name, shape and initializer of each.
            data: variables of the data set that it takes, of one number per image.
        """
        self.shape = self.shape if shape is None else shape
        before = sum(f'type: "{kind}"' in part for part in self.parts)
        name = f"{kind}_{before + 1}" if before else kind
        for parameter, size, initializer in parameters:
            self._variable(f"{name}/{parameter}", "Parameter", size, initializer)
        for variable in data:
            self._variable(variable, "Buffer", (-1, 1))
        inputs = [self.last, *(f"{name}/{parameter}" for parameter, _, _ in parameters), *data]
        self._variable(name, "Buffer", (-1, *self.shape))
        takes = " ".join(f'input: "{variable}"' for variable in inputs)
        function = f'name: "{name}" type: "{kind}" {takes} output: "{name}" {settings}'
        self.parts.append(f"function {{ {function} }}")
        self.last = name
        return self

    def _variable(
        self, name: str, kind: str, shape: tuple[int, ...], initializer: str = ""
    ) -> None:
        dims = " ".join(f"dim: {n}" for n in shape)
        start = f"initializer {{ {initializer} }}" if initializer else ""
        variable = f'name: "{name}" type: "{kind}" shape {{ {dims} }} {start}'
        self.parts.append(f"variable {{ {variable} }}")

    def __str__(self) -> str:
        body = "\n  ".join(self.parts)
        return f'network {{ name: "{self.name}" batch_size: 64\n  {body}\n}}\n'


ZERO, ONE = 'type: "Constant" multiplier: 0', 'type: "Constant" multiplier: 1'


def convolution(net: Layers, maps: int = 3) -> Layers:
    """Add a 3x3 convolution that keeps the size."""
    settings = "base_axis: 1 pad { dim: 1 dim: 1 } stride { dim: 1 dim: 1 } "
    settings = f"convolution_param {{ {settings} dilation {{ dim: 1 dim: 1 }} group: 1 }}"
    channels, *size = net.shape
    weight = ("conv/W", (maps, channels, 3, 3), 'type: "NormalConvolutionGlorot" multiplier: 1')
    bias = ("conv/b", (maps,), ZERO)
    return net.add("Convolution", settings, (maps, *size), (weight, bias))


def batch_normalization(net: Layers, batch_stat: bool) -> Layers:
    """Add BatchNorm over maps."""
    shape = (1, net.shape[0], *[1] * (len(net.shape) - 1))
    parameters = (
        ("bn/beta", shape, ZERO), ("bn/gamma", shape, ONE),
        ("bn/mean", shape, ZERO), ("bn/var", shape, ONE),
    )  # fmt: skip
    stat = "batch_stat: true" if batch_stat else ""
    settings = f"batch_normalization_param {{ axes: 1 decay_rate: 0.9 eps: 0.0001 {stat} }}"
    return net.add("BatchNormalization", settings, None, parameters)


def affine(net: Layers, outputs: int = CLASSES) -> Layers:
    """Add an affine layer."""
    inputs = 1
    for n in net.shape:
        inputs *= n
    weight = ("affine/W", (inputs, outputs), 'type: "NormalAffineGlorot" multiplier: 1')
    bias = ("affine/b", (outputs,), ZERO)
    return net.add("Affine", "affine_param { base_axis: 1 }", (outputs,), (weight, bias))


def console_network(name: str, role: str, outputs: int = CLASSES, loss: str = "") -> Layers:
    """A network of a Console project, to train, to validate or to run."""
    net = Layers(name)
    if role == "train":
        net.add("ImageAugmentation", "image_augmentation_param { shape { dim: 1 dim: 8 dim: 8 } }")
    net.add("MulScalar", "mul_scalar_param { val: 0.0039 }")
    net = batch_normalization(convolution(net), batch_stat=role == "train")
    net.add("ReLU", "relu_param { inplace: true }")
    if role == "train":
        net.add("Dropout", "dropout_param { p: 0.5 }")
    net = affine(net, outputs).add("Softmax", "softmax_param { axis: 1 }")
    if role != "run":
        net.add(loss or "CategoricalCrossEntropy", shape=(1,), data=("T",))
    return net


def console_project(loss: str = "") -> str:
    """The networks, the optimizer and the executor of a Console project."""
    networks = (
        console_network("Main", "train", loss=loss),
        console_network("MainValidation", "validate", loss=loss),
        console_network("MainRuntime", "run"),
    )
    optimizer = """
optimizer {
  name: "Optimizer" network_name: "Main" dataset_name: "Training"
  solver { type: "Adam" adam_param { alpha: 0.001 } }
  data_variable { variable_name: "Input" data_name: "x" }
  data_variable { variable_name: "T" data_name: "y" }
  parameter_variable { variable_name: "Convolution/conv/W" learning_rate_multiplier: 1 }
  parameter_variable { variable_name: "BatchNormalization/bn/mean" learning_rate_multiplier: 0 }
}
executor {
  name: "Executor" network_name: "MainRuntime"
  data_variable { variable_name: "Input" data_name: "x" }
  output_variable { variable_name: "Softmax" data_name: "y'" }
}
"""
    return "".join(map(str, networks)) + optimizer
