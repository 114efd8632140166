"""NVIDIA's libraries for nnabla's CUDA extension, from the packages of requirements-cuda.txt.

The extension names its libraries and leaves it to the system's loader to find them. The packages
put them into site-packages, where the loader does not look; but a library that is loaded already
is found by its name. So what the system lacks is loaded here, before the extension is imported.

Delete when nnabla's extension finds these packages itself.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

DRIVER = "libcuda.so.1"
"""The one library that no package brings: it belongs to NVIDIA's driver."""
LIBRARIES = {
    "libcudart.so.12": "cuda_runtime",
    "libnvJitLink.so.12": "nvjitlink",
    "libcusparse.so.12": "cusparse",
    "libcublasLt.so.12": "cublas",
    "libcublas.so.12": "cublas",
    "libcusolver.so.11": "cusolver",
    "libcurand.so.10": "curand",
    "libcufft.so.11": "cufft",
    "libnvrtc.so.12": "cuda_nvrtc",
    "libcudnn.so.8": "cudnn",
}
"""What the extension needs, each after those that it needs in turn, and its folder in `nvidia`."""


def load_libraries(
    folders: Iterable[Path] | None = None, load: Callable[[str], object] = ctypes.CDLL
) -> dict[str, Path]:
    """Load the libraries that the system lacks; none where there is no driver.

    Args:
        folders: that may hold NVIDIA's packages; by default those of this Python.
        load: loads a library by name or path; raises OSError if it cannot.

    Returns:
        The file of each library that was loaded from a package. What is in no package either is
        left to the import of the extension, whose error names it.
    """
    places = nvidia_folders() if folders is None else list(folders)
    if not places or not _loads(DRIVER, load):
        return {}
    loaded: dict[str, Path] = {}
    for name, package in LIBRARIES.items():
        if _loads(name, load):
            continue
        files = (place / package / "lib" / name for place in places)
        file = next((file for file in files if file.is_file() and _loads(str(file), load)), None)
        if file:
            loaded[name] = file
    return loaded


def nvidia_folders() -> list[Path]:
    """The folders `nvidia` of site-packages, which hold NVIDIA's packages."""
    spec = find_spec("nvidia")
    return [Path(place) for place in (spec and spec.submodule_search_locations) or ()]


def _loads(library: str, load: Callable[[str], object]) -> bool:
    try:
        load(library)
    except OSError:
        return False
    return True
