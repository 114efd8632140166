"""The tests of the scores bite: each of these mistakes in the product makes one of them fail."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS_FAILED = 1
"""pytest's exit status when tests ran and failed."""


@dataclass(frozen=True)
class Mutation:
    """Text of a product file, the mistaken text in its place, and the test of `tests` to fail."""

    name: str
    file: str
    right: str
    wrong: str
    test: str
    tests: str = "tests/training/test_influence.py"


SWEEP = "test_sweep_equals_central_differences and plain and last"
MUTATIONS = [
    Mutation(
        "sign of Hara turned",
        "sgd_influence/infl.py",
        "influence[steps[t].indices] -= by_weight",
        "influence[steps[t].indices] += by_weight",
        "test_hara_equals_leave_one_out",
    ),
    Mutation(
        "sign of influence functions turned",
        "influence_functions/infl.py",
        "influence[indices] = by_weight",
        "influence[indices] = -by_weight",
        "test_influence_functions_equal_leave_one_out and sgd",
    ),
    Mutation(
        "sign of influence functions by the Gauss-Newton matrix turned",
        "influence_functions/gauss_newton.py",
        "((softmax(logits) - own) * tangent)",
        "((own - softmax(logits)) * tangent)",
        "test_influence_functions_equal_leave_one_out and gauss_newton",
    ),
    Mutation(
        "the loss's Hessian dropped from the Gauss-Newton matrix",
        "influence_functions/gauss_newton.py",
        "loss_curvature(logits, tangent) / len(data)",
        "tangent / len(data)",
        "test_product_equals_central_differences",
        "tests/training/test_gauss_newton.py",
    ),
    Mutation(
        "Hessian term dropped",
        "utils/training/adjoint.py",
        "u = {name: after.u[name] + g for",
        "u = {name: after.u[name] + 0 * g for",
        SWEEP,
    ),
    Mutation(
        "Hessian term divided by |B| again",
        "utils/training/adjoint.py",
        "u = {name: after.u[name] + g for",
        "u = {name: after.u[name] + g / len(x) for",
        "test_step_equals_naive_loops and no",
    ),
    Mutation(
        "damped sweep without its damping",
        "utils/training/adjoint.py",
        "return by_weight, {name: g / len(x) for",
        "return by_weight, {name: g for",
        "test_damped_step_equals_naive_loops",
    ),
    Mutation(
        "snapshots that alias",
        "utils/training/network.py",
        "return {name: p.d.copy() for name, p in (self.theta | self.statistics).items()}",
        "return {name: p.d for name, p in (self.theta | self.statistics).items()}",
        SWEEP,
    ),
    Mutation(
        "statistics of a batch of one",
        "utils/kernels/batch_norm.py",
        "return F.sum(w * by_example, 0, keepdims=True) / total",
        "return by_example / map_size",
        "test_weighted_batch_normalization_equals_fused_one and maps and training",
    ),
    Mutation(
        "running-statistics term dropped",
        "utils/training/adjoint.py",
        "value = sum((F.sum(v[name] * r) for name, r in after.items()), value)",
        "value = sum((0 * F.sum(v[name] * r) for name, r in after.items()), value)",
        SWEEP,
    ),
    Mutation(
        "velocity left out of the adjoint",
        "utils/training/adjoint.py",
        "q = {name: u - after.p.get(name, 0.0) for",
        "q = {name: u for",
        "test_sweep_equals_central_differences and momentum-last",
    ),
    Mutation(
        "running variance biased",
        "utils/kernels/batch_norm.py",
        "variance * total / F.maximum_scalar(total - 1, 0.5)",
        "variance",
        "test_weighted_batch_normalization_equals_fused_one and maps and training",
    ),
    Mutation(
        "Swish's slope without the term of the product rule",
        "utils/kernels/swish.py",
        "order * polynomial(order - 1).coef[1:]",
        "0 * polynomial(order - 1).coef[1:]",
        "test_value_and_two_derivatives_equal_their_formulas",
        "tests/kernels/test_swish.py",
    ),
    Mutation(
        "Swish's slope differentiated as if it were linear",
        "utils/kernels/swish.py",
        'self.options["order"] + 1, xs[1], out',
        'self.options["order"], xs[1], out',
        "test_gradients_of_gradients_equal_nnablas",
        "tests/kernels/test_swish.py",
    ),
    Mutation(
        "average pooling's derivative not an equal share",
        "utils/kernels/maps.py",
        "return [MapSpread(**self.options)(gs[0])]",
        "return [2 * MapSpread(**self.options)(gs[0])]",
        "test_batch_norm_activation_and_pooling_equal_nnablas_and_repeat and training and Swish",
        "tests/kernels/test_convolution.py",
    ),
    Mutation(
        "weights moved the same way twice",
        "utils/training/smoothness.py",
        "return 1 + sign * SHIFT * signs",
        "return 1 + SHIFT * signs",
        "test_moved_weights_are_opposite",
        "tests/training/test_smoothness.py",
    ),
]


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the product and its tests, for all mistakes, with what is compiled already."""
    root = tmp_path_factory.mktemp("product")
    for folder in ("sgd_influence", "influence_functions", "utils", "benchmarks", "tests"):
        being_written = shutil.ignore_patterns("*.pyc.*", ".*.tmp*")
        shutil.copytree(ROOT / folder, root / folder, ignore=being_written)
    return root


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_mistake_is_caught(mutation: Mutation, product: Path) -> None:
    file = product / mutation.file
    text = file.read_text(encoding="utf-8")
    assert text.count(mutation.right) == 1, "the text to change is no longer there once"
    file.write_text(text.replace(mutation.right, mutation.wrong), encoding="utf-8")

    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    command += ["-p", "no:xdist", mutation.tests, "-k", mutation.test]
    command += [f"--basetemp={product / 'temporary'}"]
    try:
        outcome = subprocess.run(command, cwd=product, capture_output=True, text=True, check=False)
    finally:
        shutil.copy2(ROOT / mutation.file, file)

    assert outcome.returncode == TESTS_FAILED, outcome.stdout + outcome.stderr
    assert re.search(r"^E +(AssertionError|assert )", outcome.stdout, re.MULTILINE)
