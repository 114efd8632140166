"""The pool of processes: calls, errors, deaths, and its end at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.runs import ROOT, children
from utils.processes import Pool, RemoteError

LARGE = 200_000_000
"""Bytes, far more than a pipe holds."""


def _nothing() -> None:
    """Needs no preparation."""


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(1, _nothing)
    yield pool
    pool.end()


def _refuse(number: int) -> None:
    raise ValueError(f"not {number}")


def test_process_that_cannot_begin_says_why(capfd: pytest.CaptureFixture[str]) -> None:
    """Such as a worker that gets no GPU: no traceback of its own, and the error of its calls."""
    pool = Pool(1, _refuse, [3])
    try:
        for _ in range(2):
            with pytest.raises(ValueError, match="not 3"):
                pool.submit(abs, -1).result()
    finally:
        pool.end()
    assert "Traceback" not in capfd.readouterr().err


class _Unpicklable(Exception):
    def __reduce__(self) -> str:
        raise TypeError("cannot be sent")


def _raise_unpicklable() -> None:
    raise _Unpicklable("lost")


def test_errors_of_a_call_are_raised_with_their_traceback(pool: Pool) -> None:
    with pytest.raises(ValueError, match="not 3") as raised:
        pool.submit(_refuse, 3).result()
    assert isinstance(raised.value.__cause__, RemoteError)
    assert "in _refuse" in str(raised.value.__cause__)
    with pytest.raises(RuntimeError, match="_Unpicklable"):
        pool.submit(_raise_unpicklable).result()
    with pytest.raises(TypeError, match="pickle"):
        pool.submit(threading.Lock).result()
    assert pool.submit(abs, -1).result() == 1


@pytest.mark.parametrize(
    ("end", "how"), [(os._exit, "exit status 7"), (signal.raise_signal, "SIGABRT")]
)
def test_process_that_dies_breaks_the_pool(pool: Pool, end: object, how: str) -> None:
    number = 7 if end is os._exit else signal.SIGABRT
    died = pool.submit(end, number)  # type: ignore[arg-type]
    for future in (died, pool.submit(os.getpid)):
        with pytest.raises(BrokenProcessPool, match=how):
            future.result(timeout=60)


_held: list[np.ndarray] = []


def _hold_more_memory() -> int:
    """Keep 320 MB; returns the id of the process."""
    _held.append(np.ones(40_000_000))
    return os.getpid()


def test_process_that_keeps_memory_is_not_restarted(pool: Pool) -> None:
    """loky restarts one that grows by 300 MB, where psutil is installed."""
    assert len({pool.submit(_hold_more_memory).result() for _ in range(2)}) == 1


def _touch_and_wait(path: Path) -> None:
    path.touch()
    time.sleep(100)


def test_pool_with_waiting_calls_ends_without_a_word(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", lost.append)
    pool.submit(_touch_and_wait, tmp_path / "begun")
    waiting = [pool.submit(time.sleep, 100) for _ in range(10)]
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    pool.end()
    assert lost == []
    assert all(future.cancelled() for future in waiting)
    assert not children(os.getpid())


SENDING = """
import os, sys, time
from utils.processes import Pool

def _read():
    return int(open("/proc/self/io").read().split()[1])

pool = Pool(1, os.getpid)
pool.submit(os.getpid).result()
before = _read()
pool.submit(bytes, int(sys.argv[1]))
while _read() - before < 1_000_000:
    time.sleep(0.001)
pool.end()
print("ended", flush=True)
"""
"""Ends a pool while a process sends a result; a script without `if __name__ == "__main__"`."""


def _run(code: str, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(code)
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="what was read is not counted")
def test_pool_ends_while_a_result_is_sent(tmp_path: Path) -> None:
    """ProcessPoolExecutor would wait for the rest of the result when the interpreter exits."""
    ended = _run(SENDING, tmp_path, LARGE)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ended\n", "")


def test_script_without_a_guard_is_run_once(tmp_path: Path) -> None:
    code = "\n".join([
        "import os", "from utils.processes import Pool", "print('run', flush=True)",
        "pool = Pool(2, os.getpid)", "print(pool.submit(abs, -1).result())", "pool.end()",
    ])  # fmt: skip
    ran = _run(code, tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "run\n1\n", "")
