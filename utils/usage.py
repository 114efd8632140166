"""What a run has taken so far of the machine: memory and disk."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from pathlib import Path


def peak_memory() -> int:
    """Bytes that this process has taken at most so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def memory_now() -> int:
    """Bytes that this process takes now; where the system does not say, at most so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_memory()
    return pages * os.sysconf("SC_PAGE_SIZE")


def machine_memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def physical_cores() -> int:
    """Cores that this process may use, those counted once that have two threads."""
    from joblib import cpu_count

    return cpu_count(only_physical_cores=True)


def free_space(folder: Path) -> int:
    """Bytes free in the file system in which `folder` lies or would be made."""
    there = next(f for f in (folder.absolute(), *folder.absolute().parents) if f.exists())
    return shutil.disk_usage(there).free


def written_bytes(folder: Path) -> int:
    """Bytes of all files in `folder`; links are not followed."""
    found = (os.path.join(where, name) for where, _, names in os.walk(folder) for name in names)
    return sum(os.lstat(path).st_size for path in found)
