"""Which kernels NumPy's BLAS is to take."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.runs import ROOT
from utils.kernels import blas

AVX2 = "fpu sse4_2 fma avx avx2"
AVX512 = f"{AVX2} avx512f avx512dq avx512cd avx512bw avx512vl"


def cpu(vendor: str, flags: str) -> str:
    """What Linux says of a machine with two such cores."""
    core = f"processor\t: 0\nvendor_id\t: {vendor}\nmodel\t\t: 207\nflags\t\t: {flags}\n"
    return f"{core}\n{core}\n"


@pytest.mark.parametrize(
    ("vendor", "flags", "kernels"),
    [
        ("GenuineIntel", AVX512, "SkylakeX"),
        ("GenuineIntel", AVX2, "Haswell"),
        ("GenuineIntel", f"{AVX2} avx512f", "Haswell"),
        ("GenuineIntel", "fpu sse4_2", None),
        ("AuthenticAMD", AVX512, None),
    ],
)
def test_kernels_by_what_the_cpu_has(vendor: str, flags: str, kernels: str | None) -> None:
    assert blas.kernels_for(cpu(vendor, flags)) == kernels


def test_a_machine_that_says_nothing() -> None:
    assert blas.kernels_for("") is None


@pytest.fixture
def intel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with such a CPU, on which NumPy is not loaded and nothing is chosen yet."""
    (tmp_path / "cpuinfo").write_text(cpu("GenuineIntel", AVX2), encoding="utf-8")
    monkeypatch.setattr(blas, "CPUS", tmp_path / "cpuinfo")
    monkeypatch.setenv(blas.VARIABLE, "")  # to be restored
    monkeypatch.delenv(blas.VARIABLE)
    monkeypatch.delitem(sys.modules, "numpy", raising=False)


@pytest.mark.usefixtures("intel")
def test_chosen_before_numpy_is_loaded() -> None:
    blas.choose_kernels()
    assert os.environ[blas.VARIABLE] == "Haswell"


@pytest.mark.usefixtures("intel")
def test_a_machine_that_says_nothing_chooses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "CPUS", Path("/none/cpuinfo"))
    blas.choose_kernels()
    assert blas.VARIABLE not in os.environ
    assert blas.advised_kernels() == ""


@pytest.mark.usefixtures("intel")
def test_other_kernels_are_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "kernels_here", lambda: "Prescott")
    assert blas.advised_kernels() == "Haswell"
    monkeypatch.setattr(blas, "kernels_here", lambda: "Haswell")
    assert blas.advised_kernels() == ""


@pytest.mark.usefixtures("intel")
def test_nothing_is_changed_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", os)
    blas.choose_kernels()
    assert blas.VARIABLE not in os.environ


@pytest.mark.usefixtures("intel")
def test_a_choice_of_the_users_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(blas.VARIABLE, "Nehalem")
    blas.choose_kernels()
    assert os.environ[blas.VARIABLE] == "Nehalem"


def kernels_of_a_command(settings: dict[str, str]) -> str:
    """Those that a command computes with in an environment that names no others."""
    code = (
        "import eval_sgd_influence, nnabla\n"
        "from utils.kernels.blas import kernels_here\nprint(kernels_here())"
    )
    others = {name: text for name, text in os.environ.items() if name != blas.VARIABLE}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=others | settings, text=True, check=True,
        stdout=subprocess.PIPE,
    ).stdout.split()[-1]  # fmt: skip


@pytest.fixture(scope="module")
def cpus() -> str:
    """What this machine says of its CPUs."""
    if not blas.CPUS.exists() or "avx2" not in (text := blas.CPUS.read_text(encoding="utf-8")):
        pytest.skip("needs Linux on a CPU with AVX2")
    return text


def test_a_command_computes_with_what_was_chosen(cpus: str) -> None:
    """Not with the kernels of 2004, where the CPU has better ones."""
    kernels = kernels_of_a_command({})
    assert kernels == (blas.kernels_for(cpus) or kernels)
    assert kernels != "Prescott"


@pytest.mark.usefixtures("cpus")
def test_a_command_computes_with_what_the_user_chose() -> None:
    assert kernels_of_a_command({blas.VARIABLE: "Nehalem"}) == "Nehalem"
