"""Scores for the user's own training loop in nnabla: record its steps, then sweep back."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nnabla as nn
import numpy as np
import numpy.typing as npt

from sgd_influence.arrays import array_of, labels_of, number_of, temporary_folder
from sgd_influence.guest import guest
from utils.data.images import ImageSet
from utils.data.splits import SplitFiles, TrialData
from utils.errors import UserError
from utils.methods import METHODS, Scores
from utils.options import GAUSS_NEWTON, STEPS
from utils.output.folder import OutputFolder
from utils.training.from_scratch import remark_on_steps
from utils.training.model_check import check_model
from utils.training.models import Model
from utils.training.network import Network, State
from utils.training.sgd import VELOCITY, Optimiser
from utils.training.soundness import problems_of
from utils.training.steps import Step
from utils.training.trial import Trial

log = logging.getLogger("data_cleansing")

Float32 = npt.NDArray[np.float32]
SOLVERS = {"Sgd": False, "Momentum": True}
"""nnabla's solvers that can be scored, on a CPU or a GPU, and whether they have a velocity."""
METHODS_OF_STEPS = tuple(name for name, method in METHODS.items() if method.sweeps)
"""The methods that need nothing but recorded steps."""
REPEATS = 0.05
"""By rounding, a repeated step may differ from the recorded one by this share of its length."""


@dataclass(frozen=True)
class _File:
    """A recorded step on disk, without pickles: x, and the state before it under `state/`."""

    path: Path

    def save(self, x: Float32, state: State) -> None:
        arrays = {f"state/{name}": array for name, array in state.items()}
        try:
            np.savez(self.path, x=x, **arrays)
        except OSError as error:
            what = f"the recorded step cannot be written ({error.strerror or error})"
            remedy = "free some space, or set TMPDIR to a folder with more of it"
            raise UserError(f"{self.path}: {what}; {remedy}") from error

    def x(self) -> Float32:
        with np.load(self.path, allow_pickle=False) as archive:
            return cast("Float32", archive["x"])

    def state(self) -> State:
        with np.load(self.path, allow_pickle=False) as archive:
            names = [name for name in archive.files if name.startswith("state/")]
            return {name.removeprefix("state/"): archive[name] for name in names}


class Recorder:
    """Records the steps of the user's own training loop, and scores its training images.

    The loop is SGD with or without momentum on the mean softmax cross-entropy of its batches; an
    L2 term is allowed. Scores cover the recorded steps: record the last epoch, which is what the
    commands cover by default, or all. Each step is a file of a batch and all parameters in a
    temporary folder, which is removed with the object.

    Args:
        model: the net as a function (x, n_classes, test) -> logits, x (|B|, C, H, W), that makes
            parameters of the names that the loop trains; BatchNorm follows `test`, and has the
            loop's decay rate, which is not checked.
        y: (N,) whole numbers from 0, the labels of all training images.
        n_classes: number of classes K; None: the largest label plus one.
        weight_decay: what the loop gives to `solver.weight_decay`.
        parameters: the net's parameters and running statistics by name; None: those of the
            parameter scope in which `record` is called.

    Raises:
        UserError: of one line, for labels of another shape or type, a label that is not below
            `n_classes`, a negative `weight_decay`, or a model that is no function.

    >>> import nnabla as nn, nnabla.functions as F, nnabla.parametric_functions as PF
    >>> import nnabla.solvers as S
    >>> import numpy as np
    >>> from sgd_influence import Recorder
    >>> def model(x, n_classes, test):
    ...     return PF.affine(x, n_classes, name="own")
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.standard_normal((20, 1, 4, 4)).astype(np.float32), np.arange(20) % 2
    >>> x, t = nn.Variable((10, 1, 4, 4)), nn.Variable((10, 1))
    >>> loss = F.mean(F.softmax_cross_entropy(model(x, 2, False), t))
    >>> solver = S.Sgd(0.1)
    >>> solver.set_parameters(nn.get_parameters())
    >>> recorder = Recorder(model, y)
    >>> for rows in np.split(rng.permutation(20), 2):
    ...     x.d, t.d = X[rows], y[rows, None]
    ...     recorder.record(rows, x.d, solver)       # before the update
    ...     loss.forward()
    ...     solver.zero_grad()
    ...     loss.backward()
    ...     solver.update()
    >>> recorder.score("Hara", X[:5], y[:5]).shape   # validation images, in the order of y
    (20,)
    >>> nn.clear_parameters()
    """

    def __init__(
        self,
        model: Model,
        y: npt.ArrayLike,
        *,
        n_classes: int | None = None,
        weight_decay: float = 0.0,
        parameters: Mapping[str, nn.Variable] | None = None,
    ) -> None:
        if not callable(model):
            raise UserError(f"model is {type(model).__name__}; give a function")
        labels = array_of(y, "y")
        self.y = labels_of(labels, len(labels) if labels.ndim else 0, "y")
        if not len(self.y) or self.y.min() < 0:
            raise UserError("y: give whole numbers from 0, one for each training image")
        self.model, self.weight_decay = model, number_of("weight_decay", weight_decay, float)
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"weight_decay {weight_decay}: must be a number of at least 0")
        least = int(self.y.max()) + 1
        self.n_classes = least if n_classes is None else number_of("n_classes", n_classes, int)
        if self.n_classes < least:
            raise UserError(f"n_classes {n_classes}: y has the label {least - 1}; give {least}")
        self._parameters = parameters
        self._folder = temporary_folder()
        self._steps: list[Step] = []
        self._updates: list[int] = []
        self._solver: Any = None
        self._network: Network | None = None
        self._variables: Mapping[str, nn.Variable] = {}
        self._names: Mapping[str, str] = {}

    def record(self, rows: npt.ArrayLike, x: npt.ArrayLike, solver: Any) -> None:
        """Record a step: call it once before each `solver.update()`.

        Args:
            rows: (|B|,) places in y of the batch's images, each once.
            x: (|B|, C, H, W) the batch as the net gets it, cropped and normalised.
            solver: of the loop, the learning rate of this step set.

        Raises:
            UserError: the solver is not SGD with or without momentum, rows and x do not fit, the
                solver has made steps that were not recorded, or the disk is full.
        """
        indices, batch = array_of(rows, "rows"), array_of(x, "x", np.float32)
        self._check_batch(indices, batch)
        self._follow(solver, batch)
        t = len(self._steps)
        self._check_updates(t)
        self._file(t).save(batch, self._state())
        # by its seeds a batch is found as it was trained on
        seeds = np.full(len(indices), t, np.uint64)
        self._steps.append(Step(0, indices.astype(np.int64), seeds, solver.learning_rate()))
        self._updates.append(_updates_of(solver))

    def score(
        self, method: str, X_val: npt.ArrayLike, y_val: npt.ArrayLike
    ) -> npt.NDArray[np.float64]:
        """The scores of all training images; call it after the last update of the training.

        Args:
            method: Hara, Hara_exact, Hara_smoothed, Ours, Ours_exact or Ours_mean.
            X_val: (M, C, H, W) validation images as the net gets them, normalised.
            y_val: (M,) their labels.

        Returns:
            (N,) float64 in the order of y: the change of the mean validation loss (nats) if the
            image had been left out of the recorded steps; negative = harmful, 0 for images in
            none of them. A warning says so where they are not sound.

        Raises:
            UserError: another method, nothing recorded, or the recorded steps are not steps of
                SGD on the model (the first and the last are repeated and compared).
        """
        if method not in METHODS_OF_STEPS:
            known = ", ".join(METHODS_OF_STEPS)
            raise UserError(f"method {method!r}: needs more than recorded steps; give {known}")
        if not self._steps or self._network is None:
            raise UserError("nothing is recorded; call record() before each solver.update()")
        with guest():
            validation = self._validation(X_val, y_val)
            self._check_updates(len(self._steps))
            self._file(len(self._steps)).save(np.empty(0, np.float32), self._state())
            trial = self._trial(self._network, validation)
            for t in {0, len(self._steps) - 1}:
                _check_step(trial, t)
            scores = METHODS[method].scores(trial)
            if not np.isfinite(scores.influence).all():
                what = f"the scores by {method} are not finite"
                raise UserError(f"{what}; train with a lower learning rate")
            _warn_if_unsound(trial, scores, method)
            if remark := remark_on_steps(self._steps, trial.optimiser.momentum, self._network):
                log.warning("%s", remark)
        return scores.influence

    # ------------------------------------------------------------ what is recorded

    def _file(self, t: int) -> _File:
        return _File(Path(self._folder.name, f"step{t}.npz"))

    def _state(self) -> State:
        """A copy of the parameters, running statistics and velocity as they are now."""
        state = {name: variable.d.copy() for name, variable in self._variables.items()}
        if SOLVERS[_kind_of(self._solver)]:
            of_solver = self._solver.get_states()
            for name, known_as in self._names.items():
                state[VELOCITY + name] = of_solver[known_as].pstate["m"].d.copy()
        return state

    def _check_batch(self, rows: npt.NDArray[Any], x: Float32) -> None:
        if rows.ndim != 1 or rows.dtype.kind not in "iu" or len(np.unique(rows)) != len(rows):
            raise UserError("rows: give the places in y of the batch's images, each once: (|B|,)")
        if not len(rows) or rows.min() < 0 or rows.max() >= len(self.y):
            raise UserError(f"rows: give places in y, from 0 to {len(self.y) - 1}")
        if x.ndim < 2 or len(x) != len(rows):
            raise UserError(f"x has the shape {x.shape}; give the batch of {len(rows)} images")
        _check_finite(x, "x")

    def _follow(self, solver: Any, x: Float32) -> None:
        """Keep the solver and the parameters of the first step; later steps must have the same."""
        if self._solver is None:
            _check_solver(solver)
            with guest():
                check_model("model", self.model, x.shape[1:], self.n_classes)
                network = Network(self.model, x.shape[1:], self.n_classes)
            self._variables = _variables_of(network, self._parameters)
            self._names = _names_in(solver, {k: self._variables[k] for k in network.theta})
            self._network, self._solver = network, solver
        if solver is not self._solver:
            raise UserError("solver: is not that of the earlier steps; give the same one")
        if x.shape[1:] != self._shape:
            raise UserError(f"x: images are {x.shape[1:]}, before they were {self._shape}")

    @property
    def _shape(self) -> tuple[int, ...]:
        assert self._network is not None
        return self._network.image_shape

    def _check_updates(self, t: int) -> None:
        """Raise a UserError unless the solver has taken one step since the last recorded one."""
        if t and (n := _updates_of(self._solver) - self._updates[t - 1]) != 1:
            what = f"{n} updates of the solver since step {t} was recorded"
            raise UserError(f"{what}; call record() once before each solver.update()")

    def _validation(self, X_val: npt.ArrayLike, y_val: npt.ArrayLike) -> ImageSet:
        images = array_of(X_val, "X_val", np.float32)
        if images.shape[1:] != self._shape or not len(images):
            raise UserError(f"X_val has the shape {images.shape}; give images of {self._shape}")
        _check_finite(images, "X_val")
        labels = labels_of(y_val, len(images), "y_val")
        if labels.min() < 0 or labels.max() >= self.n_classes:
            raise UserError(f"y_val: give labels from 0 to {self.n_classes - 1}")
        return _AsGiven(cast("Any", images), labels.astype(np.int32), ())

    def _trial(self, network: Network, validation: ImageSet) -> _RecordedTrial:
        files = [self._file(t) for t in range(len(self._steps) + 1)]
        training = _Batches(cast("Any", self.y), self.y.astype(np.int32), (), files=tuple(files))
        nowhere = Path(self._folder.name)
        no_files = SplitFiles(nowhere, nowhere, nowhere)
        return _RecordedTrial(
            seed=0,
            data=TrialData(training, validation, validation, no_files),
            network=network,
            optimiser=Optimiser(_momentum_of(self._solver), self.weight_decay),
            steps=list(self._steps),
            retrain_all=False,
            cover_epochs=1,
            if_solver=GAUSS_NEWTON,
            damping=None,
            cache=STEPS,
            cache_memory=0,
            folder=OutputFolder(nowhere),
            files=tuple(files),
        )


# ---------------------------------------------------------------- the trial of the product


@dataclass(frozen=True)
class _AsGiven(ImageSet):
    """Images that are (N, C, H, W) float32 as the net gets them already."""

    def batch(self, rows: Any, seeds: Any = None) -> Float32:
        """The images as they were given."""
        return cast("Float32", self.images[rows])


@dataclass(frozen=True)
class _Batches(ImageSet):
    """Training images known by the batches that were recorded: a seed is the number of a step."""

    files: tuple[_File, ...] = ()

    def batch(self, rows: Any, seeds: Any = None) -> Float32:
        """The batch of the step, as it was trained on."""
        return self.files[int(seeds[0])].x()


@dataclass(frozen=True)
class _RecordedTrial(Trial):
    """A trial whose states are those that were recorded."""

    files: tuple[_File, ...]

    def states_there(self) -> list[int]:
        """All."""
        return list(range(len(self.steps)))

    def state_before(self, t: int) -> State:
        """The recorded state s_t; s_T for t = T."""
        return self.files[t].state()


def _check_step(trial: Trial, t: int) -> None:
    """Repeat a recorded step; raises a UserError if it does not lead to the next state."""
    before, after = trial.state_before(t), trial.state_before(t + 1)
    trial.sgd.load(before)
    trial.take_step(t)
    again = trial.sgd.state()
    theta = list(trial.network.theta)
    missed = math.sqrt(sum(float(((again[k] - after[k]) ** 2).sum()) for k in theta))
    length = math.sqrt(sum(float(((after[k] - before[k]) ** 2).sum()) for k in theta))
    if missed > REPEATS * max(length, 1e-7):
        raise UserError(
            f"step {t + 1}, repeated from the record, differs from the recorded result by "
            f"{missed / max(length, 1e-7):.0%} of its length: check model, weight_decay and x; the "
            "loss must be the mean softmax cross-entropy of the batch, and no gradient be changed"
        )


def _warn_if_unsound(trial: Trial, scores: Scores, method: str) -> None:
    trial.network.load(trial.final_state())
    loss = trial.evaluator(trial.data.validation).loss
    if problems := problems_of(scores, trial.steps, loss):
        log.warning(
            "the scores by %s: %s; do not remove images by them: train with a lower learning rate, "
            "or use another method", method, "; ".join(problems),
        )  # fmt: skip


# ---------------------------------------------------------------- the user's solver and net


def _check_solver(solver: Any) -> None:
    name = _kind_of(solver)
    if name not in SOLVERS:
        raise UserError(f"solver {name}: only S.Sgd and S.Momentum of nnabla can be scored")
    if not solver.get_parameters():
        raise UserError(f"solver {name}: has no parameters; call set_parameters() before")


def _momentum_of(solver: Any) -> float:
    return float(solver.info["momentum"]) if SOLVERS[_kind_of(solver)] else 0.0


def _kind_of(solver: Any) -> str:
    """A solver's name; nnabla-ext-cuda calls its own SgdCuda and MomentumCuda."""
    return str(getattr(solver, "name", type(solver).__name__)).removesuffix("Cuda")


def _check_finite(x: Float32, name: str) -> None:
    if not np.isfinite(x).all():
        raise UserError(f"{name} holds values that are not finite")


def _updates_of(solver: Any) -> int:
    return max((int(state.t) for state in solver.get_states().values()), default=0)


def _names_in(solver: Any, theta: Mapping[str, nn.Variable]) -> dict[str, str]:
    """The solver's name of each parameter; raises a UserError if it does not train all of them."""
    trained = solver.get_parameters()
    names = {k: next((s for s, p in trained.items() if p == v), "") for k, v in theta.items()}
    for name, known_as in names.items():
        if not known_as:
            what = f"the solver does not train parameter {name} of the model"
            raise UserError(f"{what}; call set_parameters() with all, or leave it out of the model")
    return names


def _variables_of(
    network: Network, given: Mapping[str, nn.Variable] | None
) -> Mapping[str, nn.Variable]:
    """The user's variables of the net's names; raises a UserError if they do not fit."""
    there = nn.get_parameters(grad_only=False) if given is None else given
    for name, own in network.parameters().items():
        if name not in there:
            raise UserError(
                f"the loop has no parameter {name} of the model; give "
                "parameters=nn.get_parameters(grad_only=False) of the net's scope"
            )
        if (found := there[name].shape) != own.shape:
            what = f"parameter {name} of the model is {found} in the loop, not {own.shape}"
            raise UserError(f"{what}; check model, n_classes and x")
    return {name: there[name] for name in network.parameters()}
