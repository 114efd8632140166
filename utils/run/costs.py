"""The time of each part of a run, from steps on a network of its own.

On a CPU it is the CPU time of the thread: other programs and a low priority do not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from utils.data.images import ImageSet
from utils.methods import Method
from utils.signals import stop_if_asked
from utils.training.adjoint import StepAdjoint, loss_gradient
from utils.training.device import on_gpu
from utils.training.evaluation import Evaluator, evaluation_batch
from utils.training.network import Network, hdf5_of
from utils.training.sgd import SGD, step_batch
from utils.training.steps import Step
from utils.training.trial import Trial

ENOUGH, TIMES = 0.25, 7
"""An action is repeated until it has taken so many seconds, or so many times."""
LONG = 3.0
"""Seconds, compared with which building a graph and allocating memory are negligible."""


@dataclass(frozen=True)
class Costs:
    """Seconds of the parts of the stages, and the bytes of a parameter file.

    Attributes:
        step: a training step.
        save: writing a state.
        evaluation: evaluating an image.
        gradient: an image's share in the gradient of the validation loss.
        sweep: a step of the sweep, one double backward.
        product: a batch of influence functions, one double backward with running statistics.
        state_file: bytes of a parameter file.
    """

    step: float
    save: float
    evaluation: float
    gradient: float = 0.0
    sweep: float = 0.0
    product: float = 0.0
    state_file: int = 0


def measure(trial: Trial, methods: Sequence[Method], n_removed: int) -> Costs:
    """Time what training, evaluating and the missing `methods` are made of.

    Args:
        trial: any of the run.
        methods: that are to score.
        n_removed: images that are removed at most; the nets trained without them look at them.

    Afterwards the process holds the graphs of all stages, also for the short last batches, so that
    its memory is the peak of the stages. `release_memory` gives it back.
    """
    net, data = trial.network, trial.data
    twin = Network(net.model, net.image_shape, net.n_classes, conv=net.conv)
    sgd, evaluator = SGD(twin, trial.optimiser), Evaluator(twin)
    short, step = (replace(trial.steps[t], learning_rate=0.0) for t in (-1, 0))  # cannot diverge
    sgd.step(data.training, short)
    looked_at = (data.validation, data.test, _first_images(data.training, n_removed))
    most = _batches_of_all_sizes(max(looked_at, key=len))
    costs = Costs(
        step=seconds_of(lambda: sgd.step(data.training, step)),
        save=seconds_of(lambda: hdf5_of(sgd.state())),
        evaluation=seconds_of(lambda: evaluator(most)) / len(most),
        state_file=len(hdf5_of(sgd.state())),
    )
    epochs = [method.epochs_in(trial) for method in methods]
    if any(number != 0 for number in epochs):
        costs = replace(costs, gradient=_gradient_cost(twin, data.validation))
    if any(number is None for number in epochs):
        costs = replace(costs, sweep=_sweep_cost(trial, twin, test=False))
    if any(epochs):
        costs = replace(costs, product=_sweep_cost(trial, twin, test=True))
    return costs


def seconds_of(action: Callable[[], object]) -> float:
    """Seconds that `action` takes: the first time, which builds graphs, counts only from `LONG` on.

    CPU time of this thread; on a GPU, for which the thread waits, by the clock.
    """
    if (first := _timed(action)) >= LONG:
        return first
    times = [_timed(action)]
    while len(times) < TIMES and sum(times) < ENOUGH:
        times.append(_timed(action))
    return median(times)


def _timed(action: Callable[[], object]) -> float:
    stop_if_asked()
    clock = time.perf_counter if on_gpu() else time.thread_time
    started = clock()
    action()
    return clock() - started


def _gradient_cost(network: Network, validation: ImageSet) -> float:
    loss_gradient(network, _first_images(validation, 1))  # numba may have to compile
    sample = _batches_of_all_sizes(validation)
    return seconds_of(lambda: loss_gradient(network, sample)) / len(sample)


def _sweep_cost(trial: Trial, network: Network, test: bool) -> float:
    adjoint_of = StepAdjoint(network, trial.optimiser, test)
    after = loss_gradient(network, _first_images(trial.data.validation, 1))

    def pull_back(step: Step) -> None:
        x, y = step_batch(trial.data.training, step, augmented=trial.optimiser.augmented)
        adjoint_of(x, y, step.learning_rate, after)

    pull_back(trial.steps[-1])
    return seconds_of(lambda: pull_back(trial.steps[0]))


def _batches_of_all_sizes(data: ImageSet) -> ImageSet:
    """As many images as make a whole batch and the last one, which is of another size."""
    n, size = len(data), evaluation_batch(data.shape)
    return _first_images(data, min(n, size + n % size))


def _first_images(data: ImageSet, n: int) -> ImageSet:
    return ImageSet(data.images[:n], data.labels[:n], data.paths[:n])
