"""A net with parameters of its own, from which graphs of any batch size are built."""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import h5py
import nnabla as nn
import numpy as np

from utils.errors import UserError
from utils.kernels.fast_functions import fast_functions
from utils.link_free import read_file
from utils.output.storage import unreadable
from utils.training import models
from utils.training.models import Model
from utils.training.nnp_net import NnpNet

State = dict[str, np.ndarray]
"""The state s_t of a training by name: parameters theta, running statistics r and, with
momentum, the velocity. The arrays are copies and belong to the state alone."""


class Network:
    """A model together with its parameters, which live in a scope of their own.

    Args:
        model: the function that builds the graph.
        image_shape: (C, H, W).
        n_classes: number of classes K.
        seed: seed of the initial parameters, which depend on nothing else.
        conv: "fast", the functions of `utils.kernels.fast_functions` on a CPU; or "nnabla", its
            own.
    """

    def __init__(
        self,
        model: Model,
        image_shape: tuple[int, ...],
        n_classes: int,
        seed: int = 0,
        conv: str = "fast",
    ) -> None:
        self.model = model
        self.conv = conv
        self.image_shape = image_shape
        self.n_classes = n_classes
        self._scope: OrderedDict[str, object] = OrderedDict()
        nn.seed(seed, set_function_seed=False)  # the initial values; no function draws numbers
        self.logits(nn.Variable((1, *image_shape)), test=True)
        parameters = self.parameters()
        self.theta = OrderedDict((k, p) for k, p in parameters.items() if p.need_grad)
        self.statistics = OrderedDict((k, p) for k, p in parameters.items() if not p.need_grad)

    def logits(self, x: nn.Variable, test: bool) -> nn.Variable:
        """Build the graph for `x` (|B|, C, H, W); returns (|B|, K) logits."""
        functions = fast_functions if self.conv == "fast" else nullcontext
        with nn.parameter_scope("", scope=self._scope), functions():
            return self.model(x, self.n_classes, test)

    def parameters(self) -> OrderedDict[str, nn.Variable]:
        """All parameters by name, running statistics included."""
        with nn.parameter_scope("", scope=self._scope):
            return nn.get_parameters(grad_only=False)

    @property
    def n_parameters(self) -> int:
        """How many numbers theta holds."""
        return sum(p.size for p in self.theta.values())

    @property
    def graph(self) -> str:
        """What the graph of the model is known by: a hash of its functions and parameters.

        With a model of a user's own the initial values and the training graph count too.
        """
        shapes = [(name, p.shape) for name, p in self.parameters().items()]
        known: tuple[object, ...] = (self.functions(), shapes)
        if isinstance(self.model, NnpNet):
            known = (*known, self.model.definition)
        elif getattr(self.model, "__module__", "") != models.__name__:
            known = (*known, self.functions(test=False), self._initial_values())
        return hashlib.sha256(repr(known).encode()).hexdigest()[:16]

    def _initial_values(self) -> str:
        """A hash of the values from which seed 0 begins; empty if they differ from call to call."""
        begun = [
            Network(self.model, self.image_shape, self.n_classes, conv=self.conv).state()
            for _ in range(2)
        ]
        first, second = (
            hashlib.sha256(b"".join(array.tobytes() for array in state.values())).hexdigest()
            for state in begun
        )
        return first if first == second else ""

    def functions(self, test: bool = True) -> list[tuple[str, dict[str, Any]]]:
        """Name and arguments of each function of the graph, for evaluation or training."""
        functions: list[tuple[str, dict[str, Any]]] = []
        x = nn.Variable((1, *self.image_shape))
        with nn.parameter_scope("", scope=self._scope):
            logits = self.model(x, self.n_classes, test)
        logits.visit(lambda f: functions.append((f.info.type_name, f.info.args)))
        return functions

    def state(self) -> State:
        """A copy of parameters and running statistics."""
        return {name: p.d.copy() for name, p in (self.theta | self.statistics).items()}

    def load(self, state: State) -> None:
        """Set parameters and running statistics; a velocity in `state` is not the net's."""
        for name, p in (self.theta | self.statistics).items():
            p.d = state[name]


def hdf5_of(state: State) -> bytes:
    """A state as the content of an HDF5 file, made by nnabla.

    In memory: HDF5 ends the process when it cannot write to a full disk.
    """
    file = io.BytesIO()
    nn.save_parameters(file, _variables(state), extension=".h5")
    return file.getvalue()


def _variables(state: State) -> OrderedDict[str, nn.Variable]:
    return OrderedDict((k, nn.Variable.from_numpy_array(v)) for k, v in state.items())


def load_state(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> State:
    """Read a state from an HDF5 file.

    Args:
        path: the file.
        shapes: what the state has to hold: the shape of each array by name.

    Raises:
        UserError: the file is not there, cut short or not HDF5, holds other arrays, or values
            that are no finite numbers.
    """
    try:
        content = read_file(path)
        problem = _problem_of(_arrays_in(content), shapes)
        if problem:
            raise unreadable(path, "cannot be used", problem)
        with nn.parameter_scope("", scope=OrderedDict()):
            nn.load_parameters(io.BytesIO(content), extension=".h5")
            state = {k: v.d.copy() for k, v in nn.get_parameters(grad_only=False).items()}
    except UserError:
        raise
    except Exception as error:
        raise unreadable(path, "is not a readable parameter file", error) from error
    not_finite = next((k for k, v in sorted(state.items()) if not np.isfinite(v).all()), "")
    if not_finite:
        problem = f"{not_finite} holds values that are not finite"
        raise unreadable(path, "cannot be used", problem)
    return state


def _arrays_in(content: bytes) -> dict[str, tuple[int, ...]]:
    """The shape of each array in a parameter file, by name; no values are read.

    Raises:
        ValueError: an array's values are in other files, which HDF5 would read.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def look(name: str, found: Any) -> None:
        if isinstance(found, h5py.Dataset):
            if found.external or found.is_virtual:
                raise ValueError(f"the values of {name} are in another file")
            shapes[name] = found.shape

    with h5py.File(io.BytesIO(content), "r") as file:
        file.visititems(look)
    return shapes


def _problem_of(there: Mapping[str, object], shapes: Mapping[str, object]) -> str:
    """Why a file of arrays of these shapes cannot be used; empty if it can."""
    for name in sorted(shapes.keys() | there.keys()):
        found, wanted = there.get(name, "missing"), shapes.get(name, "not part of it")
        if found != wanted:
            return f"it holds the parameters of another net: {name} is {found}, here {wanted}"
    return ""
