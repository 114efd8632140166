"""How likely each label is right, which class an image seems to have, how many labels are wrong.

Pure functions of arrays; `sgd_influence.label_issues` brings the records of the trials here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


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


@dataclass(frozen=True)
class Checked:
    """What the check finds of N images.

    Attributes:
        score: (N,) probability that the label is right.
        suspect: (N,) bool, whether the label counts as wrong: `count.n` of them.
        predicted: (N,) class that the image seems to have; of suspects never the given one.
        predicted_score: (N,) its probability.
        count: of the suspects.
    """

    score: Floats
    suspect: npt.NDArray[np.bool_]
    predicted: Ints
    predicted_score: Floats
    count: Count


def check_labels(probabilities: Floats, labels: Ints) -> Checked:
    """Check the labels of N images.

    Args:
        probabilities: (N, K), mean class probabilities by nets that had not learnt the image.
        labels: (N,), those given.
    """
    given = probabilities[np.arange(len(labels)), labels]
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = -1.0
    score = given / np.maximum(given + others.max(axis=1), 1e-12)
    suspect = score < 0.5
    n = int(suspect.sum())
    half = round(1.96 * float(np.sqrt((score * (1 - score)).sum())))
    count = Count(n, max(0, n - half), min(len(labels), n + half))
    predicted = np.where(suspect, others.argmax(axis=1), probabilities.argmax(axis=1))
    return Checked(
        score, suspect, predicted, probabilities[np.arange(len(labels)), predicted], count
    )
