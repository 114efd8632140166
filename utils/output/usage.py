"""What a run may take and has taken of the machine: memory and disk."""

from __future__ import annotations

import math
import os
import resource
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
STARTED = time.monotonic()
"""About when this process started to compute."""
EVERY, SHARE = 0.5, 0.02
"""Seconds between looks at the memory of all processes, and of its time a look takes at most."""


# ---------------------------------------------------------------- what there is


@dataclass(frozen=True)
class Limit:
    """Bytes of memory that all processes of a run may take together, and what sets this limit."""

    size: int
    of: str


def memory_limit(proc: Path = PROC) -> Limit:
    """The memory of this machine, or the limit of a control group (a container) if that is less."""
    machine = Limit(machine_memory(), "of this machine")
    groups = [Limit(g.limit, "limit of this container or control group") for g in _groups(proc)]
    return min((machine, *groups), key=lambda limit: limit.size)


def process_limit() -> int | None:
    """Bytes of address space that one process may take (ulimit -v); None without a limit."""
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def free_memory(proc: Path = PROC) -> int:
    """Bytes that this process can still take before something is killed or swapped out."""
    free = [_available(proc), *(max(0, g.limit - g.used) for g in _groups(proc))]
    if (limit := process_limit()) is not None:
        free.append(max(0, limit - _statm(proc, 0)))
    return min(free)


def machine_memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _available(proc: Path) -> int:
    with suppress(OSError, ValueError, KeyError):
        return _fields(proc / "meminfo")["MemAvailable"]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class _Group:
    """A control group that has a limit: its folder, the limit, and bytes used for good."""

    folder: Path
    limit: int
    used: int


def _groups(proc: Path) -> Iterator[_Group]:
    """The control groups with a limit that this process is in, from the innermost to the root."""
    for folder in _group_folders(proc):
        for limit, usage, cached in (
            ("memory.max", "memory.current", "inactive_file"),  # version 2
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),  # 1
        ):
            with suppress(OSError, ValueError):  # there is no such file, or it holds "max"
                size = int((folder / limit).read_text())
                used = int((folder / usage).read_text())
                yield _Group(folder, size, used - _stat(folder / "memory.stat").get(cached, 0))


def _group_folders(proc: Path) -> Iterator[Path]:
    """Each control group of this process and those around it, as far as they are mounted here."""
    paths = dict(_paths_of_groups(proc))
    for root, mount, kind in _mounts_of_groups(proc):
        inside = Path(paths.get(kind, "/"))
        rest = inside.relative_to(root) if inside.is_relative_to(root) else Path()
        if ".." not in rest.parts:
            yield from (mount / part for part in (rest, *rest.parents))


def _paths_of_groups(proc: Path) -> Iterator[tuple[str, str]]:
    """The path of this process' group by the version of the hierarchy: cgroup2, cgroup."""
    for line in _lines(proc / "self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "" or "memory" in controllers.split(","):
            yield "cgroup" if controllers else "cgroup2", path


def _mounts_of_groups(proc: Path) -> Iterator[tuple[str, Path, str]]:
    """Root in the hierarchy, folder and kind of each mount that may tell of memory."""
    for line in _lines(proc / "self/mountinfo"):
        mounted, _, system = line.partition(" - ")
        fields, kind = mounted.split(), system.split()
        is_version_1 = kind[:1] == ["cgroup"] and "memory" in kind[-1].split(",")
        if len(fields) > 4 and (is_version_1 or kind[:1] == ["cgroup2"]):
            yield fields[3], Path(fields[4].replace("\\040", " ")), kind[0]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []


def _stat(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in _lines(path))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


# ---------------------------------------------------------------- what is taken


@dataclass(frozen=True)
class Taken:
    """What a process takes.

    Attributes:
        share: bytes of its own and its share of those that it has in common with others (PSS).
        resident: all bytes of it in memory (RSS).
        own: of these, bytes that are of no file, as those of libraries are, and not shared.
    """

    share: int
    resident: int
    own: int


def taken_by(process: int | str = "self", proc: Path = PROC) -> Taken:
    """What a process takes now.

    Raises:
        OSError: it has ended, or the system does not say.
    """
    fields = _fields(proc / str(process) / "smaps_rollup")
    with suppress(KeyError):
        return Taken(fields["Pss"], fields["Rss"], fields["Anonymous"])
    raise OSError("no PSS")


def taken_now() -> Taken:
    """What this process takes now; where the system does not say, at most so far."""
    with suppress(OSError):
        return taken_by()
    return Taken(peak_memory(), peak_memory(), peak_memory())


def peak_memory() -> int:
    """Bytes of memory that this process has taken at most so far, those of libraries included.

    Where the system keeps it: what `getrusage` says may be the peak of the process that started it.
    """
    with suppress(OSError, ValueError, KeyError):
        return _fields(PROC / "self/status")["VmHWM"]
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def peak_share() -> int:
    """As `peak_memory`, without what other processes have to be charged for now."""
    now = taken_now()
    return peak_memory() - (now.resident - now.share)


class Watch:
    """Looks at what this process and those that it started take, and keeps the highest sum."""

    def __init__(self) -> None:
        self._highest, self._alone = 0, True
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_often, daemon=True)

    @contextmanager
    def running(self) -> Iterator[Watch]:
        """Look every now and then while the block runs."""
        self._thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._thread.join()

    def peak(self) -> int:
        """Bytes that all processes have taken at most at the same time.

        A peak of this process between two looks counts too, as the system keeps it.
        """
        self._look()
        return max(self._highest, peak_share())

    def _look_often(self) -> None:
        while True:
            before = _thread_seconds()
            self._look()
            if self._ended.wait(max(EVERY, (_thread_seconds() - before) / SHARE)):
                return

    def _look(self) -> None:
        total = 0
        for process in _family():
            with suppress(OSError):
                total += taken_by(process).share
        self._highest = max(self._highest, total)


def _thread_seconds() -> float:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_stime if sys.platform == "linux" else 0.0


def _family() -> list[int]:
    """This process and all that it has started, directly or not."""
    family = [os.getpid()]
    for process in family:  # it grows meanwhile
        for children in (PROC / str(process) / "task").glob("*/children"):
            with suppress(OSError, ValueError):
                family += map(int, children.read_text().split())
    return family


def _statm(proc: Path, field: int) -> int:
    try:
        pages = int((proc / "self/statm").read_text().split()[field])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _fields(path: Path) -> dict[str, int]:
    """Bytes by name, of a file with lines such as `Rss:  1692 kB`."""
    lines = (line.split() for line in path.read_text(errors="replace").splitlines())
    return {f[0].rstrip(":"): 1024 * int(f[1]) for f in lines if len(f) == 3 and f[2] == "kB"}


# ---------------------------------------------------------------- cores and disk


def physical_cores() -> int:
    """Cores that this process may use, those counted once that have two threads."""
    from joblib import cpu_count

    return cpu_count(only_physical_cores=True)


def other_load() -> float:
    """How many processes of other programs compete for the cores that this process may use.

    The machine's load in the last minute without what this process and those that it has waited
    for added to it. Of a machine with more cores only the share of these counts.
    """
    from joblib import cpu_count

    try:
        load = os.getloadavg()[0]
    except OSError:
        return 0.0
    seconds = max(1.0, time.monotonic() - STARTED)
    own = sum(os.times()[:4]) / seconds * (1 - math.exp(-seconds / 60))
    return max(0.0, load - own) * cpu_count() / (os.cpu_count() or 1)


def free_space(folder: Path) -> int:
    """Bytes free in the file system in which `folder` lies or would be made."""
    there = next(f for f in (folder.absolute(), *folder.absolute().parents) if f.exists())
    return shutil.disk_usage(there).free


def written_bytes(folder: Path) -> int:
    """Bytes of all files in `folder`; links are not followed."""
    found = (os.path.join(where, name) for where, _, names in os.walk(folder) for name in names)
    return sum(os.lstat(path).st_size for path in found)
