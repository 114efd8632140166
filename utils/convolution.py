"""Two-dimensional convolution through NumPy's BLAS, to put in the place of nnabla's on a CPU.

nnabla 1.39 convolves on the CPU with one core and without AVX. Here the patches of a few images
at a time become the rows of a matrix (channels last, so that each is a few long runs of memory)
and BLAS multiplies it by the kernels. All is float32, and repeated calls give the same bytes.

With y = convolve(x, w), dx = input_gradient(dy, w) and dw = weight_gradient(dy, x), each of the
three is linear in both of its arguments, and its derivatives are the other two:

    convolve(x, w):          by x  input_gradient(g, w)     by w   weight_gradient(g, x)
    input_gradient(dy, w):   by dy convolve(g, w)           by w   weight_gradient(dy, g)
    weight_gradient(dy, x):  by dy convolve(x, g)           by x   input_gradient(dy, g)

so that graphs may be differentiated any number of times.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import nnabla as nn
import nnabla.functions as F
import numpy as np
from nnabla.backward_functions import register
from nnabla.function import PythonFunction
from numpy.lib.stride_tricks import as_strided

ROWS = 1024
"""About how many patches are multiplied at once: their matrix stays in the CPU's cache."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Geometry:
    """The shapes of one convolution y of x with w.

    Attributes:
        x_shape: (|B|, C, H, W).
        w_shape: (C', C, kernel height, kernel width).
        pad: rows and columns of zeros on each side.
        stride: rows and columns from patch to patch.
    """

    x_shape: Shape
    w_shape: Shape
    pad: Shape
    stride: Shape

    @property
    def padded(self) -> Shape:
        """Height and width of a padded image."""
        return tuple(n + 2 * p for n, p in zip(self.x_shape[2:], self.pad, strict=True))

    @property
    def map_shape(self) -> Shape:
        """Height and width of y."""
        sizes = zip(self.padded, self.w_shape[2:], self.stride, strict=True)
        return tuple((n - k) // s + 1 for n, k, s in sizes)

    @property
    def y_shape(self) -> Shape:
        """(|B|, C', height, width) of y."""
        return (self.x_shape[0], self.w_shape[0], *self.map_shape)

    def flipped(self) -> Geometry:
        """The convolution of dy with the turned kernels that gives dx; for stride 1."""
        pad = tuple(k - 1 - p for k, p in zip(self.w_shape[2:], self.pad, strict=True))
        maps, channels, *kernel = self.w_shape
        return Geometry(self.y_shape, (channels, maps, *kernel), pad, (1, 1))

    @property
    def chunk_size(self) -> int:
        """How many images are worked on at once."""
        return min(self.x_shape[0], max(1, ROWS // int(np.prod(self.map_shape))))

    def chunks(self) -> Iterator[slice]:
        """The batch in slices of at most `chunk_size` images."""
        n, size = self.x_shape[0], self.chunk_size
        return (slice(start, min(start + size, n)) for start in range(0, n, size))


class _Buffers(threading.local):
    """Memory that every call uses again, of each thread its own."""

    def __init__(self) -> None:
        self._held: dict[str, np.ndarray] = {}

    def take(self, name: str, shape: Shape) -> np.ndarray:
        """An array of `shape` in the memory called `name`, its values left as they were."""
        size = int(np.prod(shape))
        if name not in self._held or self._held[name].size < size:
            self._held[name] = np.empty(size, np.float32)
        return self._held[name][:size].reshape(shape)


_buffers = _Buffers()


class _Patches:
    """The padded images of a chunk and, as the rows of a matrix, their patches.

    Attributes:
        padded: (n, H + 2 pad, W + 2 pad, C), 0 at first.
        images: (n, C, H, W), the inside of `padded`.
        values: (n, height, width, kernel height, kernel width * C).
    """

    def __init__(self, geometry: Geometry) -> None:
        n, (_, channels, height, width) = geometry.chunk_size, geometry.x_shape
        self.geometry = geometry
        self.padded = _buffers.take("padded", (n, *geometry.padded, channels))
        self.padded.fill(0.0)
        top, left = geometry.pad
        inside = self.padded[:, top : top + height, left : left + width]
        self.images = inside.transpose(0, 3, 1, 2)
        rows, columns = geometry.w_shape[2:]
        shape = (n, *geometry.map_shape, rows, columns * channels)
        self.values = _buffers.take("patches", shape)

    def rows(self, n: int) -> np.ndarray:
        """The patches of the first n images, (n * height * width, K), as they are."""
        return self.values[:n].reshape(-1, int(np.prod(self.values.shape[3:])))

    def of(self, x: np.ndarray) -> np.ndarray:
        """Fill the patches of images x (n, C, H, W); returns `rows` (n * height * width, K)."""
        n = len(x)
        self.images[:n] = _apart(x)
        image, row, column, value = self.padded.strides
        down, right = self.geometry.stride
        strides = (image, down * row, right * column, row, value)
        self.values[:n] = as_strided(self.padded, self.values[:n].shape, strides)
        return self.rows(n)

    def added(self, n: int) -> np.ndarray:
        """Images (n, C, H, W) to which each patch adds its values where it would be taken."""
        self.padded.fill(0.0)
        (rows, columns), (height, width) = self.geometry.w_shape[2:], self.geometry.map_shape
        down, right = self.geometry.stride
        values = self.values[:n].reshape(n, height, width, rows, columns, -1)
        for i, j in np.ndindex(rows, columns):
            place = self.padded[:n, i : i + down * height : down, j : j + right * width : right]
            place += values[:, :, :, i, j]
        return self.images[:n]


def _apart(x: np.ndarray) -> np.ndarray:
    """A copy of x (n, C, H, W) with some memory between its channels.

    A channel of 4096 bytes, or a multiple, would map every channel's values at one place to the
    same few lines of the CPU's cache, and reading across channels would take twice as long.
    """
    n, channels, height, width = x.shape
    copy = _buffers.take("apart", (n, channels, height * width + 16))[:, :, : height * width]
    copy[...] = x.reshape(n, channels, -1)
    return as_strided(copy, x.shape, (*copy.strides[:2], 4 * width, 4))


def convolve(
    geometry: Geometry, x: np.ndarray, w: np.ndarray, y: np.ndarray, bias: np.ndarray | None = None
) -> None:
    """Write the convolution of x (|B|, C, H, W) with w (C', C, kh, kw), plus bias (C',), into y."""
    patches, kernels = _Patches(geometry), _kernel_columns(w)
    shape = (geometry.chunk_size, *geometry.map_shape, geometry.w_shape[0])
    maps = _buffers.take("maps", shape)
    for images in geometry.chunks():
        rows = patches.of(x[images])
        np.matmul(rows, kernels, out=maps.reshape(-1, shape[3])[: len(rows)])
        if bias is not None:
            maps += bias
        y[images] = maps[: len(x[images])].transpose(0, 3, 1, 2)


def input_gradient(geometry: Geometry, dy: np.ndarray, w: np.ndarray, dx: np.ndarray) -> None:
    """Write the derivative of <dy, convolve(x, w)> by x into dx (|B|, C, H, W)."""
    if geometry.stride == (1, 1) and np.less(geometry.pad, geometry.w_shape[2:]).all():
        flipped = w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
        convolve(geometry.flipped(), dy, flipped, dx)
        return
    patches, kernels = _Patches(geometry), _kernel_columns(w).T
    for images in geometry.chunks():
        maps = dy[images].transpose(0, 2, 3, 1).reshape(-1, len(w))
        np.matmul(maps, kernels, out=patches.rows(len(dy[images])))
        dx[images] = patches.added(len(dy[images]))


def weight_gradient(geometry: Geometry, dy: np.ndarray, x: np.ndarray, dw: np.ndarray) -> None:
    """Write the derivative of <dy, convolve(x, w)> by w into dw (C', C, kh, kw)."""
    maps, channels, height, width = geometry.w_shape
    patches = _Patches(geometry)
    total = np.zeros((maps, height * width * channels), np.float32)
    for images in geometry.chunks():
        total += dy[images].transpose(1, 0, 2, 3).reshape(maps, -1) @ patches.of(x[images])
    dw[...] = total.reshape(maps, height, width, channels).transpose(0, 3, 1, 2)


def _kernel_columns(w: np.ndarray) -> np.ndarray:
    """Kernels (C', C, kh, kw) as (K, C'), K = kh * kw * C in the order of a patch."""
    return np.ascontiguousarray(w.transpose(2, 3, 1, 0)).reshape(-1, len(w))


@dataclass(frozen=True)
class _Operation:
    """One of the three bilinear operations.

    Attributes:
        compute: (geometry, first, second, out), on arrays.
        out_shape: of its result.
        derivatives: for each argument the operation that gives the derivative of <g, result> by
            it, and which of (g, first, second) that operation takes.
    """

    compute: Callable[..., None]
    out_shape: Callable[[Geometry], Shape]
    derivatives: tuple[tuple[str, int, int], tuple[str, int, int]]


G, FIRST, SECOND = range(3)
OPERATIONS = {
    "FastConvolution": _Operation(
        convolve,
        lambda geometry: geometry.y_shape,
        (("FastConvolutionInputGradient", G, SECOND), ("FastConvolutionWeightGradient", G, FIRST)),
    ),
    "FastConvolutionInputGradient": _Operation(
        input_gradient,
        lambda geometry: geometry.x_shape,
        (("FastConvolution", G, SECOND), ("FastConvolutionWeightGradient", FIRST, G)),
    ),
    "FastConvolutionWeightGradient": _Operation(
        weight_gradient,
        lambda geometry: geometry.w_shape,
        (("FastConvolution", SECOND, G), ("FastConvolutionInputGradient", FIRST, G)),
    ),
}


class _BilinearFunction(PythonFunction):
    """An operation of `OPERATIONS` as a function of nnabla; a convolution may have a bias too."""

    def __init__(self, operation: str, geometry: Geometry) -> None:
        super().__init__(nn.get_current_context())
        self._operation = operation
        self._geometry = geometry

    @property
    def name(self) -> str:
        """By which nnabla finds the function's derivative."""
        return self._operation

    @property
    def args(self) -> dict[str, object]:
        """What nnabla hands to the function's derivative."""
        return {"operation": self._operation, "geometry": self._geometry}

    def min_outputs(self) -> int:
        return 1

    def grad_depends_output_data(self, i: int, o: int) -> bool:
        return False

    def grad_depends_input_data(self, i: int, j: int) -> bool:
        """The derivative by one argument takes the other; a bias and it take nothing."""
        return (i, j) in ((0, 1), (1, 0))

    def setup_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        outputs[0].reset_shape(OPERATIONS[self._operation].out_shape(self._geometry), True)

    def forward_impl(self, inputs: Sequence[nn.Variable], outputs: Sequence[nn.Variable]) -> None:
        first, second, *bias = (_array(variable.data) for variable in inputs)
        y = outputs[0].data.data
        OPERATIONS[self._operation].compute(self._geometry, first, second, y, *bias)

    def backward_impl(
        self,
        inputs: Sequence[nn.Variable],
        outputs: Sequence[nn.Variable],
        propagate_down: Sequence[bool],
        accum: Sequence[bool],
    ) -> None:
        g = _array(outputs[0].grad)
        for i, variable in enumerate(inputs):
            if propagate_down[i]:
                self._write_derivative(i, g, inputs, variable.grad.data, accum[i])

    def _write_derivative(
        self, i: int, g: np.ndarray, inputs: Sequence[nn.Variable], out: np.ndarray, add: bool
    ) -> None:
        """Write the derivative by input i into `out`, or add it."""
        target = np.empty_like(out) if add else out
        if i == 2:
            np.sum(g, axis=(0, 2, 3), out=target)
        else:
            operation, *arguments = OPERATIONS[self._operation].derivatives[i]
            first, second = (g if a == G else _array(inputs[a - 1].data) for a in arguments)
            OPERATIONS[operation].compute(self._geometry, first, second, target)
        if add:
            out += target


def _array(array: nn.NdArray) -> np.ndarray:
    return np.asarray(array.data, np.float32)


def _derivative_graph(
    grad_inputs: Sequence[nn.Variable],
    inputs: Sequence[nn.Variable],
    input_shapes: Sequence[Shape],
    outputs: Sequence[nn.Variable],
    output_shapes: Sequence[Shape],
    operation: str,
    geometry: Geometry,
) -> list[nn.Variable]:
    """Build the derivatives by all inputs for `nn.grad`."""
    terms = (grad_inputs[0], *inputs)
    derivatives = [
        _BilinearFunction(name, geometry)(terms[a], terms[b])
        for name, a, b in OPERATIONS[operation].derivatives
    ]
    bias = [F.sum(grad_inputs[0], (0, 2, 3))] if len(inputs) == 3 else []
    return derivatives + bias


for _name in OPERATIONS:
    register(_name, _derivative_graph)


@contextmanager
def fast_convolution() -> Iterator[None]:
    """Build graphs whose two-dimensional convolutions on a CPU are those of this module.

    A net written with `PF.convolution` needs no change. Anything else (another context, other
    dimensions or base axis; dilation, groups, channels last; shapes that do not fit, of which
    nnabla tells the user) stays nnabla's.
    """
    stock = F.convolution

    def convolution(
        x: nn.Variable,
        weight: nn.Variable,
        bias: nn.Variable | None = None,
        base_axis: int = 1,
        pad: Sequence[int] | None = None,
        stride: Sequence[int] | None = None,
        dilation: Sequence[int] | None = None,
        group: int = 1,
        channel_last: bool = False,
        **others: object,
    ) -> nn.Variable:
        plain = group == 1 and not channel_last and not others and set(dilation or (1,)) == {1}
        geometry = _geometry(x, weight, bias, pad, stride) if plain and base_axis == 1 else None
        if geometry is None:
            options = (base_axis, pad, stride, dilation, group, channel_last)
            return stock(x, weight, bias, *options, **others)
        arguments = (x, weight) if bias is None else (x, weight, bias)
        return _BilinearFunction("FastConvolution", geometry)(*arguments)

    F.convolution = convolution
    try:
        yield
    finally:
        F.convolution = stock


def _geometry(
    x: nn.Variable,
    w: nn.Variable,
    bias: nn.Variable | None,
    pad: Sequence[int] | None,
    stride: Sequence[int] | None,
) -> Geometry | None:
    """The geometry of a convolution that this module can do, else None."""
    pad, stride = tuple(pad or (0, 0)), tuple(stride or (1, 1))
    if nn.get_current_context().backend != ["cpu:float"] or not isinstance(x, nn.Variable):
        return None
    if [x.ndim, w.ndim, len(pad), len(stride)] != [4, 4, 2, 2] or x.shape[1] != w.shape[1]:
        return None
    geometry = Geometry(x.shape, w.shape, pad, stride)
    fits = min(geometry.map_shape) > 0 and (bias is None or bias.shape == w.shape[:1])
    return geometry if fits else None
