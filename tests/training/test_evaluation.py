"""How many images are evaluated at once."""

from __future__ import annotations

import numpy as np
import pytest

from utils.data.images import ImageSet
from utils.training import evaluation
from utils.training.adjoint import flattened, loss_gradient
from utils.training.evaluation import Evaluator, evaluation_batch
from utils.training.models import MODELS
from utils.training.network import Network


def test_larger_images_are_evaluated_in_smaller_batches() -> None:
    shapes = [(1, 8, 8), (1, 16, 16), (1, 28, 28), (3, 32, 32), (3, 224, 224)]
    assert [evaluation_batch(shape) for shape in shapes] == [128, 128, 83, 64, 20]


def test_the_size_of_batches_changes_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (70, 8, 8, 1), np.uint8)
    data = ImageSet(images, rng.integers(0, 10, 70).astype(np.int32), ())
    network = Network(MODELS["six_convolutions"], data.shape, 10)
    found = []
    for size in (256, 32):
        monkeypatch.setattr(evaluation, "LEAST_BATCH", size)
        monkeypatch.setattr(evaluation, "LARGEST_BATCH", size)
        found.append((Evaluator(network)(data).losses, flattened(loss_gradient(network, data).u)))
    (losses, u), (losses_32, u_32) = found
    np.testing.assert_allclose(losses_32, losses, rtol=1e-5)
    assert np.linalg.norm(u_32 - u) < 1e-5 * np.linalg.norm(u)
