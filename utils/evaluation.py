"""Loss and accuracy of a network with running statistics."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import nnabla as nn
import nnabla.functions as F

from utils.console import stop_if_asked
from utils.errors import UserError
from utils.images import ImageSet, normalise
from utils.network import Network

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy (nats) and accuracy (fraction) over an image set."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class _EvaluationGraph:
    x: nn.Variable
    y: nn.Variable
    losses: nn.Variable
    errors: nn.Variable


class Evaluator:
    """Evaluates a network in batches; sums are held in double precision."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._graph = lru_cache(maxsize=4)(self._build)

    def __call__(self, data: ImageSet) -> Evaluation:
        """Mean loss and accuracy of the network as it is now on `data`.

        Raises:
            UserError: the loss is not a finite number.
        """
        loss = errors = 0.0
        for rows in batches_of(len(data), EVALUATION_BATCH):
            stop_if_asked()
            graph = self._graph(rows.stop - rows.start)
            graph.x.d = normalise(data.images[rows])
            graph.y.d = data.labels[rows, None]
            nn.forward_all([graph.losses, graph.errors], clear_no_need_grad=True)
            loss += float(graph.losses.d.sum(dtype="float64"))
            errors += float(graph.errors.d.sum(dtype="float64"))
        check_finite(loss, "the evaluated loss")
        return Evaluation(loss / len(data), (len(data) - errors) / len(data))

    def _build(self, batch_size: int) -> _EvaluationGraph:
        x = nn.Variable((batch_size, *self.network.image_shape))
        y = nn.Variable((batch_size, 1))
        logits = self.network.logits(x, test=True)
        losses, errors = F.softmax_cross_entropy(logits, y), F.top_n_error(logits, y)
        losses.persistent = errors.persistent = True
        return _EvaluationGraph(x, y, losses, errors)


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


def batches_of(n: int, size: int) -> list[slice]:
    """Consecutive slices that cover range(n), each of `size` but the last."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]
