"""Scores of a loop that is not ours are the product's own; what cannot be scored is refused."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import nnabla as nn
import nnabla.functions as F
import nnabla.solvers as S
import numpy as np
import pytest

from benchmarks.recorded import RecordedTrial, recorded_trial
from sgd_influence import METHODS, Recorder, UserError
from sgd_influence.recorder import METHODS_OF_STEPS
from tests.helpers.tiny import dense_net, digit_images, smooth_net
from tests.helpers.users_models import ignores_test, unused, with_dropout, with_top_k
from utils.data.images import augment, normalise
from utils.methods import Scores
from utils.training.models import Model
from utils.training.network import Network
from utils.training.sgd import Optimiser
from utils.training.steps import Step, plan_steps

ROUNDING = 1e-4
"""Of the largest score: the loop's sums are in another order than the product's."""
TRAINING, VALIDATION = digit_images(0, 30), digit_images(100, 120)
X_VAL = normalise(VALIDATION.images)


@pytest.fixture(autouse=True)
def own_scope() -> Iterator[None]:
    with nn.parameter_scope("", scope={}):
        yield


class Loop:
    """A user's training loop in plain nnabla, that repeats the steps of the product."""

    def __init__(self, solver: Any, weight_decay: float = 0.0, model=smooth_net) -> None:
        self.solver, self.weight_decay = solver, weight_decay
        self.steps = plan_steps(0, 30, 2, 8, 0.2)
        initial = Network(model, (1, 8, 8), 10, seed=5).state()
        self.graphs = {size: self.graph(model, size) for size in (8, 6)}
        for name, parameter in nn.get_parameters(grad_only=False).items():
            parameter.d = initial[name]
        solver.set_parameters(nn.get_parameters())

    def graph(self, model, size: int) -> tuple[nn.Variable, ...]:
        x, t = nn.Variable((size, 1, 8, 8)), nn.Variable((size, 1))
        return x, t, F.mean(F.softmax_cross_entropy(model(x, 10, False), t))

    def run(self, before: Callable[[np.ndarray, np.ndarray], None], start: int = 0) -> None:
        for number, step in enumerate(self.steps):
            x, t, loss = self.graphs[len(step.indices)]
            x.d = normalise(augment(TRAINING.images[step.indices], step.seeds))
            t.d = TRAINING.labels[step.indices, None]
            if number >= start:
                before(step.indices, x.d)
            loss.forward()
            self.solver.zero_grad()
            loss.backward()
            self.solver.weight_decay(self.weight_decay)
            self.solver.set_learning_rate(step.learning_rate)
            self.solver.update()


def product(optimiser: Optimiser, cover_epochs: int) -> RecordedTrial:
    network = Network(smooth_net, (1, 8, 8), 10, seed=5)
    steps = plan_steps(0, 30, 2, 8, 0.2)
    return recorded_trial(0, network, TRAINING, VALIDATION, steps, optimiser, cover_epochs)


def recorded(loop: Loop, recorder: Recorder, start: int = 0) -> np.ndarray:
    loop.solver.set_learning_rate(0.2)
    loop.run(lambda rows, x: recorder.record(rows, x, loop.solver), start)
    return recorder.score("Hara_exact", X_VAL, VALIDATION.labels)


PLAIN, HEAVY = Optimiser(), Optimiser(momentum=0.5, weight_decay=0.1)


@pytest.mark.parametrize(
    ("solver", "optimiser", "cover_epochs", "methods"),
    [
        (lambda: S.Sgd(0.2), PLAIN, 1, METHODS_OF_STEPS),
        (lambda: S.Sgd(0.2), Optimiser(weight_decay=0.1), 1, ("Hara", "Hara_exact")),
        (lambda: S.Momentum(0.2, 0.5), HEAVY, 2, ("Hara", "Hara_exact", "Ours")),
    ],
    ids=["plain", "L2", "momentum and L2"],
)
def test_scores_are_those_of_the_product(
    solver: Callable[[], Any], optimiser: Optimiser, cover_epochs: int, methods: tuple[str, ...]
) -> None:
    loop = Loop(solver(), optimiser.weight_decay)
    recorder = Recorder(
        smooth_net, TRAINING.labels, n_classes=10, weight_decay=optimiser.weight_decay
    )
    recorded(loop, recorder, start=4 * (2 - cover_epochs))
    trial = product(optimiser, cover_epochs)
    for method in methods:
        own, ours = recorder.score(method, X_VAL, VALIDATION.labels), METHODS[method].score(trial)
        assert np.abs(own - ours).max() <= ROUNDING * np.abs(ours).max(), method
        assert np.array_equal(np.argsort(own)[:5], np.argsort(ours)[:5]), method


def test_unsound_scores_are_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[float] = []

    def problems(scores: Scores, steps: Sequence[Step], loss: float) -> list[str]:
        seen.append(loss)
        return ["the sweep grows"]

    loop, recorder = Loop(S.Sgd(0.2)), Recorder(smooth_net, TRAINING.labels, n_classes=10)
    recorded(loop, recorder)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sgd_influence.recorder.problems_of", problems)
    recorder.score("Hara", X_VAL, VALIDATION.labels)
    assert "the scores by Hara: the sweep grows; do not remove images" in capsys.readouterr().err
    x, t = nn.Variable.from_numpy_array(X_VAL), nn.Variable.from_numpy_array(VALIDATION.labels)
    loss = F.mean(F.softmax_cross_entropy(smooth_net(x, 10, True), F.reshape(t, (-1, 1))))
    loss.forward()
    assert seen == [pytest.approx(float(loss.d), rel=1e-4)]


def test_images_in_no_recorded_step_score_zero() -> None:
    loop = Loop(S.Sgd(0.2))
    scores = recorded(loop, Recorder(smooth_net, TRAINING.labels, n_classes=10), start=7)
    assert set(np.flatnonzero(scores)) == set(loop.steps[7].indices)


def test_parameters_of_another_scope() -> None:
    with nn.parameter_scope("mine"):
        loop = Loop(S.Sgd(0.2))
        mine = nn.get_parameters(grad_only=False)
    recorder = Recorder(smooth_net, TRAINING.labels, n_classes=10, parameters=mine)
    assert np.isfinite(recorded(loop, recorder)).all()


class NamedByCuda:
    """A solver with the name that nnabla-ext-cuda gives it."""

    def __init__(self, solver: Any) -> None:
        self._solver, self.name = solver, f"{solver.name.removesuffix('Cuda')}Cuda"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._solver, name)


def test_solvers_of_a_gpu_are_those_of_a_cpu() -> None:
    scores = []
    for solver in (S.Momentum(0.2, 0.5), NamedByCuda(S.Momentum(0.2, 0.5))):
        loop = Loop(solver)
        scores.append(recorded(loop, Recorder(smooth_net, TRAINING.labels, n_classes=10)))
    assert np.array_equal(scores[0], scores[1])


@pytest.mark.parametrize("name", ["Adam", "Nesterov", "RMSprop", "SgdW"])
@pytest.mark.parametrize("named", [lambda solver: solver, NamedByCuda])
def test_other_solvers_are_refused_in_one_line(name: str, named: Callable[[Any], Any]) -> None:
    loop = Loop(named(getattr(S, name)(0.2)))
    with pytest.raises(UserError) as raised:
        recorded(loop, Recorder(smooth_net, TRAINING.labels, n_classes=10))
    assert str(raised.value).startswith(f"solver {name}: only S.Sgd and S.Momentum")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("wrong", ["weight decay", "model", "inputs"])
def test_steps_that_are_not_those_of_the_model_are_refused(wrong: str) -> None:
    loop = Loop(S.Sgd(0.2), weight_decay=0.1 if wrong == "weight decay" else 0.0)

    def without_tanh(x: nn.Variable, n_classes: int, test: bool) -> nn.Variable:
        return 2 * smooth_net(x, n_classes, test)

    model = without_tanh if wrong == "model" else smooth_net
    recorder = Recorder(model, TRAINING.labels, n_classes=10)
    order = -1 if wrong == "inputs" else 1
    loop.solver.set_learning_rate(0.2)
    loop.run(lambda rows, x: recorder.record(rows, x[::order], loop.solver))
    with pytest.raises(UserError, match=r"^step \d, repeated .* differs .*: check model, weight"):
        recorder.score("Hara", X_VAL, VALIDATION.labels)


def test_each_update_is_recorded_once() -> None:
    loop = Loop(S.Sgd(0.2))
    recorder = Recorder(smooth_net, TRAINING.labels, n_classes=10)

    def every_other(rows: np.ndarray, x: np.ndarray) -> None:
        if rows[0] % 2:
            recorder.record(rows, x, loop.solver)

    with pytest.raises(UserError, match=r"^\d updates of the solver since step \d was recorded;"):
        loop.run(every_other)
        recorder.score("Hara", X_VAL, VALIDATION.labels)


def record(**change: Any) -> Callable[[Loop, Recorder], object]:
    x = normalise(TRAINING.images[:8])

    def call(loop: Loop, recorder: Recorder) -> None:
        given = {"rows": np.arange(8), "x": x, "solver": loop.solver} | change
        recorder.record(**given)

    return call


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (record(rows=np.arange(23, 31)), "rows: give places in y, from 0 to 29"),
        (record(rows=np.zeros(8, int)), "rows: give the places in y of the batch's images, each"),
        (record(rows=np.arange(7)), "x has the shape (8, 1, 8, 8); give the batch of 7 images"),
        (record(x=np.zeros((8, 8))), "model: fails on images of shape (8,)"),
        (record(x=np.zeros((8, 1, 4, 4))), "parameter hidden/affine/W of the model is (48, 6) in"),
        (record(x=nn.Variable((8, 1, 8, 8))), "x: Variable does not become an array ("),
        (record(x=np.full((8, 1, 8, 8), np.nan)), "x holds values that are not finite"),
        (record(rows=[[0], [1, 2]]), "rows: list does not become an array ("),
        (record(solver=S.Sgd(0.1)), "solver Sgd: has no parameters; call set_parameters()"),
        (lambda loop, r: r.score("Hara", X_VAL, VALIDATION.labels), "nothing is recorded; call"),
        (lambda loop, r: r.score("AUM", X_VAL, VALIDATION.labels), "method 'AUM': needs more than"),
    ],
)
def test_mistakes_are_one_line(call: Callable[[Loop, Recorder], object], line: str) -> None:
    loop, recorder = Loop(S.Sgd(0.2)), Recorder(smooth_net, TRAINING.labels, n_classes=10)
    with pytest.raises(UserError) as raised:
        call(loop, recorder)
    assert str(raised.value).startswith(line)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"model": "mlp"}, "model is str; give a function"),
        ({"y": [[0], [1, 2]]}, "y: list does not become an array ("),
        ({"n_classes": 9}, "n_classes 9: y has the label 9; give 10"),
        ({"n_classes": "10"}, "n_classes '10': must be a whole number"),
        ({"weight_decay": "a"}, "weight_decay 'a': must be a number"),
        ({"weight_decay": -0.1}, "weight_decay -0.1: must be a number of at least 0"),
        ({"weight_decay": np.nan}, "weight_decay nan: must be a number of at least 0"),
    ],
)
def test_arguments_out_of_range_are_refused(given: dict[str, Any], line: str) -> None:
    plain: dict[str, Any] = {"model": smooth_net, "y": np.arange(10)}
    with pytest.raises(UserError) as raised:
        Recorder(**{**plain, **given})
    assert str(raised.value).startswith(line)


def test_a_full_disk_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    loop = Loop(S.Sgd(0.2))
    with pytest.raises(UserError, match=r"step0\.npz: .* \(No space left on device\); free some"):
        record()(loop, Recorder(smooth_net, TRAINING.labels, n_classes=10))


def test_another_net_than_that_of_the_loop_is_refused() -> None:
    loop = Loop(S.Sgd(0.2), model=dense_net)
    with pytest.raises(UserError, match=r"^the loop has no parameter \S+ of the model"):
        recorded(loop, Recorder(smooth_net, TRAINING.labels, n_classes=10))


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (ignores_test, "its logits .* give batch normalization batch_stat=not test"),
        (with_dropout, "uses Dropout"),
        (with_top_k, "top_k_data has no second derivative"),
        (unused, "no gradient reaches parameter unused/affine/W"),
    ],
)
def test_a_net_that_cannot_be_scored_is_refused_at_the_first_step(
    model: Model, problem: str
) -> None:
    loop = Loop(S.Sgd(0.2), model=model)
    with pytest.raises(UserError, match=f"^model: {problem}"):
        recorded(loop, Recorder(model, TRAINING.labels, n_classes=10))


def test_a_layer_that_is_not_trained_is_refused() -> None:
    loop = Loop(S.Sgd(0.2))
    loop.solver.set_parameters({"W": nn.get_parameters()["affine/W"]}, reset=True)
    with pytest.raises(UserError, match=r"^the solver does not train parameter"):
        recorded(loop, Recorder(smooth_net, TRAINING.labels, n_classes=10))


def test_the_loop_draws_the_same_parameters_with_a_recorder() -> None:
    nn.seed(1)
    loop = Loop(S.Sgd(0.2))
    nn.seed(1)
    plain = nn.random.prng.randint(1000)
    nn.seed(1)
    record()(loop, Recorder(smooth_net, TRAINING.labels, n_classes=10))
    assert nn.random.prng.randint(1000) == plain


def test_the_functions_of_the_loop_draw_the_same_numbers_with_a_recorder() -> None:
    """Such as noise on its images."""
    drawn = []
    for recorder in (None, Recorder(smooth_net, TRAINING.labels, n_classes=10)):
        loop = Loop(S.Sgd(0.2))
        nn.seed(1)
        if recorder:
            record()(loop, recorder)
        noise = F.randn(shape=(4,))
        noise.forward()
        drawn.append(noise.d.tolist())
    assert drawn[0] == drawn[1]
