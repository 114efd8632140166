"""`--jobs`: the same bytes by any number of workers; what happens when one of them ends."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.kill_test import differing, files_of
from tests.helpers.runs import children, last_line, sgd_influence, start, wait_for
from utils.data.images import ImageSet, Picked
from utils.data.splits import SplitFiles, TrialData
from utils.options import Options
from utils.output.folder import OutputFolder
from utils.run import worker_process as worker
from utils.run.handover import hand_over, sent, take_over, unpacked
from utils.run.preflight import Estimate, Work
from utils.run.tasks import Schedule, Task
from utils.run.worker_process import device_of
from utils.run.workers import Processes
from utils.training.models import find_model
from utils.training.steps import plan_steps
from utils.training.trial import Trial, make_trial

QUICK = "--model mlp --context cpu"
OPTIONS = Options(program="tests", output_dir=Path("nowhere"), methods=("Random",))
LONG = ["-r", *map(str, range(1, 50))]


@pytest.mark.parametrize(
    "more",
    [
        f"{QUICK} -nt 2 --verify 6 --methods Hara Random",
        "--model tests.helpers.users_models:good --context cpu --momentum 0.9 -ra "
        "--cover_epochs all --methods Influence_functions Hara --cache steps",
    ],
)
@pytest.mark.usefixtures("learnt")
def test_workers_give_the_same_files_and_say_everything_once(
    more: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sgd_influence(tmp_path / "one", f"{more} -v") == 0
    alone = capsys.readouterr()
    assert sgd_influence(tmp_path / "two", f"{more} -v -j 2") == 0
    printed = capsys.readouterr()
    assert differing(tmp_path / "two", files_of(tmp_path / "one")) == []
    assert printed.err == alone.err
    assert alone.err.count("\n") == alone.err.count("-ra retrains from") == ("-ra" in more)
    of_trials = [line for line in printed.out.splitlines() if line.startswith("Trial ")]
    assert sorted(of_trials) == sorted(
        line for line in alone.out.splitlines() if line.startswith("Trial ")
    )
    assert "2 processes in parallel" in printed.out
    removal = r"n = 5 evaluated: validation loss \d+\.\d{4}, accuracy \d\.\d{4}; test loss"
    assert re.search(removal, alone.out)
    log = (tmp_path / "two/run.log").read_text()
    assert all(log.count(line) == 1 for line in of_trials)


def test_more_workers_go_on_where_fewer_were_killed(tmp_path: Path, data_cache: Path) -> None:
    output = tmp_path / "out"
    process = start(output, data_cache, *LONG, "-j", "2")
    wait_for(process, lambda: list(output.glob("score/**/*.csv")))
    process.kill()
    process.communicate()
    assert sgd_influence(output, f"{QUICK} -j 3") == 0
    assert not list(output.glob(".*"))
    assert sgd_influence(tmp_path / "unbroken", QUICK) == 0
    there = files_of(output)
    for name, content in files_of(tmp_path / "unbroken").items():
        if name.startswith(("influence", "infl_results_sgd")) or "_worst_0_" in name:
            assert there[name] == content


def test_error_in_a_worker_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sgd_influence(tmp_path, f"{QUICK} -j 2 --lr 1e9") == 2
    line = last_line(capsys.readouterr().err)
    assert "the loss in epoch 1, step " in line
    assert "(learning rate 1e+09)" in line
    assert not list(tmp_path.rglob(".*"))


def test_worker_that_is_killed_is_one_line(tmp_path: Path, data_cache: Path) -> None:
    output = tmp_path / "out"
    process = start(output, data_cache, *LONG, "-j", "2")
    wait_for(process, lambda: list(output.glob("score/**/*.csv")))
    os.kill(children(process.pid)[0], signal.SIGKILL)
    _, printed = process.communicate()
    assert process.returncode == 2
    line = last_line(printed)
    assert "error: a worker process died (SIGKILL), perhaps for lack of memory; " in line
    assert line.endswith("give the same command again to resume")
    assert not list(output.rglob(".*"))
    assert sgd_influence(output, QUICK) == 0


def test_workers_end_with_a_run_that_is_killed(tmp_path: Path, data_cache: Path) -> None:
    process = start(tmp_path, data_cache, *LONG, "-j", "2")
    wait_for(process, lambda: list(tmp_path.glob("score/**/*.csv")))
    workers = children(process.pid)
    assert len(workers) == 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


# ---------------------------------------------------------------- the parts


def _task(name: str, *needs: str, seed: int = 0) -> Task:
    return Task(name, seed, needs, lambda trial: None, lambda trial, result: None)


def test_schedule_gives_a_task_when_its_needs_are_finished() -> None:
    train, score = _task("trial 0: train"), _task("trial 0: infl", "trial 0: train")
    other = _task("trial 1: train", seed=1)
    schedule = Schedule([train, score, other])
    assert schedule.next() is train
    assert schedule.next() is other
    assert schedule.next() is None
    assert not schedule.finished(train)
    assert schedule.next() is score
    assert schedule.finished(score)
    assert schedule
    assert schedule.finished(other)
    assert not schedule


def test_estimate_for_several_workers() -> None:
    stages = {"train": Work.of(10, [60.0, 60.0]), "eval": Work.of(5, [30.0] * 10)}
    one = Estimate(stages, memory=100e6)
    two = one.by(2)
    assert one.total.seconds == 420
    assert two.total.seconds == 60 + 150
    assert one.by(20).total.seconds == 60 + 30
    assert two.total.size == one.total.size
    assert two.memory == 300e6
    assert one.parts == 10
    assert one.by(1) == one


def test_default_number_of_workers() -> None:
    many = Estimate({"eval": Work.of(5, [30.0] * 10)}, memory=100e6)
    assert many.workers_that_pay(4) == 4
    assert many.workers_that_pay(64) == 10
    assert Estimate({"eval": Work.of(5, [0.1] * 10)}, memory=100e6).workers_that_pay(4) == 1
    assert Estimate({"eval": Work.of(5, [30.0] * 10)}, memory=1e15).workers_that_pay(4) == 1
    assert Estimate({}, memory=100e6).workers_that_pay(4) == 1


def test_workers_take_the_devices_in_turn() -> None:
    names = [f"worker-{number}" for number in range(7, 12)]
    turns = [device_of(name, ("0", "1", "2")) for name in names]
    assert turns == ["1", "2", "0", "1", "2"]


def _device_here() -> tuple[int, str]:
    time.sleep(0.2)
    return os.getpid(), device_of(multiprocessing.current_process().name, ("4", "5"))


def test_each_worker_process_has_a_device_of_its_own() -> None:
    with Processes(2, "cpu", ("4", "5"), _no_setup).running() as workers:
        devices: dict[int, str] = {}
        while len(devices) < 2:
            done, _ = wait([workers._pool.submit(_device_here) for _ in range(4)])
            devices |= dict(future.result() for future in done)
    assert sorted(devices.values()) == ["4", "5"]


def _no_setup(trial: Trial, folder: Path) -> worker.Setup:
    raise AssertionError("no trial is opened")


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    pool = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
    picked = Picked(pool, np.array([8, 1, 5]))
    labels = np.array([2, 0, 1], np.int32)
    images: tuple[Any, ...] = (picked, pool[:3], pool[3:6])
    training, validation, test = (ImageSet(part, labels, ("a", "b", "c")) for part in images)
    data = TrialData(training, validation, test, SplitFiles(*map(Path, "abc")))
    steps, model = plan_steps(0, 3, 2, 2, 0.1), find_model("mlp")
    return make_trial(OPTIONS, 0, data, steps, model, 3, None, OutputFolder(tmp_path))


@pytest.mark.parametrize("take", [take_over, lambda folder: unpacked(sent(folder))])
def test_trial_is_handed_over_whole(take: Callable, trial: Trial) -> None:
    taken = take(hand_over(trial))
    for name in ("training", "validation", "test"):
        there, before = getattr(taken.data, name), getattr(trial.data, name)
        assert np.array_equal(there.images[:], before.images[:])
        assert np.array_equal(there.labels, before.labels)
        assert there.paths == before.paths
    assert taken.data.files == trial.data.files
    assert [step.indices.tolist() for step in taken.steps] == [
        step.indices.tolist() for step in trial.steps
    ]


def test_images_that_were_handed_over_are_not_in_memory(trial: Trial) -> None:
    assert isinstance(take_over(hand_over(trial)).data.test.images, np.memmap)
