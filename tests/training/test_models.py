"""The shipped models and users' own ones."""

from __future__ import annotations

import re
from pathlib import Path

import nnabla.functions as F
import numpy as np
import pytest

from tests.helpers.runs import sgd_influence
from tests.helpers.tiny import smooth_net
from tests.helpers.users_models import gated_by_its_maximum, without_bias_and_scale
from tests.training.test_influence import CENTRAL_DIFFERENCE, error_of_sweep
from utils.errors import UserError
from utils.training.model_check import check_once, checked_model
from utils.training.models import MODELS
from utils.training.sgd import Optimiser
from utils.training.steps import learning_rates, plan_steps


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)], ids=["gray 8", "colour 32"])
@pytest.mark.parametrize("name", MODELS)
def test_shipped_models_can_be_scored(name: str, shape: tuple[int, ...]) -> None:
    assert checked_model(name, shape, 7) is MODELS[name]


SMOOTH = ["smooth_convolutions", "smooth_resnet"]


@pytest.mark.parametrize("name", SMOOTH)
def test_sweep_over_all_epochs_is_exact_for_smooth_models(name: str) -> None:
    steps = plan_steps(3, n_train=24, n_epochs=4, batch_size=12, learning_rate=0.05,
                       schedule="cosine")  # fmt: skip
    optimiser = Optimiser(momentum=0.5, weight_decay=0.01)
    error = error_of_sweep(MODELS[name], steps, optimiser, 0, range(0, 24, 8))
    assert error < CENTRAL_DIFFERENCE


@pytest.mark.parametrize("name", sorted(MODELS.keys() - SMOOTH))
def test_sweep_is_exact_for_models_but_for_kinks(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Central differences need a smooth net: the model with tanh and average pooling instead."""
    monkeypatch.setattr(F, "relu", F.tanh)
    monkeypatch.setattr(F, "max_pooling", F.average_pooling)
    steps = plan_steps(3, n_train=16, n_epochs=2, batch_size=10, learning_rate=0.02,
                       schedule="cosine")  # fmt: skip
    optimiser = Optimiser(momentum=0.5, weight_decay=0.01)
    error = error_of_sweep(MODELS[name], steps, optimiser, 0, range(0, 16, 4))
    assert error < CENTRAL_DIFFERENCE


@pytest.mark.parametrize("schedule", ["step", "cosine"])
def test_sweep_is_exact_for_schedules(schedule: str) -> None:
    steps = plan_steps(1, n_train=42, n_epochs=2, batch_size=16, learning_rate=0.1,
                       schedule=schedule)  # fmt: skip
    optimiser = Optimiser(momentum=0.9, weight_decay=0.1)
    error = error_of_sweep(smooth_net, steps, optimiser, 0, range(0, 42, 4))
    assert error < CENTRAL_DIFFERENCE


def test_schedules() -> None:
    assert learning_rates("constant", 0.5, 3).tolist() == [0.5, 0.5, 0.5]
    step = learning_rates("step", 1.0, 8)
    assert step == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    cosine = learning_rates("cosine", 2.0, 4)
    assert cosine == pytest.approx([2, 1 + np.sqrt(0.5), 1, 1 - np.sqrt(0.5)])


BAD_MODELS = {
    "no_such_model": "not known; known are six_convolutions, smooth_convolutions, resnet,",
    "no.such.module:function": "cannot be imported (ModuleNotFoundError",
    "tests.helpers.users_models:missing": "cannot be imported (AttributeError",
    "tests.helpers.users_models:constant": "is not a function",
    "tests.helpers.users_models:raises": r"RuntimeError: no such layer at .*users_models.py:\d+",
    "tests.helpers.users_models:wrong_shape": "gave (3, 11) for a batch of 3 images",
    "tests.helpers.users_models:returns_none": "gave NoneType for a batch of 3 images",
    "tests.helpers.users_models:one_name": "two layers of one name differ in shape; give each",
    "tests.helpers.users_models:no_parameters": "has no parameters to train",
    "tests.helpers.users_models:aside": "makes parameter aside/affine/W only with test=False",
    "tests.helpers.users_models:unused": "no gradient reaches parameter unused/affine/W in",
    "tests.helpers.users_models:with_dropout": "uses Dropout, which gives other values",
    "tests.helpers.users_models:shifted": "uses ImageAugmentation, which gives other values",
    "tests.helpers.users_models:with_top_k": "top_k_data has no second derivative",
    "tests.helpers.users_models:mixes_images": "mixes the images of a batch",
    "tests.helpers.users_models:mixes_the_first_image": "mixes the images of a batch",
    "tests.helpers.users_models:stops_a_gradient": "stops a gradient (need_grad=False after Ident",
    "tests.helpers.users_models:mean_subtraction": "mixes the images of a batch",
    "tests.helpers.users_models:probabilities": "returns probabilities; return the logits",
    "tests.helpers.users_models:ignores_test": "depend on the other images of a batch; give batch",
    "tests.helpers.users_models:inverted": "depend on the other images of a batch; give batch",
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_model_that_cannot_work_is_named_in_one_line(name: str) -> None:
    expected = BAD_MODELS[name]
    pattern = expected if r"\d" in expected else re.escape(expected)
    with pytest.raises(UserError, match=pattern) as raised:
        checked_model(name, (1, 8, 8), 10)
    assert str(raised.value).startswith(f"--model {name}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("from utils.mine import net", "this program has a package utils itself: rename {}/utils"),
        ("import sys; sys.exit(3)", 'put what its script runs under if __name__ == "__main__":'),
        ("import no_such_module", "check the name and run in the folder of the module"),
    ],
)
def test_module_with_the_name_of_a_package_here(
    text: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils" / "mine.py").write_text("net = None\n")
    (tmp_path / "my_nets.py").write_text(text + "\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as raised:
        checked_model("my_nets:net", (1, 8, 8), 10)
    assert str(raised.value).endswith(remedy.format(tmp_path))


def test_an_output_that_is_not_used_may_have_no_gradient() -> None:
    name = "tests.helpers.users_models:gated_by_its_maximum"
    assert checked_model(name, (1, 8, 8), 10) is gated_by_its_maximum


def test_batch_normalization_without_bias_or_scale_can_be_scored() -> None:
    name = "tests.helpers.users_models:without_bias_and_scale"
    assert checked_model(name, (1, 8, 8), 10) is without_bias_and_scale


def test_failure_of_the_machine_is_not_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError('failed with "an illegal instruction" (cudaErrorIllegalInstruction)')

    check_once.cache_clear()
    monkeypatch.setattr("utils.training.adjoint.StepAdjoint.derivatives", fail)
    with pytest.raises(RuntimeError, match="cudaErrorIllegalInstruction"):
        checked_model("mlp", (1, 8, 8), 10)
    check_once.cache_clear()


def test_run_with_own_model_and_optimiser(tmp_path) -> None:
    sgd = "--momentum 0.9 --weight_decay 0.001 --lr_schedule step"
    more = f"--model tests.helpers.users_models:good {sgd}"
    assert sgd_influence(tmp_path, more) == 0
    assert (tmp_path / "influence/Hara/influence_hara_0.csv").exists()
