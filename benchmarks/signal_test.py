"""Sends signals at random moments to a run, and reads what it says and how it ends.

    python benchmarks/signal_test.py [N] [--seed SEED] [--idle]

N small runs on digits, by one process and by two workers in turn, each get one of SIGHUP, SIGTERM
and SIGINT, to the process or to its whole group, at a seeded random moment of their life, while two
busy loops take the cores (none with --idle).
Each must say no traceback, nothing raw of a library, at most the one line that closes it, and exit
with 128 + n, or with 0 if the run had ended. A signal that arrives before Python has got to the
script's first statement, which the masks of the process in /proc show, is counted apart; for one
that comes after the run's end another run is started. So Linux alone can run this. The last line
tells all counts; the exit status is 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
COMMAND = (
    "eval_sgd_influence.py -ds digits -e 2 -nt 1 -r 0 3 --n_train 40 --n_val 20 --n_test 20 "
    "--batch_size 20 --model mlp --context cpu"
)
SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
CLOSING = "eval_sgd_influence.py: (interrupted|ended by SIG)"
WARNINGS = re.compile(
    r"resource_tracker|Exception ignored|Exception in thread|\w*Warning: |leaked|semaphore|"
    r"Fatal Python error|KeyError|multiprocessing"
)
"""What libraries and the interpreter say by themselves."""
LAST = "report/index.html"
EARLY, LATE = 0.3, 0.15
"""Shares of the signals within `MOMENT` seconds of the start, and of the last file's appearance."""
MOMENT = 0.3
LONGEST = 120.0
"""Seconds from a signal to the end of its run, after which the run hangs."""


@dataclass(frozen=True)
class Shot:
    """A signal at a run.

    Attributes:
        number: which signal.
        group: it goes to all processes of the run's group.
        jobs: number of worker processes.
        after: seconds from the run's start, or from the appearance of its last file.
        late: the latter.
    """

    number: signal.Signals
    group: bool
    jobs: int
    after: float
    late: bool

    def __str__(self) -> str:
        whom = "group" if self.group else "process"
        when = f"{self.after:5.2f} s {'from its end' if self.late else ''}"
        return f"-j {self.jobs} {self.number.name:7} to the {whom:7} after {when}"


@dataclass(frozen=True)
class End:
    """How a run ended.

    Attributes:
        status: its exit status; negative: the signal that killed it.
        printed: what it printed on the terminal.
        heeded: the signal came after the script's first statement.
        seconds: from the signal to the end.
    """

    status: int
    printed: str
    heeded: bool
    seconds: float

    def faults(self, number: signal.Signals) -> list[str]:
        """What is wrong with it, in the terms of the last line."""
        errors = [line for line in self.printed.splitlines() if re.match(CLOSING, line)]
        found = {
            "traceback": "Traceback" in self.printed,
            "raw warning": bool(WARNINGS.search(self.printed)),
            "wrong exit status": self.status not in (0, 128 + number),
            "more than one closing line": len(errors) > 1,
            "no closing line": self.status != 0 and not errors,
        }
        return [name for name, there in found.items() if there]


def heeds(pid: int) -> bool:
    """Whether a process blocks or catches SIGTERM, which Python alone does not, or has ended.

    The script's first statement blocks it, and what comes later catches or ignores it.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
    masks = re.findall(r"^Sig(?:Blk|Cgt|Ign):\s*(\w+)", status, re.MULTILINE)
    return any(int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in masks)


def started(output: Path, jobs: int) -> subprocess.Popen[str]:
    """Start the command into `output`, in a group of its own; stdout and stderr are one."""
    arguments = [sys.executable, *COMMAND.split(), "-j", str(jobs), "-o", str(output)]
    return subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, preexec_fn=_heed,
    )  # fmt: skip


def _heed() -> None:
    for number in SIGNALS:  # a shell's background jobs ignore SIGINT
        signal.signal(number, signal.SIG_DFL)


def shoot(process: subprocess.Popen[str], number: signal.Signals, group: bool) -> End:
    """Send a signal to a process that was not waited for yet, and wait for its end."""
    heeded, sent = heeds(process.pid), time.monotonic()
    (os.killpg if group else os.kill)(process.pid, number)
    try:
        printed, _ = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        printed, _ = process.communicate()
    return End(process.returncode, printed, heeded, time.monotonic() - sent)


@contextmanager
def busy(n_loops: int) -> Iterator[None]:
    """Processes that take cores, until the block ends."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n_loops)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def duration_of(output: Path, jobs: int) -> float:
    """Seconds that a run takes to which nothing happens; one that fails ends the test."""
    begun = time.monotonic()
    process = started(output, jobs)
    printed, _ = process.communicate()
    if process.returncode:
        sys.exit(f"the run without a signal failed: {printed}")
    return time.monotonic() - begun


def shots(seed: int, durations: dict[int, float]) -> Iterator[Shot]:
    """Signals of all kinds in turn, at random moments."""
    rng = np.random.default_rng(seed)
    for count in itertools.count():
        jobs = (1, 2)[count % 2]
        number, group = SIGNALS[count // 2 % 3], bool(count // 6 % 2)
        share = rng.random()
        longest = MOMENT if share < EARLY + LATE else durations[jobs]
        yield Shot(number, group, jobs, rng.uniform(0, longest), EARLY < share < EARLY + LATE)


def came(shot: Shot, process: subprocess.Popen[str], output: Path) -> bool:
    """Wait for the moment of a signal; returns whether the run is there still."""
    while shot.late and process.poll() is None and not (output / LAST).exists():
        time.sleep(0.005)
    with suppress(subprocess.TimeoutExpired):
        process.wait(shot.after)
    return process.poll() is None


def signal_test(folder: Path, n_signals: int, seed: int) -> bool:
    """Send `n_signals` that count; prints each and all of them; returns whether all was right."""
    durations = {jobs: duration_of(folder / f"whole{jobs}", jobs) for jobs in (1, 2)}
    print("without a signal:", {j: f"{s:.1f} s" for j, s in durations.items()}, flush=True)
    faults: list[str] = []
    counted = early = ended = 0
    for number, shot in enumerate(shots(seed, durations)):
        if counted == n_signals:
            break
        output = folder / str(number)
        process = started(output, shot.jobs)
        if not came(shot, process, output):
            process.communicate()
            continue
        end = shoot(process, shot.number, shot.group)
        if not end.heeded:
            early += 1
            continue
        counted += 1
        ended += end.status == 0
        wrong = end.faults(shot.number)
        faults += wrong
        verdict = ", ".join(wrong) or "right"
        print(f"{counted:3} {shot}: {end.status}, {end.seconds:.1f} s, {verdict}", flush=True)
        if wrong:
            print(end.printed, flush=True)
    print(_counts(counted, faults, early, ended))
    return not faults


def _counts(counted: int, faults: list[str], early: int, ended: int) -> str:
    lines = faults.count("more than one closing line") + faults.count("no closing line")
    return (
        f"{counted} signals, {faults.count('traceback')} tracebacks, "
        f"{faults.count('raw warning')} raw warnings, "
        f"{counted - faults.count('wrong exit status')} correct exit statuses, "
        f"{lines} wrong numbers of closing lines, {ended} of them 0 "
        f"({early} earlier than the script's first line, counted apart)"
    )


def main() -> int:
    """Parse, test; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("n_signals", type=int, nargs="?", default=300, help="(default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: 0)")
    parser.add_argument("--idle", action="store_true", help="without the two busy loops")
    options = parser.parse_args()
    with (
        busy(0 if options.idle else 2),
        tempfile.TemporaryDirectory(prefix="signal_test_") as folder,
    ):
        right = signal_test(Path(folder), options.n_signals, options.seed)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
