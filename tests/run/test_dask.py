"""`--dask_scheduler`: a real scheduler and two worker processes on this machine."""

from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest
from distributed import Client

import utils.run.dask_cluster
from benchmarks.kill_test import differing, files_of
from tests.helpers.runs import last_line, sgd_influence
from utils.errors import UserError
from utils.output.manifest import versions_here
from utils.run.dask_cluster import address_of, connected, lack_of, program_here
from utils.run.worker_process import Setup, work_beside
from utils.training.trial import Trial

ROOT = Path(__file__).parents[2]
RUN = "--model mlp --context cpu -r 0 5 7 9 --methods Hara Random"


@contextmanager
def dask(folder: Path, *arguments: str, path: str = str(ROOT)) -> Iterator[subprocess.Popen[bytes]]:
    """A process of Dask that has `path` in its PYTHONPATH, killed when the block ends."""
    command = [sys.executable, "-m", "dask", *arguments, "--scheduler-file", "scheduler.json"]
    environment = os.environ | {"PYTHONPATH": path}
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


@pytest.fixture(autouse=True)
def no_client_is_collected_while_another_starts() -> Iterator[None]:
    """A client that found no scheduler closes itself in __del__, where it can wait for ever."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a scheduler."""
    folder = tmp_path_factory.mktemp("dask")
    with scheduling(folder):
        yield folder


@contextmanager
def scheduling(folder: Path, path: str = str(ROOT)) -> Iterator[subprocess.Popen[bytes]]:
    """A scheduler that answers at `address(folder)`."""
    with dask(folder, "scheduler", "--host", "127.0.0.1", "--port", "0", path=path) as process:
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
    where = str(scheduler / "scheduler.json") if shared else address(scheduler)
    with dask(scheduler, *WORKER) as first, dask(scheduler, *WORKER):
        wait_for_workers(scheduler, 2)
        with killing(first, output) as killed:
            assert sgd_influence(output, f"{RUN} --dask_scheduler {where}") == 0
    assert killed == [True]
    assert differing(output, unbroken) == []
    printed = capsys.readouterr()
    how = "which share the output folder" if shared else "to which images and files are sent"
    assert f"Dask: 2 workers, {how}" in printed.out
    assert printed.out.count("Trial 0: trained") == 1
    assert printed.err == ""


def test_scheduler_that_dies_ends_the_run_in_one_line(
    tmp_path: Path,
    unbroken: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(utils.run.dask_cluster, "SECONDS", 5)  # the scheduler is waited for
    output = tmp_path / "out"
    with scheduling(tmp_path) as process, dask(tmp_path, *WORKER):
        wait_for_workers(tmp_path, 1)
        with killing(process, output) as killed:
            assert sgd_influence(output, f"{RUN} --dask_scheduler {address(tmp_path)}") == 2
    assert killed == [True]
    line = last_line(capsys.readouterr().err)
    assert "error: the Dask scheduler is gone; finished work is kept; give the same command" in line
    assert not list(output.rglob(".*"))
    assert sgd_influence(output, RUN) == 0
    assert differing(output, unbroken) == []


def no_setup(trial: Trial, folder: Path) -> Setup:
    raise AssertionError("no trial is opened")


@pytest.mark.parametrize(
    ("status", "raised", "error", "printed"),
    [
        ("connecting", OSError("disk full"), UserError, "the Dask scheduler is gone; finished"),
        ("running", OSError("disk full"), OSError, "disk full"),
        ("running", ImportError("No module named 'nets'"), UserError, "cluster has no nets; fin"),
        ("running", ValueError("a mistake of ours"), ValueError, "a mistake of ours"),
    ],
)
def test_what_a_cluster_lacks_is_told_from_other_errors(
    status: str, raised: Exception, error: type[Exception], printed: str, tmp_path: Path
) -> None:
    executor = SimpleNamespace(shutdown=lambda wait: None)
    client = SimpleNamespace(
        status=status, get_executor=lambda pure: executor, run=lambda *given, **how: {"a": True}
    )
    cluster = utils.run.dask_cluster.Cluster(client, no_setup, tmp_path, b"")
    with pytest.raises(error, match=printed), cluster.running():
        raise raised


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


@pytest.mark.parametrize(
    "where", ["tcp://127.0.0.1:1", "127.0.0.1:x", "nothing at all", "tls://127.0.0.1:1"]
)
def test_scheduler_that_does_not_answer(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils.run.dask_cluster, "SECONDS", 1)
    with pytest.raises(UserError, match="no scheduler answers"), \
            utils.run.dask_cluster.connected(where):  # fmt: skip
        pass


def test_another_program_at_the_address_of_a_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    def client(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 3.07 EiB for an array")

    monkeypatch.setattr("distributed.Client", client)
    line = r"no scheduler answers \(another program answers at this address\); start one with"
    with pytest.raises(UserError, match=line), \
            utils.run.dask_cluster.connected("tcp://127.0.0.1:22"):  # fmt: skip
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


def test_scheduler_and_workers_without_this_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the script `dask` starts them, which does not look into the folder it is started in."""
    with scheduling(tmp_path, path=""), dask(tmp_path, *WORKER, path=""):
        wait_for_workers(tmp_path, 1)
        where = f"{RUN} --dask_scheduler {address(tmp_path)}"
        assert sgd_influence(tmp_path / "out", where) == 2
        line = last_line(capsys.readouterr().err)
        assert f"the scheduler has no utils; start it in {ROOT} with python -m dask sch" in line
        monkeypatch.setattr("utils.run.dask_cluster._check_scheduler", lambda *given: None)
        assert sgd_influence(tmp_path / "out", where) == 2
    line = last_line(capsys.readouterr().err)
    assert "the worker tcp://127.0.0.1:" in line
    assert f" has no utils; start it in {ROOT} with python -m dask worker" in line
    assert not (tmp_path / "out").exists()


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "lack"),
    [
        (ModuleNotFoundError("No module named 'utils'"), "has no utils"),
        (Exception("ModuleNotFoundError(\"No module named 'nets.small'\")"), "has no nets.small"),
        (PackageNotFoundError("nnabla"), "has no nnabla"),
        (Exception("PackageNotFoundError('nnabla')"), "has no nnabla"),
        (
            caused(RuntimeError("Error during deserialization of the task graph."),
                   ModuleNotFoundError("No module named 'utils'")),
            "has no utils",
        ),
        (
            caused(RuntimeError("Error during deserialization of the task graph."),
                   ValueError("unsupported pickle protocol: 6")),
            "has other versions than this machine (unsupported pickle protocol: 6)",
        ),
        (
            AttributeError("Can't get attribute 'Job' on <module 'utils.run.tasks'>"),
            "has other versions than this machine (Can't get attribute 'Job' on <module",
        ),
        (ImportError("libgomp.so.1: cannot open"), "has other versions than this machine (libgo"),
        (ValueError("shapes differ"), ""),
        (OSError("disk full"), ""),
    ],
)  # fmt: skip
def test_lack_is_named(error: Exception, lack: str) -> None:
    assert lack_of(error).startswith(lack)
    assert bool(lack_of(error)) == bool(lack)


@pytest.mark.parametrize(
    ("versions", "program", "problem"),
    [
        ({}, "", ""),
        ({}, "another", "the worker tcp://b:1 has another version of this program; start it in"),
        (RuntimeError("no idea"), "", r"the worker tcp://b:1 cannot run this program \(no idea\)"),
    ],
)
def test_each_worker_is_looked_at(versions: object, program: str, problem: str) -> None:
    answers = {
        "versions_here": {"tcp://a:1": {}, "tcp://b:1": versions},
        "program_here": {"tcp://a:1": program_here(), "tcp://b:1": program or program_here()},
        "advised_kernels": {"tcp://a:1": "", "tcp://b:1": ""},
    }
    client = SimpleNamespace(
        wait_for_workers=lambda n, timeout: None,
        run=lambda function, **how: answers[function.__name__],
        ncores=lambda: {"tcp://a:1": 1, "tcp://b:1": 1},
    )
    if not problem:
        utils.run.dask_cluster._check_workers(client, "--dask_scheduler a")
        return
    with pytest.raises(UserError, match=problem):
        utils.run.dask_cluster._check_workers(client, "--dask_scheduler a")


def test_cluster_that_goes_away_while_it_is_looked_at() -> None:
    def gone(n: int, timeout: float) -> None:
        raise RuntimeError("Event loop is closed")

    client = SimpleNamespace(run_on_scheduler=lambda function: {}, wait_for_workers=gone)
    with pytest.raises(UserError, match=r"a: the cluster does not answer \(Event loop is closed\)"):
        utils.run.dask_cluster._check(client, "--dask_scheduler a")


def test_worker_that_comes_later_and_does_not_see_the_folder(tmp_path: Path) -> None:
    setup = SimpleNamespace(root=tmp_path / "not mounted here", claim=b"held")
    with pytest.raises(UserError, match=r"does not see .*not mounted here"):
        work_beside(setup, lambda trial: None)  # type: ignore[arg-type]


def test_address_of_a_schedulers_file(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    threading.Timer(0.2, file.write_text, ['{"address": "tls://a:1"}']).start()
    assert address_of(str(file)) == "tls://a:1"
    assert address_of("tls://a:1") == "tls://a:1"
    assert address_of("a:1") == "a:1"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        ("", "the file is empty"),
        ("[]", "list indices"),
        ("{}", "'address'"),
        ("{", "Expecting property name"),
    ],
)
def test_schedulers_file_without_an_address(
    content: str | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(utils.run.dask_cluster, "SECONDS", 0)
    file = tmp_path / "scheduler.json"
    if content is not None:
        file.write_text(content)
    expected = rf"gives no scheduler's address \({reason}.*--scheduler-file {file}$"
    with pytest.raises(UserError, match=expected):
        address_of(str(file))


@pytest.mark.parametrize(
    ("error", "printed"),
    [
        (ModuleNotFoundError("no", name="msgpack"), r"not installed: there is no msgpack \(pip"),
        (
            AttributeError("module 'toolz' has no\nx"),
            r"cannot be imported \(module 'toolz' has no x",
        ),
    ],
)
def test_dask_that_cannot_be_imported(
    error: Exception, printed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr("utils.run.dask_cluster.importlib.import_module", fail)
    with pytest.raises(UserError, match=printed), connected("tcp://127.0.0.1:1"):
        pass
