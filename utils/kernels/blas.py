"""The kernels that NumPy's BLAS computes with on Intel CPUs.

OpenBLAS before 0.3.25 (NumPy 1.26 brings 0.3.23) takes an Intel CPU younger than itself for a
Prescott of 2004 and leaves its vector units unused: https://github.com/OpenMathLib/OpenBLAS/issues/4267
So the kernels of all Intel CPUs are chosen here, by the instructions that they have. Those that
OpenBLAS knows get what it would take, but for the youngest: its kernels for them differ from
SkylakeX's in bfloat16 alone.

Delete when requirements.txt has a NumPy whose OpenBLAS is 0.3.25 or later, with the lines on
OPENBLAS_CORETYPE in CONTRIBUTING.md and docs/scaling.md.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "OPENBLAS_CORETYPE"
CPUS = Path("/proc/cpuinfo")
KERNELS = {
    "SkylakeX": {"avx512f", "avx512dq", "avx512bw", "avx512vl"},
    "Haswell": {"avx2", "fma"},
}
"""Instructions that the kernels for younger CPUs need, the fastest first."""


def choose_kernels() -> None:
    """Have OpenBLAS take the kernels that this CPU has the instructions for.

    Only before NumPy is loaded: afterwards it would change those of later processes alone. A
    choice of the user's stays.
    """
    if "numpy" in sys.modules or VARIABLE in os.environ:
        return
    if kernels := kernels_for(_cpus()):
        os.environ[VARIABLE] = kernels


def _cpus() -> str:
    try:
        return CPUS.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return ""


def kernels_for(cpus: str) -> str | None:
    """The fastest of `KERNELS` for an Intel CPU; None for others, which OpenBLAS tells apart.

    Args:
        cpus: what Linux says in /proc/cpuinfo.
    """
    rows = (line.partition(":") for line in cpus.partition("\n\n")[0].splitlines())
    fields = {name.strip(): text.strip() for name, _, text in rows}
    if fields.get("vendor_id") != "GenuineIntel":
        return None
    flags = set(fields.get("flags", "").split())
    return next((name for name, needed in KERNELS.items() if needed <= flags), None)


def kernels_here() -> str:
    """Those that NumPy's BLAS has chosen, such as Haswell; empty where it does not say."""
    from threadpoolctl import threadpool_info

    known = [library for library in threadpool_info() if library["user_api"] == "blas"]
    known.sort(key=lambda library: "numpy" not in library["filepath"])  # SciPy may bring another
    return known[0].get("architecture", "") if known else ""


def advised_kernels() -> str:
    """Those that this CPU should have, where NumPy's BLAS has chosen others; else empty."""
    kernels = kernels_for(_cpus()) or ""
    return kernels if kernels != kernels_here() else ""


def given_kernels() -> str:
    """Those that the user's OPENBLAS_CORETYPE names; empty without it, or if they are ours."""
    named = os.environ.get(VARIABLE, "")
    return "" if named == kernels_for(_cpus()) else named
