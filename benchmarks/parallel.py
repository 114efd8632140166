"""How much faster two worker processes evaluate removals than one, and what a task costs.

    python benchmarks/parallel.py [--rounds N] [--n_train N]

One process is trained on digits brought to 32x32 (default net, batch 64). Then the same retrainings
are given in turn to one worker process and to two, each with one thread of BLAS; their start is not
counted. Every round prints the ratio of the two times, since only ratios within a round mean
anything on a machine that others use. Then: bytes that travel per task, and seconds of CPU time per
image of each kind of step, from which docs/scaling.md reckons. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import wait
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import cloudpickle
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from eval_sgd_influence import COMMAND
from sgd_influence.eval import evaluate_without
from sgd_influence.train import record_steps, train_epoch
from utils.console import open_console
from utils.options import Options, parse_options
from utils.output.settings import claimed
from utils.run.pipeline import Prepared, prepared
from utils.run.tasks import Job
from utils.run.workers import Processes
from utils.signals import interruptible
from utils.training.adjoint import StepAdjoint, loss_gradient
from utils.training.sgd import step_batch
from utils.training.trial import Trial

BATCH = 64


def options_of(output: Path, n_train: int) -> Options:
    """A training of one epoch, retrained from its start."""
    sizes = f"--n_train {n_train} --n_val 200 --n_test 200 --batch_size {BATCH}"
    arguments = f"-ds digits --image_size 32 -e 1 -nt 1 -r 0 10 {sizes} --context cpu -q"
    return parse_options(COMMAND, ["-o", str(output), *arguments.split()])


def jobs_of(trial: Trial, n_jobs: int) -> list[Callable[[Trial], Any]]:
    """Retrainings without ten random images each."""
    rng = np.random.default_rng(0)
    masks = [rng.permutation(trial.n_train) < 10 for _ in range(n_jobs)]
    return [partial(evaluate_without, removed=mask, description="removal") for mask in masks]


def seconds_of(workers: Processes, trial: Trial, jobs: list[Callable[[Trial], Any]]) -> float:
    """Wall time of the jobs."""
    started = time.perf_counter()
    wait([workers.submit(trial, Job(job, ())) for job in jobs])
    return time.perf_counter() - started


def ratios(work: Prepared, trial: Trial, n_rounds: int) -> list[float]:
    """Time of one worker over time of two, round by round."""
    jobs, found = jobs_of(trial, 4), []
    with (
        Processes(1, work.backend, ("0",), work.setup).running() as one,
        Processes(2, work.backend, ("0",), work.setup).running() as two,
    ):
        for workers in (one, two):
            workers.opened(trial)
            seconds_of(workers, trial, jobs)  # starts them and builds their graphs
        for number in range(n_rounds):
            alone, both = seconds_of(one, trial, jobs), seconds_of(two, trial, jobs)
            found.append(alone / both)
            load = os.getloadavg()[0]
            print(
                f"round {number + 1}: one worker {alone:.1f} s, two {both:.1f} s: "
                f"{found[-1]:.2f} times as fast (load {load:.1f})",
                flush=True,
            )
        for workers in (one, two):
            workers.closed(trial.seed)
    return found


def bytes_of_tasks(work: Prepared, trial: Trial) -> dict[str, int]:
    """What travels for a task, and what is handed over once a trial."""
    setup = work.setup(trial, trial.folder.root)
    retrain, train = jobs_of(trial, 1)[0], partial(train_epoch, epoch=0)
    images = trial.data.training, trial.data.validation, trial.data.test
    return {
        "retraining": len(cloudpickle.dumps((setup, retrain))),
        "training": len(cloudpickle.dumps((setup, train))),
        "scores_of_retraining": len(cloudpickle.dumps(retrain(trial))),
        "state": trial.state_path(0).stat().st_size,
        "images": sum(int(np.prod(part.images.shape)) for part in images),
    }


def cpu_seconds(action: Callable[[], object]) -> float:
    """CPU seconds of this process, the least of three after one that builds graphs."""
    action()
    times = []
    for _ in range(3):
        started = time.process_time()
        action()
        times.append(time.process_time() - started)
    return min(times)


def costs_of(trial: Trial) -> dict[str, float]:
    """CPU seconds per image of a training step, of a scoring step and of an evaluation."""
    step, validation = trial.steps[0], trial.data.validation
    adjoint_of = StepAdjoint(trial.network, trial.optimiser)
    after = loss_gradient(trial.network, validation)
    x, y = step_batch(trial.data.training, step)
    return {
        "step_s": cpu_seconds(lambda: trial.take_step(0)) / BATCH,
        "score_s": cpu_seconds(lambda: adjoint_of(x, y, step.learning_rate, after)) / BATCH,
        "evaluate_s": cpu_seconds(lambda: trial.evaluator(validation)) / len(validation),
    }


def main() -> int:
    """Parse, measure, print; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="(default: 7)")
    parser.add_argument("--n_train", type=int, default=512, help="images (default: 512)")
    given = parser.parse_args()
    open_console(quiet=True, verbose=False)
    with tempfile.TemporaryDirectory(prefix="parallel_") as folder, interruptible():
        work = prepared(options_of(Path(folder) / "out", given.n_train))
        with claimed(work.paths, work.settings, overwrite=False) as output:
            trial = work.trial(0, output)
            record_steps(trial)
            train_epoch(trial, 0)
            sizes, costs = bytes_of_tasks(work, trial), costs_of(trial)
            found = ratios(work, trial, given.rounds)
    print(f"best {max(found):.2f}, median {median(found):.2f} of {len(found)} rounds")
    print(json.dumps({"best": max(found), "median": median(found), "bytes": sizes, **costs}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
