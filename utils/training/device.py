"""Where nnabla computes: on a GPU through cudnn where that works, else on the CPU."""

from __future__ import annotations

import ctypes
import gc
import importlib
import io
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import nnabla as nn
import nnabla_ext.cpu
from nnabla.ext_utils import get_extension_context

from utils.errors import UserError
from utils.training.cuda_libraries import DRIVER, load_libraries

log = logging.getLogger("data_cleansing")

DEFAULT_DEVICE = "0"
INSTALL = (
    "make venv-cuda, or pip install -r requirements-cuda.txt and then "
    "python -m utils.training.repair_cuda"
)
SMALLER = "choose a smaller --batch_size or --image_size"
REPAIR = (
    "run python -m utils.training.repair_cuda, which mends nnabla's extension for H100 and H200"
)
ROOT = Path(__file__).parents[2]
DRIVER_NEEDED = "install NVIDIA's driver, version 525 or later"
REPEATABLE = {"NNABLA_CUDNN_DETERMINISTIC": "1", "NNABLA_CUDNN_ALGORITHM_BY_HEURISTIC": "1"}
"""Without these two a replay is not byte-equal: cuDNN would take whichever algorithm was fastest
when it was tried, and some give other bytes at each call. nnabla reads them once."""

GPU_CHECK = """
import sys
import nnabla as nn
import nnabla.functions as F
from utils.training.device import set_context

try:
    set_context("cudnn", sys.argv[1])
    image, weights = (nn.Variable(s, need_grad=True) for s in ((64, 3, 32, 32), (8, 3, 3, 3)))
    total = F.sum(F.convolution(image, weights, pad=(1, 1)))
    total.forward()
    total.backward()
    total.d, image.g
except Exception as error:
    sys.exit(str(error))
"""
"""What is computed on a GPU before it is used: in a separate process, because a process cannot use
a GPU again after a failure."""
QUOTED = re.compile('failed with "(.+?)"')
"""What CUDA says, in the text of nnabla's errors, after a file and a line."""
PATIENCE = 300
"""Seconds after which such a process counts as failed."""


class _Problem(NamedTuple):
    """Why cudnn cannot be used, and what helps."""

    reason: str
    remedy: str


def choose_backend(requested: str, device_ids: Sequence[str]) -> str:
    """Say which nnabla extension computes: cpu or cudnn.

    Args:
        requested: auto (cudnn where it works, else cpu, with one warning if there is a GPU), cpu
            or cudnn.
        device_ids: the GPU numbers that will be used; on a CPU a warning names any but the default.

    Raises:
        UserError: cudnn was asked for and does not work here.
    """
    problem = (
        None if requested == "cpu" else _cudnn_problem(device_ids) or _compute_problem(device_ids)
    )
    if requested == "cudnn" and problem:
        raise UserError(f"--context cudnn: {problem.reason}; {problem.remedy}, or --context cpu")
    if requested != "cpu" and not problem:
        return "cudnn"
    if problem and expects_gpu():
        log.warning("No GPU is used (%s): computing on the CPU. For a GPU: %s.", *problem)
    elif tuple(device_ids) != (DEFAULT_DEVICE,):
        log.warning("--device-id %s is ignored: computing on the CPU.", ",".join(device_ids))
    return "cpu"


def expects_gpu() -> bool:
    """Whether a user may expect a GPU: NVIDIA's driver, or nnabla's extension, is installed."""
    devices = (*Path("/dev").glob("nvidia[0-9]*"), *Path("/dev").glob("dxg"))  # dxg: WSL
    return bool(devices) or find_spec("nnabla_ext.cudnn") is not None


def set_context(backend: str, device_id: str) -> None:
    """Build every graph from now on for the extension `backend` and the GPU `device_id`.

    Raises:
        UserError: the GPU cannot be used in this process, such as that of another machine.
    """
    if backend == "cudnn" and (problem := _cudnn_problem([device_id])):
        host = os.uname().nodename
        raise UserError(f"--context cudnn: on {host}: {problem.reason}; {problem.remedy}")
    nn.set_default_context(get_extension_context(backend, device_id=device_id))


def on_gpu() -> bool:
    """Whether graphs are built for a GPU now."""
    return any(backend.startswith("cud") for backend in nn.get_current_context().backend)


def release_memory() -> None:
    """Give the memory of graphs that are gone back to the system, and that of the GPU to others."""
    gc.collect()
    nnabla_ext.cpu.clear_memory_cache()
    if on_gpu():
        cudnn_extension().clear_memory_cache()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # else glibc keeps freed pages
        trim(0)


def machine_failure(error: RuntimeError) -> str:
    """What nnabla reports of a GPU or of memory, in one line; empty for another error."""
    text = _one_line(error)
    if re.match("(value|type|not_implemented) error in ", text):
        return ""  # of what a function was given, though the text names a file of the extension
    no_memory = re.search("failed to allocate", text, re.IGNORECASE)
    if no_memory and not on_gpu():
        return f"not enough memory ({text:.300}); {SMALLER}"
    if not no_memory and not re.search(
        r"\b(cuda|cudnn|cublas|curand|cusolver)", text, re.IGNORECASE
    ):
        return ""
    remedy = f"{_remedy_of(text)}, or use --context cpu"
    if re.search("memory|alloc", text, re.IGNORECASE):
        remedy = f"{SMALLER}, or a GPU that nobody else uses"
    return f"the GPU failed ({text:.300}); {remedy}"


def _cudnn_problem(device_ids: Sequence[str]) -> _Problem | None:
    """Why cudnn cannot be used on these devices; None where it can."""
    try:
        extension = cudnn_extension()
        devices = extension.get_devices()
        if missing := [device_id for device_id in device_ids if device_id not in devices]:
            there = ", ".join(devices) or "none"
            return _Problem(f"there is no GPU {missing[0]}, only {there}", "give another -di")
        for device_id in device_ids:
            extension.context(device_id=device_id)  # which asks the driver for the GPU's name
    except Exception as error:  # of several kinds: ImportError, RuntimeError, nnabla's NVMLError
        return _problem_of(error)
    return None


def _compute_problem(device_ids: Sequence[str]) -> _Problem | None:
    """Why a GPU that is there cannot compute; None where all can."""
    for device_id in device_ids:
        if failure := _failure_of(device_id):
            reason = f"GPU {device_id} fails in nnabla's functions: {failure:.200}"
            return _Problem(reason, _remedy_of(failure))
    return None


def _failure_of(device_id: str) -> str:
    """How `GPU_CHECK` ends on a GPU; empty where it succeeds."""
    command = [sys.executable, "-c", GPU_CHECK, device_id]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no result after {PATIENCE} s"
    if not done.returncode:
        return ""
    if said := QUOTED.search(done.stderr) or re.search(r"(CU\w+_STATUS_\w+)", done.stderr):
        return said[1]
    if done.returncode < 0:
        return signal.Signals(-done.returncode).name
    lines = [line for line in done.stderr.splitlines() if line.strip() and "[nnabla]" not in line]
    return lines[-1] if lines else f"status {done.returncode}"


def _remedy_of(failure: str) -> str:
    return REPAIR if "illegal instruction" in failure else "check the GPU with nvidia-smi"


def _problem_of(error: Exception) -> _Problem:
    """What an error in loading the extension or in asking it for a GPU means."""
    reason = _one_line(error)
    if not isinstance(error, ImportError):
        quoted = QUOTED.search(reason)
        text = quoted[1] if quoted else reason
        return _Problem(f"nnabla finds no GPU: {text:.200}", DRIVER_NEEDED)
    if DRIVER in reason:
        return _Problem(f"there is no GPU: {DRIVER}, the driver's, is missing", DRIVER_NEEDED)
    return _Problem(f"nnabla's cudnn extension cannot be loaded: {reason}", INSTALL)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def cudnn_extension() -> ModuleType:
    """nnabla's cudnn extension, with the libraries that it needs.

    Raises:
        ImportError: it is not installed, or a library is not there.
    """
    os.environ.update(REPEATABLE)
    if loaded := sys.modules.get("nnabla_ext.cudnn"):
        return loaded  # so that jobs leave standard output to the threads of a Dask worker
    if find_spec("nnabla_ext.cuda"):
        load_libraries()
    with redirect_stdout(io.StringIO()):  # where it finds no GPU, it prints that
        return importlib.import_module("nnabla_ext.cudnn")
