"""Swish and its derivatives."""

from __future__ import annotations

import nnabla as nn
import nnabla.functions as F
import numpy as np
import pytest

from utils.kernels.maps import PIECE
from utils.kernels.swish import BLOCK, MapSwish, MapSwishSlope


def derivative(x: np.ndarray, order: int) -> np.ndarray:
    """f^(order)(x) by the compiled functions; x (N,)."""
    x = x.astype(np.float32)[None]
    y = np.empty_like(x)
    if order == 0:
        MapSwish().compute([x], [y])
    else:
        MapSwishSlope(order=order).compute([np.ones_like(x), x], [y])
    return y[0]


def test_value_and_two_derivatives_equal_their_formulas() -> None:
    x = np.linspace(-12, 12, 2 * BLOCK + 3).astype(np.float32)
    s = 1 / (1 + np.exp(-x.astype(np.float64)))
    formulas = [x * s, s * (1 + x * (1 - s)), s * (1 - s) * (2 + x * (1 - 2 * s))]
    for order, truth in enumerate(formulas):
        assert derivative(x, order) == pytest.approx(truth, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_each_derivative_is_that_of_the_one_below(order: int) -> None:
    x, h = np.linspace(-6, 6, 49), 0.1
    slope = (derivative(x + h, order - 1) - derivative(x - h, order - 1)) / (2 * h)
    assert np.abs(slope - derivative(x, order)).max() < 0.01


def test_extreme_values_have_no_nan_and_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    x = np.array([-1e30, -200, 0, 200, 1e30], np.float32)
    assert derivative(x, 0).tolist() == [0, 0, 0, 200, np.float32(1e30)]
    assert derivative(x, 1).tolist() == [0, 0, 0.5, 1, 1]
    assert derivative(x, 2).tolist() == [0, 0, 0.5, 0, 0]
    assert not recwarn.list


def test_gradients_of_gradients_equal_nnablas() -> None:
    results = [third_derivative(swish) for swish in (MapSwish(), F.swish)]
    assert results[0] == pytest.approx(results[1], rel=1e-3, abs=1e-3)


def third_derivative(swish: object) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal((3, 2, 2, 4)).astype(np.float32)
    x = nn.Variable.from_numpy_array(values, need_grad=True)
    h = F.sum(swish(x) ** 3)  # type: ignore[operator]
    for _ in range(2):
        h = F.sum(nn.grad([h], [x])[0] ** 2)
    x.grad.zero()
    h.forward()
    h.backward()
    return x.g / np.abs(x.g).max()


def test_large_maps_are_computed_in_pieces_that_agree() -> None:
    x = np.random.default_rng(1).standard_normal((5, 2, PIECE // 4, 1)).astype(np.float32)
    y = np.empty_like(x)
    MapSwish().compute([x], [y])
    assert (y.ravel() == derivative(x.ravel(), 0)).all()


@pytest.mark.parametrize("i", [0, 1])
def test_derivatives_are_added_where_nnabla_asks_for_it(i: int) -> None:
    g, factor, x = np.random.default_rng(2).standard_normal((3, 2, BLOCK)).astype(np.float32)
    written, added = np.empty_like(x), np.ones_like(x)
    for out, add in ((written, False), (added, True)):
        MapSwishSlope(order=1).write_derivative(i, [g], [factor, x], out, add)
    assert added == pytest.approx(written + 1, abs=1e-6)
    assert np.abs(written).min() > 0
