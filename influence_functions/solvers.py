"""Two solvers of (A + alpha I) v = g for influence functions: conjugate gradients, and [H]'s SGD.

Conjugate gradients need a matrix without negative eigenvalues: A is the Gauss-Newton matrix there,
and the Hessian for SGD. Vectors are flat (P,), in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

Product = Callable[[np.ndarray], np.ndarray]
"""v (P,) to A v (P,)."""


@dataclass(frozen=True)
class Solution:
    """The result of a solver.

    Attributes:
        v: (P,), the iterate with the smallest residual.
        residual: |A v + alpha v - g| / |g|.
        n_products: products with A that it took.
    """

    v: np.ndarray
    residual: float
    n_products: int


def conjugate_gradients(
    product: Product, target: np.ndarray, damping: float, tolerance: float, numbers: Iterable[int]
) -> Solution:
    """Solve (A + alpha I) v = target, A symmetric and positive semi-definite.

    Args:
        product: gives A v.
        target: g (P,).
        damping: alpha.
        tolerance: the relative residual at which it stops.
        numbers: 1, 2, ..., a number for each product that it may take, at least one.

    Returns:
        The iterate with the smallest residual; v = 0 does not count, unless g is 0.
    """
    v, length = np.zeros_like(target), float(np.linalg.norm(target))
    best, residual, direction, number = Solution(v, math.inf, 0), target, target, 0
    if not length:
        return Solution(v, 0.0, 0)
    for number in numbers:
        image = product(direction) + damping * direction
        curvature, before = float(direction @ image), float(residual @ residual)
        if not (math.isfinite(curvature) and curvature > 0):
            break  # single precision has no more to give
        step = before / curvature
        v, residual = v + step * direction, residual - step * image
        relative = float(np.linalg.norm(residual)) / length
        if relative < best.residual:
            best = Solution(v, relative, number)
        if relative <= tolerance:
            break
        direction = residual + float(residual @ residual) / before * direction
    return Solution(best.v, best.residual, number)


def largest_eigenvalue(product: Product, start: np.ndarray, n_products: int) -> float:
    """The largest eigenvalue of A by power iterations; an estimate from below.

    Args:
        product: gives A v, A symmetric and positive semi-definite.
        start: (P,), the first vector.
        n_products: iterations.
    """
    v, length = start, float(np.linalg.norm(start))
    for _ in range(n_products):
        if not length:
            return 0.0
        v = product(v / length)
        length = float(np.linalg.norm(v))
    return length


@dataclass(frozen=True)
class Descent:
    """SGD with momentum for (H + alpha I) v = g, as in the code of [H].

    Attributes:
        damping: alpha.
        learning_rate: step length of the solver.
        momentum: its momentum.
        n_passes: passes over the training images.
        batch_size: images per product.
    """

    damping: float
    learning_rate: float = 0.005
    momentum: float = 0.9
    n_passes: int = 2
    batch_size: int = 64

    def n_batches(self, n: int) -> int:
        """Batches of a pass over n images."""
        return math.ceil(n / self.batch_size)


DIVERGED = 1e4
"""Passes end where |v| exceeds this times |g| / alpha, the bound in a convex problem."""


def descend(
    batch_product: Callable[[np.ndarray, np.ndarray], np.ndarray],
    n: int,
    target: np.ndarray,
    solver: Descent,
    seed: int,
    numbers: Iterable[int],
) -> list[np.ndarray]:
    """Minimise v^T (H + alpha I) v / 2 - v^T target by steps along batches.

    Args:
        batch_product: (rows, v) to H v of the mean loss of these training images.
        n: number of training images.
        target: g (P,).
        solver: its constants.
        seed: seed of the order of the batches.
        numbers: 0, 1, ..., the numbers of the steps.

    Returns:
        v after 1, 2, 4, 8, ... steps, all finite, and the last v, which may not be.
    """
    rng = np.random.default_rng([seed, 2])
    v, velocity, kept = np.zeros_like(target), np.zeros_like(target), []
    longest = DIVERGED * float(np.linalg.norm(target)) / solver.damping if solver.damping else None
    n_batches = solver.n_batches(n)
    for step in numbers:
        if step % n_batches == 0:
            order = rng.permutation(n)
        rows = order[step % n_batches * solver.batch_size :][: solver.batch_size]
        residual = batch_product(rows, v) + solver.damping * v - target
        velocity = solver.momentum * velocity - solver.learning_rate * residual
        v = v + velocity
        length = float(np.linalg.norm(v))
        if not math.isfinite(length) or (longest is not None and length > longest):
            break
        if step & (step + 1) == 0:  # step + 1 is a power of two
            kept.append(v)
    return [*kept, v]
