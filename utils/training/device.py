"""Where nnabla computes: on a GPU through cudnn where that works, else on the CPU."""

from __future__ import annotations

import gc
import importlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import nnabla as nn
import nnabla_ext.cpu
from nnabla.ext_utils import get_extension_context

from utils.errors import UserError

log = logging.getLogger("data_cleansing")

INSTALL = "pip install nnabla-ext-cuda120==1.39.0, with CUDA 12 and cuDNN 8"


def choose_backend(requested: str, device_ids: Sequence[str]) -> str:
    """Say which nnabla extension computes: cpu or cudnn.

    Args:
        requested: auto (cudnn where it works, else cpu, with one warning if there is a GPU), cpu
            or cudnn.
        device_ids: the GPU numbers that will be used.

    Raises:
        UserError: cudnn was asked for and does not work here.
    """
    if requested == "cpu":
        return "cpu"
    os.environ["NNABLA_CUDNN_DETERMINISTIC"] = "1"  # without it a replay is not byte-equal
    problem = _cudnn_problem(device_ids)
    if requested == "cudnn" and problem:
        raise UserError(f"--context cudnn: {problem}; install it ({INSTALL}) or use --context cpu")
    if problem and has_gpu():
        log.warning("No GPU is used (%s): computing on the CPU. For a GPU: %s.", problem, INSTALL)
    return "cpu" if problem else "cudnn"


def has_gpu() -> bool:
    """Whether the machine has a GPU of NVIDIA, by the driver's devices."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def set_context(backend: str, device_id: str) -> None:
    """Build every graph from now on for the extension `backend` and the GPU `device_id`."""
    nn.set_default_context(get_extension_context(backend, device_id=device_id))


def on_gpu() -> bool:
    """Whether graphs are built for a GPU now."""
    return any(backend.startswith("cud") for backend in nn.get_current_context().backend)


def release_memory() -> None:
    """Give the memory of graphs that are gone back to the system, of the CPU's at least."""
    gc.collect()
    nnabla_ext.cpu.clear_memory_cache()


def _cudnn_problem(device_ids: Sequence[str]) -> str:
    """Why cudnn cannot be used on these devices; empty where it can."""
    try:
        extension = importlib.import_module("nnabla_ext.cudnn")
        devices = extension.get_devices()
    except ImportError as error:
        return f"nnabla's cudnn extension cannot be loaded: {' '.join(str(error).split())}"
    except RuntimeError as error:
        return f"nnabla finds no GPU: {' '.join(str(error).split())[:200]}"
    missing = [device_id for device_id in device_ids if device_id not in devices]
    return f"there is no GPU {missing[0]}, only {', '.join(devices) or 'none'}" if missing else ""
