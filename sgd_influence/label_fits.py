"""How labels are given, fitted to the given labels and the predictions of nets.

The model: the true class z of an image with mean probabilities s has the probabilities
q(z) proportional to s(z)^beta, and is given the label y with probability T(z, y). beta undoes that
s is a mean over epochs of nets that learnt from wrong labels too. Fitted by maximum likelihood of
the given labels on predictions of nets that held the images out, in two forms:

- *any class*: T(z, y) = eps / (K - 1) for all y but z. Two numbers; where nothing is wrong eps is
  0, however poor the net. To it, labels of a similar class look like errors of the net.
- *similar classes*: every T(z, y) is free. It counts those too, but takes the confusions of a poor
  net for wrong labels, so that it counts only where the net makes few errors of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BETAS = np.exp(np.linspace(np.log(0.4), np.log(6.0), 40))
ROUNDS = 40
PRIOR = 5.0
"""Weight of the prior of a class's confusions, in images."""
CHI2 = 3.84
"""Twice the fall of the log-likelihood at the ends of a 95 % interval."""
_TINY = 1e-6


@dataclass(frozen=True)
class AnyClass:
    """The fit with one rate of wrong labels.

    Attributes:
        beta: exponent.
        rate: eps.
        low: lower end of its 95 % interval, by the profile of the likelihood.
        high: upper end.
    """

    beta: float
    rate: float
    low: float
    high: float


@dataclass(frozen=True)
class SimilarClasses:
    """The fit with free confusions.

    Attributes:
        beta: exponent.
        confusion: T (K, K), rows are true classes.
        rate: share of wrong labels.
        accuracy: of the net on the true classes, expected by the fit.
    """

    beta: float
    confusion: Floats
    rate: float
    accuracy: float


def sharpened(logs: Floats, beta: float) -> Floats:
    """q of log s: (N, K) probabilities."""
    powers = np.exp(beta * (logs - logs.max(axis=1, keepdims=True)))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def fit_any_class(logs: Floats, labels: Ints) -> AnyClass:
    """The most likely beta and eps, from the likelihood on a grid of both, and on a finer one.

    Args:
        logs: (N, K) log s.
        labels: (N,), the given ones.
    """
    rates = np.concatenate([[0.0], np.exp(np.linspace(np.log(0.001), np.log(0.8), 80))])
    inside = _inside(_on_grid(logs, labels, rates).max(axis=0))
    ends = rates[max(0, inside[0] - 1)], rates[min(len(rates) - 1, inside[-1] + 1)]
    rates = np.linspace(*ends, 41)
    likelihood = _on_grid(logs, labels, rates)
    profile = likelihood.max(axis=0)
    best, inside = int(profile.argmax()), _inside(profile)
    beta = float(BETAS[likelihood[:, best].argmax()])
    return AnyClass(beta, *(float(rates[i]) for i in (best, inside[0], inside[-1])))


def _on_grid(logs: Floats, labels: Ints, rates: Floats) -> Floats:
    """The log-likelihood of each of `BETAS` and each rate."""
    n, k = logs.shape
    likelihood = np.empty((len(BETAS), len(rates)))
    for number, beta in enumerate(BETAS):
        own = sharpened(logs, float(beta))[np.arange(n), labels]
        mixed = own * (1 - rates[:, None]) + (1 - own) * rates[:, None] / (k - 1)
        likelihood[number] = np.log(np.maximum(mixed, 1e-300)).sum(axis=1)
    return likelihood


def _inside(profile: Floats) -> Ints:
    """Which places of a profile of the log-likelihood are in its 95 % interval, ascending."""
    return np.flatnonzero(2 * (profile.max() - profile) <= CHI2)


def fit_similar_classes(logs: Floats, labels: Ints) -> SimilarClasses:
    """Expectation maximisation of T, with a step of beta in each round.

    Args:
        logs: (N, K) log s.
        labels: (N,), the given ones.
    """
    n, k = logs.shape
    beta, confusion = 1.0, _confusion(np.full((k, k), 0.05 * n / k**2), np.full(k, n / k))
    for _ in range(ROUNDS):
        posterior = posterior_of(logs, labels, beta, confusion)
        counts = np.zeros((k, k))
        np.add.at(counts.T, labels, posterior)
        off = counts * (1 - np.eye(k))
        confusion = _confusion(off, counts.sum(axis=1))
        near = beta * np.exp([-0.1, -0.03, 0.0, 0.03, 0.1])
        beta = float(max(near, key=lambda b: _likelihood(logs, labels, b, confusion)))
    posterior = posterior_of(logs, labels, beta, confusion)
    rows = np.arange(n)
    return SimilarClasses(
        beta=beta,
        confusion=confusion,
        rate=float(1 - posterior[rows, labels].mean()),
        accuracy=float(posterior[rows, logs.argmax(axis=1)].mean()),
    )


def _confusion(off: Floats, totals: Floats) -> Floats:
    """T (K, K) of expected counts, drawn towards the mean rate and towards equal shares.

    Args:
        off: (K, K) expected number of images by true class and wrong label; 0 on the diagonal.
        totals: (K,) expected number of images by true class.
    """
    k = len(totals)
    rate = max(_TINY, off.sum() / max(1.0, totals.sum()))
    rates = (off.sum(axis=1) + PRIOR * rate) / (totals + PRIOR)
    shares = off + PRIOR * rate / max(1, k - 1)
    np.fill_diagonal(shares, 0.0)
    shares = rates[:, None] * shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-300)
    return np.asarray(shares + np.diag(1 - rates))


def _likelihood(logs: Floats, labels: Ints, beta: float, confusion: Floats) -> float:
    joint = (sharpened(logs, beta) * confusion[:, labels].T).sum(axis=1)
    return float(np.log(np.maximum(joint, 1e-300)).sum())


def posterior_of(
    logs: Floats, labels: Ints, beta: float, confusion: Floats, near: float = 0.0
) -> Floats:
    """The probability of each true class (N, K), the given labels considered.

    Args:
        logs: (N, K) log s.
        labels: (N,), the given ones.
        beta: exponent.
        confusion: T (K, K) without the labels that depend on the image.
        near: the share of those.
    """
    q, rows = sharpened(logs, beta), np.arange(len(labels))
    given = confusion[:, labels].T + near * q[rows, labels, None] / np.maximum(1 - q, 1e-12)
    given[rows, labels] = confusion[labels, labels]
    joint = q * given
    return np.asarray(joint / np.maximum(joint.sum(axis=1, keepdims=True), 1e-300))
