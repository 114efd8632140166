"""Weighted steps, and the smoothness of a training that is measured by them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.helpers.tiny import digit_images, smooth_net
from utils.training.models import MODELS
from utils.training.network import Network
from utils.training.sgd import SGD, Optimiser
from utils.training.smoothness import (
    SHIFT,
    SMOOTH,
    moved_weights,
    smoothness_of,
    smoothness_words,
)
from utils.training.steps import plan_steps

DATA = digit_images(0, 40)
STEPS = plan_steps(3, 40, n_epochs=2, batch_size=16, learning_rate=0.05)
OPTIMISER = Optimiser(momentum=0.5, weight_decay=0.01)


def trainer(conv: str = "fast") -> SGD:
    return SGD(Network(smooth_net, (1, 8, 8), 10, seed=3, conv=conv), OPTIMISER)


@pytest.mark.parametrize("conv", ["fast", "nnabla"])
@pytest.mark.parametrize("removed", [[], [1, 5, 6, 30]])
def test_weights_of_zero_and_one_are_removal(conv: str, removed: list[int]) -> None:
    mask = np.isin(np.arange(40), removed)
    plain, weighted = trainer(conv), trainer(conv)
    for step in STEPS:
        loss = plain.step(DATA, step, mask)
        assert weighted.weighted_step(DATA, step, 1.0 - mask) == pytest.approx(loss, rel=1e-5)
    reached = weighted.state()
    for name, array in plain.state().items():
        assert reached[name] == pytest.approx(array, rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_an_empty_batch_is_the_limit_of_small_weights(momentum: float) -> None:
    mask = np.isin(np.arange(40), STEPS[1].indices)
    ends = []
    for small in (False, True):
        sgd = SGD(Network(MODELS["mlp"], (1, 8, 8), 10), Optimiser(momentum, 0.01))
        for step in STEPS[:2]:
            if small:
                sgd.weighted_step(DATA, step, np.where(mask, 1e-6, 1.0))
            else:
                sgd.step(DATA, step, mask)
        ends.append(np.concatenate([array.ravel() for array in sgd.state().values()]))
    assert ends[0] == pytest.approx(ends[1], rel=1e-4, abs=1e-5)


def test_weights_enter_as_a_derivative_says() -> None:
    """Losses after a step are linear in small weights: +h and -h move them oppositely."""
    ends = []
    for sign in (1, 0, -1):
        sgd = trainer()
        for step in STEPS:
            sgd.weighted_step(DATA, step, moved_weights(0, 40, sign))
        ends.append(np.concatenate([array.ravel() for array in sgd.state().values()]))
    plus, unchanged, minus = ends
    assert smoothness_of(unchanged, plus, minus) > 0.98


def test_moved_weights_are_opposite_and_seeded() -> None:
    plus, minus = moved_weights(7, 50, 1), moved_weights(7, 50, -1)
    assert np.allclose(plus + minus, 2)
    assert np.allclose(np.abs(plus - 1), SHIFT)
    assert 0 < (plus > 1).sum() < 50
    assert not np.array_equal(plus, moved_weights(8, 50, 1))


def test_smoothness_is_one_for_opposite_changes_and_minus_half_for_chance() -> None:
    rng = np.random.default_rng(0)
    unchanged, direction = rng.standard_normal((2, 10_000))
    opposite = smoothness_of(unchanged, unchanged + direction, unchanged - direction)
    assert opposite == pytest.approx(1)
    chance = rng.standard_normal((3, 10_000))
    assert smoothness_of(*chance) == pytest.approx(-0.5, abs=0.03)
    third = chance + 2 * np.outer([0, 1, -1], direction)  # |direction|^2 : |chance|^2 is 4 : 2
    assert smoothness_of(*third) == pytest.approx(SMOOTH, abs=0.03)
    assert math.isnan(smoothness_of(unchanged, unchanged, unchanged))


@pytest.mark.parametrize(("value", "remedy"), [(0.97, False), (SMOOTH, False), (-0.4, True)])
def test_a_low_smoothness_is_explained_with_its_remedy(value: float, remedy: bool) -> None:
    words = smoothness_words(value)
    assert words.startswith(f"Smoothness of the training: {value:.2f} (1: removals of about 1 %")
    assert ("--preset smooth" in words) == remedy


def test_where_nothing_changed_there_is_nothing_to_say() -> None:
    assert smoothness_words(math.nan) == smoothness_words(math.nan, learnt=False) == ""


@pytest.mark.parametrize("value", [0.99, -0.5])
def test_the_smoothness_of_a_training_that_learnt_nothing(value: float) -> None:
    words = smoothness_words(value, learnt=False)
    assert words.startswith(f"Smoothness of the training: {value:.2f} (")
    assert words.endswith("It says nothing here: the training loss never falls.")
    assert "--preset" not in words
