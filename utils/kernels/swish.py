"""Swish, x / (1 + exp(-x)), and its derivatives of any order, on maps that lie channels last.

With f(x) = x s(x) and the sigmoid s, the derivative of order k is

    f^(k) = x p_k(s) + k p_(k-1)(s),    p_0(s) = s,    p_(k+1)(s) = p_k'(s) s (1 - s),

where p_k(s(x)) is the k-th derivative of s(x), a polynomial in s.

Why: nnabla's Swish on a CPU takes an exponential of the C library per value, several times as long
as NumPy's. Delete when nnabla's is as fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import nnabla as nn
import numpy as np
from numpy.polynomial import Polynomial

from utils.kernels.array_functions import ArrayFunction, Arrays, Shape
from utils.kernels.maps import by_images


@cache
def polynomial(order: int) -> Polynomial:
    """p_k of order k: the k-th derivative of the sigmoid as a polynomial in the sigmoid."""
    if order == 0:
        return Polynomial([0, 1])
    slope: Polynomial = polynomial(order - 1).deriv()  # type: ignore[no-untyped-call]
    return slope * Polynomial([0, 1, -1])


def derivative(x: np.ndarray, order: int) -> np.ndarray:
    """f^(order)(x), float32, of the shape of x."""
    s = np.negative(x)
    with np.errstate(over="ignore"):  # where exp overflows, the sigmoid is 0
        np.exp(s, out=s)
    np.add(s, 1, out=s)
    np.reciprocal(s, out=s)
    if order == 0:
        return np.multiply(s, x, out=s)
    y = _value(polynomial(order), s)
    y *= x
    y += order * _value(polynomial(order - 1), s)
    return y


def _value(p: Polynomial, s: np.ndarray) -> np.ndarray:
    """p(s), by Horner's rule in float32."""
    *others, last = p.coef.astype(np.float32)
    y = np.full_like(s, last)
    for coefficient in reversed(others):
        y *= s
        if coefficient:
            y += coefficient
    return y


class MapSwish(ArrayFunction):
    """f(x)."""

    def shapes(self, *inputs: Shape) -> list[Shape]:
        return [inputs[0]]

    def compute(self, xs: Arrays, ys: Arrays) -> None:
        by_images(lambda x, y: np.copyto(y, derivative(x, 0)), xs[0], ys[0])

    def write_derivative(self, i: int, gs: Arrays, xs: Arrays, out: np.ndarray, add: bool) -> None:
        _write_slope(1, gs[0], xs[0], out, add)

    def derivatives(
        self, gs: Sequence[nn.Variable], xs: Sequence[nn.Variable]
    ) -> list[nn.Variable | None]:
        return [MapSwishSlope(order=1)(gs[0], xs[0])]


class MapSwishSlope(ArrayFunction):
    """g f^(order)(x); `order` is an option."""

    def shapes(self, *inputs: Shape) -> list[Shape]:
        return [inputs[1]]

    def compute(self, xs: Arrays, ys: Arrays) -> None:
        _write_slope(self.options["order"], xs[0], xs[1], ys[0], False)

    def write_derivative(self, i: int, gs: Arrays, xs: Arrays, out: np.ndarray, add: bool) -> None:
        order = self.options["order"]
        if i == 0:
            _write_slope(order, gs[0], xs[1], out, add)
        else:
            _write_slope(order + 1, gs[0] * xs[0], xs[1], out, add)

    def derivatives(
        self, gs: Sequence[nn.Variable], xs: Sequence[nn.Variable]
    ) -> list[nn.Variable | None]:
        order = self.options["order"]
        return [
            MapSwishSlope(order=order)(gs[0], xs[1]),
            MapSwishSlope(order=order + 1)(gs[0] * xs[0], xs[1]),
        ]


def _write_slope(order: int, g: np.ndarray, x: np.ndarray, out: np.ndarray, add: bool) -> None:
    """Write g f^(order)(x), or add it."""

    def write(g: np.ndarray, x: np.ndarray, out: np.ndarray) -> None:
        slope = derivative(x, order)
        slope *= g
        np.add(out, slope, out=out) if add else np.copyto(out, slope)

    by_images(write, g, x, out)
