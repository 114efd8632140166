"""Numbers that two computations should agree in."""

from __future__ import annotations

import numpy as np

SINGLE = 2e-5
"""Tolerance, relative to the largest entry, of two float32 computations of one quantity."""


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()
