"""The net that `speed.py --model` compares with, and how it is timed."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import nnabla as nn
import nnabla.functions as F

import benchmarks.speed as speed
from tests.helpers.runs import sgd_influence
from utils.training.models import MODELS
from utils.training.network import Network


def test_the_kinked_net_is_as_fast_and_nnablas_functions_come_back() -> None:
    stock = F.swish, F.average_pooling
    network = Network(speed.kinked(MODELS["smooth_convolutions"]), (1, 8, 8), 10)
    names: set[str] = set()
    logits = network.logits(nn.Variable((2, 1, 8, 8)), test=False)
    logits.visit(lambda f: names.add(f.info.type_name))
    assert {"MapReLU", "MapMaxPooling"} <= names
    assert names.isdisjoint({"ReLU", "MapSwish", "MapAveragePooling"})
    assert (F.swish, F.average_pooling) == stock


def test_actions_take_turns() -> None:
    order: list[str] = []
    seconds = speed.least_seconds({name: partial(order.append, name) for name in "ab"})
    assert order == ["a", "b"] * (1 + speed.TIMES)
    assert seconds.keys() == {"a", "b"}


def test_stages_are_told_by_the_log_of_a_run(tmp_path: Path) -> None:
    begun = time.time()
    assert sgd_influence(tmp_path, "--model mlp --methods Hara Random --no_report") == 0
    work = speed.Work([], begun, time.time())
    seconds = speed.stages(work, (tmp_path / "run.log").read_text(encoding="utf-8"))
    assert {"train", "infl, Hara", "infl, Random", "eval", "rest"} == seconds.keys()
    assert abs(sum(seconds.values()) - (work.ended - begun)) < 0.1
