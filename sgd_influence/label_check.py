"""How likely each label is right, which class an image seems to have, how many labels are wrong.

Pure functions of arrays; `sgd_influence.label_issues` brings the records of the trials here.

The model of given labels, with beta, q, T and eps, and its two fits, *any class* and *similar
classes*, are those of `sgd_influence.label_fits`.

Where the log odds of right and wrong labels of the training images hardly overlap, wrong labels
stand apart (`LowerPart`): their share is the count, if the net makes few errors of its own.

A poor net cannot tell labels of a similar class from its own errors, so its scores assume both
kinds of wrong labels: eps, at least `LEAST`, are of any class, and `NEAR` are of classes that the
net sees in the image too: T(z, y) = eps / (K - 1) + NEAR q(y) / (1 - q(z)). The mean probability
of a wrong label is then eps + NEAR, or less: at most `MOST_HIDDEN` times the rate that is fitted to
the training images; of a set without any, the rate by the fit of similar classes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from sgd_influence.label_fits import (
    AnyClass,
    Floats,
    Ints,
    SimilarClasses,
    fit_any_class,
    fit_similar_classes,
    posterior_of,
)

Float32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

GOOD_NET = 0.9
"""The fit of similar classes is used where it estimates the net's accuracy at least this high."""
FAIR_NET = 0.75
"""Or at least this high, if wrong labels of the training images stand apart."""
UNDECIDED = 0.5
"""The score of a label that is not judged, as no trial trained on its class."""
LEAST, NEAR = 0.05, 0.04
"""For the scores of a poor net: the least eps, and near."""
MOST_HIDDEN = 3.0
"""The scores of a poor net assume at most so many wrong labels for each one that the fit to the
training images finds."""
SLOPE = 2.0
"""A good net's predictions before it learns an image are surer of its label than they claim."""
FITTED = 4_000_000
"""Probabilities (images times classes) that a fit uses; of more images it takes a sample."""
TRUSTED_SHARE = 0.1
"""Of each class, the images that are never suspected."""
WIDTH = 1.96
"""Standard errors from the middle to the ends of a 95 % interval."""
FIT_ERROR = 0.1
"""Standard error of a rate that is fitted, as a share of it, by the fit alone."""
FEW = 4.0
"""Fewer wrong labels than this among the held-out images may all be errors of the net: they count
only if the other fit or a training image agrees."""
APART, MOST_ODDS = 3.3, 2.5
"""Wrong labels stand apart if Ashman's D of the two distributions is larger, and the mean log odds
of the lower one are smaller; images that the net learns late have larger ones."""
LEAST_SHARE, MOST_SHARE = 0.01, 0.5
"""And if the lower one has this share of the images, and `FEW` of them: a few odd images lie apart
in clean data too."""
MOST_SHIFT = 5.0
"""Log odds by which the scores of a good net are raised at most: clear evidence stays evidence."""
_TINY = 1e-6
_FAR = 40.0
"""Log odds that are shifted by more than this are never needed."""
_WIDEST = 12.0
"""Log odds beyond this count as certain."""


@dataclass(frozen=True)
class Evidence:
    """The predictions of a run's trials for N images.

    Attributes:
        labels: (N,), the given ones.
        groups: (N,), the set of each image in the data set; 0 is the set with the training images.
        trained: (N, K) mean probabilities by the trials that trained on the image, before they
            learnt from it; 0 where none did.
        n_trained: (N,), how many did.
        held: (N, K) mean probabilities by the trials that held the image out; 0 where none did.
        n_held: (N,), how many did.
    """

    labels: Ints
    groups: Ints
    trained: Float32
    n_trained: Ints
    held: Float32
    n_held: Ints


@dataclass(frozen=True)
class Count:
    """How many labels look wrong.

    Attributes:
        n: the estimate.
        low: lower end of its 95 % interval.
        high: upper end.
    """

    n: int
    low: int
    high: int

    def with_at_least(self, n: int) -> Count:
        """The count, raised to n if it is lower."""
        return Count(max(self.n, n), self.low, max(self.high, n))


@dataclass(frozen=True)
class Checked:
    """What the check finds of N images.

    Attributes:
        score: (N,) probability that the label is right.
        suspect: (N,) bool, whether the label counts as wrong: `count.n` of them, or fewer where
            they would be nearly all of a class.
        predicted: (N,) class that the image seems to have; of suspects never the given one.
        predicted_score: (N,) its probability.
        count: how many labels look wrong.
        accuracy: of the net on the true classes, as the check estimates it.
        good: whether `count` is an estimate; else only its ends are sure.
        untrained: given classes that no trial trained on, so that their labels are not judged.
    """

    score: Floats
    suspect: Bools
    predicted: Ints
    predicted_score: Floats
    count: Count
    accuracy: float
    good: bool
    untrained: tuple[int, ...] = ()

    def without_suspects(self, labels: Ints) -> Checked:
        """The same scores with nothing marked or suggested: any number may be wrong.

        Args:
            labels: (N,), those given.
        """
        n = len(labels)
        return replace(
            self,
            suspect=np.zeros(n, bool),
            predicted=labels,
            predicted_score=self.score,
            count=Count(0, 0, n),
            good=False,
        )


@dataclass(frozen=True)
class _View:
    """How the predictions of one kind, trained or held out, are read.

    Attributes:
        beta: exponent.
        confusion: T (K, K) without the labels that depend on the image.
        near: the share of those.
    """

    beta: float
    confusion: Floats
    near: float = 0.0

    def log_posterior(self, probabilities: Float32, labels: Ints) -> Floats:
        posterior = posterior_of(_logs(probabilities), labels, self.beta, self.confusion, self.near)
        return np.log(np.maximum(posterior, 1e-12))


@dataclass(frozen=True)
class _Fits:
    """What is fitted to the predictions.

    Attributes:
        similar, any_class: both models, to `n_held` images that were held out.
        learnt: the model of similar classes, to images that were trained on.
        learnt_beta: of the other model, to the same images.
    """

    similar: SimilarClasses
    any_class: AnyClass
    n_held: int
    learnt: SimilarClasses
    learnt_beta: float

    @property
    def eps(self) -> float:
        """For the views of a poor net."""
        return min(max(self.any_class.rate, LEAST), 1 - 2 * NEAR)


def _fits(evidence: Evidence) -> _Fits:
    held = _reference(evidence)
    logs, labels = _sample(evidence.trained, evidence.labels, evidence.n_trained > 0)
    similar, any_class = _both_fits(evidence, held)
    return _Fits(
        similar=similar,
        any_class=any_class,
        n_held=int(held.sum()),
        learnt=fit_similar_classes(logs, labels),
        learnt_beta=fit_any_class(logs, labels).beta,
    )


def _both_fits(evidence: Evidence, held: Bools) -> tuple[SimilarClasses, AnyClass]:
    logs, labels = _sample(evidence.held, evidence.labels, held)
    return fit_similar_classes(logs, labels), fit_any_class(logs, labels)


def _all_right(labels: Ints) -> Checked:
    """The result where nothing can be wrong."""
    none, sure = np.zeros(len(labels), bool), np.ones(len(labels))
    return Checked(sure, none, labels, sure, Count(0, 0, 0), 1.0, good=True)


def check_known_classes(evidence: Evidence, sound: bool) -> Checked:
    """As `check_labels`, of the images whose given class some trial trained on.

    A net knows nothing of another class: such a label is never suspect, and scores `UNDECIDED`.

    Args:
        evidence: of N images, some of them trained on.
        sound: as in `check_labels`.
    """
    labels = evidence.labels
    known = np.isin(labels, labels[evidence.n_trained > 0])
    if known.all():
        return check_labels(evidence, sound)
    parts = {f.name: getattr(evidence, f.name)[known] for f in fields(Evidence)}
    checked = check_labels(Evidence(**parts), sound)
    undecided = np.full(len(labels), UNDECIDED)

    def among_all(values: np.ndarray, of_others: np.ndarray) -> np.ndarray:
        of_all = of_others.astype(values.dtype)
        of_all[known] = values
        return of_all

    return replace(
        checked,
        score=among_all(checked.score, undecided),
        suspect=among_all(checked.suspect, np.zeros(len(labels))),
        predicted=among_all(checked.predicted, labels),
        predicted_score=among_all(checked.predicted_score, undecided),
        untrained=tuple(int(label) for label in np.unique(labels[~known])),
    )


def check_labels(evidence: Evidence, sound: bool = True) -> Checked:
    """Check the labels of N images; of one class only, none can be wrong.

    Args:
        evidence: the predictions.
        sound: there is no other sign of a poor net; with one, wrong labels have to stand apart.
    """
    labels = evidence.labels
    if evidence.held.shape[1] == 1:
        return _all_right(labels)
    fits = _fits(evidence)
    neutral = _opinions(evidence, _neutral_views(fits))
    lower = lower_part(neutral.trained[evidence.n_trained > 0])
    reliable = sound and fits.similar.accuracy >= GOOD_NET
    # if the held-out images show more, only some of the wrong labels stand apart
    apart = lower.apart and lower.share >= _Rate.of(fits.similar.rate, fits.n_held).low
    good = reliable or (apart and fits.similar.accuracy >= FAIR_NET)
    seen = _opinions(evidence, _fitted_views(fits)) if good else neutral
    odds, suspect, counts = np.zeros(len(labels)), np.zeros(len(labels), bool), []
    for group in np.unique(evidence.groups):
        rows = evidence.groups == group
        one = _Set.of(evidence, neutral, seen, rows, _fits_of(evidence, rows, group, fits), lower)
        # of a set held out as a whole, the errors of a fair net stand apart too
        told_apart = reliable or (good and one.n_trained > 0)
        own = seen if told_apart else neutral
        odds[rows], count = _judged(one, evidence, own, rows, told_apart)
        suspect[np.flatnonzero(rows)[np.argsort(odds[rows], kind="stable")[: count.n]]] = True
        counts.append(count)
    suspect &= ~_never_suspected(odds, labels)
    score = _probability(odds)
    predicted = np.where(suspect | (score < 0.5), seen.other, labels)
    return Checked(
        score=score,
        suspect=suspect,
        predicted=predicted,
        predicted_score=np.where(predicted == labels, score, (1 - score) * seen.of_other),
        count=_total(counts, int(suspect.sum())),
        accuracy=fits.similar.accuracy,
        good=good,
    )


def _judged(
    one: _Set, evidence: Evidence, seen: _Opinions, rows: Bools, told_apart: bool
) -> tuple[Floats, Count]:
    """Log odds that the labels of a set are right, and how many look wrong."""
    rate, count = one.estimate() if told_apart else one.lower_bound()
    odds = _combined(evidence, seen, rows, rate, told_apart)
    if told_apart:  # other scores assume a share of wrong labels
        count = count.with_at_least(round(float((1 - _probability(odds)).sum())))
    return odds, count


def _fits_of(evidence: Evidence, rows: Bools, group: int, fits: _Fits) -> _Fits:
    """The fits for one set: its own if it is held out as a whole, else those of the reference."""
    held = rows & (evidence.n_held > 0)
    if group > 0 and held.any():
        similar, any_class = _both_fits(evidence, held)
        return replace(fits, similar=similar, any_class=any_class, n_held=int(held.sum()))
    return fits


def _reference(evidence: Evidence) -> Bools:
    """The held-out images (N,) that are closest to the training images: of their own set if any."""
    held = evidence.n_held > 0
    for group in np.unique(evidence.groups[held]):
        return held & (evidence.groups == group)
    return held


def _fitted_views(fits: _Fits) -> tuple[_View, _View]:
    """For a good net: how predictions of trials that trained on an image are read, or held it."""
    learnt, similar = fits.learnt, fits.similar
    return _View(learnt.beta, learnt.confusion), _View(similar.beta, similar.confusion)


def _neutral_views(fits: _Fits) -> tuple[_View, _View]:
    """The same with assumed errors, alike for all classes: for a poor net, and to tell apart."""
    k = len(fits.similar.confusion)
    confusion = np.full((k, k), fits.eps / (k - 1))
    np.fill_diagonal(confusion, 1 - fits.eps - NEAR)
    return _View(fits.learnt_beta, confusion, NEAR), _View(fits.any_class.beta, confusion, NEAR)


@dataclass(frozen=True)
class _Set:
    """The images of one set, and what tells how many of their labels are wrong.

    Attributes:
        n: images; n_trained: of them, how many some trial trained on.
        fits: to the held-out images of the set, or to those of the reference.
        trained: the lower part of the log odds of the images trained on.
        held: the same of the images held out.
        doubted: whether some label trained on is more likely wrong than right.
    """

    n: int
    n_trained: int
    fits: _Fits
    trained: LowerPart
    held: LowerPart
    doubted: bool

    @classmethod
    def of(
        cls,
        evidence: Evidence,
        neutral: _Opinions,
        seen: _Opinions,
        rows: Bools,
        fits: _Fits,
        lower: LowerPart,
    ) -> _Set:
        """The set of the images `rows` (N,); `lower`: of all images trained on, which are one's."""
        trained, held = rows & (evidence.n_trained > 0), rows & (evidence.n_held > 0)
        return cls(
            n=int(rows.sum()),
            n_trained=int(trained.sum()),
            fits=fits,
            trained=lower if trained.any() else lower_part(np.empty(0)),
            held=lower_part(neutral.held[held]),
            doubted=bool((seen.trained[trained] < 0).any()),
        )

    @property
    def _on_trained(self) -> _Rate:
        """Of the images trained on.

        Too low unless they stand apart: the net has learnt wrong labels too, which hides some.
        """
        rate = self.trained.share if self.trained.apart else self.fits.learnt.rate
        return _Rate.of(rate, self.n_trained)

    @property
    def _on_held(self) -> _Rate:
        """Of the images held out."""
        return _Rate.of(self.fits.similar.rate, self.fits.n_held)

    def lower_bound(self) -> tuple[float, Count]:
        """The share of wrong labels for the scores, and the count, where the net is poor."""
        one, most = self.fits.any_class, self.fits.similar.rate
        found = _Rate(one.rate, one.low, max(one.high, self._on_held.high))
        if self.n_trained:
            own, learnt = self._on_trained, self.fits.learnt.rate
            high = max(found.high, own.high) if self.trained.apart else found.high
            found, most = _Rate(max(found.rate, learnt), found.low, high), MOST_HIDDEN * learnt
        assumed = max(found.rate, min(self.fits.eps + NEAR, most))
        return assumed, found.count(self.n)

    def estimate(self) -> tuple[float, Count]:
        """The same where the net is good."""
        own, held = self._on_trained, self._on_held
        if self.n_trained and own.rate > held.high and not (self.trained.apart and self.held.apart):
            # the held-out images have better labels, unless the fit to them is wrong
            held = replace(held, high=own.high) if self.trained.apart else held
            found = own.mixed(held, self.n_trained / self.n)
        elif self.trained.apart:
            found = own if own.rate >= held.low else replace(held, low=min(held.low, own.low))
        elif held.rate * self.fits.n_held < FEW:
            agreed = self.fits.any_class.rate or self.doubted
            found = _Rate(held.rate if agreed else 0.0, 0.0, held.high)
        else:
            found = held
        return found.rate, found.count(self.n)


@dataclass(frozen=True)
class _Rate:
    """A share of wrong labels.

    Attributes:
        rate: the share.
        low: lower end of its 95 % interval.
        high: upper end.
    """

    rate: float
    low: float
    high: float

    @classmethod
    def of(cls, rate: float, n: int) -> _Rate:
        """A rate found in n images."""
        return cls(rate, *interval_of(rate, n))

    def mixed(self, other: _Rate, share: float) -> _Rate:
        """This rate for `share` of the images, the other for the rest."""
        pairs = (self.rate, other.rate), (self.low, other.low), (self.high, other.high)
        return _Rate(*(share * one + (1 - share) * two for one, two in pairs))

    def count(self, n: int) -> Count:
        """How many of n images."""
        middle = round(n * self.rate)
        low, high = min(middle, int(n * self.low)), max(middle, round(n * self.high))
        return Count(middle, max(0, low), min(n, high))


def interval_of(rate: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a rate by `n` images: Wilson's, with the fit's error added."""
    n = max(1, n)
    middle = (rate + WIDTH**2 / (2 * n)) / (1 + WIDTH**2 / n)
    half = WIDTH * np.sqrt(rate * (1 - rate) / n + (WIDTH / (2 * n)) ** 2) / (1 + WIDTH**2 / n)
    error = WIDTH * FIT_ERROR * rate
    low = rate - np.hypot(rate - (middle - half), error)
    return max(0.0, float(low)), float(rate + np.hypot(middle + half - rate, error))


@dataclass(frozen=True)
class LowerPart:
    """The lower of two normal distributions of log odds.

    Attributes:
        n: images in both; share: of them in the lower one.
        mean: of its log odds.
        distance: of the two, Ashman's D.
    """

    n: int
    share: float
    mean: float
    distance: float

    @property
    def apart(self) -> bool:
        """Whether these are wrong labels that stand apart from right ones."""
        return (
            self.distance > APART
            and self.mean < MOST_ODDS
            and LEAST_SHARE <= self.share <= MOST_SHARE
            and self.share * self.n >= FEW
        )


def lower_part(odds: Floats) -> LowerPart:
    """The lower one of a mixture of two normals that is fitted to log odds (N,); N may be 0."""
    if not len(odds):
        return LowerPart(0, 0.0, 0.0, 0.0)
    x = np.clip(odds, -_WIDEST, _WIDEST)
    share, means, widths = 0.1, np.quantile(x, [0.05, 0.5]), np.full(2, 2.0)
    for _ in range(100):
        density = np.exp(-0.5 * ((x[:, None] - means) / widths) ** 2) / widths
        weighted = density * [share, 1 - share]
        lower = weighted[:, 0] / np.maximum(weighted.sum(axis=1), 1e-300)
        both = np.stack([lower, 1 - lower])
        total = np.maximum(both.sum(axis=1), 1e-9)
        share, means = float(lower.mean()), both @ x / total
        squares = (both * (x - means[:, None]) ** 2).sum(axis=1)
        widths = np.sqrt(squares / total) + 0.1
    distance = float(np.sqrt(2) * (means[1] - means[0]) / np.hypot(*widths))
    return LowerPart(len(x), share, float(means[0]), distance)


def _total(counts: list[Count], n: int) -> Count:
    """The sum over the sets, their errors taken as independent; `n`: suspects in all."""
    middle = sum(c.n for c in counts)
    below = float(np.sqrt(sum((c.n - c.low) ** 2 for c in counts)))
    above = float(np.sqrt(sum((c.high - c.n) ** 2 for c in counts)))
    return Count(n, max(0, min(n, round(middle - below))), max(n, round(middle + above)))


@dataclass(frozen=True)
class _Opinions:
    """Log odds and alternatives by the predictions for N images.

    Attributes:
        trained: (N,) log odds that the label is right, by trials that trained on the image.
        held: (N,) the same by trials that held it out.
        other: (N,) likeliest class but the given one.
        of_other: (N,) its probability if the label is wrong.
    """

    trained: Floats
    held: Floats
    other: Ints
    of_other: Floats


def _opinions(evidence: Evidence, views: tuple[_View, _View]) -> _Opinions:
    n, k = evidence.held.shape
    found = _Opinions(np.zeros(n), np.zeros(n), np.zeros(n, np.int64), np.zeros(n))
    for start in range(0, n, size := max(1, FITTED // k)):
        rows = slice(start, start + size)
        labels, part = evidence.labels[rows], np.arange(len(evidence.labels[rows]))
        others = np.zeros((len(part), k))
        for probabilities, count, view, odds in (
            (evidence.trained, evidence.n_trained, views[0], found.trained),
            (evidence.held, evidence.n_held, views[1], found.held),
        ):
            logs = view.log_posterior(probabilities[rows], labels)
            own = logs[part, labels]
            logs[part, labels] = -np.inf
            wrong = _log_sum(logs)
            odds[rows] = own - wrong
            weight = count[rows] / (evidence.n_trained + evidence.n_held)[rows]
            others += weight[:, None] * np.maximum(logs - wrong[:, None], -1e9)
        found.other[rows] = others.argmax(axis=1)
        found.of_other[rows] = np.exp(others.max(axis=1) - _log_sum(others))
    return found


def _log_sum(logs: Floats) -> Floats:
    """log of the sum of exp over each row."""
    best = logs.max(axis=1)
    return np.asarray(best + np.log(np.exp(logs - best[:, None]).sum(axis=1)))


def _combined(evidence: Evidence, seen: _Opinions, rows: Bools, rate: float, good: bool) -> Floats:
    """Log odds of the images `rows`, averaged over the trials; mean probability 1 - rate.

    Where the net is good, the odds of trials that trained on an image are first multiplied by
    `SLOPE`, and shifted to the same mean; no odds are raised by more than `MOST_SHIFT`: the mean
    probability is lower where the evidence against labels is too clear for that rate.
    """
    trained, held = seen.trained[rows], seen.held[rows]
    n_trained, n_held = evidence.n_trained[rows], evidence.n_held[rows]
    if good and n_trained.any():
        trained = SLOPE * trained
        trained += _shift(trained[n_trained > 0], rate, MOST_SHIFT)
    odds = (n_trained * trained + n_held * held) / (n_trained + n_held)
    return odds + _shift(odds, rate, MOST_SHIFT if good else _FAR)


def _shift(odds: Floats, rate: float, most: float = _FAR) -> float:
    """The number, at most `most`, to add to log odds (N,) for a mean probability of 1 - rate."""
    low, high = -_FAR, most
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if _probability(odds + middle).mean() < 1 - rate else (low, middle)
        )
    return low


def _probability(odds: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(odds, -500, 500))))


def _never_suspected(odds: Floats, labels: Ints) -> Bools:
    """The tenth of each class (N,) whose labels are most likely right, one image at least."""
    kept = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        best = rows[np.argsort(-odds[rows], kind="stable")]
        kept[best[: int(np.ceil(TRUSTED_SHARE * len(rows)))]] = True
    return kept


def _sample(probabilities: Float32, labels: Ints, rows: Bools) -> tuple[Floats, Ints]:
    """log s (M, K) and labels (M,) of the images in the mask (N,), or of a sample of them."""
    chosen = np.flatnonzero(rows)
    most = max(1, FITTED // probabilities.shape[1])
    if len(chosen) > most:
        chosen = np.sort(np.random.default_rng(0).permutation(chosen)[:most])
    return _logs(probabilities[chosen]), labels[chosen]


def _logs(probabilities: Float32) -> Floats:
    return np.log(np.maximum(probabilities, _TINY, dtype=np.float64))
