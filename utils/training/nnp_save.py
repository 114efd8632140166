"""A trained net as the content of a .nnp file, for nnabla and Neural Network Console.

`nnabla.utils.save.save` writes the time of day into the archive, so that two runs would differ;
here the same net always gives the same bytes.
"""

from __future__ import annotations

import io
import zipfile

import nnabla as nn
from google.protobuf import text_format
from nnabla.utils.nnp_format import nnp_version
from nnabla.utils.save import create_proto

from utils.training.network import Network, State

IMAGES, LOGITS = "x", "y"
"""The input and the output of the network in the file."""
NO_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest time that an archive can hold."""


def nnp_of(network: Network, state: State) -> bytes:
    """The content of a .nnp file with one network, which normalises by its running statistics.

    Its input `x` takes images as `normalise` of utils/data/images.py gives them, its output `y`
    are the logits.

    Args:
        network: whose graph is saved; it stays as it is.
        state: the parameters and the running statistics.

    Raises:
        Exception: nnabla cannot save a function of the net.
    """
    twin = Network(network.model, network.image_shape, network.n_classes, conv="nnabla")
    twin.load(state)
    x = nn.Variable((1, *network.image_shape))
    logits = twin.logits(x, test=True)
    with nn.parameter_scope("", scope={}):
        for name, parameter in twin.parameters().items():
            nn.parameter.set_parameter(name, parameter)
        definition = create_proto(_contents(x, logits))
    parameters = io.BytesIO()
    nn.save_parameters(parameters, twin.parameters(), extension=".h5")
    return _archive(
        {
            "nnp_version.txt": f"{nnp_version()}\n".encode(),
            "network.nntxt": text_format.MessageToString(definition).encode(),
            "parameter.h5": parameters.getvalue(),
        }
    )


def _contents(x: nn.Variable, logits: nn.Variable) -> dict[str, object]:
    """What nnabla is to save: a network, and an executor that runs it on normalised images."""
    network = {
        "name": "MainRuntime",
        "batch_size": 1,
        "outputs": {LOGITS: logits},
        "names": {IMAGES: x},
    }
    executor = {
        "name": "Executor",
        "network": "MainRuntime",
        "data": [IMAGES],
        "output": [LOGITS],
        "no_image_normalization": True,
    }
    return {"networks": [network], "executors": [executor]}


def _archive(files: dict[str, bytes]) -> bytes:
    """A zip archive without times."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, NO_TIME), data)
    return content.getvalue()
