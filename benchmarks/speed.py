"""How long the reference's work takes, in training steps of stock nnabla on the same machine.

    python benchmarks/speed.py [--data PATH] [--jobs N]
    python benchmarks/speed.py --model NAME

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

With --model, no work is done: what a training step of that net and the scoring of a step take is
measured, on 64 images of 3x32x32 and one core. Its step is compared with that of six_convolutions
and, for equal arithmetic, with that of the same net with ReLU in the place of Swish and max in the
place of average pooling. The steps are timed in turn, TIMES each; the least CPU seconds count.
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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import nnabla as nn
import nnabla.functions as F
import numpy as np
from threadpoolctl import threadpool_limits

from utils.data.images import ImageSet
from utils.errors import UserError
from utils.training.adjoint import Adjoint, StepAdjoint
from utils.training.models import MODELS, Model, find_model
from utils.training.network import Network
from utils.training.sgd import SGD, Optimiser, step_batch
from utils.training.steps import Step

COMMAND = "eval_sgd_influence.py -ds mnist -e 3 -nt 1 -r 0 10 100 --context cpu -v"
SIZES = "--n_train 1000 --n_val 300 --n_test 300"
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
UNITS_APART = 5
"""Step-units of work from one stock step to the next."""
TIMES = 9
"""How often each step is timed with --model."""
KINKED = {"swish": "relu", "average_pooling": "max_pooling"}
"""Functions without kinks, and such with them of as many operations."""
STAGES = {
    "train": r": trained$",
    "infl, {}": r": influence by (\w+) written$",
    "eval": r", n = [\d,]+ evaluated\b",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare the data, run the work, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of MNIST's test images; default: none")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes; default: 2")
    parser.add_argument("--model", metavar="NAME", help="time this net alone, see above")
    options = parser.parse_args(arguments)
    if options.model:
        try:
            model = find_model(options.model)
        except UserError as error:
            parser.error(str(error))
        report_model(options.model, model)
        return
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


def random_step() -> tuple[ImageSet, Step]:
    """64 random images of 3x32x32, and a step with all of them that changes no parameter."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 32, 32, 3), np.uint8)
    data = ImageSet(images, rng.integers(0, 10, 64).astype(np.int32), ())
    return data, Step(0, np.arange(64), np.zeros(64, np.uint64), 0.0)


class StockStep:
    """Times training steps with nnabla's own functions on random images, one BLAS thread."""

    def __init__(self) -> None:
        self.data, self.step = random_step()
        network = Network(MODELS["six_convolutions"], (3, 32, 32), 10, conv="nnabla")
        self.sgd = SGD(network, Optimiser())
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


def report_model(name: str, model: Model) -> None:
    """Print what a net's training step and its scoring take and, last, the JSON line."""
    seconds = least_seconds(
        {
            "stock net": training_step(MODELS["six_convolutions"]),
            "net": training_step(model),
            "kinked": training_step(kinked(model)),
            "scoring": scoring_step(model),
        }
    )
    step = seconds["net"]
    by_stock, by_kinked = step / seconds["stock net"], step / seconds["kinked"]
    scoring = seconds["scoring"] / step
    print(f"{name}: a training step takes {step:.3f} s of CPU time")
    print(f"{by_stock:.2f} times that of six_convolutions ({seconds['stock net']:.3f} s)")
    print(f"{by_kinked:.2f} times that with ReLU and max pooling ({seconds['kinked']:.3f} s)")
    print(f"scoring a step takes {scoring:.2f} of its own training steps")
    figures = {"by_six_convolutions": by_stock, "by_kinked": by_kinked, "scoring": scoring}
    print(json.dumps({"model": name, "step_s": step, **figures}))


def training_step(model: Model) -> Callable[[], object]:
    """A training step of a net, to be repeated."""
    data, step = random_step()
    sgd = SGD(Network(model, data.shape, 10), Optimiser())
    return lambda: sgd.step(data, step)


def scoring_step(model: Model) -> Callable[[], object]:
    """The exact adjoint of a step of a net, to be repeated."""
    data, step = random_step()
    network = Network(model, data.shape, 10)
    pull_back, (x, y) = StepAdjoint(network, Optimiser()), step_batch(data, step)
    after = Adjoint(_ones(network.theta), _ones(network.statistics))
    return lambda: pull_back(x, y, 0.05, after)


def _ones(variables: Mapping[str, nn.Variable]) -> dict[str, np.ndarray]:
    return {name: np.ones(variable.shape) for name, variable in variables.items()}


def least_seconds(actions: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """The least CPU seconds of each action; they take turns, after one turn that is not timed."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    with threadpool_limits(1):
        for _ in range(1 + TIMES):
            for name, action in actions.items():
                begun = time.process_time()
                action()
                seconds[name].append(time.process_time() - begun)
    return {name: min(times[1:]) for name, times in seconds.items()}


def kinked(model: Model) -> Model:
    """The same net with the functions of `KINKED`."""

    def twin(x: nn.Variable, n_classes: int, test: bool) -> nn.Variable:
        with patch.multiple(F, **{name: getattr(F, other) for name, other in KINKED.items()}):
            return model(x, n_classes, test)

    return twin


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
