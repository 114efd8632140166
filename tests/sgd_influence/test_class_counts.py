"""Classes without validation images, and those of which a removal leaves no training image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eval_sgd_influence import COMMAND
from sgd_influence.class_counts import emptied_classes, unvalidated_classes
from sgd_influence.outcomes import Outcomes
from tests.helpers.own_images import picture
from utils.columns import LABEL
from utils.data.datasets import prepare
from utils.data.source import Source
from utils.data.splits import split_of_trial
from utils.options import Options, parse_options

SIZES = {"a": 20, "b": 20, "c": 4}


def opened(root: Path) -> tuple[Options, Source]:
    """A run of three trials, of classes of `SIZES`; c is too rare for each validation set."""
    for label, (name, size) in enumerate(SIZES.items()):
        for number in range(size):
            picture(root / "pets" / name / f"{number}.png", 100 * label + number)
    words = f"-ds {root / 'pets'} -o {root / 'out'} -nt 3 --n_val 4 --n_test 6"
    return parse_options(COMMAND, words.split()), prepare(str(root / "pets"), None, False)


def without(rows: np.ndarray) -> Outcomes:
    """The outcomes of a removal of training images by their place."""
    nothing = np.zeros(0)
    return Outcomes(nothing, nothing, nothing, np.sort(rows), nothing, nothing)


def test_classes_are_named(tmp_path: Path) -> None:
    options, source = opened(tmp_path)
    labels = source.images[LABEL].to_numpy()
    split = split_of_trial(options, source, 0)
    assert set(labels[split.validation]) == {0, 1}
    assert unvalidated_classes(options, source) == (
        "trial 0 has no validation image of c, so the cost of removing such training images is not "
        "measured; add validation images of each, or raise --n_val"
    )
    given = labels[split.training]
    rare, others = np.flatnonzero(given == 2), np.flatnonzero(given != 2)
    tried = {
        ("Hara", 0, 0): without(rare[:0]),
        ("Hara", 2, 0): without(rare[1:]),
        ("Hara", 5, 0): without(np.r_[rare, others[:2]]),
        ("Random", 5, 0): without(others[:5]),
    }
    assert emptied_classes(options, source, tried) == {("Hara", 5): "c"}
