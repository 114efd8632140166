"""Loss and accuracy of a network with running statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import nnabla as nn
import nnabla.functions as F
import numpy as np

from utils.data.images import ImageSet, normalise
from utils.errors import UserError
from utils.signals import stop_if_asked
from utils.training.network import Network

EVALUATED_PIXELS = 2**16
"""About how many pixels are evaluated at once: more of them take memory without saving time."""
LEAST_BATCH, LARGEST_BATCH = 64, 128
"""Images that are evaluated at once, at least and at most."""
MOST_PIXELS = 2**20
"""Fewer images than `LEAST_BATCH` are evaluated at once where they have more pixels than this."""


@dataclass(frozen=True)
class Evaluation:
    """Losses and hits of a network on an image set.

    Attributes:
        losses: (N,) float32, the cross-entropy of each image in nats.
        hits: (N,) bool, whether the network predicts the image's label.
    """

    losses: np.ndarray
    hits: np.ndarray

    @property
    def loss(self) -> float:
        """Mean cross-entropy (nats)."""
        return float(self.losses.mean(dtype="float64"))

    @property
    def accuracy(self) -> float:
        """Fraction of the images that are hit."""
        return float(self.hits.mean())


@dataclass(frozen=True)
class _EvaluationGraph:
    x: nn.Variable
    y: nn.Variable
    losses: nn.Variable
    errors: nn.Variable
    probabilities: nn.Variable


class Evaluator:
    """Evaluates a network in batches; means are taken in double precision."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._graph = lru_cache(maxsize=4)(self._build)

    def __call__(self, data: ImageSet) -> Evaluation:
        """Loss and hit of the network as it is now on each image of `data`.

        Raises:
            UserError: the mean loss, or a running statistic, is not a finite number.
        """
        return self._evaluate(data, None)

    def with_probabilities(self, data: ImageSet) -> tuple[Evaluation, np.ndarray]:
        """What `__call__` and `probabilities` return, by one pass over `data`.

        Raises:
            UserError: as `__call__`.
        """
        probabilities = self._room(len(data))
        return self._evaluate(data, probabilities), probabilities

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """The probability that the network as it is now gives each class.

        Args:
            images: uint8 (N, H, W, C).

        Returns:
            float32 (N, n_classes), rows with the sum 1.

        Raises:
            UserError: a running statistic is not a finite number.
        """
        result = self._room(len(images))
        for rows, graph in self._batches(len(images), lambda rows: normalise(images[rows])):
            graph.probabilities.forward(clear_no_need_grad=True)
            result[rows] = graph.probabilities.d
        return result

    def _evaluate(self, data: ImageSet, probabilities: np.ndarray | None) -> Evaluation:
        losses, hits = np.empty(len(data), "float32"), np.empty(len(data), bool)
        for rows, graph in self._batches(len(data), data.batch):
            graph.y.d = data.labels[rows, None]
            asked = [graph.losses, graph.errors]
            if probabilities is not None:
                asked.append(graph.probabilities)
            nn.forward_all(asked, clear_no_need_grad=True)
            losses[rows], hits[rows] = graph.losses.d[:, 0], graph.errors.d[:, 0] == 0
            if probabilities is not None:
                probabilities[rows] = graph.probabilities.d
        evaluation = Evaluation(losses, hits)
        check_finite(evaluation.loss, "the evaluated loss")
        return evaluation

    def _batches(
        self, n: int, batch: Callable[[slice], np.ndarray]
    ) -> Iterator[tuple[slice, _EvaluationGraph]]:
        """The rows of each batch, with the graph that holds its images.

        Args:
            n: images in all.
            batch: gives those of some rows as the network takes them.
        """
        _check_statistics(self.network)  # ReLU makes 0 of nan, so that the loss would be finite
        for rows in batches_of(n, evaluation_batch(self.network.image_shape)):
            stop_if_asked()
            graph = self._graph(rows.stop - rows.start)
            graph.x.d = batch(rows)
            yield rows, graph

    def _room(self, n: int) -> np.ndarray:
        return np.empty((n, self.network.n_classes), "float32")

    def _build(self, batch_size: int) -> _EvaluationGraph:
        x = nn.Variable((batch_size, *self.network.image_shape))
        y = nn.Variable((batch_size, 1))
        logits = self.network.logits(x, test=True)
        losses, errors = F.softmax_cross_entropy(logits, y), F.top_n_error(logits, y)
        probabilities = F.softmax(logits)
        losses.persistent = errors.persistent = probabilities.persistent = True
        return _EvaluationGraph(x, y, losses, errors, probabilities)


def _check_statistics(network: Network) -> None:
    """Tell a batch of a single value, of which nnabla's BatchNorm has no variance, from divergence.

    Raises:
        UserError: running statistics are not finite, and all other parameters are.
    """
    if _finite(network.statistics) or not _finite(network.theta):
        return
    raise UserError(
        "the running statistics of BatchNorm are not finite, though the parameters are: a batch of "
        "one image has no variance; choose another --batch_size (and --output_dir), or leave out "
        "fewer images (-r, --verify)"
    )


def _finite(parameters: Mapping[str, nn.Variable]) -> bool:
    return all(np.isfinite(p.d).all() for p in parameters.values())


def check_finite(value: float, what: str) -> None:
    """Stop a diverging training: nan would count as a right prediction further on.

    Raises:
        UserError: `value` is not finite.
    """
    if not math.isfinite(value):
        raise UserError(
            f"{what} is {value}: the training diverges; choose a lower --lr (or --momentum) and "
            "another --output_dir; what was finished before is kept"
        )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, K) of logits (N, K), of the same type."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def evaluation_batch(image_shape: Sequence[int]) -> int:
    """How many images of a shape (C, H, W) are evaluated at once; channels do not count."""
    pixels = math.prod(image_shape[1:])
    least = max(1, min(LEAST_BATCH, MOST_PIXELS // pixels))
    return min(LARGEST_BATCH, max(least, EVALUATED_PIXELS // pixels))


def batches_of(n: int, size: int) -> list[slice]:
    """Consecutive slices that cover range(n), each of `size` but the last."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
