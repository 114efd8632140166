"""The context asked of nnabla. No GPU is needed: the extension is stood in for."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import nnabla as nn
import numpy as np
import pytest

from tests.helpers.runs import last_line, sgd_influence
from utils.errors import UserError
from utils.output.manifest import versions_here
from utils.run import worker_process as worker
from utils.run.workers import InProcess
from utils.training import device
from utils.training.device import choose_backend, machine_failure, release_memory, set_context


@pytest.fixture
def extension(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An extension with the GPUs 0 and 1, in this process alone."""
    module = ModuleType("nnabla_ext.cudnn")
    backends = ["cudnn:float", "cuda:float", "cpu:float"]
    vars(module).update(
        get_devices=lambda: ["0", "1"],
        context=lambda device_id, **_: nn.Context(backends, "CudaCachedArray", device_id),
    )
    monkeypatch.setitem(sys.modules, "nnabla_ext.cudnn", module)
    for name in device.REPEATABLE:
        monkeypatch.setenv(name, "0")
    return module


@pytest.fixture
def cudnn(extension: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An extension whose GPUs compute."""
    monkeypatch.setattr("subprocess.run", lambda *_, **__: SimpleNamespace(returncode=0))
    return extension


@pytest.mark.parametrize("requested", ["auto", "cudnn"])
def test_gpu_is_used_with_the_device_given(cudnn: ModuleType, requested: str) -> None:
    backend = choose_backend(requested, ("0", "1"))
    set_context(backend, "1")
    context = nn.get_current_context()
    assert context.backend[0].startswith("cudnn")
    assert context.device_id == "1"
    assert os.environ["NNABLA_CUDNN_DETERMINISTIC"] == "1"
    assert os.environ["NNABLA_CUDNN_ALGORITHM_BY_HEURISTIC"] == "1"
    assert versions_here()["GPU"] == "cudnn"


def test_process_that_did_not_choose_computes_repeatably_too(cudnn: ModuleType) -> None:
    """Workers of a cluster are not started by this program and inherit nothing from it."""
    set_context("cudnn", "0")
    assert os.environ["NNABLA_CUDNN_DETERMINISTIC"] == "1"
    assert os.environ["NNABLA_CUDNN_ALGORITHM_BY_HEURISTIC"] == "1"


def test_loaded_extension_leaves_standard_output_alone(
    cudnn: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads of a Dask worker may choose the device at the same time."""
    monkeypatch.delattr(device, "redirect_stdout")
    assert device.cudnn_extension() is cudnn


ILLEGAL = 'x.cuh:639 (cudaGetLastError()) failed with "an illegal instruction was encountered" (c).'


@pytest.mark.parametrize(
    ("stderr", "status", "reason"),
    [
        (
            ILLEGAL,
            -signal.SIGABRT,
            "an illegal instruction was encountered; run python -m utils.training.repair_cuda, "
            "which mends nnabla's extension for H100 and H200",
        ),
        (
            "convolution.cu:205 CUDNN_STATUS_EXECUTION_FAILED occured in `cudnnConvolution",
            1,
            "CUDNN_STATUS_EXECUTION_FAILED; check the GPU with nvidia-smi",
        ),
        ("[nnabla][INFO]: Initializing", -signal.SIGSEGV, "SIGSEGV; check the GPU"),
        ("a\nb is amiss\n\n[nnabla][INFO]: x\n", 1, "b is amiss; check the GPU"),
        ("", 3, "status 3; check the GPU"),
    ],
)
def test_gpu_that_cannot_compute(
    cudnn: ModuleType, monkeypatch: pytest.MonkeyPatch, stderr: str, status: int, reason: str
) -> None:
    """It is tried in another process, since this one could not go on after such a failure."""

    def run(command: list[str], **_: object) -> SimpleNamespace:
        return SimpleNamespace(returncode=int(command[-1]) * status, stderr=stderr)

    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setattr(device, "expects_gpu", lambda: True)
    assert choose_backend("cudnn", ("0",)) == "cudnn"
    expected = f"--context cudnn: GPU 1 fails in nnabla's functions: {reason}"
    with pytest.raises(UserError, match=f"{re.escape(expected)}.*, or --context cpu"):
        choose_backend("cudnn", ("0", "1"))
    assert choose_backend("auto", ("0", "1")) == "cpu"


def test_gpu_that_does_not_answer(cudnn: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], timeout: float, **_: object) -> SimpleNamespace:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr("subprocess.run", run)
    with pytest.raises(UserError, match="no result after 300 s; check the GPU"):
        choose_backend("cudnn", ("0",))


@pytest.mark.skipif(bool(find_spec("nnabla_ext.cudnn")), reason="a real one would be tried")
def test_gpu_is_tried_in_a_process_of_its_own(
    extension: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """That process has no extension, and says so wherever it is started."""
    monkeypatch.chdir(tmp_path)
    reason = "fails in nnabla's functions: .*cudnn extension cannot be loaded"
    with pytest.raises(UserError, match=reason):
        choose_backend("cudnn", ("0",))


def test_what_is_tried_on_a_gpu_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["-c", "0"])
    monkeypatch.setattr(device, "set_context", lambda *_: nn.set_default_context(nn.Context()))
    names: dict[str, Any] = {}
    exec(device.GPU_CHECK, names)
    assert np.isfinite(names["total"].d)
    assert names["image"].g.shape == (64, 3, 32, 32)


def test_device_that_this_process_does_not_have(cudnn: ModuleType) -> None:
    with pytest.raises(UserError, match=f"on {os.uname().nodename}: there is no GPU 2, only 0, 1"):
        set_context("cudnn", "2")


def test_memory_of_the_gpu_is_given_back(cudnn: ModuleType) -> None:
    cleared: list[bool] = []
    vars(cudnn)["clear_memory_cache"] = lambda: cleared.append(True)
    release_memory()
    assert cleared == []
    set_context("cudnn", "0")
    release_memory()
    assert cleared == [True]


def test_trials_that_take_turns_compute_each_on_its_device(cudnn: ModuleType) -> None:
    used = []
    workers = InProcess(lambda seed: set_context("cudnn", str(seed)))
    job = SimpleNamespace(compute=lambda trial: used.append(nn.get_current_context().device_id))
    for seed in (0, 1, 0):
        workers.submit(SimpleNamespace(seed=seed), job)  # type: ignore[arg-type]
    assert used == ["0", "1", "0"]


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


@pytest.mark.parametrize("requested", ["cpu", "auto"])
@pytest.mark.parametrize("devices", [("0",), ("9",), ("0", "1")])
def test_a_device_that_is_given_in_vain_is_one_warning(
    requested: str, devices: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> ModuleType:
        raise ImportError("none")

    printed: list[str] = []
    monkeypatch.setattr(
        "utils.training.device.log.warning", lambda text, *a: printed.append(text % a)
    )
    monkeypatch.setattr(device, "cudnn_extension", fail)
    monkeypatch.setattr(device, "expects_gpu", lambda: False)
    assert choose_backend(requested, devices) == "cpu"
    given = f"--device-id {','.join(devices)} is ignored: computing on the CPU."
    assert printed == ([] if devices == ("0",) else [given])


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
    monkeypatch.setattr(device, "expects_gpu", lambda: False)
    assert choose_backend("auto", ("0",)) == "cpu"
    assert printed == []  # nobody asked for a GPU, and there is none
    monkeypatch.setattr(device, "expects_gpu", lambda: True)
    assert choose_backend("auto", ("0",)) == "cpu"
    assert len(printed) == 1
    assert "pip install -r requirements-cuda.txt" in printed[0]
    with pytest.raises(UserError, match="--context cudnn"):
        choose_backend("cudnn", ("0",))


def test_gpu_that_is_not_there(cudnn: ModuleType) -> None:
    with pytest.raises(UserError, match="no GPU 7, only 0, 1"):
        choose_backend("cudnn", ("0", "7"))


def test_driver_that_does_not_answer(cudnn: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[str]:
        raise RuntimeError(
            'error in get\n/a/b.cpp:1\n(cudaGetDeviceCount(&n)) failed with "too old".'
        )

    monkeypatch.setattr(cudnn, "get_devices", fail)
    with pytest.raises(UserError, match="finds no GPU: too old;"):
        choose_backend("cudnn", ("0",))


def test_machine_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> ModuleType:
        raise ImportError("libcuda.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr("utils.training.device.importlib.import_module", fail)
    with pytest.raises(UserError, match=r"no GPU: libcuda\.so\.1.*install NVIDIA's driver"):
        choose_backend("cudnn", ("0",))


def test_gpu_whose_name_the_driver_does_not_tell(
    cudnn: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container without NVIDIA's management library: nnabla raises a class of its own."""

    def fail(**options: str) -> nn.Context:
        raise Exception("NVML Shared Library Not Found")

    monkeypatch.setattr(cudnn, "context", fail)
    with pytest.raises(UserError, match="NVML Shared Library Not Found"):
        choose_backend("cudnn", ("0",))


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("memory error in alloc\nFailed to allocate again.", "or a GPU that nobody else uses"),
        ("target_specific error\n(cudaGetLastError()) failed: illegal access", "nvidia-smi"),
        (f"target_specific error in forward_impl\n{ILLEGAL}", "utils.training.repair_cuda"),
        ("value error in setup_impl\nshapes differ", ""),
        ("value error in setup_impl\nsrc/nbla/cuda/cudnn/convolution.cu:57\nmismatch", ""),
    ],
)
def test_failure_of_a_gpu_is_one_line(cudnn: ModuleType, text: str, reported: str) -> None:
    set_context("cudnn", "0")
    line = machine_failure(RuntimeError(text))
    assert reported in line
    assert "\n" not in line
    assert bool(line) == bool(reported)


def test_memory_that_lacks_on_a_cpu_is_not_the_gpus() -> None:
    """nnabla's allocator has one text for both."""
    line = machine_failure(RuntimeError("memory error in alloc\nFailed to allocate again."))
    assert line.startswith("not enough memory (memory error in alloc Failed to allocate again.); ")
    assert "GPU" not in line


def test_failure_of_a_gpu_ends_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(options: object) -> None:
        raise RuntimeError("cudaErrorMemoryAllocation\nout of memory")

    monkeypatch.setattr("utils.run.pipeline.run", fail)
    assert sgd_influence(tmp_path / "out", "-ds digits") == 2
    assert "the GPU failed (cudaErrorMemoryAllocation out of mem" in last_line(
        capsys.readouterr().err
    )
