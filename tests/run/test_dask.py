"""`--dask_scheduler`: a real scheduler and two worker processes on this machine."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from distributed import Client

import utils.run.dask_cluster
from benchmarks.kill_test import differing, files_of
from tests.helpers.runs import last_line, sgd_influence
from utils.errors import UserError
from utils.output.manifest import versions_here
from utils.run.worker_process import Setup
from utils.training.trial import Trial

ROOT = Path(__file__).parents[2]
RUN = "--model mlp --context cpu -r 0 5 7 9 --methods Hara Random"


@contextmanager
def dask(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of Dask, killed when the block ends."""
    command = [sys.executable, "-m", "dask", *arguments, "--scheduler-file", "scheduler.json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (folder / f"{arguments[0]}.txt").open("ab") as printed:
        process = subprocess.Popen(
            [*command, "--no-dashboard"],
            cwd=folder,
            env=environment,
            stdout=printed,
            stderr=printed,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a scheduler."""
    folder = tmp_path_factory.mktemp("dask")
    with scheduling(folder):
        yield folder


@contextmanager
def scheduling(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A scheduler that answers at `address(folder)`."""
    with dask(folder, "scheduler", "--host", "127.0.0.1", "--port", "0") as process:
        while not (folder / "scheduler.json").exists() and process.poll() is None:
            time.sleep(0.1)
        yield process


def address(folder: Path) -> str:
    return json.loads((folder / "scheduler.json").read_text())["address"]


WORKER = ("worker", "--nworkers", "1", "--nthreads", "1", "--no-nanny")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run by one process."""
    output = tmp_path_factory.mktemp("unbroken")
    assert sgd_influence(output, RUN) == 0
    return files_of(output)


@contextmanager
def killing(process: subprocess.Popen[bytes], output: Path) -> Iterator[list[bool]]:
    """Kill a process when a run has its first score; gives whether it was in its middle then."""
    killed: list[bool] = []
    over = threading.Event()

    def kill() -> None:
        while not list(output.glob("score/**/*.csv")):
            if over.wait(0.01):
                return
        process.kill()
        killed.append(not (output / "summary").exists())

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    try:
        yield killed
    finally:
        over.set()
        killer.join()


def wait_for_workers(folder: Path, n_workers: int) -> None:
    """Workers of a busy machine take longer to start than a run waits for them."""
    with Client(address(folder), set_as_default=False) as client:
        client.wait_for_workers(n_workers, timeout=120)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "apart"])
@pytest.mark.usefixtures("learnt")
def test_run_ends_with_the_same_bytes_though_a_worker_is_killed(
    shared: bool,
    scheduler: Path,
    unbroken: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not shared:
        monkeypatch.setattr(utils.run.dask_cluster, "has_claim", lambda path, claim: False)
    output = tmp_path / "out"
    with dask(scheduler, *WORKER) as first, dask(scheduler, *WORKER):
        wait_for_workers(scheduler, 2)
        with killing(first, output) as killed:
            assert sgd_influence(output, f"{RUN} --dask_scheduler {address(scheduler)}") == 0
    assert killed == [True]
    assert differing(output, unbroken) == []
    printed = capsys.readouterr()
    how = "which share the output folder" if shared else "to which images and files are sent"
    assert f"Dask: 2 workers, {how}" in printed.out
    assert printed.out.count("Trial 0: trained") == 1
    assert printed.err == ""


def test_scheduler_that_dies_ends_the_run_in_one_line(
    tmp_path: Path, unbroken: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    with scheduling(tmp_path) as process, dask(tmp_path, *WORKER):
        wait_for_workers(tmp_path, 1)
        with killing(process, output) as killed:
            assert sgd_influence(output, f"{RUN} --dask_scheduler {address(tmp_path)}") == 2
    assert killed == [True]
    line = last_line(capsys.readouterr().err)
    assert "error: the Dask scheduler is gone; what is finished is kept, the same command" in line
    assert not list(output.rglob(".*"))
    assert sgd_influence(output, RUN) == 0
    assert differing(output, unbroken) == []


def no_setup(trial: Trial, folder: Path) -> Setup:
    raise AssertionError("no trial is opened")


@pytest.mark.parametrize(
    ("status", "error", "printed"),
    [("connecting", UserError, "the Dask scheduler is gone"), ("running", OSError, "disk full")],
)
def test_calls_that_find_no_scheduler_are_told_from_errors_of_files(
    status: str, error: type[Exception], printed: str, tmp_path: Path
) -> None:
    executor = SimpleNamespace(shutdown=lambda wait: None)
    client = SimpleNamespace(
        status=status, get_executor=lambda pure: executor, run=lambda *arguments: {"a": True}
    )
    cluster = utils.run.dask_cluster.Cluster(client, no_setup, tmp_path, b"")
    with pytest.raises(error, match=printed), cluster.running():
        raise OSError("disk full")


def test_scheduler_without_workers(
    scheduler: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(utils.run.dask_cluster, "SECONDS", 2)
    where = address(scheduler)
    assert sgd_influence(tmp_path / "out", f"{RUN} --dask_scheduler {where}") == 2
    line = last_line(capsys.readouterr().err)
    remedy = f"has no workers; start some in {ROOT} with python -m dask worker {where} --nthreads 1"
    assert line.endswith(f"--dask_scheduler {where}: {remedy}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("where", ["tcp://127.0.0.1:1", "127.0.0.1:x", "nothing at all"])
def test_scheduler_that_does_not_answer(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils.run.dask_cluster, "SECONDS", 1)
    with pytest.raises(UserError, match="no scheduler answers"), \
            utils.run.dask_cluster.connected(where):  # fmt: skip
        pass


def test_worker_with_other_libraries_is_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(utils.run.dask_cluster.log, "handlers", [caplog.handler])
    monkeypatch.setattr(utils.run.dask_cluster.log, "propagate", False)
    found = {
        "same": versions_here(),
        "older": versions_here() | {"numba": "0.1", "gone": "2"},
        "slow": versions_here() | {"BLAS kernels": "Prescott"},
    }
    with caplog.at_level(logging.WARNING, "data_cleansing"):
        utils.run.dask_cluster.warn_of_others(found, {"same": "", "older": "", "slow": "Haswell"})
    assert [record.getMessage() for record in caplog.records] == [
        "Dask worker older has numba 0.1, gone 2: last bits may differ",
        "Dask worker slow has BLAS kernels Prescott: last bits may differ; "
        "start it with OPENBLAS_CORETYPE=Haswell",
    ]


def test_dask_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert sgd_influence(tmp_path, f"{RUN} --dask_scheduler tcp://127.0.0.1:1") == 2
    line = last_line(capsys.readouterr().err)
    assert line.endswith("Dask is not installed (pip install -r requirements-dask.txt)")
