"""The gradient of a loss as a graph, which can be differentiated again."""

from __future__ import annotations

from collections.abc import Sequence

import nnabla as nn
from nnabla.grad import Grad


def gradient_graph(loss: nn.Variable, parameters: Sequence[nn.Variable]) -> list[nn.Variable]:
    """The derivatives of a loss by parameters of its graph, each as a graph; zeros if unused."""
    wanted = set(parameters)
    uses: list[nn.Variable] = []
    loss.visit(lambda f: uses.extend(v for v in f.inputs if v in wanted))
    return _FromAllUses(uses)([loss], list(parameters))


class _FromAllUses(Grad):
    """nnabla's `nn.grad` with the functions of all uses of a parameter.

    A parameter that a net looks up several times by its name is another variable each time.
    nnabla 1.39 finds what depends on one of them only: from the others no gradient passes through
    a function of the parameter alone, such as a weight normalisation.
    """

    def __init__(self, uses: Sequence[nn.Variable]) -> None:
        super().__init__()
        self._uses = uses

    def _get_children(self, _: Sequence[nn.Variable]) -> set[nn.Variable]:
        return super()._get_children(self._uses)
