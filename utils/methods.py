"""The table of methods. To add one, add a row; it runs when `--methods` names it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Solved:
    """The result of solving the linear equation that a method's scores need.

    Attributes:
        solver: as in `--if_solver`.
        damping: alpha.
        residual: relative to the right-hand side; a zero vector has 1.
        wanted: the relative residual that it was to reach.
        n_products: products of the matrix with a vector, over `n_images` each.
        n_images: the training images of the equation, and of the residual.
        n_train: all training images.
    """

    solver: str
    damping: float
    residual: float
    wanted: float
    n_products: int
    n_images: int
    n_train: int

    @property
    def reached(self) -> bool:
        """Whether the wanted residual is reached."""
        return self.residual <= self.wanted

    @property
    def words(self) -> str:
        """The result in words."""
        algorithm = {"gauss_newton": "conjugate gradients"}.get(self.solver, self.solver.upper())
        how = f"{algorithm}, {self.n_products} products, damping {self.damping:.2g}"
        if self.n_images < self.n_train:
            how += f", over a sample of {self.n_images:,} of {self.n_train:,} training images"
        return f"solved to {100 * self.residual:.2g} % ({how})"


@dataclass(frozen=True)
class Scores:
    """What a method gives.

    Attributes:
        influence: (n_train,), the lowest for the image to remove first.
        growth: max_t |u_t| / |u_T| of a sweep; None for a method without one.
        solved: the result of its solver; None for a method without one.
    """

    influence: np.ndarray
    growth: float | None = None
    solved: Solved | None = None


@dataclass(frozen=True)
class Method:
    """A way of scoring the training images.

    Attributes:
        name: as in `--methods` and in the paths of its files.
        scorer: "module:function", imported when it is used; the function takes a
            `utils.training.trial.Trial` and returns the influence of each training image
            (n_train,), or `Scores`.
        scored_epochs: for how many epochs of steps it takes a double backward, which is its cost;
            None: the covered ones.
        epochs: "module:function" that gives their number for a trial, in the place of
            `scored_epochs`.
        needs_states: it needs the states before the covered steps; the others do with the final
            one.
        needs_margins: it needs the margins that the training recorded.
        predicts: its influence predicts a change of the validation loss; a control's does not.
        unit: what its scores are and are measured in, for an axis.
        quantity: what the column `influence` of its files holds.
        settings: of `OF_METHODS` in utils/output/settings.py, those that its scores depend on.
        label: its name on the page and in pictures; empty: the name itself.
    """

    name: str
    scorer: str
    scored_epochs: int | None = None
    epochs: str = ""
    needs_states: bool = False
    needs_margins: bool = False
    predicts: bool = True
    unit: str = "influence (nats)"
    quantity: str = "predicted change of the validation loss without the image, in nats"
    settings: tuple[str, ...] = ()
    label: str = ""

    @property
    def for_labels(self) -> bool:
        """It looks for wrong labels, not for what a removal changes."""
        return not self.predicts and self.name != CONTROL

    @property
    def sweeps(self) -> bool:
        """It sweeps back over the steps of the epochs of `--cover_epochs`."""
        return self.scored_epochs is None and not self.epochs

    def epochs_in(self, trial: Any) -> float | None:
        """For how many epochs of steps it takes a double backward; None: the covered ones."""
        return float(resolve_name(self.epochs)(trial)) if self.epochs else self.scored_epochs

    def scores(self, trial: Any) -> Scores:
        """The influence of each training image, with figures that tell whether to trust it."""
        function: Callable[[Any], np.ndarray | Scores] = resolve_name(self.scorer)
        found = function(trial)
        return found if isinstance(found, Scores) else Scores(found)

    def score(self, trial: Any) -> np.ndarray:
        """The influence of each training image (n_train,); the lowest is the most harmful."""
        return self.scores(trial).influence


CONTROL = "Random"
"""The method without information; the others are compared with it."""
NO_REMOVAL = "No Removal"
"""What the summary calls n = 0, whichever the method."""

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("Hara", "sgd_influence.infl:hara", needs_states=True, settings=("sweep",)),
        Method("Hara_exact", "sgd_influence.infl:hara_exact", needs_states=True),
        Method("Hara_smoothed", "sgd_influence.infl:hara_smoothed", needs_states=True),
        Method("Ours", "sgd_influence.infl:ours", label="Ours (Suzuki)", settings=("sweep",)),
        Method("Ours_exact", "sgd_influence.infl:ours_exact"),
        Method("Ours_mean", "sgd_influence.infl:ours_mean", needs_states=True),
        Method(
            "Influence_functions",
            "influence_functions.infl:influence_functions",
            epochs="influence_functions.infl:epochs_of_products",
            settings=("damping", "if_solver"),
        ),
        Method(
            "AUM",
            "sgd_influence.margins:aum",
            scored_epochs=0,
            needs_margins=True,
            predicts=False,
            unit="margin of the label (logits)",
            quantity="mean margin of the label over the epochs, in logits",
        ),
        Method(
            CONTROL,
            "sgd_influence.infl:random",
            scored_epochs=0,
            predicts=False,
            unit="place",
            quantity="place in a random order, from 0",
        ),
    )
}


def shown(method: str) -> str:
    """The name of a method on the page and in pictures; files and options keep the plain one."""
    label = METHODS[method].label if method in METHODS else ""
    return label or method.replace("_", " ")
