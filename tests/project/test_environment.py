"""The caller's environment: what no test sees of it, what changes no result, what it must have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.kill_test import differing, files_of
from tests.helpers.runs import ROOT, command, sgd_influence
from utils.data.source import CACHE_VARIABLE

SETTINGS = {
    "OPENBLAS_CORETYPE": "Prescott", "OPENBLAS_L2_SIZE": "512", "OMP_NUM_THREADS": "1",
    "LC_ALL": "C", "TZ": "Asia/Tokyo", "COLUMNS": "20", "PYTHONUNBUFFERED": "1",
}  # fmt: skip

SUITE = f"""
import os
import pytest

def test_sees_no_setting():
    assert set({[*SETTINGS]}) & set(os.environ) == set()

@pytest.mark.parametrize("number", [1, 2])
def test_on_the_moon(number):
    pytest.skip("needs a rocket (apt-get install rocket)")

def test_on_mars():
    pytest.skip("needs a larger rocket")
"""


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_suite_sees_no_setting_and_lists_what_it_skipped(workers: str, tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE, encoding="utf-8")
    place = f"--basetemp={tmp_path / 'own'}"  # pytest's usual one clears up after earlier suites
    arguments = ["-p", "tests.conftest", "-n", workers, "--color=no", place, str(tmp_path)]
    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments], cwd=ROOT, env=os.environ | SETTINGS,
        stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    *_, title, larger, mars, rocket, first, second, closing = outcome.stdout.splitlines()
    assert outcome.returncode == 0, outcome.stdout
    assert " skipped tests " in title
    assert larger == "1 skipped: needs a larger rocket"
    assert mars.endswith("test_suite.py::test_on_mars")
    assert rocket == "2 skipped: needs a rocket (apt-get install rocket)"
    assert first.endswith("test_suite.py::test_on_the_moon[1]")
    assert second.endswith("test_suite.py::test_on_the_moon[2]")
    assert "1 passed, 3 skipped in " in closing


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run in the environment of the tests."""
    output = tmp_path_factory.mktemp("usual")
    assert sgd_influence(output, "--model mlp --context cpu") == 0
    return output


@pytest.mark.parametrize(
    ("settings", "mask"),
    [
        ({"OMP_NUM_THREADS": "1", "LC_ALL": "C", "TZ": "Asia/Tokyo", "COLUMNS": "20"}, 0o077),
        ({"OMP_NUM_THREADS": "8", "CI": "true", "MPLBACKEND": "TkAgg"}, 0o022),
    ],
    ids=["one thread", "eight threads"],
)
def test_no_setting_changes_a_byte(
    settings: dict[str, str], mask: int, usual: Path, tmp_path: Path, data_cache: Path
) -> None:
    output = tmp_path / "für out"
    outcome = subprocess.run(
        command(output), env=os.environ | {CACHE_VARIABLE: str(data_cache)} | settings,
        umask=mask, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stdout
    assert differing(output, files_of(usual)) == []
