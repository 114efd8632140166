"""Kills a run at random moments, resumes it, and compares its files with those of an unbroken run.

    python benchmarks/kill_test.py [N] [--seed SEED] [--jobs J] [--model MODEL]

A small run on digits, by J worker processes, is killed (SIGKILL, the whole process group) at N
seeded random moments, each time resumed by the same command until it is finished; then every file
but those that tell of times (run.log, runs.json, report/) must equal that of the unbroken run by
one process, byte for byte, and none may be missing or left over. A run that was killed a few times,
or has got to its end, is finished and compared, and the next begins in a new folder. The last line
is `N kills, M differing files`; the exit status is 1 if M > 0.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from utils.output.paths import UNREPEATABLE

COMMAND = (
    "eval_sgd_influence.py -ds digits -e 3 -nt 2 -r 0 5 20 --n_train 88 --n_val 40 --n_test 40 "
    "--batch_size 16 --cover_epochs 2 --momentum 0.5 --verify 6 --context cpu -v"
)
LAST = "report/index.html"
MOST = 6
"""Kills of one run, so that all stages are hit and not the last one most."""


@dataclass
class Life:
    """One process from its start to its end.

    Attributes:
        seconds: how long it lived.
        status: its exit status; negative: the signal that killed it.
    """

    seconds: float
    status: int


def live(output: Path, more: str, longest: float | None = None) -> Life:
    """Run the command into `output`; kill its process group after `longest` seconds."""
    command = [sys.executable, *COMMAND.split(), *more.split(), "-o", str(output)]
    started = time.monotonic()
    with output.with_suffix(".txt").open("a", encoding="utf-8") as printed:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=printed, stderr=printed, start_new_session=True
        )
        try:
            with suppress(subprocess.TimeoutExpired):
                process.wait(longest)
        finally:  # also when this test is interrupted
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
    return Life(time.monotonic() - started, status)


def files_of(output: Path) -> dict[str, bytes]:
    """All files but those that tell of times, by their path in the folder, hidden ones too."""
    found = {path.relative_to(output): path for path in output.rglob("*") if path.is_file()}
    return {
        str(name): found[name].read_bytes()
        for name in sorted(found)
        if name.parts[0] not in UNREPEATABLE
    }


def differing(output: Path, unbroken: dict[str, bytes]) -> list[str]:
    """Files of `output` that are missing, left over or not those of the unbroken run."""
    there = files_of(output)
    names = sorted(there.keys() | unbroken.keys())
    return [name for name in names if there.get(name) != unbroken.get(name)]


def last_line(output: Path) -> str:
    """The last line of a run."""
    lines = [line for line in output.with_suffix(".txt").read_text().splitlines() if line.strip()]
    return lines[-1].replace(f"{output}", "...")[:90] if lines else "no line yet"


def finish(output: Path, more: str) -> None:
    """Run to the end; a run that cannot ends the test."""
    if live(output, more).status:
        sys.exit(f"the run ended with an error: {last_line(output)}; see {output}.txt")


def kill_test(folder: Path, n_kills: int, seed: int, jobs: int, model: str) -> tuple[int, int]:
    """Kill `n_kills` times; returns the numbers of kills and of differing files."""
    unbroken_folder, more = folder / "unbroken", f"--model {model} -j {jobs}"
    whole = live(unbroken_folder, f"--model {model} -j 1")
    if whole.status:
        sys.exit(f"the unbroken run failed: {last_line(unbroken_folder)}")
    unbroken = files_of(unbroken_folder)
    print(f"unbroken: {whole.seconds:.1f} s, {len(unbroken)} files to compare", flush=True)
    rng = np.random.default_rng(seed)
    kills, runs, differ = 0, 0, 0
    while kills < n_kills:
        runs += 1
        output = folder / f"killed{runs}"
        for _ in range(min(n_kills - kills, MOST)):
            life = live(output, more, rng.uniform(0, 0.5 * whole.seconds))
            if life.status >= 0:
                break
            kills += 1
            what = f"kill {kills}, run {runs}, after {life.seconds:4.1f} s"
            print(f"{what}: {last_line(output)}", flush=True)
            if (output / LAST).exists():
                break
        finish(output, more)
        names = differing(output, unbroken)
        print(f"run {runs} finished: {len(names)} differing files {' '.join(names)}", flush=True)
        differ += len(names)
    return kills, differ


def main() -> int:
    """Parse, test, print; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("n_kills", type=int, nargs="?", default=25, help="(default: 25)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: 0)")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes (default: 2)")
    parser.add_argument("--model", default="six_convolutions", help="(default: six_convolutions)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill_test_") as folder:
        kills, differ = kill_test(
            Path(folder), options.n_kills, options.seed, options.jobs, options.model
        )
    print(f"{kills} kills, {differ} differing files")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
