"""NVIDIA's libraries in made-up site-packages; the loader is stood in for, or the system's."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from utils.training import cuda_libraries
from utils.training.cuda_libraries import DRIVER, LIBRARIES, load_libraries, nvidia_folders

NEEDS = {
    "libcusparse.so.12": ["libnvJitLink.so.12"],
    "libcublas.so.12": ["libcublasLt.so.12"],
    "libcusolver.so.11": ["libnvJitLink.so.12", "libcusparse.so.12", "libcublas.so.12"],
}


class Loader:
    """Loads the names of `system`, and each file that is there once those it needs are loaded."""

    def __init__(self, *system: str) -> None:
        self.loaded = list(system)

    def __call__(self, library: str) -> None:
        name = Path(library).name
        if "/" in library and all(need in self.loaded for need in NEEDS.get(name, ())):
            self.loaded.append(name)
        if name not in self.loaded:
            raise OSError(f"{library}: cannot open shared object file")


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder `nvidia` with a file for each library."""
    for name, package in LIBRARIES.items():
        file = tmp_path / "nvidia" / package / "lib" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path / "nvidia"


def test_everything_is_loaded_after_what_it_needs(packages: Path) -> None:
    loaded = load_libraries([packages], Loader(DRIVER))
    assert loaded == {name: packages / LIBRARIES[name] / "lib" / name for name in LIBRARIES}


def test_libraries_of_the_system_come_first(packages: Path) -> None:
    loaded = load_libraries([packages], Loader(DRIVER, "libcudnn.so.8", "libcudart.so.12"))
    assert loaded.keys() == LIBRARIES.keys() - {"libcudnn.so.8", "libcudart.so.12"}


def test_nothing_is_loaded_without_a_driver(packages: Path) -> None:
    loader = Loader("libcudart.so.12")
    assert load_libraries([packages], loader) == {}
    assert loader.loaded == ["libcudart.so.12"]


def test_a_package_may_lie_in_another_folder_or_nowhere(packages: Path, tmp_path: Path) -> None:
    (tmp_path / "user").mkdir()
    shutil.move(packages / "cudnn", tmp_path / "user" / "cudnn")
    shutil.rmtree(packages / "cufft")
    loaded = load_libraries([packages, tmp_path / "user"], Loader(DRIVER))
    assert loaded["libcudnn.so.8"].parent == tmp_path / "user" / "cudnn" / "lib"
    assert LIBRARIES.keys() - loaded.keys() == {"libcufft.so.11"}


def test_folders_are_those_of_this_python(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (packages / "__init__.py").touch()  # as NVIDIA's have, so that real ones are not found first
    monkeypatch.syspath_prepend(packages.parent)
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    assert packages in nvidia_folders()


@pytest.mark.skipif(not shutil.which("cc"), reason="cc, to build a small library")
def test_loaded_library_is_found_by_its_name(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the whole module rests on, with the real loader."""
    name = "libmade_up_for_a_test.so.7"
    monkeypatch.setattr(cuda_libraries, "DRIVER", "libc.so.6")
    monkeypatch.setattr(cuda_libraries, "LIBRARIES", {name: "cudnn"})
    file = packages / "cudnn" / "lib" / name
    source = packages / "made_up.c"
    source.write_text("int seven(void) { return 7; }\n", encoding="utf-8")
    command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(file), str(source)]
    subprocess.run(command, check=True)
    with pytest.raises(OSError, match=name):
        ctypes.CDLL(name)
    assert load_libraries([packages]) == {name: file}
    assert ctypes.CDLL(name).seven() == 7


def test_requirements_pin_a_package_for_each_library() -> None:
    path = Path(__file__).parents[2] / "requirements-cuda.txt"
    pinned = [line.partition("==") for line in path.read_text(encoding="utf-8").splitlines()]
    names = {name for name, _, version in pinned if version}
    wanted = {f"nvidia-{package.replace('_', '-')}-cu12" for package in LIBRARIES.values()}
    assert names == wanted | {"nnabla-ext-cuda120"}
