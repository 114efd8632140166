"""How many images to remove, decided only on validation images; the answer may be none.

Retraining is noisy: nets trained without a few images chosen at random differ by many standard
errors of a bootstrap over the validation images, so that one trial mostly shows luck. The rule is:

1. The gain of a removal is the rise of the mean probability that the nets give to the labels of the
   validation images against removing none, the mean over the trials. A wrong label can lower it by
   1 / N at most, where the mean loss, the negative logarithm, has no bound; and labels that are
   wrong at random, at one rate in all classes, shrink every gain by the same factor, as they do for
   any measure whose sum over the classes is constant (Ghosh, Kumar and Sastry, AAAI 2017).
   `benchmarks/null_test.py` compares it with the loss and with other measures.
2. Its standard error is the largest of three: that of the bootstrap over the validation images, of
   each trial by itself or of all together if they have the same; that over the trials; and the
   scatter between neighbouring n, which one trial shows too.
3. A gain counts if it is more standard errors than the best of as many removals reaches by noise
   alone in 39 of 40 runs of this shape, if validation accuracy does not fall, and if no class is
   left without a training image.
4. Of the n whose gains count, the smallest within one standard error of the best is recommended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from sgd_influence.outcomes import Outcomes
from utils.methods import CONTROL, METHODS

VERSION = 2
RULE = (
    "A removal counts if its gain in the mean probability of the validation labels, in standard "
    "errors, exceeds what the best of as many removals reaches by chance in 39 of 40 runs, if "
    "validation accuracy does not fall, and if each class keeps a training image. Of the removals "
    "that count, the smallest n within one standard error of the best is recommended; if none "
    "counts, none. The probability decides, not the loss, because a wrong validation label can "
    "change a loss without bound. Test images decide nothing."
)
MEASURE = "val_probability"
LABELS = "the mean probability of the validation labels"
"""What decides, as a column would be named and in words."""
N_NOISE = 10_000
"""Runs of noise that the limit is taken from."""
LEVEL = 0.975
UPPER_QUARTILE = 1.1503
"""Of the absolute value of a standard normal variable."""
DECIMALS = 9
"""Of gains in points; what a mean has beyond them are errors of rounding."""
WIDTH = 1.96
"""Standard errors from the middle to the ends of a 95 % interval."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Tried = Mapping[tuple[str, int, int], Outcomes]
"""The outcomes of each (method, n, seed): n = 0 and the same n in every trial."""
Score = Callable[[Outcomes], Floats]
"""What each validation image (n_val,) scores, more being better."""


def probability_points(outcomes: Outcomes) -> Floats:
    """The probability of each validation image's label (n_val,), in points."""
    return 100.0 * outcomes.val_probabilities


@dataclass(frozen=True)
class Gains:
    """What each of C removals gains over removing none.

    Attributes:
        mean: (C,), over the trials.
        error: (C,), its standard error.
    """

    mean: Floats
    error: Floats

    @property
    def ratio(self) -> Floats:
        """(C,), how many standard errors the means are."""
        return self.mean / np.maximum(self.error, np.finfo(float).tiny)

    def interval(self, number: int) -> list[float]:
        """The 95 % interval of a removal's gain."""
        mean, half = self.mean[number], WIDTH * self.error[number]
        return [float(mean - half), float(mean + half)]


@dataclass(frozen=True)
class Removals:
    """The removals that every trial made, and what they gained.

    Attributes:
        methods: C names.
        n: (C,), ascending within a method.
        previous: (C,), which removal is the next smaller of the method, counted from 1; 0: none.
        n_trials: that the means are of.
        gains: of what decides, by default the mean probability of the validation labels in points.
        validation: gains of validation accuracy, points.
        test: gains of test accuracy, points.
        test_accuracy: (1 + C,), fractions; the first is without removal.
        trial_gains: (T, C), these gains in each trial.
        emptied: as in `recommend`.
    """

    methods: tuple[str, ...]
    n: Ints
    previous: Ints
    n_trials: int
    gains: Gains
    validation: Gains
    test: Gains
    test_accuracy: Floats
    trial_gains: Floats
    emptied: Mapping[tuple[str, int], str] = field(default_factory=dict)

    @property
    def pairs(self) -> list[tuple[str, int]]:
        """Method and n of each."""
        return list(zip(self.methods, self.n.tolist(), strict=True))


@dataclass(frozen=True)
class Verdict:
    """What is recommended; the names are the same as in summary/recommendation.json.

    Attributes:
        method: whose worst images; None if none are to be removed.
        n: how many; 0: none.
        reason: a sentence.
        n_trials: that the figures are means over.
        trials_disagree: a sentence where they do, else empty.
        expected_gain_points: of validation accuracy.
        interval_points: its 95 % interval.
        test_accuracy: fraction, after the removal.
        test_accuracy_no_removal: fraction.
        test_gain_points: of test accuracy.
        test_interval_points: its 95 % interval.
        best_tried: the removal that came closest where none is recommended: its method, n and
            figures.
    """

    method: str | None
    n: int
    reason: str
    n_trials: int
    trials_disagree: str
    expected_gain_points: float
    interval_points: list[float]
    test_accuracy: float
    test_accuracy_no_removal: float
    test_gain_points: float
    test_interval_points: list[float]
    best_tried: dict[str, Any] | None


@dataclass(frozen=True)
class Gain:
    """What one removal gains in what decides.

    Attributes:
        n: images removed.
        points: rise of the mean probability of the validation labels, mean over the trials.
        interval_points: its 95 % interval.
    """

    n: int
    points: float
    interval_points: list[float]


@dataclass(frozen=True)
class Recommendation:
    """The verdict of each method, and the one of them to follow.

    Attributes:
        overall: to follow.
        methods: of each.
        gains: by method, of its removals, n ascending.
        what_if: a sentence where the run is an experiment (`--flip_labels`) whose lists are not for
            use; else empty.
        validation: a sentence where validation images lack a class or have wrong labels; else
            empty.
        about: a sentence on which training the removals repeated.
        cleansed: by method, how many images its cleansed list leaves out.
    """

    overall: Verdict
    methods: dict[str, Verdict]
    gains: dict[str, list[Gain]]
    what_if: str = ""
    validation: str = ""
    about: str = ""
    cleansed: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The content of summary/recommendation.json.

        Each verdict names the quantity that its method's column `influence` holds.
        """
        value: dict[str, Any] = {"version": VERSION, "rule": RULE, "measure": MEASURE}
        value |= asdict(self)
        for verdict in (value["overall"], *value["methods"].values()):
            method = verdict["method"]
            verdict["quantity"] = METHODS[method].quantity if method else None
        return value


def about_retraining(from_start: bool, n_judged: int, n_trained: int) -> str:
    """Which training a verdict is about.

    Args:
        from_start: removals are retrained from the first step.
        n_judged: trials that decide.
        n_trained: trials of the folder.
    """
    about = (
        "These results are for retraining the last epoch only: the epochs before it were trained "
        "on the removed images too. For training from scratch, give -ra and --preset smooth."
    )
    if from_start:
        about = (
            "These results are for training from scratch: each removal was retrained from the "
            "first step."
        )
    if n_judged < n_trained:
        some = f"Only {n_judged} of the folder's {n_trained} trials are judged"
        about += f" {some}, those of this command."
    return about


def recommend(
    tried: Tried,
    methods: Sequence[str],
    seeds: Sequence[int],
    unsound: Mapping[str, str] = MappingProxyType({}),
    emptied: Mapping[tuple[str, int], str] = MappingProxyType({}),
    same_validation: bool = False,
    score: Score = probability_points,
) -> Recommendation:
    """How many images to remove by each method, and by which.

    Args:
        tried: the results of the removals.
        methods: that are judged.
        seeds: of the trials.
        unsound: methods from whose scores nothing is recommended, and why.
        emptied: removals (method, n) that leave no training image of a class, which are not
            recommended, and of which.
        same_validation: all trials have the same validation images.
        score: of each validation image, more being better; benchmarks try others.
    """
    found = measured(tried, methods, seeds, same_validation, score)
    removals = replace(found, emptied=emptied)
    limit = noise_limit(removals.n_trials, tuple(removals.previous.tolist()))
    chosen = {m: choose(removals, limit, _of(removals, m)) for m in methods if m not in unsound}
    verdicts = {
        m: _none(removals, limit, m, _of(removals, m), f"its scores are not sound: {unsound[m]}")
        if m in unsound
        else _verdict(removals, limit, m, chosen[m])
        for m in methods
    }
    gains = {m: _gains(removals, m) for m in methods}
    return Recommendation(_overall(removals, limit, chosen, verdicts), verdicts, gains)


def _gains(removals: Removals, method: str) -> list[Gain]:
    gains = removals.gains
    return [
        Gain(int(removals.n[number]), float(gains.mean[number]), gains.interval(number))
        for number in np.flatnonzero(_of(removals, method)).tolist()
    ]


# ---------------------------------------------------------------- what is measured


def measured(
    tried: Tried,
    methods: Sequence[str],
    seeds: Sequence[int],
    same_validation: bool = False,
    score: Score = probability_points,
) -> Removals:
    """The gains of all removals that every trial made; arguments as of `recommend`."""
    pairs = [(m, n) for m in methods for n in counts_of(tried, m, seeds)]
    previous = [i if i and pairs[i - 1][0] == m else 0 for i, (m, _) in enumerate(pairs)]
    before = np.array(previous, np.int64)
    by_trial = [[tried[m, n, s] for m, n in [(methods[0], 0), *pairs]] for s in seeds]
    scores = [np.stack([score(o) for o in trial]) for trial in by_trial]
    hits = [100.0 * np.stack([o.val_hits for o in trial]) for trial in by_trial]
    test = [100.0 * np.stack([o.test_hits for o in trial]) for trial in by_trial]
    table = _means(scores)
    return Removals(
        methods=tuple(m for m, _ in pairs),
        n=np.array([n for _, n in pairs], np.int64),
        previous=before,
        n_trials=len(seeds),
        gains=gains_of(scores, before, same_validation),
        validation=gains_of(hits, before, same_validation),
        test=gains_of(test, before, same_images=True),
        test_accuracy=_means(test).mean(axis=0) / 100,
        trial_gains=(table[:, 1:] - table[:, :1]).round(DECIMALS),
    )


def counts_of(tried: Tried, method: str, seeds: Sequence[int]) -> list[int]:
    """The n above 0 that all trials removed by a method, ascending."""
    there = [{n for m, n, s in tried if (m, s) == (method, seed) and n > 0} for seed in seeds]
    return sorted(set.intersection(*there))


def gains_of(measure: Sequence[Floats], previous: Ints, same_images: bool = False) -> Gains:
    """Mean gains and their standard errors.

    Args:
        measure: per trial (1 + C, N), what each of N images scores without removal and after
            each of C, more being better.
        previous: (C,), as in `Removals`.
        same_images: the trials share their images.
    """
    table = _means(measure)
    error = np.maximum(errors_of(table, previous), _sampling_errors(measure, same_images))
    return Gains((table[:, 1:] - table[:, :1]).mean(axis=0).round(DECIMALS) + 0.0, error)


def _means(measure: Sequence[Floats]) -> Floats:
    """(T, 1 + C) means over the images of each trial."""
    return np.stack([scores.mean(axis=1) for scores in measure])


def _sampling_errors(measure: Sequence[Floats], same_images: bool) -> Floats:
    """(C,) standard errors of the bootstrap over the images of the trials, in closed form."""
    changes = [m[1:] - m[:1] for m in measure]
    if same_images:
        changes = [np.mean(changes, axis=0)]
    variances = [change.var(axis=1) / change.shape[1] for change in changes]
    return np.asarray(np.sqrt(np.sum(variances, axis=0)) / len(changes))


def errors_of(table: Floats, previous: Ints) -> Floats:
    """Standard errors of the mean gains, from the trials and from neighbouring n.

    Args:
        table: (..., T, 1 + C) means of a measure, without removal and after each of C.
        previous: (C,), as in `Removals`.

    Returns:
        (..., C).
    """
    gains, n_trials = table[..., 1:] - table[..., :1], table.shape[-2]
    deviation = gains.std(axis=-2, ddof=1) if n_trials > 1 else np.zeros_like(gains[..., 0, :])
    if not len(previous):
        return deviation
    return np.asarray(np.maximum(_scatter(table, previous), deviation) / np.sqrt(n_trials))


def _scatter(table: Floats, previous: Ints) -> Floats:
    """The deviation of a gain of one trial (..., 1), were it the same for neighbouring n.

    From the second differences along the n of each method, that a steady rise or fall leaves at 0;
    from the first differences where no method has two n. The upper quartile, over that of a normal
    variable, of all methods and trials together: a steep fall at the largest n counts little.
    """
    after, before, later = table[..., 1:], table[..., previous], previous > 0
    steps = after - before
    if later.any():
        further = table[..., previous[previous[later] - 1]]
        steps = (after[..., later] - 2 * before[..., later] + further) / np.sqrt(3)
    steps = np.abs(steps).reshape(*table.shape[:-2], -1)
    return np.asarray(np.quantile(steps, 0.75, axis=-1)[..., None] / UPPER_QUARTILE)


# ---------------------------------------------------------------- what is decided


@lru_cache(maxsize=8)
def noise_limit(n_trials: int, previous: tuple[int, ...]) -> float:
    """How many standard errors the best removal reaches where all of them are noise.

    The quantile `LEVEL` over `N_NOISE` seeded tables of independent normal variables.

    Args:
        n_trials: T.
        previous: as in `Removals`.
    """
    if not previous:
        return float("inf")
    rng, before = np.random.default_rng(0), np.array(previous)
    best = []
    for part in np.array_split(np.arange(N_NOISE), 10):
        table = rng.standard_normal((len(part), n_trials, 1 + len(previous)))
        gains = (table[..., 1:] - table[..., :1]).mean(axis=-2)
        best.append((gains / errors_of(table, before)).max(axis=-1))
    limit = np.quantile(np.concatenate(best), LEVEL)
    return float(limit) * (1 + 1e-9)  # one n of one trial always reaches the limit, never more


def choose(removals: Removals, limit: float, among: npt.NDArray[np.bool_]) -> int | None:
    """The removal to recommend among the candidates in the mask (C,); None: remove none."""
    gains = removals.gains
    keeps_classes = np.array([pair not in removals.emptied for pair in removals.pairs], bool)
    counts = among & (gains.ratio > limit) & (removals.validation.mean >= 0) & keeps_classes
    if not counts.any():
        return None
    best = int(np.where(counts, gains.mean, -np.inf).argmax())
    near = counts & (gains.mean >= gains.mean[best] - gains.error[best])
    return int(np.where(near, removals.n, np.iinfo(np.int64).max).argmin())


def _of(removals: Removals, method: str) -> npt.NDArray[np.bool_]:
    return np.array([m == method for m in removals.methods], bool)


def _overall(
    removals: Removals, limit: float, chosen: Mapping[str, int | None], verdicts: dict[str, Verdict]
) -> Verdict:
    """The verdict of the method that gains most; a control that gains most speaks against all."""
    counting = {m: number for m, number in chosen.items() if number is not None}
    if not counting:
        among = np.isin(removals.methods, list(chosen))
        return _none(removals, limit, None, among, _why_no_method(chosen, verdicts))
    best = max(counting, key=lambda m: float(removals.gains.mean[counting[m]]))
    if best != CONTROL:
        return verdicts[best]
    what = f"removing {verdicts[best].n} images by {best}, which is a control, gains most"
    reason = f"{what}: it is not the ranking that helps"
    return _none(removals, limit, None, _of(removals, best), reason)


def _why_no_method(chosen: Mapping[str, int | None], verdicts: Mapping[str, Verdict]) -> str:
    """The first reason where no method but the control has sound scores; else empty."""
    unsound = [method for method in verdicts if method not in chosen]
    if not unsound or set(chosen) - {CONTROL}:
        return ""
    return f"by {unsound[0]}, {verdicts[unsound[0]].reason}"


# ---------------------------------------------------------------- in words


def _verdict(removals: Removals, limit: float, method: str, number: int | None) -> Verdict:
    if number is None:
        return _none(removals, limit, method, _of(removals, method))
    gains = removals.gains
    reason = (
        f"{LABELS} rises by {gains.mean[number]:.3g} points, "
        f"{gains.ratio[number]:.1f} standard errors; {_by_chance(limit)}"
    )
    figures = _figures(removals, number)
    return Verdict(**figures, **_shared(removals, number), reason=reason, best_tried=None)


def _none(
    removals: Removals,
    limit: float,
    method: str | None,
    among: npt.NDArray[np.bool_],
    reason: str = "",
) -> Verdict:
    """Remove none; names the removal of the mask (C,) that came closest."""
    closest = _closest(removals.gains, among)
    accuracy = float(removals.test_accuracy[0])
    return Verdict(
        **_shared(removals, closest),
        method=method,
        n=0,
        reason=reason or _why_none(removals, limit, closest),
        expected_gain_points=0.0,
        interval_points=[0.0, 0.0],
        test_accuracy=accuracy,
        test_gain_points=0.0,
        test_interval_points=[0.0, 0.0],
        best_tried=None if closest is None else _figures(removals, closest),
    )


def _closest(gains: Gains, among: npt.NDArray[np.bool_]) -> int | None:
    """The removal of the mask (C,) whose gain is the most standard errors."""
    if not among.any():
        return None
    return int(np.where(among, gains.ratio, -np.inf).argmax())


def _why_none(removals: Removals, limit: float, closest: int | None) -> str:
    if closest is None:
        return "no n above 0 was tried in every trial (-r)"
    gains, name = removals.gains, f"{removals.methods[closest]} n = {removals.n[closest]}"
    if gains.mean[closest] <= 0:
        return f"no n that was tried raises {LABELS}"
    if removals.n_trials == 1 and len(removals.n) == 1:
        what = "but one removal of one trial may always be chance"
        return f"{name} raises {LABELS}, {what}; give more trials (-nt) or more n (-r)"
    if gains.ratio[closest] > limit and (classes := removals.emptied.get(removals.pairs[closest])):
        return f"{name} raises {LABELS}, but leaves no training image of {classes}"
    if gains.ratio[closest] > limit:
        return f"{name} raises {LABELS}, but validation accuracy falls"
    ratio = gains.ratio[closest]
    digits = 1 if f"{ratio:.1f}" != f"{limit:.1f}" else 2
    gain = f"its gain in {LABELS}, {ratio:.{digits}f} standard errors, may be chance"
    more = "more trials (-nt) or other n (-r) can show smaller gains"
    return f"{name} came closest, but {gain}: {_by_chance(limit, digits)}; {more}"


def _by_chance(limit: float, digits: int = 1) -> str:
    """What removals without an effect reach, in words."""
    return f"chance alone reaches {limit:.{digits}f} in 1 of 40 runs"


def _figures(removals: Removals, number: int) -> dict[str, Any]:
    return {
        "method": removals.methods[number],
        "n": int(removals.n[number]),
        "expected_gain_points": float(removals.validation.mean[number]),
        "interval_points": removals.validation.interval(number),
        "test_accuracy": float(removals.test_accuracy[1 + number]),
        "test_gain_points": float(removals.test.mean[number]),
        "test_interval_points": removals.test.interval(number),
    }


def _shared(removals: Removals, number: int | None) -> dict[str, Any]:
    return {
        "n_trials": removals.n_trials,
        "trials_disagree": "" if number is None else _disagreement(removals, number),
        "test_accuracy_no_removal": float(removals.test_accuracy[0]),
    }


def _disagreement(removals: Removals, number: int) -> str:
    """A sentence where some trials gain and some lose by a removal; else empty."""
    gain = int((removals.trial_gains[:, number] > 0).sum())
    if gain in (0, removals.n_trials):
        return ""
    what = f"{removals.methods[number]} n = {removals.n[number]} raises {LABELS}"
    return f"the trials disagree: {what} in {gain} of {removals.n_trials}"
