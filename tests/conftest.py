"""What holds for every test: its environment, its data folder, and the list of skipped tests."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

SETTINGS = (
    # how libraries compute
    "BLIS_", "CUDA_", "DASK_", "GOTO_", "JOBLIB_", "KMP_", "LOKY_", "MKL_", "NNABLA_", "OMP_",
    "OPENBLAS_", "NUMBA_NUM_THREADS", "NUMBA_DISABLE_JIT", "NUMBA_CPU_",
    # what they print, and how
    "COLUMNS", "FORCE_COLOR", "LANG", "LC_", "LINES", "MPLBACKEND", "NO_COLOR", "PYTEST_ADDOPTS",
    "PYTHONCOERCECLOCALE", "PYTHONIOENCODING", "PYTHONUNBUFFERED", "PYTHONUTF8", "PYTHONWARNINGS",
    "PY_COLORS", "TQDM_", "TZ",
)  # fmt: skip
"""Variables of the caller's that no test sees, by the beginning of their names."""


SLOW = (
    "tests/benchmarks", "tests/page/test_page.py", "tests/project", "tests/run",
    "tests/sgd_influence/test_cleanse.py", "tests/sgd_influence/test_retraining.py",
    "tests/sgd_influence/test_interface.py", "tests/sgd_influence/test_recorder.py",
    "tests/sgd_influence/test_verify.py", "tests/output", "tests/data/test_limits.py",
    "tests/data/test_own_data.py", "tests/data/test_flips.py", "tests/data/test_malformed_data.py",
    "tests/training/test_diverging.py", "tests/training/test_if_solver.py",
    "tests/training/test_kept_states.py",
    "tests/training/test_models.py", "tests/training/test_soundness.py",
    "tests/kernels/test_smoothed_relu.py", "tests/kernels/test_blas.py",
    "tests/kernels/test_compiled.py",
)  # fmt: skip
"""Files and folders of tests that run commands or train for long: left out of make test-fast."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow tests."""
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker("slow")


def pytest_collection_finish() -> None:
    """Imported modules live to the end: garbage collection skips them."""
    gc.freeze()


def pytest_sessionstart() -> None:
    """Before any test loads NumPy and before any child process, which inherits the environment."""
    for name in [name for name in os.environ if name.startswith(SETTINGS)]:
        del os.environ[name]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:  # as nohup and a shell's & have it
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)


@pytest.fixture(autouse=True, scope="session")
def files_need_not_survive_a_power_failure() -> Iterator[None]:
    """A quarter of a small run's time is waiting for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def data_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache folder of all tests of one worker, never the user's."""
    from utils.data.source import CACHE_VARIABLE  # loads NumPy

    folder = tmp_path_factory.mktemp("cache")
    patch = pytest.MonkeyPatch()
    patch.setenv(CACHE_VARIABLE, str(folder))
    yield folder
    patch.undo()


@pytest.fixture(autouse=True, scope="session")
def few_resamples() -> Iterator[None]:
    """A short bootstrap: that of --verify takes more than a second per method."""
    patch = pytest.MonkeyPatch()
    patch.setattr("sgd_influence.verify.N_RESAMPLES", 50)
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def context_of_the_cpu() -> None:
    """Graphs that a test builds itself are on the CPU, whatever a command chose before it."""
    if nnabla := sys.modules.get("nnabla"):  # importing it takes a second
        nnabla.set_default_context(nnabla.Context())


@pytest.fixture(scope="module")
def unbroken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run with the module's `QUICK` that nothing happened to."""
    from tests.helpers.runs import sgd_influence  # loads NumPy

    output = tmp_path_factory.mktemp("unbroken")
    assert sgd_influence(output, request.module.QUICK) == 0
    return output


@pytest.fixture
def finished(unbroken: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return shutil.copytree(unbroken, tmp_path / "out")


@pytest.fixture
def learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    """No word that a small net has learnt nothing in few steps."""
    monkeypatch.setattr("sgd_influence.train.no_better_than_guessing", lambda *known: "")
    monkeypatch.setattr("utils.run.tasks.problems_in", lambda *known: {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the skipped tests by what they need, above pytest's closing line."""
    by_reason = defaultdict(list)
    for report in terminalreporter.getreports("skipped"):
        by_reason[report.longrepr[2].removeprefix("Skipped: ")].append(report.nodeid)
    if by_reason:
        terminalreporter.write_sep("=", "skipped tests")
    for reason, tests in sorted(by_reason.items()):
        terminalreporter.write_line(f"{len(tests)} skipped: {reason}")
        for test in sorted(tests):
            terminalreporter.write_line(f"    {test}")
