"""Several cores give the bytes of one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import eval_sgd_influence
from tests.helpers.runs import SMALL
from tests.helpers.tiny import digit_images
from utils.kernels import convolution, cores, maps
from utils.kernels.array_functions import ArrayFunction
from utils.kernels.convolution import Geometry, convolve, input_gradient, weight_gradient
from utils.run.command import main
from utils.training.adjoint import StepAdjoint, loss_gradient
from utils.training.models import MODELS
from utils.training.network import Network
from utils.training.sgd import SGD, Optimiser, step_batch
from utils.training.steps import plan_steps

FUNCTIONS = {
    "FastConvolution", "FastConvolutionInputGradient", "FastConvolutionWeightGradient",
    "MapReLU", "MapGate", "MapMaxPooling", "MapPutLargest", "MapAffine", "MapMoments", "MapSums",
    "MapTotal",
}  # fmt: skip


@pytest.fixture(autouse=True)
def many_pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small images are worked on in several pieces."""
    monkeypatch.setattr(maps, "PIECE", 2**10)
    monkeypatch.setattr(convolution, "ROWS", 64)
    monkeypatch.setattr(convolution, "TILED_FLOATS", 2**10)
    yield
    cores.share(1)


@pytest.fixture
def helped(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The functions of which other threads computed a part."""
    names: set[str] = set()
    computing = [""]

    def noting_function(method: Callable) -> Callable:
        def noted(function: ArrayFunction, *arguments: object) -> None:
            computing[0] = function.name
            method(function, *arguments)

        return noted

    def parallel_for(action: Callable, items: Iterator) -> None:
        def noted(item: object) -> None:
            if threading.current_thread() is threading.main_thread():
                time.sleep(0.001)  # leaves something to the others
            else:
                names.add(computing[0])
            action(item)

        cores.parallel_for(noted, items)

    for name in ("forward_impl", "backward_impl"):
        monkeypatch.setattr(ArrayFunction, name, noting_function(getattr(ArrayFunction, name)))
    monkeypatch.setattr(maps, "parallel_for", parallel_for)
    monkeypatch.setattr(convolution, "parallel_for", parallel_for)
    return names


def trained_and_scored() -> list[bytes]:
    """The bytes of some training steps and of the sweep back over them."""
    net = Network(MODELS["six_convolutions"], (1, 8, 8), 10, seed=1)
    data, optimiser = digit_images(0, 48), Optimiser(momentum=0.9)
    sgd, adjoint_of = SGD(net, optimiser), StepAdjoint(net, optimiser)
    states, arrays = [], []
    steps = plan_steps(0, len(data), 1, 24, 0.05)
    for step in steps:
        states.append(sgd.state())
        sgd.step(data, step)
    adjoint = loss_gradient(net, data)
    for step, state in zip(steps[::-1], states[::-1], strict=True):
        net.load(state)
        by_weight, adjoint = adjoint_of(*step_batch(data, step), step.learning_rate, adjoint)
        arrays += [by_weight, *state.values(), *adjoint.u.values(), *adjoint.v.values()]
    return [array.tobytes() for array in arrays]


def test_training_and_sweep_on_several_cores(helped: set[str]) -> None:
    alone = trained_and_scored()
    assert not helped
    cores.share(3)
    with cores.hold_core():
        assert trained_and_scored() == alone
    assert helped == FUNCTIONS


@pytest.mark.parametrize("stride", [(1, 1), (2, 2)], ids=["tiles", "patches"])
def test_convolution_on_several_cores(stride: tuple[int, int], helped: set[str]) -> None:
    rng = np.random.default_rng(0)
    geometry = Geometry((19, 16, 16, 8), (9, 8, 3, 3), (1, 1), stride)
    x, w, dy = (
        rng.standard_normal(shape).astype(np.float32)
        for shape in (geometry.x_shape, geometry.w_shape, geometry.y_shape)
    )

    def computed() -> list[bytes]:
        y, dx, dw = np.empty_like(dy), np.empty_like(x), np.empty_like(w)
        convolve(geometry, x, w, y)
        input_gradient(geometry, dy, w, dx)
        weight_gradient(geometry, dy, x, dw)
        return [array.tobytes() for array in (y, dx, dw)]

    alone = computed()
    cores.share(3)
    assert computed() == alone
    assert helped


def test_process_that_computes_alone_takes_the_cores_that_there_are(
    tmp_path: Path, data_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared: list[int] = []
    monkeypatch.setattr(cores, "share", shared.append)
    monkeypatch.setattr("utils.run.pipeline.physical_cores", lambda: 3)
    monkeypatch.setattr("utils.run.preflight.START_SECONDS", 1e9)
    command = [*f"{SMALL} -r 0 --model mlp --context cpu -o".split(), str(tmp_path)]
    assert main(eval_sgd_influence.COMMAND, command) == 0
    assert shared == [3, 1]


def test_no_core_is_used_twice() -> None:
    free = threading.Semaphore(2)
    cores.share(2, free)
    used: set[str] = set()

    def note(_: int) -> None:
        time.sleep(0.001)
        used.add(threading.current_thread().name)

    with cores.hold_core():
        free.acquire()  # another process has begun a job
        cores.parallel_for(note, range(20))
        assert used == {threading.current_thread().name}
        free.release()
        cores.parallel_for(note, range(20))
        assert len(used) == 2
    assert [free.acquire(False) for _ in range(3)] == [True, True, False]


def test_what_another_core_raises_is_raised() -> None:
    cores.share(2)

    def fail_elsewhere(_: int) -> None:
        time.sleep(0.001)
        if threading.current_thread() is not threading.main_thread():
            raise MemoryError("elsewhere")

    for _ in range(2):  # the core is free again
        with pytest.raises(MemoryError, match="elsewhere"):
            cores.parallel_for(fail_elsewhere, range(100))
