"""Signals: from the first statement of a program to its end, whatever it does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import signal_test
from benchmarks.signal_test import End, heeds, shoot
from tests.helpers.runs import ROOT, children, heed_signals
from utils import signals
from utils.page import __main__ as page
from utils.signals import interruptible, received, stop_if_asked

SCRIPTS = ("eval_sgd_influence.py", "eval_influence_functions.py")
NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
NAMED = pytest.mark.parametrize("name", NAMES)


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start Python in a group of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=heed_signals,
    )  # fmt: skip


def said_by(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What a process says until its end; one that hangs is killed, and the test fails."""
    try:
        return process.communicate(timeout=signal_test.LONGEST)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise


def ended_by(name: str) -> str:
    return "interrupted" if name == "SIGINT" else f"ended by {name}"


# ---------------------------------------------------------------- before a run and after it

AT = """
import argparse, atexit, os, runpy, sys

program, where, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.argv[1:] = sys.argv[4:]

def shoot(*ignored):
    os.kill(os.getpid(), number)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == where:
            shoot()

def parse_args(self, *arguments):
    shoot()
    return parsed(self, *arguments)

sys.meta_path.insert(0, Finder())
if where == "parsing":
    parsed, argparse.ArgumentParser.parse_args = argparse.ArgumentParser.parse_args, parse_args
if where == "exit":
    atexit.register(shoot)
if program.endswith(".py"):
    runpy.run_path(program, run_name="__main__")
else:
    runpy.run_module(program, run_name="__main__", alter_sys=True)
"""
"""Runs a program that gets a signal while it imports a module, parses its options, or exits."""


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("utils", "SIGINT"), ("utils", "SIGTERM"), ("utils.kernels.blas", "SIGHUP"),
        ("utils.run.command", "SIGINT"), ("utils.options", "SIGTERM"), ("parsing", "SIGINT"),
        ("numpy", "SIGHUP"), ("nnabla", "SIGINT"), ("utils.run.pipeline", "SIGTERM"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("script", SCRIPTS)
def test_signal_before_the_run(script: str, where: str, name: str, tmp_path: Path) -> None:
    number = signal.Signals[name]
    process = python(AT, script, where, number.value, "-ds", "digits", "-o", tmp_path / "out")
    printed = said_by(process)
    assert printed == ("", f"{script}: {ended_by(name)} before it began\n")
    assert process.returncode == 128 + number
    assert not (tmp_path / "out").exists()


@NAMED
@pytest.mark.parametrize("program", [*SCRIPTS, "utils.page"])
def test_signal_while_the_interpreter_exits(program: str, name: str) -> None:
    process = python(AT, program, "exit", signal.Signals[name].value, "--help")
    out, err = said_by(process)
    assert "usage" in out
    assert (process.returncode, err) == (0, "")


@NAMED
def test_signal_while_the_page_is_imported(name: str, tmp_path: Path) -> None:
    number = signal.Signals[name]
    process = python(AT, "utils.page", "jinja2", number.value, tmp_path)
    printed = said_by(process)
    assert printed == ("", f"python -m utils.page: {ended_by(name)} before it began\n")
    assert process.returncode == 128 + number


def test_signal_while_the_page_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def made(facts: object) -> bytes:
        os.kill(os.getpid(), signal.SIGTERM)
        return b"page"

    monkeypatch.setattr("utils.page.page.page_of", made)
    nothing = SimpleNamespace(read=lambda paths, results=None: None)
    monkeypatch.setattr("utils.page.page.Facts", nothing)
    before = signal.getsignal(signal.SIGTERM)
    assert page.main([str(tmp_path)]) == 143
    assert capsys.readouterr().err == (
        "python -m utils.page: ended by SIGTERM; no page was written\n"
    )
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGTERM) == before


# ---------------------------------------------------------------- in a run


@contextmanager
def run(tmp_path: Path, jobs: int) -> Iterator[subprocess.Popen[str]]:
    """The run of benchmarks/signal_test.py."""
    process = signal_test.started(tmp_path / "out", jobs)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def first_statement(process: subprocess.Popen[str], output: Path) -> object:
    return heeds(process.pid)


def first_worker(process: subprocess.Popen[str], output: Path) -> object:
    return children(process.pid)


def training(process: subprocess.Popen[str], output: Path) -> object:
    return list(output.rglob("*.h5"))


def end(process: subprocess.Popen[str], output: Path) -> object:
    return (output / signal_test.LAST).exists()


@pytest.mark.parametrize(
    ("moment", "jobs", "name"),
    [
        (first_statement, 1, "SIGINT"), (first_statement, 2, "SIGHUP"),
        (training, 1, "SIGTERM"), (first_worker, 2, "SIGINT"), (first_worker, 2, "SIGHUP"),
        (training, 2, "SIGHUP"), (end, 1, "SIGINT"), (end, 2, "SIGTERM"),
    ],
)  # fmt: skip
def test_signal_to_the_group(
    moment: Callable[[subprocess.Popen[str], Path], object], jobs: int, name: str, tmp_path: Path
) -> None:
    """A short form of benchmarks/signal_test.py."""
    with run(tmp_path, jobs) as process:
        while not moment(process, tmp_path / "out"):
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        ended = shoot(process, signal.Signals[name], group=True)
    assert ended.faults(signal.Signals[name]) == [], ended
    assert ended.heeded
    if moment is not end:
        assert ended.status == 128 + signal.Signals[name]


CHUNKS = """
from tests.helpers.slow import sleep_briefly
from utils.data import decode
from utils.signals import as_program, heed, interruptible

decode.SERIAL_BELOW = decode.CHUNK = 1
heed("decoding")

def run():
    try:
        with interruptible():
            for number, _ in enumerate(decode.over_chunks(sleep_briefly, [""] * 100_000)):
                if number == 0:
                    print("begun", flush=True)
    except KeyboardInterrupt:
        return 7

as_program(run)
"""


@NAMED
def test_signal_to_the_processes_that_decode(name: str) -> None:
    process = python(CHUNKS)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    workers = children(process.pid)
    os.killpg(process.pid, signal.Signals[name])
    assert said_by(process) == ("", "")
    assert process.returncode == 7
    assert workers
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


# ---------------------------------------------------------------- a second signal

HANGS = """
import ctypes, logging, os, sys, time
logging.getLogger("nnabla").setLevel(logging.WARNING)
import utils.run.pipeline
from eval_sgd_influence import COMMAND
from utils.run.command import program

def fifo():
    os.mkfifo("fifo")
    open("fifo", "rb")

def native():
    mutex = ctypes.create_string_buffer(256)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)

def deaf():
    while True:
        try:
            time.sleep(100)
        except BaseException:
            pass

def callback():
    try:
        time.sleep(100)
    except KeyboardInterrupt:
        raise RuntimeError("error in a callback")

def run(options):
    os.chdir(options.output_dir)
    print("hangs", flush=True)
    globals()[where]()

utils.run.pipeline.run = run
where = sys.argv.pop(1)
program(COMMAND)
"""
"""The command, with a run that hangs."""


@pytest.mark.parametrize(
    ("where", "state"),
    [
        ("fifo", "; nothing is finished yet"),
        ("native", " at once, in whatever it was"),
        ("deaf", " at once, in whatever it was"),
        ("callback", "; nothing is finished yet"),
    ],
)
def test_second_signal_ends_a_run_that_hangs(where: str, state: str, tmp_path: Path) -> None:
    process = python(HANGS, where, "-o", tmp_path)
    assert process.stdout is not None
    while (line := process.stdout.readline()) != "hangs\n":
        assert line, process.communicate()
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    for _ in range(100):  # the second, or where the machine is slow another one
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(signals.GRACE + 1)
        except subprocess.TimeoutExpired:
            continue
        break
    _, printed = said_by(process)
    assert printed == f"eval_sgd_influence.py: ended by SIGTERM{state}\n"
    assert process.returncode == 143


def test_signals_within_a_moment_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """timeout sends to the process and to its group."""
    monkeypatch.setattr(signals, "TOGETHER", 100)
    # The watch may read the first signals only when TOGETHER is 0: it must not end the tests.
    monkeypatch.setattr(signals, "_end_at_once", lambda number: None)
    with interruptible():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)
        assert received() == signal.SIGTERM
        monkeypatch.setattr(signals, "TOGETHER", 0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGHUP)
        signals._heard(signal.SIGHUP, None)  # nothing more disturbs what cleans up
        with pytest.raises(KeyboardInterrupt):
            stop_if_asked()
    assert received() == signal.SIGTERM


def test_interrupt_that_a_callback_loses_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: printed.append(lost.exc_type))

    def lose(error: type[BaseException]) -> None:
        def raises(reference: object) -> None:
            raise error

        thing = threading.Event()
        reference = weakref.ref(thing, raises)
        del thing
        assert reference() is None

    with interruptible():
        lose(KeyboardInterrupt)
        lose(ValueError)
    lose(KeyboardInterrupt)
    assert printed == [ValueError, KeyboardInterrupt]


# ---------------------------------------------------------------- the benchmark


@pytest.mark.parametrize(
    ("status", "printed", "faults"),
    [
        (143, "eval_sgd_influence.py: ended by SIGTERM; nothing is finished yet\n", []),
        (0, "Finished in 3 s\n", []),
        (143, "", ["no closing line"]),
        (1, "Traceback (most recent call last):\n", ["traceback", "wrong exit status"]),
        (0, "Exception ignored in: <function f>\n", ["raw warning"]),
        (0, "x.py:1: UserWarning: There appear to be 6 leaked semlock\n", ["raw warning"]),
        (143, 2 * "eval_sgd_influence.py: interrupted\n", ["more than one closing line"]),
    ],
)
def test_benchmark_knows_faults(status: int, printed: str, faults: list[str]) -> None:
    found = End(status, printed, True, 1.0).faults(signal.SIGTERM)
    assert set(faults) <= set(found)
    assert bool(faults) == bool(found)


def test_benchmark_knows_whether_signals_are_heeded() -> None:
    """Python alone heeds none but SIGINT."""
    code = "import _signal; print(1, flush=True); input(); {}; print(2, flush=True); input()"
    block = "_signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGTERM])"
    command = [sys.executable, "-c", code.format(block)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        assert not heeds(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        assert heeds(process.pid)
        process.stdin.write("\n")
