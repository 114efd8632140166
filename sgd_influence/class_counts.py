"""Classes without validation images, and those of which a removal leaves no training image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sgd_influence.recommend import Tried
from utils.columns import LABEL
from utils.data.source import Source, listed_classes
from utils.data.splits import split_of_trial
from utils.options import Options


def unvalidated_classes(options: Options, source: Source) -> str:
    """A sentence on classes without a validation image in a trial, the first such; else empty."""
    labels = source.images[LABEL].to_numpy()
    for seed in options.seeds:
        split = split_of_trial(options, source, seed)
        missing = set(labels[split.training]) - set(labels[split.validation])
        if missing:
            return (
                f"trial {seed} has no validation image of {listed_classes(missing, source)}, so "
                "the cost of removing such training images is not measured; add validation images "
                "of each, or raise --n_val"
            )
    return ""


def emptied_classes(options: Options, source: Source, tried: Tried) -> dict[tuple[str, int], str]:
    """By method and n, the classes of which a removal leaves no training image in some trial."""
    found: dict[tuple[str, int], set[int]] = {}
    for method, n, classes in _emptied(options, source, tried):
        found.setdefault((method, n), set()).update(classes)
    return {key: listed_classes(classes, source) for key, classes in found.items() if classes}


def _emptied(options: Options, source: Source, tried: Tried) -> Iterator[tuple[str, int, set[int]]]:
    labels = source.images[LABEL].to_numpy()
    training = {
        seed: labels[split_of_trial(options, source, seed).training] for seed in options.seeds
    }
    for (method, n, seed), outcomes in tried.items():
        before = np.bincount(training[seed])
        removed = np.bincount(training[seed][outcomes.removed], minlength=len(before))
        yield method, n, set(np.flatnonzero((before > 0) & (before == removed)).tolist())
