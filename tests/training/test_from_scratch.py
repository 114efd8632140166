"""Whether scores can predict training from scratch: kinks, covered epochs, the exact sweep."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import pytest

from tests.helpers.nnp import save_model
from tests.helpers.runs import sgd_influence
from utils.options import Options
from utils.training.from_scratch import (
    kinks_in,
    remark_on_method,
    remark_on_retraining,
    remark_on_steps,
)
from utils.training.models import MODELS
from utils.training.network import Network
from utils.training.steps import plan_steps

BY_MODEL = {
    "six_convolutions": ("MaxPooling", "ReLU"),
    "smooth_convolutions": (),
    "smooth_resnet": (),
    "resnet": ("ReLU",),
    "mlp": ("ReLU",),
}


def fused(x: nn.Variable, **nonlinearity: Any) -> nn.Variable:
    w = nn.parameter.get_parameter_or_create("fused/W", (4, 4, 1, 1))
    return F.fused_convolution(x, w, **nonlinearity)


FUNCTIONS: list[tuple[Callable[[nn.Variable], nn.Variable], tuple[str, ...]]] = [
    (F.leaky_relu, ("LeakyReLU",)),
    (PF.prelu, ("PReLU",)),
    (F.relu6, ("ReLU6",)),
    (F.selu, ("SELU",)),
    (F.abs, ("Abs",)),
    (lambda x: F.maximum2(x, -x), ("Maximum2",)),
    (lambda x: F.clip_by_value(x, -1, 1), ("MaximumScalar", "MinimumScalar")),
    (lambda x: F.max(x, axis=1), ("Max",)),
    (lambda x: F.where(F.greater_scalar(x, 0), x, 0.1 * x), ("GreaterScalar",)),
    (lambda x: F.elu(x, 0.5), ("ELU",)),
    (lambda x: F.norm_normalization(x, p=1), ("NormNormalization",)),
    (lambda x: F.norm_normalization(x, p=2), ()),
    (PF.fused_batch_normalization, ("FusedBatchNormalization",)),
    (lambda x: fused(x, nonlinearity="relu6"), ("FusedConvolution",)),
    (lambda x: fused(x, nonlinearity="elu", nonlinearity_args=[0.5]), ("FusedConvolution",)),
    (lambda x: fused(x, nonlinearity="elu", nonlinearity_args=[1.0]), ()),
    (lambda x: fused(x, nonlinearity="tanh"), ()),
    (F.elu, ()),
    (F.gelu, ()),
    (F.softplus, ()),
    (F.mish, ()),
    (lambda x: x * F.sigmoid(1.702 * x), ()),
    (lambda x: F.average_pooling(F.tanh(x), (2, 2)), ()),
]


def network_of(model: Callable[..., nn.Variable]) -> Network:
    return Network(model, (1, 8, 8), 10)


@pytest.mark.parametrize("name", BY_MODEL)
def test_kinks_of_built_in_models(name: str) -> None:
    assert kinks_in(network_of(MODELS[name])) == BY_MODEL[name]


@pytest.mark.parametrize(("function", "kinks"), FUNCTIONS)
def test_kinks_of_a_users_model(
    function: Callable[[nn.Variable], nn.Variable], kinks: tuple[str, ...]
) -> None:
    def model(x: nn.Variable, n_classes: int, test: bool) -> nn.Variable:
        return PF.affine(function(PF.convolution(x, 4, (3, 3), name="conv")), n_classes)

    assert kinks_in(network_of(model)) == kinks


N_TRAIN = 256
"""Four steps an epoch."""


def remark_of(model: str, methods: tuple[str, ...] = ("Hara_exact",), **chosen: Any) -> str:
    given = {"retrain_all": True, "cover_epochs": None, "n_epochs": 5} | chosen
    options = Options(program="", output_dir=Path("o"), methods=methods, model=model, **given)
    return remark_on_retraining(options, network_of(MODELS[model]), N_TRAIN)


def test_one_remark_names_all_reasons_and_their_remedy() -> None:
    remark = remark_of("mlp", ("Hara", "Random"), cover_epochs=1)
    assert "the net has kinks (ReLU)" in remark
    assert "the scores cover only the last of 5 epochs" in remark
    assert "no exact sweep among the methods (Hara)" in remark
    remedy = "--preset smooth (not --model mlp) --cover_epochs all --methods Hara_exact"
    assert remark.endswith(f"use {remedy}")


def test_a_remark_names_only_what_is_missing() -> None:
    kinks, epochs = remark_of("mlp"), remark_of("smooth_convolutions", cover_epochs=4)
    sweep = remark_of("smooth_convolutions", ("Ours",))
    assert kinks.endswith("use --preset smooth (not --model mlp)")
    assert epochs.endswith("use --cover_epochs all")
    assert sweep.endswith("use --methods Hara_exact")
    assert "kinks" not in epochs + sweep


def test_one_epoch_from_scratch_is_a_whole_training() -> None:
    remark = remark_of("mlp", ("Hara",), n_epochs=1, cover_epochs=1)
    assert "the net has kinks (ReLU)" in remark and "no exact sweep" in remark
    assert "the scores cover" not in remark


@pytest.mark.parametrize(
    ("method", "from_scratch", "said"),
    [("Hara", True, True), ("Influence_functions", True, True), ("Hara", False, False),
     ("Hara_exact", True, False), ("Hara_smoothed", True, False), ("AUM", True, False)],
)  # fmt: skip
def test_a_method_chosen_later_is_remarked_if_its_sweep_is_not_exact(
    method: str, from_scratch: bool, said: bool
) -> None:
    options = Options("", Path("o"), methods=(), retrain_all=from_scratch)
    remark = remark_on_method(options, method)
    assert bool(remark) == said
    assert remark.endswith("use Hara_exact") == said


def test_the_remedy_names_a_model_that_overrides_the_preset() -> None:
    default, chosen = remark_of("six_convolutions"), remark_of("resnet", preset="smooth")
    assert default.endswith("use --preset smooth")
    assert chosen.endswith("use --preset smooth (not --model resnet)")


@pytest.mark.parametrize(
    ("model", "chosen"),
    [
        ("smooth_convolutions", {}),
        ("smooth_convolutions", {"methods": ("Hara_smoothed", "Hara")}),
        ("mlp", {"retrain_all": False, "cover_epochs": 1}),
        ("mlp", {"retrain_all": False, "methods": ("Influence_functions", "AUM")}),
        ("mlp", {"n_epochs": 1, "retrain_all": False}),
        ("mlp", {"methods": ("AUM", "Random")}),
    ],
)
def test_no_remark_where_scores_can_predict_or_nothing_is_predicted(
    model: str, chosen: dict[str, Any]
) -> None:
    assert remark_of(model, **chosen) == ""


def test_influence_functions_cover_no_epochs() -> None:
    remark = remark_of("smooth_convolutions", ("Influence_functions",), cover_epochs=1)
    assert "the scores cover" not in remark
    assert remark.endswith("use --methods Hara_exact --cover_epochs all")
    every = remark_of("smooth_convolutions", ("Influence_functions",))
    assert every.endswith("use --methods Hara_exact")
    both = remark_of("smooth_convolutions", ("Influence_functions", "Ours"), cover_epochs=1)
    assert "the scores cover only the last of 5 epochs" in both
    assert both.endswith("use --cover_epochs all --methods Hara_exact")


def test_scores_of_more_epochs_than_are_retrained() -> None:
    remark = remark_of("smooth_convolutions", retrain_all=False, cover_epochs=2)
    assert remark.startswith("the scores cover 2 epochs")
    assert remark.endswith("use --cover_epochs 1, or -ra")
    assert "cover 5 epochs" in remark_of("mlp", ("Ours",), retrain_all=False)


@pytest.mark.parametrize(
    ("model", "n_epochs", "momentum", "named"),
    [
        ("mlp", 2, 0.0, "the net has kinks (ReLU)"),
        ("mlp", 1, 0.0, ""),
        ("smooth_convolutions", 2, 0.0, ""),
        ("smooth_convolutions", 2, 0.9, "over 1 - momentum add up to 8, more than 2"),
    ],
)
def test_steps_of_a_users_loop(model: str, n_epochs: int, momentum: float, named: str) -> None:
    steps = plan_steps(0, N_TRAIN, n_epochs, 64, 0.1)
    remark = remark_on_steps(steps, momentum, network_of(MODELS[model]))
    assert bool(remark) == bool(named) and named in remark


@pytest.mark.parametrize("methods", [("Hara",), ("AUM", "Random")])
def test_a_schedule_that_leaves_the_last_epoch_no_rate(methods: tuple[str, ...]) -> None:
    chosen: dict[str, Any] = {"retrain_all": False, "cover_epochs": 1, "n_epochs": 20}
    chosen["lr_schedule"] = "cosine"
    remark = remark_of("mlp", methods, **chosen)
    assert "--lr_schedule cosine leaves 0.29 % of the learning rate" in remark
    assert remark.endswith("use --lr_schedule constant, or -ra")
    assert " 1 % of" in remark_of("mlp", methods, **chosen | {"lr_schedule": "step"})
    for other in ({"lr_schedule": "constant"}, {"n_epochs": 2}, {"remove_n_list": (0,)}):
        assert remark_of("mlp", methods, **chosen | other) == ""
    assert "removals retrain only" not in remark_of("mlp", **chosen | {"retrain_all": True})
    assert "removals retrain only" in remark_of(
        "mlp", **chosen | {"remove_n_list": (), "verify": 6}
    )


@pytest.mark.parametrize(
    ("chosen", "length", "lower"),
    [
        ({"n_epochs": 10}, None, None),  # 40 steps of 0.05
        ({"n_epochs": 20, "lr": 0.02505}, None, None),  # 2.004
        ({"n_epochs": 20, "lr": 0.0251}, "2.01", "0.025"),
        ({"n_epochs": 11}, "2.20", "0.045"),
        ({"lr": 0.15}, "3.00", "0.1"),
        ({"lr": 0.017, "momentum": 0.9}, "3.40", "0.01"),
        ({"n_epochs": 19, "lr_schedule": "cosine"}, None, None),
        ({"n_epochs": 30, "lr_schedule": "cosine"}, "3.03", "0.033"),
        ({"n_epochs": 20, "batch_size": 256}, None, None),
        ({"n_epochs": 10_000}, "2,000.00", "5e-05"),
        ({"n_epochs": 30, "methods": ("Influence_functions", "Hara_exact")}, "6.00", "0.016"),
    ],
)
def test_a_long_training_is_remarked_with_a_rate_at_which_it_is_not(
    chosen: dict[str, Any], length: str | None, lower: str | None
) -> None:
    remark = remark_of("smooth_convolutions", **chosen)
    if length is None:
        assert remark == ""
        return
    assert "these scores may predict poorly" in remark
    assert f"add up to {length}, more than 2" in remark
    assert ("steps, over 1 - 0.9 of momentum, add up" in remark) == ("momentum" in chosen)
    assert f"use --lr {lower}, or fewer epochs; the net then learns less" in remark
    assert remark_of("smooth_convolutions", **chosen | {"lr": float(str(lower))}) == ""


def test_a_long_training_with_other_reasons() -> None:
    remark = remark_of("smooth_convolutions", cover_epochs=1, n_epochs=20)
    assert "these scores predict poorly" in remark
    assert "use --cover_epochs all --lr 0.025, or" in remark


def test_length_does_not_matter_with_kinks_or_without_a_sweep() -> None:
    assert "add up to" not in remark_of("mlp", n_epochs=100)
    assert "add up to" not in remark_of("smooth_convolutions", ("AUM",), n_epochs=100)
    assert "add up to" not in remark_of("smooth_convolutions", n_epochs=100, retrain_all=False)


RUN = "-ra -e 1 -r 0 --methods Hara_exact"


def test_a_run_remarks_the_kinks_of_a_users_net(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(tmp_path / "net.nnp", MODELS["mlp"])
    of_function = "tests.helpers.users_models:good"
    kinks = {str(tmp_path / "net.nnp"): "ReLU", of_function: "FusedBatchNormalization, MaxPooling"}
    for number, (model, names) in enumerate(kinks.items()):
        assert sgd_influence(tmp_path / str(number), f"--model {model} {RUN}") == 0
        assert f"the net has kinks ({names})" in capsys.readouterr().err


def test_a_remark_stays_with_the_scores_that_it_is_about(tmp_path: Path) -> None:
    def remarks_after(methods: str) -> list[str]:
        assert sgd_influence(tmp_path, f"--model mlp -ra -e 1 -r 0 --methods {methods}") == 0
        return json.loads((tmp_path / "manifest.json").read_text("utf-8")).get("remarks", [])

    first = remarks_after("Hara")
    assert "the net has kinks (ReLU)" in first[0]
    assert remarks_after("AUM") == first
    assert remarks_after("Hara Hara_exact") != first
