"""The tasks on which scores are held against true retraining: a row of `TASKS` each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
from nnabla.initializer import UniformInitializer
from PIL import Image
from sklearn.linear_model import LogisticRegressionCV

from benchmarks.real_images import Int64, UInt8, cifar10_images, mnist_images
from benchmarks.recorded import RecordedTrial, recorded_trial
from utils.data.flips import flipped
from utils.data.images import ImageSet
from utils.training.models import Model, six_convolutions, smooth_convolutions
from utils.training.network import Network
from utils.training.sgd import Optimiser
from utils.training.steps import Step, plan_steps

N_BINARY = 200
"""Training, validation and (unused) test images of [H] section 7.1."""
WIDTHS = (8, 8)
"""Hidden layers of [H]'s net."""
FLIPPED = 0.1
"""Share of wrong labels in the training set of `mnist_cnn`."""
SMOOTH_LR = 0.02
"""How `smooth_convolutions` is trained where a task names no rate, without momentum."""


Build = Callable[[int, Path | None], RecordedTrial]
"""(seed, data folder) to a recorded training."""


@dataclass(frozen=True)
class Task:
    """A row of the table.

    Attributes:
        name: as it is printed.
        build: the training.
        group: share of the training images in a group that is removed; 0 removes single images.
        n_groups: how many groups; ignored for single images.
        n_again: for how many of the removals the truth is computed twice, in the full run.
        covered_too: also score with only the last epoch covered.
        convex: a logistic regression, for which influence functions can be solved to the end.
        sgd_damping: of influence functions by the reference's solver.
        converged: hold influence functions at its optimum against training to convergence.
    """

    name: str
    build: Build
    group: float = 0.1
    n_groups: int = 100
    n_again: int = 25
    covered_too: bool = False
    convex: bool = False
    sgd_damping: float = 0.1
    converged: bool = False

    def removals(self, trial: RecordedTrial) -> np.ndarray:
        """(R, n_train) masks of what is removed together."""
        n = trial.n_train
        if not self.group:
            return np.eye(n, dtype=bool)
        orders = (
            np.random.default_rng([trial.seed, 4, k]).permutation(n) for k in range(self.n_groups)
        )
        return np.stack([order < round(self.group * n) for order in orders])


# ---------------------------------------------------------------- (i) and (ii): [H] section 7.1


@dataclass(frozen=True)
class Scaling:
    """Inputs (pixel / 255 - mean) / deviation; arrays that fit (N, 1, 28, 28)."""

    mean: np.ndarray
    deviation: np.ndarray

    def __call__(self, images: UInt8) -> np.ndarray:
        """Images (N, 28, 28, 1) as inputs (N, 1, 28, 28) float64."""
        return (images.transpose(0, 3, 1, 2) / 255 - self.mean) / self.deviation

    def of_normalised(self, x: nn.Variable) -> nn.Variable:
        """The same inputs from the product's, (pixel / 255 - 0.5) / 0.5."""
        mean, deviation = map(nn.Variable.from_numpy_array, (self.mean, self.deviation))
        return (0.5 * x + 0.5 - mean) / deviation


def scaling_of(kind: str, images: UInt8) -> Scaling:
    """How inputs are scaled, from the training images (N, 28, 28, 1).

    Args:
        kind: "standardised", by one mean and one deviation of the training set; "pixelwise", each
            pixel by its own, as [H]'s code does (a constant pixel is only centred); "unit", 0..1.
        images: the training images.
    """
    values = images.transpose(0, 3, 1, 2) / 255
    axes = (0,) if kind == "pixelwise" else (0, 1, 2, 3)
    mean, deviation = values.mean(axes, keepdims=True), values.std(axes, keepdims=True)
    if kind == "unit":
        mean, deviation = np.zeros_like(mean), np.ones_like(deviation)
    return Scaling(mean, np.where(deviation > 0, deviation, 1.0))


def gelu(x: nn.Variable) -> nn.Variable:
    """GELU as x sigmoid(1.702 x), which has no kink."""
    return F.swish(1.702 * x) / 1.702


def dense(
    x: nn.Variable,
    n_classes: int,
    test: bool,
    widths: tuple[int, ...],
    scaling: Scaling,
    activation: Callable[[nn.Variable], nn.Variable] = F.relu,
) -> nn.Variable:
    """[H]'s nets: affine layers with an activation between them, and one logit z.

    They are initialised as PyTorch does. The logits are (0, z), whose softmax cross-entropy is the
    logistic loss of z.
    """
    h = scaling.of_normalised(x)
    for layer, width in enumerate((*widths, 1)):
        h = activation(h) if layer else h
        bound = (h.size // h.shape[0]) ** -0.5
        start = UniformInitializer((-bound, bound))
        h = PF.affine(h, width, w_init=start, b_init=start, name=f"layer{layer}")
    return F.concatenate(F.constant(0.0, h.shape), h, axis=1)


@lru_cache(maxsize=1)
def _mnist(data: Path | None) -> tuple[UInt8, Int64]:
    return mnist_images(data)


def binary_sets(seed: int, data: Path | None) -> tuple[ImageSet, ImageSet]:
    """Training and validation images of MNIST's 1 (label 0) and 7 (label 1)."""
    images, labels = _mnist(data)
    rows = np.random.default_rng([seed, 7]).permutation(np.flatnonzero(np.isin(labels, (1, 7))))
    pixels, sevens = images[..., None], (labels == 7).astype(np.int32)
    first, second = rows[:N_BINARY], rows[N_BINARY : 2 * N_BINARY]
    return (
        ImageSet(pixels[first], sevens[first], ()),
        ImageSet(pixels[second], sevens[second], ()),
    )


def logistic_regression(seed: int, data: Path | None, kind: str) -> RecordedTrial:
    """(i) 5 epochs of batches of 5, lr 0.1 / sqrt(step), L2 by 5-fold cross-validation."""
    training, validation = binary_sets(seed, data)
    scaling = scaling_of(kind, training.images)
    steps = plan_steps(seed, N_BINARY, 5, 5, 0.1)
    steps = [replace(step, learning_rate=0.1 * (t + 1) ** -0.5) for t, step in enumerate(steps)]
    decay = cross_validated_decay(scaling(training.images), training.labels, seed)
    model = partial(dense, widths=(), scaling=scaling)
    return _binary_trial(seed, training, validation, steps, model, decay, 5)


def cross_validated_decay(x: np.ndarray, y: np.ndarray, seed: int) -> float:
    """lambda = 1 / (n C), C as scikit-learn's cross-validation in its defaults chooses it."""
    search = LogisticRegressionCV(fit_intercept=False, cv=5, random_state=seed, max_iter=1000)
    return float(1 / (len(x) * search.fit(x.reshape(len(x), -1), y).C_[0]))


def dnn(
    seed: int,
    data: Path | None,
    kind: str,
    activation: Callable[[nn.Variable], nn.Variable] = F.relu,
) -> RecordedTrial:
    """(ii) Two hidden layers of 8, 10 epochs of batches of 20, lr 0.1, L2 0.001."""
    training, validation = binary_sets(seed, data)
    scaling = scaling_of(kind, training.images)
    steps = plan_steps(seed, N_BINARY, 10, 20, 0.1)
    model = partial(dense, widths=WIDTHS, scaling=scaling, activation=activation)
    return _binary_trial(seed, training, validation, steps, model, 0.001, 10)


def _binary_trial(
    seed: int,
    training: ImageSet,
    validation: ImageSet,
    steps: list[Step],
    model: Model,
    decay: float,
    n_epochs: int,
) -> RecordedTrial:
    network = Network(model, training.shape, 2, seed)
    optimiser = Optimiser(weight_decay=decay, augmented=False)
    return recorded_trial(
        seed, network, training, validation, steps, optimiser, n_epochs, retrain_all=True
    )


# ---------------------------------------------------------------- (iii) to (vii): convolutions


def order_of(seed: int, n: int) -> Int64:
    """The rows (n,) of a data set as the tasks take them: training, validation, the rest."""
    return np.random.default_rng([seed, 3]).permutation(n)


def mnist_cnn(
    seed: int,
    data: Path | None,
    side: int = 16,
    n_epochs: int = 20,
    batch_size: int = 64,
    lr: float = 0.05,
    momentum: float = 0.0,
    augmented: bool = False,
    retrain_all: bool = False,
    n_train: int = 256,
    model: Model = six_convolutions,
    schedule: str = "constant",
    warm_up: int = 0,
) -> RecordedTrial:
    """`n_train` MNIST images of `side` px, a tenth of their labels wrong, 600 for validation.

    Over the first `warm_up` steps the learning rate rises linearly to the schedule's.
    """
    images, labels = small_mnist(data, side)
    rows = order_of(seed, len(labels))
    first, second = rows[:n_train], rows[n_train : n_train + 600]
    training = ImageSet(images[first], flipped(labels[first], 10, FLIPPED, seed), ())
    validation = ImageSet(images[second], labels[second], ())
    steps = plan_steps(seed, n_train, n_epochs, batch_size, lr, schedule)
    for t, step in enumerate(steps[:warm_up]):
        steps[t] = replace(step, learning_rate=step.learning_rate * (t + 1) / warm_up)
    return recorded_trial(
        seed,
        Network(model, training.shape, 10, seed),
        training,
        validation,
        steps,
        Optimiser(momentum=momentum, augmented=augmented),
        n_epochs if retrain_all else 1,
        retrain_all,
    )


@lru_cache(maxsize=1)
def small_mnist(data: Path | None, side: int) -> tuple[UInt8, np.ndarray]:
    """The 10,000 MNIST test images at `side` px, (N, side, side, 1), and labels (N,) int32."""
    images, labels = _mnist(data)
    small = [Image.fromarray(i).resize((side, side), Image.Resampling.BILINEAR) for i in images]
    return np.stack([np.asarray(i) for i in small])[..., None], labels.astype(np.int32)


def cifar_cnn(
    seed: int,
    data: Path | None,
    lr: float = 0.01,
    n_train: int = 512,
    n_epochs: int = 2,
    retrain_all: bool = False,
    model: Model = six_convolutions,
) -> RecordedTrial:
    """`n_train` CIFAR-10 test images of 32 x 32 in batches of 64, 500 others for validation."""
    images, labels = _cifar(data)
    rows = order_of(seed, len(labels))
    training, validation = (
        ImageSet(images[part], labels[part].astype(np.int32), ())
        for part in (rows[:n_train], rows[n_train : n_train + 500])
    )
    return recorded_trial(
        seed,
        Network(model, training.shape, 10, seed),
        training,
        validation,
        plan_steps(seed, n_train, n_epochs, 64, lr),
        Optimiser(augmented=False),
        n_epochs if retrain_all else 1,
        retrain_all,
    )


@lru_cache(maxsize=1)
def _cifar(data: Path | None) -> tuple[UInt8, Int64]:
    return cifar10_images(data)


# ---------------------------------------------------------------- the table

LOGREG = partial(logistic_regression, kind="standardised")
DNN = partial(dnn, kind="standardised")
MNIST_8PX = partial(mnist_cnn, side=8)
SMALL = partial(MNIST_8PX, n_train=320, n_epochs=10, retrain_all=True)
"""Small enough for the quick run."""
MNIST_1000 = partial(mnist_cnn, n_train=1000, retrain_all=True)
CIFAR_2000 = partial(cifar_cnn, n_train=2000, n_epochs=20, retrain_all=True)
OTHER_RATES = (0.005, 0.05, 0.1)
"""Learning rates at which the small smooth task is repeated."""
LOWER_RATES = {0.0025: 25, 0.005: 100, 0.01: 25}
"""Learning rates at which `smooth_mnist`, of 320 steps, is repeated, and the groups of each."""
LOW_RATE = 0.005
"""Of `--preset smooth`: `smooth_cifar`, of 640 steps, and the augmented `smooth_mnist` have it."""


def smooth(build: Callable[..., RecordedTrial], lr: float = SMOOTH_LR) -> Build:
    """The same task with the net without kinks."""
    return partial(build, model=smooth_convolutions, lr=lr)


def from_scratch(
    name: str,
    build: Build,
    n_groups: int = 100,
    n_again: int = 20,
    sgd_damping: float = 0.1,
) -> list[Task]:
    """Groups of 2 % and of 10 % left out of all epochs of one training, scored once: two rows."""
    row = Task(name, build, 0.02, n_groups, n_again, covered_too=True, sgd_damping=sgd_damping)
    return [replace(row, name=f"{name}_{percent}", group=percent / 100) for percent in (2, 10)]


QUICK = (
    *("logreg", "dnn", "mnist_cnn", "cifar_cnn", "smooth_small_2", "smooth_small_10"),
    *("smooth_dnn", "smooth_mnist_cnn", "smooth_cifar_cnn"),
)
"""Tasks (i) to (iv), a small one of (vi), (viii), and (iii) and (iv) with the smooth net."""

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("logreg", LOGREG, group=0.0, n_again=N_BINARY, covered_too=True, convex=True),
        Task("dnn", DNN, group=0.0, n_again=N_BINARY, covered_too=True),
        Task("mnist_cnn", mnist_cnn),
        Task("cifar_cnn", cifar_cnn, sgd_damping=10.0),
        Task("mnist_cnn_momentum", partial(mnist_cnn, lr=0.005, momentum=0.9)),
        Task(
            "mnist_cnn_all_epochs",
            partial(mnist_cnn, retrain_all=True),
            n_groups=50,
            n_again=10,
            covered_too=True,
        ),
        Task("mnist_cnn_8px", MNIST_8PX),
        Task("mnist_cnn_8px_momentum", partial(MNIST_8PX, lr=0.005, momentum=0.9)),
        Task("logreg_converged", LOGREG, group=0.0, converged=True),
        Task("logreg_unit", partial(logistic_regression, kind="unit"), group=0.0),
        Task("dnn_unit", partial(dnn, kind="unit"), group=0.0),
        Task("logreg_pixelwise", partial(logistic_regression, kind="pixelwise"), group=0.0),
        Task("dnn_pixelwise", partial(dnn, kind="pixelwise"), group=0.0),
        Task("mnist_cnn_8px_augmented", partial(MNIST_8PX, augmented=True)),
        Task(
            "cifar_cnn_lr_0.002",
            partial(cifar_cnn, lr=0.002),
            n_groups=40,
            n_again=20,
            sgd_damping=10.0,
        ),
        Task("smooth_dnn", partial(DNN, activation=gelu), 0.0, n_again=N_BINARY, covered_too=True),
        Task("smooth_mnist_cnn", smooth(mnist_cnn)),
        Task("smooth_cifar_cnn", smooth(cifar_cnn), sgd_damping=10.0),
        *from_scratch("smooth_small", smooth(SMALL), n_groups=50, n_again=10),
        *from_scratch("stock_small", SMALL, n_groups=50, n_again=10),
        *chain.from_iterable(
            from_scratch(f"smooth_small_lr_{lr}", smooth(SMALL, lr), n_groups=50, n_again=10)
            for lr in OTHER_RATES
        ),
        *from_scratch("smooth_mnist", smooth(MNIST_1000)),
        *chain.from_iterable(
            from_scratch(f"smooth_mnist_lr_{lr}", smooth(MNIST_1000, lr), n_groups, n_again=5)
            for lr, n_groups in LOWER_RATES.items()
        ),
        *from_scratch(
            "smooth_mnist_augmented", smooth(partial(MNIST_1000, augmented=True), LOW_RATE), 25, 5
        ),
        *from_scratch("stock_mnist", MNIST_1000, n_groups=30, n_again=10),
        *from_scratch("smooth_cifar", smooth(CIFAR_2000), 50, 10, sgd_damping=10.0),
        *from_scratch(
            f"smooth_cifar_lr_{LOW_RATE}", smooth(CIFAR_2000, LOW_RATE), 50, 5, sgd_damping=10.0
        ),
    )
}
