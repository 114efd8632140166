"""Retraining after a removal repeats no step that it need not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import sgd_influence.eval as stage
from sgd_influence.eval import first_touched
from tests.helpers.runs import contents, sgd_influence
from utils.training.steps import Step
from utils.training.trial import Trial

SCORES = "score/**/*.csv"


def test_first_touched_step() -> None:
    steps = [Step(0, np.array(batch), np.zeros(2, np.uint64), 0.1) for batch in ([3, 1], [0, 2])]
    removed = np.arange(4) == 2
    assert first_touched(steps, removed, 0) == 1
    either = removed | (np.arange(4) == 1)
    assert first_touched(steps, either, 0) == 0
    assert first_touched(steps, either, 1) == 1
    assert first_touched(steps, np.zeros(4, bool), 0) == 2


@pytest.fixture
def steps_taken(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Gives how many retraining steps were taken since it was asked last."""
    taken: list[int] = []
    take_step = Trial.take_step

    def counted(trial: Trial, t: int, removed: np.ndarray | None = None) -> float:
        if removed is not None:
            taken.append(t)
        return take_step(trial, t, removed)

    def since() -> int:
        n = len(taken)
        taken.clear()
        return n

    monkeypatch.setattr(Trial, "take_step", counted)
    return since


@pytest.mark.parametrize("more", ["", "-ra", "--momentum 0.5 --cover_epochs 2 --cache steps"])
def test_steps_before_the_first_removed_image_are_not_repeated(
    more: str,
    tmp_path: Path,
    steps_taken: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    more = f"-r 0 1 2 --model mlp {more}"
    assert sgd_influence(tmp_path / "short", more) == 0
    few = steps_taken()
    start = 0 if "-ra" in more else 4
    monkeypatch.setattr(stage, "first_touched", lambda *arguments: start)
    assert sgd_influence(tmp_path / "whole", more) == 0
    all_steps = 7 * (8 - start)  # n = 0 once, and three methods' n = 1 and 2
    assert steps_taken() == all_steps > few > 0
    assert contents(tmp_path / "short", SCORES) == contents(tmp_path / "whole", SCORES)


def test_nothing_removed_takes_no_step(tmp_path: Path, steps_taken: Callable[[], int]) -> None:
    assert sgd_influence(tmp_path, "-r 0 --model mlp") == 0
    assert steps_taken() == 0
