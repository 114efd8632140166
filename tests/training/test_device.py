"""The context asked of nnabla. No GPU is needed: the extension is stood in for."""

from __future__ import annotations

import os
import sys
import threading
from types import ModuleType, SimpleNamespace

import nnabla as nn
import pytest

from utils.errors import UserError
from utils.run import worker_process as worker
from utils.training import device
from utils.training.device import choose_backend, set_context


@pytest.fixture(autouse=True)
def default_context():
    """Leave nnabla's context as it was."""
    context = nn.get_current_context()
    yield
    nn.set_default_context(context)


@pytest.fixture
def cudnn(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An extension with the GPUs 0 and 1."""
    module = ModuleType("nnabla_ext.cudnn")
    backends = ["cudnn:float", "cuda:float", "cpu:float"]
    vars(module).update(
        get_devices=lambda: ["0", "1"],
        context=lambda device_id, **_: nn.Context(backends, "CudaCachedArray", device_id),
    )
    monkeypatch.setitem(sys.modules, "nnabla_ext.cudnn", module)
    monkeypatch.setenv("NNABLA_CUDNN_DETERMINISTIC", "")
    return module


@pytest.mark.parametrize("requested", ["auto", "cudnn"])
def test_gpu_is_used_with_the_device_given(cudnn: ModuleType, requested: str) -> None:
    backend = choose_backend(requested, ("0", "1"))
    set_context(backend, "1")
    context = nn.get_current_context()
    assert context.backend[0].startswith("cudnn")
    assert context.device_id == "1"
    assert os.environ["NNABLA_CUDNN_DETERMINISTIC"] == "1"


def test_workers_compute_on_the_devices_in_turn(
    cudnn: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    monkeypatch.setattr("threading.Thread.start", lambda thread: None)
    used = []
    for number in (3, 4, 5):
        process = SimpleNamespace(name=f"worker-{number}")
        monkeypatch.setattr("multiprocessing.current_process", lambda p=process: p)
        worker.begin("cudnn", ("0", "1"), 0, 1, threading.Semaphore())
        used.append(nn.get_current_context().device_id)
    assert used == ["1", "0", "1"]


def test_cpu_is_used_when_asked_for(cudnn: ModuleType) -> None:
    assert choose_backend("cpu", ("0",)) == "cpu"


@pytest.mark.parametrize("error", [ModuleNotFoundError("none"), ImportError("libcudnn.so.8")])
def test_missing_library_falls_back_with_one_warning(
    error: ImportError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> ModuleType:
        raise error

    printed: list[str] = []
    monkeypatch.setattr(
        "utils.training.device.log.warning", lambda text, *a: printed.append(text % a)
    )
    monkeypatch.setattr("utils.training.device.importlib.import_module", fail)
    monkeypatch.setattr(device, "has_gpu", lambda: False)
    assert choose_backend("auto", ("0",)) == "cpu"
    assert printed == []  # nobody asked for a GPU, and there is none
    monkeypatch.setattr(device, "has_gpu", lambda: True)
    assert choose_backend("auto", ("0",)) == "cpu"
    assert len(printed) == 1
    assert "nnabla-ext-cuda120" in printed[0]
    with pytest.raises(UserError, match="--context cudnn"):
        choose_backend("cudnn", ("0",))


def test_gpu_that_is_not_there(cudnn: ModuleType) -> None:
    with pytest.raises(UserError, match="no GPU 7, only 0, 1"):
        choose_backend("cudnn", ("0", "7"))


def test_driver_that_does_not_answer(cudnn: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[str]:
        raise RuntimeError("cudaGetDeviceCount\nfailed")

    monkeypatch.setattr(cudnn, "get_devices", fail)
    with pytest.raises(UserError, match="cudaGetDeviceCount failed"):
        choose_backend("cudnn", ("0",))
