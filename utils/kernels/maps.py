"""ReLU, pooling and what BatchNorm is made of, on maps that lie channels last.

Each is one pass over its maps, where nnabla's functions on a CPU take several, and its
derivatives are functions of this module too, so that graphs may be differentiated any number of
times. Delete what nnabla computes as fast on a CPU, except MapSmoothReLU, which nnabla lacks.

a, b, g, x, y are (|B|, ..., C); s, t are (|B|, 1, ..., C) or (1, 1, ..., C).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import nnabla as nn
import nnabla.functions as F
import numpy as np

from utils.kernels.array_functions import ArrayFunction, Arrays, Shape
from utils.kernels.compiled import compiled
from utils.kernels.cores import parallel_for

PIECE = 2**18
"""About how many values a core works on at once."""
TINY = 1e-20
"""Keeps the width of a ReLU whose inputs are all 0 above 0, and its negative inputs in order."""


def by_images(action: Callable[..., object], *arrays: np.ndarray) -> None:
    """Call `action` with pieces of the arrays (|B|, ...), the larger ones side by side.

    An array (1, ...) is part of every piece.
    """
    n = max(map(len, arrays))
    size = max(1, n * PIECE // max(array.size for array in arrays))
    pieces = (slice(start, start + size) for start in range(0, n, size))
    parallel_for(lambda rows: action(*(a[rows] if len(a) == n else a for a in arrays)), pieces)


@compiled
def write_gated(g: np.ndarray, x: np.ndarray, out: np.ndarray, add: bool) -> None:
    """Write g where x > 0, else 0; all (N,)."""
    if add:
        for k in range(x.size):
            out[k] += g[k] if x[k] > 0 else np.float32(0)
    else:
        for k in range(x.size):
            out[k] = g[k] if x[k] > 0 else np.float32(0)


@compiled
def write_affine(a: np.ndarray, s: np.ndarray, t: np.ndarray, out: np.ndarray, add: bool) -> None:
    """Write a * s + t for a (n, m, C); s and t are (n, C) or (1, C)."""
    for i in range(a.shape[0]):
        s_i, t_i = s[i % s.shape[0]], t[i % t.shape[0]]
        for j in range(a.shape[1]):
            a_j, out_j = a[i, j], out[i, j]
            if add:
                for k in range(a_j.size):
                    out_j[k] += a_j[k] * s_i[k] + t_i[k]
            else:
                for k in range(a_j.size):
                    out_j[k] = a_j[k] * s_i[k] + t_i[k]


@compiled
def sum_products(g: np.ndarray, a: np.ndarray, products: np.ndarray, sums: np.ndarray) -> None:
    """Add sum_j g a to `products`, and sum_j g to `sums`, both (n, C) float64; g, a (n, m, C)."""
    for i in range(a.shape[0]):
        product, total = products[i], sums[i]
        for j in range(a.shape[1]):
            g_j, a_j = g[i, j], a[i, j]
            for k in range(g_j.size):
                product[k] += g_j[k] * a_j[k]
            for k in range(g_j.size):
                total[k] += g_j[k]


@compiled
def sum_maps(g: np.ndarray, sums: np.ndarray) -> None:
    """Add sum_j g (n, m, C) to `sums` (n, C) float64."""
    for i in range(g.shape[0]):
        total = sums[i]
        for j in range(g.shape[1]):
            g_j = g[i, j]
            for k in range(g_j.size):
                total[k] += g_j[k]


@compiled
def sum_moments(x: np.ndarray, means: np.ndarray, squares: np.ndarray) -> None:
    """Write the mean over j of x (n, m, C), and the sum of squares about it; (n, C) float64, 0."""
    for i in range(x.shape[0]):
        mean, square = means[i], squares[i]
        for j in range(x.shape[1]):
            x_j = x[i, j]
            for k in range(x_j.size):
                mean[k] += x_j[k]
        mean /= x.shape[1]
        for j in range(x.shape[1]):
            x_j = x[i, j]
            for k in range(x_j.size):
                square[k] += (x_j[k] - mean[k]) ** 2


@compiled
def largest(x: np.ndarray, i: int, rows: int, columns: int, place: np.ndarray) -> None:
    """The place (columns of y, C) of the first largest input of each window in row i of y.

    x is (H, W, C); places count the window's inputs row by row.
    """
    best = np.empty(x.shape[2], np.float32)
    for c in range(place.shape[0]):
        place_c = place[c]
        for k in range(best.size):
            best[k] = x[i * rows, c * columns, k]
            place_c[k] = 0
        for p in range(1, rows * columns):
            x_p = x[i * rows + p // columns, c * columns + p % columns]
            for k in range(best.size):
                larger = x_p[k] > best[k]
                place_c[k] = p if larger else place_c[k]
                best[k] = x_p[k] if larger else best[k]


@compiled
def take_largest(
    a: np.ndarray, x: np.ndarray, rows: int, columns: int, y: np.ndarray, add: bool
) -> None:
    """Write a where x is the largest of its window; a and x (n, H, W, C), y (n, H', W', C)."""
    place = np.empty(y.shape[2:], np.int32)
    for b in range(y.shape[0]):
        for i in range(y.shape[1]):
            largest(x[b], i, rows, columns, place)
            for c in range(y.shape[2]):
                y_c, place_c = y[b, i, c], place[c]
                if not add:
                    y_c[:] = 0
                for p in range(rows * columns):
                    a_p = a[b, i * rows + p // columns, c * columns + p % columns]
                    for k in range(y_c.size):
                        y_c[k] += a_p[k] if place_c[k] == p else np.float32(0)


@compiled
def put_largest(
    g: np.ndarray, x: np.ndarray, rows: int, columns: int, out: np.ndarray, add: bool
) -> None:
    """Write g (n, H', W', C) where x is the largest of its window, else 0; x, out (n, H, W, C)."""
    place = np.empty(g.shape[2:], np.int32)
    for b in range(g.shape[0]):
        for i in range(g.shape[1]):
            largest(x[b], i, rows, columns, place)
            for c in range(g.shape[2]):
                g_c, place_c = g[b, i, c], place[c]
                for p in range(rows * columns):
                    out_p = out[b, i * rows + p // columns, c * columns + p % columns]
                    if not add:
                        out_p[:] = 0
                    for k in range(g_c.size):
                        out_p[k] += g_c[k] if place_c[k] == p else np.float32(0)


@compiled
def average(x: np.ndarray, rows: int, columns: int, y: np.ndarray, add: bool) -> None:
    """Write the mean of each window, or add it; x is (n, H, W, C), y (n, H', W', C)."""
    share = np.float32(1 / (rows * columns))
    for b in range(y.shape[0]):
        for i in range(y.shape[1]):
            for c in range(y.shape[2]):
                y_c = y[b, i, c]
                if not add:
                    y_c[:] = 0
                for p in range(rows * columns):
                    x_p = x[b, i * rows + p // columns, c * columns + p % columns]
                    for k in range(y_c.size):
                        y_c[k] += share * x_p[k]


@compiled
def spread(g: np.ndarray, rows: int, columns: int, out: np.ndarray, add: bool) -> None:
    """Write an equal share of g (n, H', W', C) to each input of a window, or add it.

    `out` is (n, H, W, C).
    """
    share = np.float32(1 / (rows * columns))
    for b in range(g.shape[0]):
        for i in range(g.shape[1]):
            for c in range(g.shape[2]):
                g_c = g[b, i, c]
                for p in range(rows * columns):
                    out_p = out[b, i * rows + p // columns, c * columns + p % columns]
                    if add:
                        for k in range(g_c.size):
                            out_p[k] += share * g_c[k]
                    else:
                        for k in range(g_c.size):
                            out_p[k] = share * g_c[k]


def _gate(g: np.ndarray, x: np.ndarray, out: np.ndarray, add: bool) -> None:
    by_images(lambda g, x, y: write_gated(g.ravel(), x.ravel(), y.reshape(-1), add), g, x, out)


class MapReLU(ArrayFunction):
    """max(x, 0)."""

    def shapes(self, *inputs: Shape) -> list[Shape]:
        return [inputs[0]]

    def compute(self, xs: Arrays, ys: Arrays) -> None:
        by_images(lambda x, y: np.maximum(x, 0, out=y), xs[0], ys[0])

    def write_derivative(self, i: int, gs: Arrays, xs: Arrays, out: np.ndarray, add: bool) -> None:
        _gate(gs[0], xs[0], out, add)

    def derivatives(
        self, gs: Sequence[nn.Variable], xs: Sequence[nn.Variable]
    ) -> list[nn.Variable | None]:
        return [MapGate()(gs[0], xs[0])]


class MapGate(ArrayFunction):
    """g where x > 0, else 0."""

    needed = frozenset({(0, 1)})

    def shapes(self, *inputs: Shape) -> list[Shape]:
        return [inputs[0]]

    def compute(self, xs: Arrays, ys: Arrays) -> None:
        _gate(xs[0], xs[1], ys[0], False)

    def write_derivative(self, i: int, gs: Arrays, xs: Arrays, out: np.ndarray, add: bool) -> None:
        if i == 0:
            _gate(gs[0], xs[1], out, add)
        elif not add:
            out.fill(0.0)

    def derivatives(
        self, gs: Sequence[nn.Variable], xs: Sequence[nn.Variable]
    ) -> list[nn.Variable | None]:
        return [type(self)(**self.options)(gs[0], xs[1]), None]


class MapSmoothReLU(MapReLU):
    """The ReLU of smoothed_relu.py, whose kinks have a curvature; `width` is an option."""

    def compute(self, xs: Arrays, ys: Arrays) -> None:
        by_images(lambda x, y: np.maximum(x, np.float32(TINY) * x, out=y), xs[0], ys[0])

    def derivatives(
        self, gs: Sequence[nn.Variable], xs: Sequence[nn.Variable]
    ) -> list[nn.Variable | None]:
        return [MapSmoothGate(**self.options)(gs[0], xs[0])]


class MapSmoothGate(MapGate):
    """g where x > 0, else 0; by x its derivative is g times the density at the kink.

    In graphs of derivatives the density counts as constant: they have none by x.
    """

    needed = frozenset({(0, 1), (1, 0), (1, 1)})

    def write_derivative(self, i: int, gs: Arrays, xs: Arrays, out: np.ndarray, add: bool) -> None:
        if i == 0:
            super().write_derivative(i, gs, xs, out, add)
            return
        square = np.einsum("i,i->", xs[1].ravel(), xs[1].ravel(), dtype=np.float64) / xs[1].size
        s = np.float32(self.options["width"] * (square + TINY) ** 0.5)
        at_kink = np.float32(1 / (2 * np.pi) ** 0.5) / s

        def curve(h: np.ndarray, g: np.ndarray, x: np.ndarray, out: np.ndarray) -> None:
            value = at_kink * np.exp(-0.5 * (x / s) ** 2) * g * h
            np.add(out if add else np.float32(0), value, out=out)

        by_images(curve, gs[0], *xs, out)


class _Window(ArrayFunction):
    """A function with windows of `rows` times `columns` inputs, which fill the maps."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__(rows=rows, columns=columns)
        self.rows, self.columns = rows, columns

    def pooled(self, shape: Shape) -> Shape:
        """(|B|, H', W', C) of maps (|B|, H, W, C)."""
        return (shape[0], shape[1] // self.rows, shape[2] // self.columns, shape[3])

    def take(self, a: np.ndarray, x: np.ndarray, y: np.ndarray, add: bool) -> None:
        """`take_largest` of this function's windows."""
        window = self.rows, self.columns
        by_images(lambda a, x, y: take_largest(a, x, *window, y, add), a, x, y)

    def put(self, g: np.ndarray, x: np.ndarray, out: np.ndarray, add: bool) -> None:
        """`put_largest` of this function's windows."""
        window = self.rows, self.columns
        by_images(lambda g, x, out: put_largest(g, x, *window, out, add), g, x, out)

    def average(self, x: np.ndarray, y: np.ndarray, add: bool) -> None:
        """`average` of this function's windows."""
        by_images(lambda x, y: average(x, self.rows, self.columns, y, add), x, y)

    def spread(self, g: np.ndarray, out: np.ndarray, add: bool) -> None:
        """`spread` over this function's windows."""
        by_images(lambda g, out: spread(g, self.rows, self.columns, out, add), g, out)


class MapMaxPooling(_Window):
    """The largest input of each window."""

    def shapes(self, *inputs: Shape) -> list[Shape]:
        return [self.pooled(inputs[0])]

    def compute(self, xs: Arrays, ys: Arrays) -> None:
        self.take(xs[0], xs[0], ys[0], False)

    def write_derivative(self, i: int, gs: Arrays, xs: Arrays, out: np.ndarray, add: bool) -> None:
        self.put(gs[0], xs[0], out, add)

    def derivatives(
        self, gs: Sequence[nn.Variable], xs: Sequence[nn.Variable]
    ) -> list[nn.Variable | None]:
        return [MapPutLargest(**self.options)(gs[0], xs[0])]


class MapPutLargest(_Window):
    """g at the largest x of each window, else 0."""

    needed = frozenset({(0, 1)})

    def shapes(self, *inputs: Shape) -> list[Shape]:
        return [inputs[1]]

    def compute(self, xs: Arrays, ys: Arrays) -> None:
        self.put(xs[0], xs[1], ys[0], False)

    def write_derivative(self, i: int, gs: Arrays, xs: Arrays, out: np.ndarray, add: bool) -> None:
        if i == 0:
            self.take(gs[0], xs[1], out, add)
        elif not add:
            out.fill(0.0)

    def derivatives(
        self, gs: Sequence[nn.Variable], xs: Sequence[nn.Variable]
    ) -> list[nn.Variable | None]:
        return [MapTakeLargest(**self.options)(gs[0], xs[1]), None]


class MapTakeLargest(_Window):
    """a at the largest x of each window."""

    needed = frozenset({(0, 1)})

    def shapes(self, *inputs: Shape) -> list[Shape]:
        return [self.pooled(inputs[0])]

    def compute(self, xs: Arrays, ys: Arrays) -> None:
        self.take(xs[0], xs[1], ys[0], False)

    def write_derivative(self, i: int, gs: Arrays, xs: Arrays, out: np.ndarray, add: bool) -> None:
        if i == 0:
            self.put(gs[0], xs[1], out, add)
        elif not add:
            out.fill(0.0)

    def derivatives(
        self, gs: Sequence[nn.Variable], xs: Sequence[nn.Variable]
    ) -> list[nn.Variable | None]:
        return [MapPutLargest(**self.options)(gs[0], xs[1]), None]


class MapAveragePooling(_Window):
    """The mean of each window."""

    needed = frozenset()

    def shapes(self, *inputs: Shape) -> list[Shape]:
        return [self.pooled(inputs[0])]

    def compute(self, xs: Arrays, ys: Arrays) -> None:
        self.average(xs[0], ys[0], False)

    def write_derivative(self, i: int, gs: Arrays, xs: Arrays, out: np.ndarray, add: bool) -> None:
        self.spread(gs[0], out, add)

    def derivatives(
        self, gs: Sequence[nn.Variable], xs: Sequence[nn.Variable]
    ) -> list[nn.Variable | None]:
        return [MapSpread(**self.options)(gs[0])]


class MapSpread(_Window):
    """An equal share of g at each input of a window."""

    needed = frozenset()

    def shapes(self, *inputs: Shape) -> list[Shape]:
        n, rows, columns, maps = inputs[0]
        return [(n, rows * self.rows, columns * self.columns, maps)]

    def compute(self, xs: Arrays, ys: Arrays) -> None:
        self.spread(xs[0], ys[0], False)

    def write_derivative(self, i: int, gs: Arrays, xs: Arrays, out: np.ndarray, add: bool) -> None:
        self.average(gs[0], out, add)

    def derivatives(
        self, gs: Sequence[nn.Variable], xs: Sequence[nn.Variable]
    ) -> list[nn.Variable | None]:
        return [MapAveragePooling(**self.options)(gs[0])]


def _cube(x: np.ndarray) -> np.ndarray:
    """(|B|, m, C)."""
    return x.reshape(x.shape[0], -1, x.shape[-1])


def _rows(s: np.ndarray) -> np.ndarray:
    """(|B| or 1, C)."""
    return s.reshape(s.shape[0], s.shape[-1])


def _sums(g: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of g * a and of g over each example's map, (|B|, C) float64."""
    products = np.zeros((g.shape[0], g.shape[-1]))
    sums = np.zeros_like(products)
    by_images(sum_products, _cube(g), _cube(a), products, sums)
    return products, sums


def _map_sums(g: np.ndarray) -> np.ndarray:
    """The sums of g over each example's map alone, (|B|, C) float64."""
    sums = np.zeros((g.shape[0], g.shape[-1]))
    by_images(sum_maps, _cube(g), sums)
    return sums


def _write_affine(a: np.ndarray, s: np.ndarray, t: np.ndarray, out: np.ndarray, add: bool) -> None:
    by_images(lambda a, s, t, y: write_affine(a, s, t, y, add), _cube(a), s, t, _cube(out))


def _put(value: np.ndarray, out: np.ndarray, add: bool) -> None:
    """Write `value` (|B|, C) into `out`, over all examples where that has one row."""
    value = value if len(out) > 1 else value.sum(0)
    out[...] = (out if add else 0) + value.reshape(out.shape)


class MapAffine(ArrayFunction):
    """a * s + t."""

    needed = frozenset({(0, 1), (1, 0)})

    def shapes(self, *inputs: Shape) -> list[Shape]:
        return [inputs[0]]

    def compute(self, xs: Arrays, ys: Arrays) -> None:
        _write_affine(xs[0], _rows(xs[1]), _rows(xs[2]), ys[0], False)

    def write_derivative(self, i: int, gs: Arrays, xs: Arrays, out: np.ndarray, add: bool) -> None:
        if i == 0:
            s = _rows(xs[1])
            _write_affine(gs[0], s, np.zeros_like(s[:1]), out, add)
        else:
            _put(_sums(gs[0], xs[0])[0] if i == 1 else _map_sums(gs[0]), out, add)

    def derivatives(
        self, gs: Sequence[nn.Variable], xs: Sequence[nn.Variable]
    ) -> list[nn.Variable | None]:
        a, s, *_ = xs
        products, sums = MapSums()(gs[0], a)
        by_s = products if s.shape[0] > 1 else F.sum(products, 0, keepdims=True)
        by_t = sums if s.shape[0] > 1 else F.sum(sums, 0, keepdims=True)
        return [_scaled(gs[0], s), by_s, by_t]


def _scaled(a: nn.Variable, s: nn.Variable) -> nn.Variable:
    return MapAffine()(a, s, F.constant(0.0, s.shape))


class MapSums(ArrayFunction):
    """Sums of g * a and of g over each example's map, both (|B|, 1, ..., C)."""

    n_outputs = 2

    def shapes(self, *inputs: Shape) -> list[Shape]:
        n, *ones, channels = inputs[0]
        return [(n, *(1 for _ in ones), channels)] * 2

    def compute(self, xs: Arrays, ys: Arrays) -> None:
        _rows(ys[0])[...], _rows(ys[1])[...] = _sums(*xs)

    def write_derivative(self, i: int, gs: Arrays, xs: Arrays, out: np.ndarray, add: bool) -> None:
        s = _rows(gs[0])
        t = _rows(gs[1]) if i == 0 else np.zeros_like(s)
        _write_affine(xs[1 - i], s, t, out, add)

    def derivatives(
        self, gs: Sequence[nn.Variable], xs: Sequence[nn.Variable]
    ) -> list[nn.Variable | None]:
        return [MapAffine()(xs[1], gs[0], gs[1]), _scaled(xs[0], gs[0])]


def total_of(x: np.ndarray) -> np.ndarray:
    """The sum of x (|B|, ..., C) over examples and maps, (C,) float64."""
    sums = np.empty((x.shape[0], x.shape[-1]), np.float32)
    by_images(lambda x, out: np.einsum("bmc->bc", x, out=out), _cube(x), sums)
    return sums.sum(0, dtype=np.float64)


class MapTotal(ArrayFunction):
    """The sum of x, whose shape is the option `shape`, over examples and maps: (C,)."""

    needed = frozenset()

    def shapes(self, *inputs: Shape) -> list[Shape]:
        return [inputs[0][-1:]]

    def compute(self, xs: Arrays, ys: Arrays) -> None:
        ys[0][...] = total_of(xs[0])

    def write_derivative(self, i: int, gs: Arrays, xs: Arrays, out: np.ndarray, add: bool) -> None:
        np.add(out if add else np.float32(0), gs[0], out=out)

    def derivatives(
        self, gs: Sequence[nn.Variable], xs: Sequence[nn.Variable]
    ) -> list[nn.Variable | None]:
        shape = self.options["shape"]
        one = (*(1 for _ in shape[1:]), shape[-1])
        return [F.broadcast(F.reshape(gs[0], one, inplace=False), shape)]


class MapMoments(ArrayFunction):
    """Each example's mean over its map, and the sum of squares about it, (|B|, 1, ..., C)."""

    n_outputs = 2
    takes_outputs = True

    def shapes(self, *inputs: Shape) -> list[Shape]:
        n, *ones, channels = inputs[0]
        return [(n, *(1 for _ in ones), channels)] * 2

    def compute(self, xs: Arrays, ys: Arrays) -> None:
        means = np.zeros((xs[0].shape[0], xs[0].shape[-1]))
        squares = np.zeros_like(means)
        by_images(sum_moments, _cube(xs[0]), means, squares)
        _rows(ys[0])[...], _rows(ys[1])[...] = means, squares

    def write_derivative(self, i: int, gs: Arrays, xs: Arrays, out: np.ndarray, add: bool) -> None:
        map_size = np.float32(prod(xs[0].shape[1:-1]))
        s = 2 * _rows(gs[1])
        _write_affine(xs[0], s, _rows(gs[0]) / map_size - s * _rows(xs[1]), out, add)

    def derivatives(
        self, gs: Sequence[nn.Variable], xs: Sequence[nn.Variable]
    ) -> list[nn.Variable | None]:
        """2 g_squares (x - mean) + g_mean / m."""
        x, mean, _ = xs
        s = 2.0 * gs[1]
        return [MapAffine()(x, s, gs[0] / float(prod(x.shape[1:-1])) - s * mean)]


class MapFollow(ArrayFunction):
    """x, at whose sight the array `follower` of the same shape changes.

    It becomes decay * follower + (1 - decay) * factor * x, as running statistics do.
    """

    def __init__(
        self, follower: nn.Variable | None = None, decay: float = 0.0, factor: float = 1.0
    ) -> None:
        super().__init__()
        self.follower, self.decay, self.factor = follower, decay, factor

    def shapes(self, *inputs: Shape) -> list[Shape]:
        return [inputs[0]]

    def compute(self, xs: Arrays, ys: Arrays) -> None:
        ys[0][...] = xs[0]
        if self.follower is not None:
            r = self.follower.d
            r[...] = self.decay * r + (1 - self.decay) * self.factor * xs[0]

    def write_derivative(self, i: int, gs: Arrays, xs: Arrays, out: np.ndarray, add: bool) -> None:
        out[...] = (out if add else 0) + gs[0]

    def derivatives(
        self, gs: Sequence[nn.Variable], xs: Sequence[nn.Variable]
    ) -> list[nn.Variable | None]:
        return [gs[0]]
