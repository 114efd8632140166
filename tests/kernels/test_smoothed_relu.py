"""ReLU with the curvature of its kink, and the methods made of it and of the mean state."""

from __future__ import annotations

from pathlib import Path

import nnabla as nn
import nnabla.functions as F
import numpy as np
import pytest
from scipy.stats import norm

from tests.helpers.runs import sgd_influence
from utils.kernels.smoothed_relu import smoothed_kinks
from utils.output.storage import read_csv
from utils.training.adjoint import StepAdjoint
from utils.training.models import MODELS
from utils.training.network import Network
from utils.training.sgd import Optimiser

SINGLE = 1e-6


def _value_and_derivatives(
    x: np.ndarray, width: float, pooled: bool = False
) -> tuple[np.ndarray, ...]:
    """y = relu(2 x), and the first and second derivatives of sum(y^2 / 2 + y) along ones."""
    variable = nn.Variable.from_numpy_array(x).apply(need_grad=True)
    with smoothed_kinks(width):
        y = F.relu(2 * variable)
        y = F.max_pooling(y, (1, 2)) if pooled else y
    y.persistent = True
    (gradient,) = nn.grad([F.sum(0.5 * y**2 + y)], [variable])
    gradient.persistent = True
    total = F.sum(gradient)
    variable.grad.zero()
    total.forward(clear_no_need_grad=True)
    total.backward(clear_buffer=True)
    return y.d.copy(), gradient.d.copy(), variable.g.copy()


def test_curvature_is_the_normal_density_and_nothing_else_changes():
    x = np.linspace(-1, 1, 7).reshape(1, 7)
    stock, smooth = _value_and_derivatives(x, 0.0), _value_and_derivatives(x, 0.5)
    np.testing.assert_allclose(smooth[0], stock[0], atol=1e-19)
    assert np.array_equal(stock[1], smooth[1])
    s = 0.5 * np.sqrt(np.mean((2 * x) ** 2))
    density = norm.pdf(2 * x, scale=s)
    expected = stock[2] + 4 * (np.maximum(2 * x, 0) + 1) * density
    np.testing.assert_allclose(smooth[2], expected, rtol=10 * SINGLE)


def test_maps_that_lie_channels_last_have_the_same_curvature(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    network = Network(MODELS["six_convolutions"], (1, 8, 8), 3)
    x, y = rng.standard_normal((4, 1, 8, 8)).astype(np.float32), np.array([[0], [1], [2], [0]])
    direction = {k: rng.standard_normal(p.shape) for k, p in network.theta.items()}
    v = {k: np.zeros(r.shape) for k, r in network.statistics.items()}

    def by_theta(width: float) -> np.ndarray:
        adjoint = StepAdjoint(network, Optimiser(), kink_width=width)
        return np.concatenate(
            [g.ravel() for g in adjoint.derivatives(x, y, direction, v)[1].values()]
        )

    fast, plain = by_theta(0.3), by_theta(0.0)
    monkeypatch.setattr("utils.kernels.smoothed_relu.lies_channels_last", lambda x: False)
    stock = by_theta(0.3)
    assert np.linalg.norm(fast - stock) < 1e-4 * np.linalg.norm(stock)
    assert np.linalg.norm(plain - stock) > 1e-1 * np.linalg.norm(stock)


@pytest.mark.parametrize("x", [[-1.0, -0.1], [-0.1, -1.0], [0.3, -0.1], [-0.1, 0.3]])
def test_max_pooling_takes_the_curvature_of_the_input_next_to_its_kink(x: list[float]) -> None:
    values = np.reshape(x, (1, 1, 1, 2))
    alone, pooled = (_value_and_derivatives(values, 0.5, pool) for pool in (False, True))
    nearest = int(np.argmax(x))
    np.testing.assert_allclose(pooled[0].ravel(), alone[0].ravel()[nearest], atol=1e-19)
    for derivative in (1, 2):
        expected = np.where(np.arange(2) == nearest, alone[derivative].ravel(), 0)
        np.testing.assert_allclose(pooled[derivative].ravel(), expected, rtol=10 * SINGLE)


def test_inputs_that_are_all_zero_stay_finite():
    assert np.isfinite(_value_and_derivatives(np.zeros((2, 3)), 0.3)[2]).all()


def test_nnabla_has_its_own_relu_back():
    stock = F.relu
    with pytest.raises(ZeroDivisionError), smoothed_kinks(0.3):
        assert F.relu is not stock
        raise ZeroDivisionError
    assert F.relu is stock


def _influence(output: Path, method: str) -> np.ndarray:
    table = read_csv(output / f"influence/{method}/influence_{method.lower()}_0.csv")
    return table.sort_values("datasource_index")["influence"].to_numpy()


def test_smoothed_scores_differ_where_there_are_kinks_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = "-r 0 --methods Hara_exact Hara_smoothed Ours_mean"
    nothing = "Trial 0: the net has no ReLU, so the scores by Hara_smoothed are those by Hara_exact"
    assert sgd_influence(tmp_path / "relu", methods) == 0
    assert nothing not in capsys.readouterr().err
    assert sgd_influence(tmp_path / "tanh", f"{methods} --model tests.helpers.tiny:smooth_net") == 0
    assert nothing in capsys.readouterr().err
    relu, tanh = (
        [_influence(tmp_path / net, m) for m in ("Hara_exact", "Hara_smoothed", "Ours_mean")]
        for net in ("relu", "tanh")
    )
    assert np.array_equal(tanh[0], tanh[1])
    assert not np.array_equal(relu[0], relu[1])
    assert np.corrcoef(relu[0], relu[1])[0, 1] > 0.5
    assert not np.array_equal(relu[0], relu[2])


def test_mean_state_of_one_covered_step_is_its_state(tmp_path: Path) -> None:
    assert sgd_influence(tmp_path, "-r 0 --batch_size 60 --methods Hara_exact Ours_mean") == 0
    np.testing.assert_array_equal(
        _influence(tmp_path, "Hara_exact"), _influence(tmp_path, "Ours_mean")
    )
