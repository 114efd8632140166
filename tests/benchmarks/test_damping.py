"""The damping benchmark: one Krylov basis for every alpha."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.damping import Krylov, auc, lanczos
from influence_functions.solvers import conjugate_gradients


def test_a_basis_gives_the_iterates_of_conjugate_gradients() -> None:
    rng = np.random.default_rng(0)
    base = np.linalg.qr(rng.standard_normal((30, 30)))[0]
    matrix, g = (base * np.geomspace(1e-3, 10, 30)) @ base.T, rng.standard_normal(30)
    gradients = rng.standard_normal((7, 30))
    diagonal, off_diagonal, basis = lanczos(matrix.__matmul__, g, 20)
    krylov = Krylov(diagonal, off_diagonal, float(np.linalg.norm(g)), basis @ gradients.T)
    assert krylov.largest == pytest.approx(10, rel=1e-3)
    for damping in (0.3, 1.0):
        influence, residual, k = krylov.solved(damping, 0.01)
        solution = conjugate_gradients(matrix.__matmul__, g, damping, 0.01, range(1, 21))
        assert k == solution.n_products
        assert residual == pytest.approx(solution.residual)
        assert influence == pytest.approx(gradients @ solution.v)


def test_auc_counts_pairs() -> None:
    assert auc(np.array([-3.0, -1, 0, 2]), np.array([True, False, True, False])) == 0.75
