"""How long the reference's work takes, in training steps of stock nnabla on the same machine.

    python benchmarks/speed.py [--data PATH] [--jobs N]

The work: eval_sgd_influence.py from start to end on 1,000 training, 300 validation and 300 test
images of MNIST at 32x32, 3 epochs, removing 0, 10 and 100 by Hara, Ours and Random, one trial. A
step-unit is one training step of the default net with nnabla's own functions on 64 images of
3x32x32. Before, after and every few step-units during the work, which stands still meanwhile,
such a step is timed, so that what else runs on the machine slows both alike. The reference takes
465.

With PATH, the folder of MNIST's test images, archives are made of these; without it the official
ones are used. Decoding the images once is no part of the work, nor is compiling Python's modules:
the work is done after a dry run, which keeps what it compiles, as users' Python does. The last
line is JSON: step_s (median), total_s, step_units. Of all stages CPU seconds are printed too: on a
busy machine they tell more.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
from threadpoolctl import threadpool_limits

from utils.data.images import ImageSet
from utils.training.models import MODELS
from utils.training.network import Network
from utils.training.sgd import SGD, Optimiser
from utils.training.steps import Step

COMMAND = "eval_sgd_influence.py -ds mnist -e 3 -nt 1 -r 0 10 100 --context cpu -v"
SIZES = "--n_train 1000 --n_val 300 --n_test 300"
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
UNITS_APART = 5
"""Step-units of work from one stock step to the next."""
STAGES = {
    "train": r": trained$",
    "infl, {}": r": influence by (\w+) written$",
    "eval": r", n = \d+ evaluated$",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare the data, run the work, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of MNIST's test images; default: none")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes; default: 2")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        command = [*COMMAND.split(), *SIZES.split(), *_jobs(options.jobs)]
        if options.data:
            command += _archives(options.data, Path(folder) / "data")
        _live([*command, "-o", f"{folder}/prepared", "--dry_run"])
        report(Work([*command, "-o", f"{folder}/output"]), Path(folder) / "output/run.log")


def _jobs(n: int) -> list[str]:
    """The option of the command, which has one process where it knows of no such option."""
    usage = subprocess.run(
        [sys.executable, "eval_sgd_influence.py", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return ["-j", str(n)] if "--jobs" in usage.stdout else []


def _archives(source: Path, folder: Path) -> list[str]:
    command = ["benchmarks/make_archives.py", "--data", str(source), "--out", str(folder)]
    _live([*command, "--n_train", "8000", "--n_test", "2000"])
    return ["--data_dir", str(folder), "--allow_unverified_data"]


def _live(command: Sequence[str]) -> None:
    subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL
    )


class StockStep:
    """Times training steps with nnabla's own functions on random images, one BLAS thread."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (64, 32, 32, 3), np.uint8)
        self.data = ImageSet(images, rng.integers(0, 10, 64).astype(np.int32), ())
        network = Network(MODELS["six_convolutions"], (3, 32, 32), 10, conv="nnabla")
        self.sgd = SGD(network, Optimiser())
        self.step = Step(0, np.arange(64), np.zeros(64, np.uint64), 0.0)
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.sgd.step(self.data, self.step)

    def __call__(self) -> float:
        """Time one; returns its seconds."""
        started = time.perf_counter(), time.process_time()
        with threadpool_limits(1):
            self.sgd.step(self.data, self.step)
        self.seconds.append(time.perf_counter() - started[0])
        self.cpu_seconds.append(time.process_time() - started[1])
        return self.seconds[-1]


@dataclass
class Work:
    """One run of a command, which stands still while stock steps are timed.

    Attributes:
        command: what Python runs.
        begun, ended: POSIX times.
        pauses: (from, to) POSIX times.
        cpu: CPU seconds of the command's processes.
    """

    command: Sequence[str]
    begun: float = 0.0
    ended: float = 0.0
    cpu: float = 0.0
    pauses: list[tuple[float, float]] = field(default_factory=list)

    def run(self, meanwhile: Callable[[], float]) -> None:
        """Run the command; `meanwhile`, which gives its seconds, is called between times."""
        before, interval = _cpu_of_children(), UNITS_APART * meanwhile()
        self.begun = time.time()
        process = subprocess.Popen(
            [sys.executable, *self.command], cwd=ROOT, env=ENVIRONMENT,
            stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            while self._alive(process, interval):
                interval = UNITS_APART * self._pause(process, meanwhile)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
        self.ended = time.time()
        if process.returncode:
            raise SystemExit(f"the command ended with status {process.returncode}")
        self.cpu = _cpu_of_children() - before

    def _alive(self, process: subprocess.Popen[bytes], seconds: float) -> bool:
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        return process.returncode is None

    def _pause(self, process: subprocess.Popen[bytes], meanwhile: Callable[[], float]) -> float:
        os.killpg(process.pid, signal.SIGSTOP)
        begun = time.time()
        seconds = meanwhile()
        self.pauses.append((begun, time.time()))
        os.killpg(process.pid, signal.SIGCONT)
        return seconds

    def seconds(self, begun: float, ended: float) -> float:
        """Seconds of work between two POSIX times."""
        paused = (min(b, ended) - max(a, begun) for a, b in self.pauses)
        return ended - begun - sum(max(0.0, p) for p in paused)


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def report(work: Work, log: Path) -> None:
    """Run the work, and print its stages and, last, the JSON line."""
    stock = StockStep()
    stock()
    work.run(stock)
    stock()
    stock()
    step, total = median(stock.seconds), work.seconds(work.begun, work.ended)
    cpu_step = median(stock.cpu_seconds)
    print(f"stock step: {step:.3f} s (CPU {cpu_step:.3f} s), {len(stock.seconds)} times")
    for name, seconds in stages(work, log.read_text(encoding="utf-8")).items():
        print(f"{name:<14} {seconds:7.2f} s {seconds / step:7.1f} step-units")
    units = work.cpu / cpu_step
    print(
        f"{'all':<14} {total:7.2f} s {total / step:7.1f} step-units; CPU {units:.1f} CPU step-units"
    )
    print(json.dumps({"step_s": step, "total_s": total, "step_units": total / step}))


def stages(work: Work, log: str) -> dict[str, float]:
    """Seconds of work that ended with each stage's line of the log; the rest besides."""
    seconds: dict[str, float] = {}
    last = work.begun
    for line in log.splitlines():
        name = _stage_of(line)
        at = _time_of(line) if name else last
        if name:
            seconds[name] = seconds.get(name, 0.0) + work.seconds(last, at)
        elif "Trial 0" not in line and _time_of(line):
            seconds["rest"] = seconds.get("rest", 0.0) + work.seconds(last, _time_of(line))
            at = _time_of(line)
        last = at
    seconds["rest"] = seconds.get("rest", 0.0) + work.seconds(last, work.ended)
    return seconds


def _stage_of(line: str) -> str:
    for name, pattern in STAGES.items():
        if match := re.search(pattern, line):
            return name.format(*match.groups())
    return ""


def _time_of(line: str) -> float:
    """POSIX time of a line of the log; 0 where it has none."""
    try:
        return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").timestamp()
    except ValueError:
        return 0.0


if __name__ == "__main__":
    main()
