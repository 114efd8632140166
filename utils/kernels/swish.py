"""Swish, x / (1 + exp(-x)), and its derivatives of any order, on maps that lie channels last.

With f(x) = x s(x) and the sigmoid s, the derivative of order k is

    f^(k) = x p_k(s) + k p_(k-1)(s),    p_0(s) = s,    p_(k+1)(s) = p_k'(s) s (1 - s),

where p_k(s(x)) is the k-th derivative of s(x), a polynomial in s that s divides.

Why: nnabla's Swish on a CPU takes an exponential of the C library per value, several times as long
as NumPy's. Delete when nnabla's is as fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, reduce

import nnabla as nn
import numpy as np
from numpy.polynomial import Polynomial

from utils.kernels.array_functions import ArrayFunction, Arrays, Shape
from utils.kernels.compiled import compiled
from utils.kernels.maps import by_images

BLOCK = 512
"""How many values are computed at once: a few arrays of as many fit into a core's first cache."""


@cache
def polynomial(order: int) -> Polynomial:
    """p_k of order k: the k-th derivative of the sigmoid as a polynomial in the sigmoid."""
    if order == 0:
        return Polynomial([0, 1])
    slope: Polynomial = polynomial(order - 1).deriv()  # type: ignore[no-untyped-call]
    return slope * Polynomial([0, 1, -1])


@cache
def coefficients(order: int) -> tuple[np.ndarray, np.ndarray]:
    """p_k / s and k p_(k-1) / s, of an order k from 1, as float32; the constant ones first."""
    p, lower = polynomial(order).coef[1:], order * polynomial(order - 1).coef[1:]
    return p.astype(np.float32), lower.astype(np.float32)


def exponential(x: np.ndarray) -> np.ndarray:
    """exp(-x) as one row (N,), infinite where it overflows.

    NumPy's exponential takes a tenth of the time of numba's.
    """
    e = np.negative(x.ravel())
    with np.errstate(over="ignore"):
        return np.exp(e, out=e)


@compiled
def write_value(x: np.ndarray, e: np.ndarray, y: np.ndarray) -> None:
    """Write f(x), with e = exp(-x); all (N,)."""
    for k in range(x.size):
        y[k] = x[k] / (np.float32(1) + e[k])


@compiled
def write_slope(
    p: np.ndarray,
    q: np.ndarray,
    x: np.ndarray,
    e: np.ndarray,
    g: np.ndarray,
    out: np.ndarray,
    add: bool,
) -> None:
    """Write g s (x p(s) + q(s)) with e = exp(-x); x, e, g, `out` (N,), p, q of `coefficients`."""
    s = np.empty(BLOCK, np.float32)
    a, b = np.empty_like(s), np.empty_like(s)
    for start in range(0, x.size, BLOCK):
        block = slice(start, min(start + BLOCK, x.size))
        x_, e_, g_, out_ = x[block], e[block], g[block], out[block]
        for k in range(x_.size):
            s[k] = np.float32(1) / (np.float32(1) + e_[k])
        horner(p, s, a)
        horner(q, s, b)
        if add:
            for k in range(x_.size):
                out_[k] += g_[k] * s[k] * (x_[k] * a[k] + b[k])
        else:
            for k in range(x_.size):
                out_[k] = g_[k] * s[k] * (x_[k] * a[k] + b[k])


@compiled
def horner(p: np.ndarray, s: np.ndarray, out: np.ndarray) -> None:
    """Write the polynomial of coefficients p, the constant one first, at s (N,)."""
    out[:] = p[-1]
    for c in range(p.size - 2, -1, -1):
        for k in range(s.size):
            out[k] = out[k] * s[k] + p[c]


def _write_value(x: np.ndarray, y: np.ndarray) -> None:
    """Write f(x) into y of the same shape."""
    by_images(lambda x, y: write_value(x.ravel(), exponential(x), y.reshape(-1)), x, y)


def _write_slope(
    order: int, x: np.ndarray, out: np.ndarray, add: bool, *factors: np.ndarray
) -> None:
    """Write f^(order)(x) times the factors, or add it; order from 1, all arrays of one shape."""

    def write(x: np.ndarray, out: np.ndarray, *factors: np.ndarray) -> None:
        g = reduce(np.multiply, factors).ravel()
        write_slope(*coefficients(order), x.ravel(), exponential(x), g, out.reshape(-1), add)

    by_images(write, x, out, *factors)


class MapSwish(ArrayFunction):
    """f(x)."""

    def shapes(self, *inputs: Shape) -> list[Shape]:
        return [inputs[0]]

    def compute(self, xs: Arrays, ys: Arrays) -> None:
        _write_value(xs[0], ys[0])

    def write_derivative(self, i: int, gs: Arrays, xs: Arrays, out: np.ndarray, add: bool) -> None:
        _write_slope(1, xs[0], out, add, gs[0])

    def derivatives(
        self, gs: Sequence[nn.Variable], xs: Sequence[nn.Variable]
    ) -> list[nn.Variable | None]:
        return [MapSwishSlope(order=1)(gs[0], xs[0])]


class MapSwishSlope(ArrayFunction):
    """g f^(order)(x); `order`, from 1, is an option."""

    needed = frozenset({(0, 1), (1, 0), (1, 1)})

    def shapes(self, *inputs: Shape) -> list[Shape]:
        return [inputs[1]]

    def compute(self, xs: Arrays, ys: Arrays) -> None:
        _write_slope(self.options["order"], xs[1], ys[0], False, xs[0])

    def write_derivative(self, i: int, gs: Arrays, xs: Arrays, out: np.ndarray, add: bool) -> None:
        if i == 0:
            _write_slope(self.options["order"], xs[1], out, add, gs[0])
        else:
            _write_slope(self.options["order"] + 1, xs[1], out, add, gs[0], xs[0])

    def derivatives(
        self, gs: Sequence[nn.Variable], xs: Sequence[nn.Variable]
    ) -> list[nn.Variable | None]:
        order = self.options["order"]
        return [
            MapSwishSlope(order=order)(gs[0], xs[1]),
            MapSwishSlope(order=order + 1)(gs[0] * xs[0], xs[1]),
        ]
