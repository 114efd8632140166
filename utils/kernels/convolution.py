"""Two-dimensional convolution through NumPy's BLAS, to put in the place of nnabla's on a CPU.

nnabla 1.39 convolves on the CPU with one core and without AVX. Here kernels of 3x3 use Winograd's
tiles (winograd.py); for others the patches of a few images at a time become the rows of a matrix
that BLAS multiplies by the kernels. Images lie channels last, so that tiles and patches are long
runs of memory. All is float32, and repeated calls give the same bytes. Delete, with winograd.py,
when nnabla's own convolution is as fast on a CPU.

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
from dataclasses import dataclass
from functools import cached_property
from math import prod

import nnabla as nn
import numpy as np
from numpy.lib.stride_tricks import as_strided

from utils.kernels.array_functions import ArrayFunction, Arrays, Shape
from utils.kernels.channels_last import channels_first, channels_last
from utils.kernels.cores import parallel_for
from utils.kernels.maps import MapTotal, total_of
from utils.kernels.winograd import (
    TILE,
    fill_tiles,
    gather_maps,
    in_fours,
    kernel_gradient,
    spread_maps,
    transformed_kernels,
)

ROWS = 1024
"""About how many patches are multiplied at once: their matrix stays in the CPU's cache."""
TILED_FLOATS = 8192
"""About how many values of inputs and maps there are at each place of the tiles at once."""
LEAST_CHANNELS = 8
"""With fewer, tiles would take longer than patches."""
SUMS = 4
"""A sum over chunks is taken as so many sums, which can be computed side by side."""


@dataclass(frozen=True)
class Geometry:
    """The shapes of one convolution y of x with w.

    Attributes:
        x_shape: (|B|, H, W, C).
        w_shape: (C', C, kernel height, kernel width).
        pad: rows and columns of zeros on each side.
        stride: rows and columns from patch to patch.
    """

    x_shape: Shape
    w_shape: Shape
    pad: Shape
    stride: Shape

    @cached_property
    def padded(self) -> Shape:
        """Height and width of a padded image."""
        return tuple(n + 2 * p for n, p in zip(self.x_shape[1:3], self.pad, strict=True))

    @cached_property
    def map_shape(self) -> Shape:
        """Height and width of y."""
        sizes = zip(self.padded, self.w_shape[2:], self.stride, strict=True)
        return tuple((n - k) // s + 1 for n, k, s in sizes)

    @property
    def y_shape(self) -> Shape:
        """(|B|, height, width, C') of y."""
        return (self.x_shape[0], *self.map_shape, self.w_shape[0])

    def flipped(self) -> Geometry:
        """The convolution of dy with the turned kernels that gives dx; for stride 1."""
        pad = tuple(k - 1 - p for k, p in zip(self.w_shape[2:], self.pad, strict=True))
        maps, channels, *kernel = self.w_shape
        return Geometry(self.y_shape, (channels, maps, *kernel), pad, (1, 1))

    @cached_property
    def tiled(self) -> bool:
        """Whether the convolution goes by Winograd's tiles."""
        fits = self.w_shape[2:] == (3, 3) and self.stride == (1, 1) and max(self.pad) <= 2
        return fits and min(self.map_shape) >= TILE and min(self.w_shape[:2]) >= LEAST_CHANNELS

    @cached_property
    def tiles(self) -> Shape:
        """Rows and columns of tiles of an image."""
        return tuple(-(-n // TILE) for n in self.map_shape)

    @cached_property
    def chunk_size(self) -> int:
        """How many images are worked on at once."""
        if self.tiled:
            n = TILED_FLOATS // (sum(self.w_shape[:2]) * prod(self.tiles))
        else:
            n = ROWS // prod(self.map_shape)
        return min(self.x_shape[0], max(1, n))

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
        size = prod(shape)
        if name not in self._held or self._held[name].size < size:
            self._held[name] = np.empty(size, np.float32)
        return self._held[name][:size].reshape(shape)


_buffers = _Buffers()


class _Patches:
    """The padded images of a chunk and, as the rows of a matrix, their patches.

    Attributes:
        padded: (n, H + 2 pad, W + 2 pad, C), 0 at first.
        images: (n, H, W, C), the inside of `padded`.
        values: (n, height, width, kernel height, kernel width * C).
    """

    def __init__(self, geometry: Geometry) -> None:
        n, (_, height, width, channels) = geometry.chunk_size, geometry.x_shape
        self.geometry = geometry
        self.padded = _buffers.take("padded", (n, *geometry.padded, channels))
        self.padded.fill(0.0)
        top, left = geometry.pad
        self.images = self.padded[:, top : top + height, left : left + width]
        rows, columns = geometry.w_shape[2:]
        shape = (n, *geometry.map_shape, rows, columns * channels)
        self.values = _buffers.take("patches", shape)

    def rows(self, n: int) -> np.ndarray:
        """The patches of the first n images, (n * height * width, K), as they are."""
        return self.values[:n].reshape(-1, prod(self.values.shape[3:]))

    def of(self, x: np.ndarray) -> np.ndarray:
        """Fill the patches of images x (n, H, W, C); returns `rows` (n * height * width, K)."""
        n = len(x)
        self.images[:n] = x
        image, row, column, value = self.padded.strides
        down, right = self.geometry.stride
        strides = (image, down * row, right * column, row, value)
        self.values[:n] = as_strided(self.padded, self.values[:n].shape, strides)
        return self.rows(n)

    def added(self, n: int) -> np.ndarray:
        """Images (n, H, W, C) to which each patch adds its values where it would be taken."""
        self.padded.fill(0.0)
        (rows, columns), (height, width) = self.geometry.w_shape[2:], self.geometry.map_shape
        down, right = self.geometry.stride
        values = self.values[:n].reshape(n, height, width, rows, columns, -1)
        for i, j in np.ndindex(rows, columns):
            place = self.padded[:n, i : i + down * height : down, j : j + right * width : right]
            place += values[:, :, :, i, j]
        return self.images[:n]


class _Tiles:
    """The tiles of a chunk's inputs and those of its maps, place by place.

    Attributes:
        inputs: (6, 6, n, rows, columns * C).
        maps: (6, 6, n, rows, columns * C').
    """

    def __init__(self, geometry: Geometry, n: int) -> None:
        maps, channels = geometry.w_shape[:2]
        self.pad = geometry.pad
        self.channels = channels, maps
        rows, columns = geometry.tiles
        self.inputs = _buffers.take("inputs", (6, 6, n, rows, columns * channels))
        self.maps = _buffers.take("maps", (6, 6, n, rows, columns * maps))

    def matrices(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs (6, 6, tiles, C) and maps (6, 6, tiles, C')."""
        channels, maps = self.channels
        return self.inputs.reshape(6, 6, -1, channels), self.maps.reshape(6, 6, -1, maps)

    def of(self, x: np.ndarray) -> None:
        """Fill the inputs from images x (n, H, W, C)."""
        fill_tiles(in_fours(x), self.pad[0], self.pad[1], self.inputs)

    def of_maps(self, dy: np.ndarray) -> None:
        """Fill the maps, as the adjoint of giving y does, from dy (n, height, width, C')."""
        spread_maps(in_fours(dy), self.maps)


def convolve(
    geometry: Geometry, x: np.ndarray, w: np.ndarray, y: np.ndarray, bias: np.ndarray | None = None
) -> None:
    """Write the convolution of x (|B|, H, W, C) with w (C', C, kh, kw), plus bias (C',), into y."""
    bias = np.zeros(len(w), np.float32) if bias is None else bias
    if geometry.tiled:
        _convolve_tiles(geometry, x, w, y, bias)
        return
    kernels = _kernel_columns(w)

    def compute(images: slice) -> None:
        maps = y[images].reshape(-1, len(w))
        np.matmul(_Patches(geometry).of(x[images]), kernels, out=maps)
        np.add(maps, bias, out=maps)

    parallel_for(compute, geometry.chunks())


def _convolve_tiles(
    geometry: Geometry, x: np.ndarray, w: np.ndarray, y: np.ndarray, bias: np.ndarray
) -> None:
    kernels, biases = transformed_kernels(w), np.tile(bias, geometry.tiles[1])

    def compute(images: slice) -> None:
        tiles = _Tiles(geometry, len(x[images]))
        tiles.of(x[images])
        inputs, maps = tiles.matrices()
        np.matmul(inputs, kernels, out=maps)
        gather_maps(tiles.maps, biases, in_fours(y[images]))

    parallel_for(compute, geometry.chunks())


def input_gradient(geometry: Geometry, dy: np.ndarray, w: np.ndarray, dx: np.ndarray) -> None:
    """Write the derivative of <dy, convolve(x, w)> by x into dx (|B|, H, W, C)."""
    if geometry.stride == (1, 1) and np.less(geometry.pad, geometry.w_shape[2:]).all():
        flipped = np.ascontiguousarray(w[:, :, ::-1, ::-1].transpose(1, 0, 2, 3))
        convolve(geometry.flipped(), dy, flipped, dx)
        return
    kernels = _kernel_columns(w).T

    def compute(images: slice) -> None:
        patches, maps = _Patches(geometry), dy[images].reshape(-1, len(w))
        np.matmul(maps, kernels, out=patches.rows(len(dy[images])))
        dx[images] = patches.added(len(dy[images]))

    parallel_for(compute, geometry.chunks())


def weight_gradient(geometry: Geometry, dy: np.ndarray, x: np.ndarray, dw: np.ndarray) -> None:
    """Write the derivative of <dy, convolve(x, w)> by w into dw (C', C, kh, kw)."""
    if geometry.tiled:
        _weight_gradient_tiles(geometry, dy, x, dw)
        return
    maps, channels, height, width = geometry.w_shape

    def product(images: slice, out: np.ndarray) -> None:
        rows = _Patches(geometry).of(x[images])
        np.matmul(dy[images].reshape(-1, maps).T, rows, out=out)

    total = _sum_over_chunks(geometry, product, (maps, height * width * channels))
    dw[...] = total.reshape(maps, height, width, channels).transpose(0, 3, 1, 2)


def _weight_gradient_tiles(
    geometry: Geometry, dy: np.ndarray, x: np.ndarray, dw: np.ndarray
) -> None:
    def product(images: slice, out: np.ndarray) -> None:
        tiles = _Tiles(geometry, len(x[images]))
        tiles.of(x[images])
        tiles.of_maps(dy[images])
        inputs, maps = tiles.matrices()
        np.matmul(inputs.swapaxes(2, 3), maps, out=out)

    shape = (6, 6, *geometry.w_shape[1::-1])
    dw[...] = kernel_gradient(_sum_over_chunks(geometry, product, shape))


def _sum_over_chunks(
    geometry: Geometry, product: Callable[[slice, np.ndarray], None], shape: Shape
) -> np.ndarray:
    """The sum of what `product` writes of each chunk; its order depends on the chunks alone."""
    chunks = list(geometry.chunks())
    totals = _buffers.take("totals", (min(SUMS, len(chunks)), *shape))
    totals.fill(0.0)

    def add(number: int) -> None:
        part = _buffers.take("part", shape)
        for images in chunks[number :: len(totals)]:
            product(images, part)
            np.add(totals[number], part, out=totals[number])

    parallel_for(add, range(len(totals)))
    return totals.sum(0)


def _kernel_columns(w: np.ndarray) -> np.ndarray:
    """Kernels (C', C, kh, kw) as (K, C'), K = kh * kw * C in the order of a patch."""
    return np.ascontiguousarray(w.transpose(2, 3, 1, 0)).reshape(-1, len(w))


class _Bilinear(ArrayFunction):
    """One of the three operations; a convolution may have a bias too.

    Attributes:
        operation: (geometry, first, second, out), on arrays.
        by: for each argument the operation that gives the derivative of <g, result> by it, and
            which of (g, first, second) that operation takes.
    """

    operation: Callable[..., None]
    by: tuple[tuple[str, int, int], tuple[str, int, int]]
    needed = frozenset({(0, 1), (1, 0)})

    def compute(self, xs: Arrays, ys: Arrays) -> None:
        first, second, *bias = xs
        type(self).operation(self.options["geometry"], first, second, ys[0], *bias)

    def write_derivative(self, i: int, gs: Arrays, xs: Arrays, out: np.ndarray, add: bool) -> None:
        target = np.empty_like(out) if add else out
        if i == 2:
            target[...] = total_of(gs[0])
        else:
            name, *arguments = self.by[i]
            first, second = ((gs[0], *xs)[a] for a in arguments)
            OPERATIONS[name].operation(self.options["geometry"], first, second, target)
        if add:
            out += target

    def derivatives(
        self, gs: Sequence[nn.Variable], xs: Sequence[nn.Variable]
    ) -> list[nn.Variable | None]:
        terms = (gs[0], *xs)
        graphs = [OPERATIONS[name](**self.options)(terms[a], terms[b]) for name, a, b in self.by]
        return graphs + ([MapTotal(shape=gs[0].shape)(gs[0])] if len(xs) == 3 else [])


class FastConvolution(_Bilinear):
    """y of x and w, and of a bias (C',)."""

    operation = convolve
    by = (("FastConvolutionInputGradient", 0, 2), ("FastConvolutionWeightGradient", 0, 1))

    def shapes(self, *inputs: Shape) -> list[Shape]:
        return [self.options["geometry"].y_shape]


class FastConvolutionInputGradient(_Bilinear):
    """dx of dy and w."""

    operation = input_gradient
    by = (("FastConvolution", 0, 2), ("FastConvolutionWeightGradient", 1, 0))

    def shapes(self, *inputs: Shape) -> list[Shape]:
        return [self.options["geometry"].x_shape]


class FastConvolutionWeightGradient(_Bilinear):
    """dw of dy and x."""

    operation = weight_gradient
    by = (("FastConvolution", 2, 0), ("FastConvolutionInputGradient", 1, 0))

    def shapes(self, *inputs: Shape) -> list[Shape]:
        return [self.options["geometry"].w_shape]


OPERATIONS: dict[str, type[_Bilinear]] = {
    cls.__name__: cls
    for cls in (FastConvolution, FastConvolutionInputGradient, FastConvolutionWeightGradient)
}


def fast_convolution(
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
) -> nn.Variable | None:
    """What `F.convolution` of the same arguments gives, or None for what this module cannot do.

    That is: other dimensions or base axis; dilation, groups, channels last; shapes that do not
    fit, of which nnabla tells the user.
    """
    plain = group == 1 and not channel_last and not others and set(dilation or (1,)) == {1}
    geometry = _geometry(x, weight, bias, pad, stride) if plain and base_axis == 1 else None
    if geometry is None:
        return None
    arguments = (weight,) if bias is None else (weight, bias)
    return channels_first(FastConvolution(geometry=geometry)(channels_last(x), *arguments))


def _geometry(
    x: nn.Variable,
    w: nn.Variable,
    bias: nn.Variable | None,
    pad: Sequence[int] | None,
    stride: Sequence[int] | None,
) -> Geometry | None:
    """The geometry of a convolution that this module can do, else None."""
    pad, stride = tuple(pad or (0, 0)), tuple(stride or (1, 1))
    if [x.ndim, w.ndim, len(pad), len(stride)] != [4, 4, 2, 2] or x.shape[1] != w.shape[1]:
        return None
    batch, channels, height, width = x.shape
    geometry = Geometry((batch, height, width, channels), w.shape, pad, stride)
    fits = min(geometry.map_shape) > 0 and (bias is None or bias.shape == w.shape[:1])
    return geometry if fits else None
