"""Checks that find scores which cannot be right, and the remedy.

A ranking should be followed only if it passes five checks:

1. Growth. The sweep multiplies u by one linearised step after the other. If |u| grows far beyond
   |u_T|, the product of the steps is not a contraction, and early steps get arbitrary scores.
2. Size. Leaving one image out cannot lower the validation loss by more than the whole loss.
3. Seats. Whether an image is harmful does not depend on when it was trained on. If most of the
   worst n were in the last steps, the ranking follows the order of training, and the removal
   empties the last batches.
4. Solver. A solution of a linear equation has a smaller residual than zero has.
5. Difference. Equal scores rank nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from utils.methods import Method, Scores, Solved
from utils.output.paths import OutputPaths
from utils.output.storage import unreadable
from utils.training.steps import Step

T = TypeVar("T")

GROWTH = 10.0
"""The most that |u| may grow over |u_T|: damped sweeps do not grow (docs/fidelity.md)."""
LAST = 10
"""The last steps whose images are counted."""
CROWDED, MOST = 5.0, 0.5
"""The worst images may sit in the last steps with up to `CROWDED` times the expected share, or up
to the share `MOST`.

The damped sweep, which cleanses, has up to 17 times the expected share there at full size (28 % of
the 50 worst, where 1.6 % are expected); the exact one has more than half (docs/fidelity.md).
"""
COUNTS = (50, 100, 200, 500, 1000, 2000, 5000)
"""The numbers of worst images that are checked; half of 50 is not reached by chance."""


def remedy(method: Method, from_scratch: bool, kinks: bool) -> str:
    """What to do about unsound scores.

    Args:
        method: that gave them.
        from_scratch: removals retrain from the first step, which the damped sweep does not predict.
        kinks: the net has kinks.
    """
    if method.epochs:
        better = "raise --damping"
    elif "sweep" in method.settings:
        better = "train with a lower --lr"
    elif from_scratch:
        exact = "" if method.needs_states else "use Hara_exact, or "
        smooth = " a net without kinks (--preset smooth)" if kinks else ""
        better = f"{exact}train{smooth} at a lower --lr"
    else:
        better = "use Hara, whose damped sweep does not grow, or train with a lower --lr"
    return f"{better}; check them with --verify"


@dataclass(frozen=True)
class Soundness:
    """Whether the scores of a method in a trial can be followed.

    Attributes:
        growth: as in `Scores`.
        validation_loss: mean (nats) of the final state.
        problems: clauses of `problems_of`.
        solved: as in `Scores`.
        remedy: what to do about the problems; empty without any.
    """

    growth: float | None
    validation_loss: float
    problems: tuple[str, ...]
    solved: Solved | None = None
    remedy: str = ""


@dataclass(frozen=True)
class Unsound:
    """Why the scores of a trial should not be followed.

    Attributes:
        problems: clauses, at least one.
        remedy: what to do; empty where an earlier version wrote the file.
    """

    problems: list[str]
    remedy: str

    @property
    def clauses(self) -> list[str]:
        """The problems and the remedy."""
        return [*self.problems, *filter(None, [self.remedy])]

    @property
    def in_short(self) -> str:
        """The first problem and the remedy."""
        return "; ".join([self.problems[0], *filter(None, [self.remedy])])


def soundness_of(scores: Scores, steps: Sequence[Step], loss: float) -> Soundness:
    """The soundness of scores; same arguments as `problems_of`."""
    problems = tuple(problems_of(scores, steps, loss))
    return Soundness(scores.growth, loss, problems, scores.solved)


def problems_in(paths: OutputPaths, method: str, seeds: Sequence[int]) -> dict[int, Unsound]:
    """The problems of a method by the seed of the trial; only trials that have some.

    Raises:
        UserError: a file cannot be read.
    """
    files = {seed: paths.soundness(method, seed) for seed in seeds}
    found = {seed: _read(path, _unsound_of) for seed, path in files.items() if path.exists()}
    return {seed: unsound for seed, unsound in found.items() if unsound.problems}


def warnings_of(paths: OutputPaths, methods: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """The problems that the folder holds, the remedy last, by method and by the seed as text."""
    by_method = {method: problems_in(paths, method, paths.trained()) for method in methods}
    return {
        method: {str(seed): unsound.clauses for seed, unsound in found.items()}
        for method, found in by_method.items()
        if found
    }


def solves_in(paths: OutputPaths, method: str, seeds: Sequence[int]) -> dict[int, Solved]:
    """The result of a method's solver, by the seed of the trial; only trials that record it.

    Raises:
        UserError: a file cannot be read.
    """
    files = {seed: paths.soundness(method, seed) for seed in seeds}
    found = {seed: _read(path, _solved_of) for seed, path in files.items() if path.exists()}
    return {seed: solved for seed, solved in found.items() if solved}


def solves_of(paths: OutputPaths, methods: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The results of solvers, by method and by the seed of the trial as text."""
    by_method = {method: solves_in(paths, method, paths.trained()) for method in methods}
    return {
        method: {str(seed): asdict(solved) for seed, solved in found.items()}
        for method, found in by_method.items()
        if found
    }


def _unsound_of(value: Mapping[str, Any]) -> Unsound:
    problems = [str(problem) for problem in value["problems"]]
    return Unsound(problems, str(value.get("remedy", "")))


def _solved_of(value: Mapping[str, Any]) -> Solved | None:
    solved = value.get("solved")  # earlier versions do not record it
    return Solved(**solved) if solved else None


def _read(path: Path, part: Callable[[Mapping[str, Any]], T]) -> T:
    try:
        return part(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise unreadable(path, "cannot be read", error) from error


def problems_of(scores: Scores, steps: Sequence[Step], loss: float) -> list[str]:
    """Why the scores of a trial should not be followed, a clause each; empty if there is no reason.

    Args:
        scores: predicted changes of the validation loss.
        steps: the covered steps.
        loss: the mean validation loss (nats) of the final state.
    """
    found = (
        _solver_problem(scores.solved),
        _growth_problem(scores.growth, len(steps)),
        _size_problem(scores.influence, loss),
        _seat_problem(scores.influence, steps),
        _difference_problem(scores.influence),
    )
    return [problem for problem in found if problem]


def _solver_problem(solved: Solved | None) -> str:
    if solved is None or solved.residual < 1:
        return ""
    return (
        f"its equation was not solved: the relative residual is {solved.residual:.2g}, where a "
        "zero vector has 1"
    )


def _growth_problem(growth: float | None, n_steps: int) -> str:
    if growth is None or growth <= GROWTH:
        return ""
    return (
        f"the sweep grows {growth:.2g}-fold over {n_steps} steps (at most {GROWTH:g}-fold is "
        "sound), so the scores of images in early steps are arbitrary"
    )


def _size_problem(influence: np.ndarray, loss: float) -> str:
    lowest = float(influence.min())
    if lowest >= -loss:
        return ""
    return (
        f"leaving one image out is predicted to lower the validation loss by {-lowest:.3g} nats, "
        f"but that loss is {loss:.3g}"
    )


def _seat_problem(influence: np.ndarray, steps: Sequence[Step]) -> str:
    """The problem for the n with the largest share in the last steps, if any."""
    last, covered = (_images_of(some, len(influence)) for some in (steps[-LAST:], steps))
    order, expected = np.argsort(influence, kind="stable"), last[covered].mean()
    order = order[covered[order]]
    shares = {n: last[order[:n]].mean() for n in COUNTS if n <= len(order) // 2}
    n = max(shares, key=lambda n: (shares[n], n), default=0)
    if not n or shares[n] <= max(MOST, CROWDED * expected):
        return ""
    return (
        f"{shares[n]:.0%} of its {n} worst images were in the last {LAST} of {len(steps)} steps, "
        f"where {expected:.1%} are expected: it ranks the order of training, not the images"
    )


def _images_of(steps: Sequence[Step], n_train: int) -> np.ndarray:
    """Mask (n_train,) of the images of some steps."""
    mask = np.zeros(n_train, bool)
    mask[np.concatenate([step.indices for step in steps])] = True
    return mask


def _difference_problem(influence: np.ndarray) -> str:
    if np.ptp(influence) > 0 or len(influence) < 2:
        return ""
    return f"all {len(influence)} scores are {influence[0]:.3g}, so that nothing is ranked"
