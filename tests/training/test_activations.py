"""Memory that a batch takes, told from the shapes of a net."""

from __future__ import annotations

import nnabla as nn
import pytest

from tests.helpers.tiny import dense_net
from utils.errors import UserError
from utils.output.usage import Limit
from utils.training import activations
from utils.training.activations import SCORED, TRAINED, check_memory_of
from utils.training.network import Network


@pytest.mark.parametrize("n_traced", [1, 4])  # images of the graph that is looked at
@pytest.mark.parametrize(("scored", "factor"), [(False, TRAINED), (True, SCORED)])
def test_a_batch_that_takes_more_than_there_is_is_refused(
    scored: bool, factor: float, n_traced: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(dense_net, (1, 8, 8), 10)
    logits = network.logits(nn.Variable((n_traced, 1, 8, 8)), test=False)
    outputs: list[int] = []
    logits.visit(lambda function: outputs.extend(o.size // n_traced for o in function.outputs))
    needed = int(factor * 4 * 64 * sum(outputs))
    monkeypatch.setattr(activations, "memory_limit", lambda: Limit(needed + 1, "here"))
    check_memory_of(logits, 64, scored, "do this")
    monkeypatch.setattr(activations, "memory_limit", lambda: Limit(needed - 1, "here"))
    with pytest.raises(UserError, match=r"^64 images at once take about .* \(here\); do this$"):
        check_memory_of(logits, 64, scored, "do this")
