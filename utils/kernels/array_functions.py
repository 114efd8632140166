"""nnabla functions that compute on NumPy arrays and can be differentiated any number of times.

Why: nnabla differentiates a PythonFunction again only where a function of the same name is
registered for it, and each one sets up its own arrays; convolution.py, maps.py and swish.py share
that here. Delete together with those.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import nnabla as nn
import numpy as np
from nnabla.backward_functions import register
from nnabla.function import PythonFunction

from utils.kernels.nnabla_imports import stop_searching

stop_searching()

Shape = tuple[int, ...]
Arrays = Sequence[np.ndarray]


class ArrayFunction(PythonFunction):
    """A function of nnabla on float32 arrays. `nn.grad` finds its derivative by the class's name.

    Attributes:
        n_outputs: how many outputs it has.
        needed: (i, j) where the derivative by input i takes the value of input j; all by default.
        takes_outputs: the derivatives take the outputs, which follow the inputs in their xs.
        options: the keyword arguments that it was made with.
    """

    n_outputs: ClassVar[int] = 1
    needed: ClassVar[frozenset[tuple[int, int]] | None] = None
    takes_outputs: ClassVar[bool] = False

    def __init__(self, **options: Any) -> None:
        super().__init__(nn.get_current_context())
        self.options = options

    def __init_subclass__(cls) -> None:
        def derivatives(
            grad_inputs: Sequence[nn.Variable],
            inputs: Sequence[nn.Variable],
            input_shapes: Sequence[Shape],
            outputs: Sequence[nn.Variable],
            output_shapes: Sequence[Shape],
            **options: Any,
        ) -> list[nn.Variable | None]:
            xs = [*inputs, *outputs] if cls.takes_outputs else inputs
            return cls(**options).derivatives(grad_inputs, xs)

        register(cls.__name__, derivatives)

    @abstractmethod
    def shapes(self, *inputs: Shape) -> list[Shape]:
        """The shapes of the outputs, from those of the inputs."""

    @abstractmethod
    def compute(self, xs: Arrays, ys: Arrays) -> None:
        """Write the outputs ys of the inputs xs."""

    @abstractmethod
    def write_derivative(self, i: int, gs: Arrays, xs: Arrays, out: np.ndarray, add: bool) -> None:
        """Write the derivative of sum_o <g_o, y_o> by input i into `out`, or add it."""

    @abstractmethod
    def derivatives(
        self, gs: Sequence[nn.Variable], xs: Sequence[nn.Variable]
    ) -> list[nn.Variable | None]:
        """The graphs of the same derivatives by all inputs; None where it is zero."""

    @property
    def name(self) -> str:
        """By which nnabla finds the function's derivative."""
        return type(self).__name__

    @property
    def args(self) -> dict[str, Any]:
        """What nnabla hands to the function's derivative."""
        return self.options

    def min_outputs(self) -> int:
        return self.n_outputs

    def grad_depends_output_data(self, i: int, o: int) -> bool:
        return self.takes_outputs

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        return self.needed is None or (i, j) in self.needed

    def setup_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        shapes = self.shapes(*(variable.shape for variable in inputs))
        for variable, shape in zip(outputs, shapes, strict=True):
            variable.reset_shape(shape, True)

    def forward_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        self.compute([_array(v.data) for v in inputs], [v.data.data for v in outputs])

    def backward_impl(
        self,
        inputs: Sequence[nn.Variable],
        outputs: Sequence[nn.Variable],
        propagate_down: Sequence[bool],
        accum: Sequence[bool],
    ) -> None:
        taken = [*inputs, *outputs] if self.takes_outputs else inputs
        gs, xs = [_array(v.grad) for v in outputs], [_array(v.data) for v in taken]
        for i, variable in enumerate(inputs):
            if propagate_down[i]:
                self.write_derivative(i, gs, xs, variable.grad.data, accum[i])


def _array(array: nn.NdArray) -> np.ndarray:
    return np.asarray(array.data, np.float32)
