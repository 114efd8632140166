"""Which states of its training a trial keeps on disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from utils.options import FINAL, RECOMPUTE, STEPS


def kept_steps(cache: str, covered: range, retrain_start: int) -> list[int]:
    """The steps before which the state is kept, ascending; the final state is kept besides.

    The state from which removals retrain is always one of them.

    Args:
        cache: steps, every covered step; recompute, some, at most sqrt(T) + 2 files with the
            final state's; final, none.
        covered: the T last steps, which the scores cover.
        retrain_start: the step at which the training after a removal begins.
    """
    covered = {
        STEPS: covered,
        RECOMPUTE: covered[:: _distance(covered, retrain_start)],
        FINAL: covered[:0],
    }[cache]
    return sorted({retrain_start, *covered})


def _distance(covered: range, retrain_start: int) -> int:
    """ceil(sqrt(T)); more, by one at most, where `retrain_start` would be a file too many."""
    distance = math.isqrt(len(covered) - 1) + 1
    if retrain_start in covered[::distance]:
        return distance
    return math.ceil(len(covered) / math.isqrt(len(covered)))


def longest_segment(kept: Sequence[int], covered: range) -> int:
    """Steps from one kept state to the next, at most, where the scores cover them.

    Args:
        kept: the steps before which the state is kept, the first at or before `covered`.
        covered: the covered steps, the last of the training.
    """
    return max(b - a for a, b in pairwise([*kept, covered.stop]) if b > covered.start)
