"""The load in the estimate, and the time left that is reported during a run."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

import utils.output.usage
import utils.run.costs
import utils.run.preflight
import utils.run.remaining
import utils.run.workers
from tests.helpers.runs import sgd_influence
from utils.console import open_console
from utils.kernels import blas
from utils.output.usage import other_load
from utils.run.costs import seconds_of
from utils.run.messages import _slowed
from utils.run.preflight import SHARED, START_SECONDS, Estimate, Load, Work
from utils.run.remaining import Remaining, reported
from utils.run.tasks import Task
from utils.run.workers import InProcess, run_tasks

SMALL = "--model mlp -r 0 5 --methods Random"


def task(stage: str) -> Task:
    return Task(stage, 0, (), lambda trial: None, lambda trial, result: None, stage)


class Clock:
    """Shows the seconds that it is set to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


# ---------------------------------------------------------------- load


@pytest.mark.parametrize(
    ("others", "cores", "workers", "slowdown", "by_others"),
    [
        (0.0, 2, 2, 1.0, 1.0),
        (5.2, 2, 2, 3.6, 3.6),
        (5.0, 2, 1, 3.0, 3.0),
        (1.0, 4, 2, 1.0, 1.0),
        (0.0, 2, 8, 4.0, 1.0),
        (8.0, 2, 8, 8.0, 2.0),
        (9.0, None, 2, 1.0, 1.0),
    ],
)
def test_slowdown(
    others: float, cores: int | None, workers: int, slowdown: float, by_others: float
) -> None:
    assert Load(others, cores).slowdown(workers) == pytest.approx(slowdown)
    assert Load(others, cores).slowdown_by_others(workers) == pytest.approx(by_others)


def test_estimate_under_load() -> None:
    alone = Estimate({"eval": Work.of(5, [30.0] * 10)}, memory=1e6, load=Load(2.0, 2))
    assert alone.by(1).total.seconds == pytest.approx(450)
    assert alone.by(2).total.seconds == pytest.approx(300)
    assert alone.by(2).seconds == {"eval": pytest.approx(300)}


@pytest.mark.parametrize(
    ("others", "workers", "cores", "seconds"),
    [
        (0.0, 2, 1, 100 * (1 - SHARED / 2)),
        (0.0, 1, 2, 100 * (1 - SHARED / 2)),
        (0.0, 1, 1, 100),
        (1.0, 2, 1, 100),
        (5.0, 2, 2, 300),
    ],
)
def test_idle_cores_shorten_what_one_process_does_alone(
    others: float, workers: int, cores: int, seconds: float
) -> None:
    stages = {"train": Work.of(0, [100.0])}
    estimate = Estimate(stages, memory=1.0, load=Load(others, 2), cores=cores)
    assert estimate.by(workers).total.seconds == pytest.approx(seconds)
    assert replace(estimate, load=Load()).by(workers).total.seconds == 100  # GPUs


def test_the_start_of_workers_counts() -> None:
    alone = Estimate({"eval": Work.of(5, [30.0] * 10)}, memory=1e6, load=Load(2.0, 2))
    assert alone.by(1).whole == alone.by(1).total.seconds
    assert alone.by(2).whole == pytest.approx(300 + 2 * START_SECONDS)
    short = Estimate({"eval": Work.of(5, [1.3] * 10)}, memory=1e6, load=Load(0.0, 2), cores=1)
    assert short.workers_that_pay(2) == 2  # saves 6.5 s, and starting takes 5 s
    assert replace(short, load=Load(6.0, 2)).workers_that_pay(2) == 1  # 19.5 s and 20 s


def test_load_and_low_priority_are_reported_where_they_matter() -> None:
    busy = Estimate({}, memory=1.0, workers=2, load=Load(5.2, 2))
    assert _slowed(busy, 0) == "; load 5.2 on 2 cores: other programs slow it 3.6-fold"
    idle = Estimate({}, memory=1.0, load=Load(0.3, 2))
    assert _slowed(idle, 0) == ""
    assert _slowed(idle, 19) == "; low priority (nice 19): it may take longer"


def test_load_of_others_is_without_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "getloadavg", lambda: (5.0, 9.0, 9.0))
    monkeypatch.setattr(utils.output.usage, "STARTED", time.monotonic() - 6000)
    monkeypatch.setattr(os, "times", lambda: (5000.0, 500.0, 400.0, 100.0, 0.0))
    assert other_load() == pytest.approx((5.0 - 1.0) * 2 / 8, rel=0.01)
    monkeypatch.setattr(os, "times", lambda: (60000.0, 0.0, 0.0, 0.0, 0.0))
    assert other_load() == 0


def test_without_a_load_average_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> tuple[float, float, float]:
        raise OSError

    monkeypatch.setattr(os, "getloadavg", fails)
    assert other_load() == 0


@pytest.mark.parametrize(("gpu", "seconds"), [(False, 2.0), (True, 7.0)])
def test_parts_are_timed_by_the_cpu_time_of_the_thread(
    gpu: bool, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu, wall = Clock(), Clock()

    def action() -> None:
        cpu.now += 2
        wall.now += 7

    monkeypatch.setattr(utils.run.costs, "on_gpu", lambda: gpu)
    monkeypatch.setattr(time, "thread_time", cpu)
    monkeypatch.setattr(time, "perf_counter", wall)
    assert seconds_of(action) == seconds


@pytest.mark.parametrize(
    ("times", "seconds", "n_calls"),
    [
        ([2.9, 0.1], 0.1, 4),  # the first time builds graphs
        ([3.1, 0.1], 3.1, 1),  # too long to be repeated
        ([0.01, 0.001], 0.001, 8),
        ([1.0, 0.4], 0.4, 2),
    ],
)
def test_the_first_time_counts_only_if_it_is_long(
    times: list[float], seconds: float, n_calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = Clock()
    calls: list[float] = []

    def action() -> None:
        cpu.now += times[min(len(calls), 1)]
        calls.append(cpu.now)

    monkeypatch.setattr(time, "thread_time", cpu)
    assert seconds_of(action) == pytest.approx(seconds)
    assert len(calls) == n_calls


def test_kernels_that_the_user_chose_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Estimate({}, memory=1.0, load=Load(0.0, 2))
    monkeypatch.setenv(blas.VARIABLE, "Nehalem")
    assert "OPENBLAS_CORETYPE=Nehalem" in _slowed(here, 0)
    assert _slowed(Estimate({}, memory=1.0), 0) == ""  # on a GPU
    monkeypatch.setattr(blas, "kernels_for", lambda cpus: "Nehalem")
    assert _slowed(here, 0) == ""


# ---------------------------------------------------------------- time left


def test_stages_weigh_what_is_estimated() -> None:
    tasks = [task("train"), task("train"), task("eval"), task("verify")]
    remaining = Remaining(tasks, {"train": 60.0, "eval": 20.0, "analyze": 50.0}, Clock())
    assert remaining.share == 0
    remaining.begun(tasks[0])
    remaining.finished(tasks[0])
    assert remaining.share == pytest.approx(30 / 80)
    remaining.begun(tasks[2])
    remaining.finished(tasks[2])
    assert remaining.share == pytest.approx(50 / 80)


def test_tasks_without_a_job_leave_the_seconds_to_the_others() -> None:
    tasks = [task("train") for _ in range(4)]
    remaining = Remaining(tasks, {"train": 60.0}, Clock())
    remaining.needless(tasks[0])
    remaining.needless(tasks[1])
    remaining.begun(tasks[2])
    remaining.finished(tasks[2])
    assert remaining.share == pytest.approx(0.5)
    remaining.needless(tasks[3])
    assert remaining.share == 1
    assert remaining.left == 0


def test_nothing_to_do_is_done() -> None:
    remaining = Remaining([], {}, Clock())
    assert (remaining.share, remaining.left) == (1, 0)


def test_time_left_is_the_estimate_and_then_follows_the_pace() -> None:
    clock, tasks = Clock(), [task("eval") for _ in range(10)]
    remaining = Remaining(tasks, {"eval": 1000.0}, clock)
    assert remaining.left == pytest.approx(1000)
    remaining.begun(tasks[0])
    clock.now += 30
    assert remaining.left == pytest.approx(970)
    clock.now += 20
    remaining.finished(tasks[0])  # twice as fast as estimated
    assert remaining.left == pytest.approx(450)
    assert str(remaining) == "10 % done, about 8 min left"
    remaining.begun(tasks[1])
    clock.now += 40
    assert remaining.left == pytest.approx(410)


def test_a_task_that_takes_longer_slows_the_pace() -> None:
    clock, tasks = Clock(), [task("eval") for _ in range(10)]
    remaining = Remaining(tasks, {"eval": 100.0}, clock)
    remaining.begun(tasks[0])
    clock.now += 50
    assert remaining.left == pytest.approx(450)


# ---------------------------------------------------------------- reported


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils.run.remaining, "LINE_EVERY", 0.001)
    monkeypatch.setattr(utils.run.remaining, "BAR_EVERY", 0.001)


@pytest.mark.parametrize("jobs", ["-j 1", "-j 2"])
def test_without_a_terminal_lines_say_the_time_left(
    jobs: str, often: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sgd_influence(tmp_path, f"{SMALL} {jobs}") == 0
    out, err = capsys.readouterr()
    assert "0 % done, about " in out
    assert "whole run" not in err


def test_quiet_says_nothing_of_the_time_left(
    often: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sgd_influence(tmp_path, f"{SMALL} -q") == 0
    assert "% done" not in "".join(capsys.readouterr())


def test_without_an_estimate_nothing_is_said_of_the_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(remaining: Remaining) -> None:
        raise AssertionError("reported")

    monkeypatch.setattr(utils.run.workers, "reported", fails)
    nothing = InProcess(lambda seed: None)
    with pytest.raises(AttributeError):  # no task, no trial
        run_tasks([], lambda seed: None, nothing, {})  # type: ignore[arg-type, return-value]
    with pytest.raises(AssertionError):
        run_tasks([], lambda seed: None, nothing, {"eval": 1.0})  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("quiet", [False, True])
def test_a_terminal_has_a_bar(
    quiet: bool, often: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(utils.run.remaining, "on_terminal", lambda: True)
    open_console(quiet=quiet, verbose=False)
    tasks = [task("eval"), task("eval")]
    remaining = Remaining(tasks, {"eval": 100.0}, Clock())
    remaining.begun(tasks[0])
    remaining.finished(tasks[0])
    shown = ""
    with reported(remaining):
        deadline = time.monotonic() + (0.1 if quiet else 20)
        while "50%" not in shown and time.monotonic() < deadline:
            time.sleep(0.01)
            shown += capsys.readouterr().err
    assert ("whole run:  50%" in shown) == (not quiet)
    assert ("left" in shown) == (not quiet)
