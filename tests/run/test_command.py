"""The command line: help, defaults, mistakes, interruption."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import eval_influence_functions
import eval_sgd_influence
from tests.helpers.runs import SMALL, contents, heed_signals, sgd_influence
from tests.helpers.runs import command as small_command
from utils.data.source import CACHE_VARIABLE
from utils.options import parse_options

ROOT = Path(__file__).parents[2]
SCRIPTS = ["eval_sgd_influence.py", "eval_influence_functions.py"]


def parse(module, *arguments: str):
    return parse_options(module.COMMAND, arguments)


def test_defaults_are_the_reference_ones() -> None:
    options = parse(eval_sgd_influence)
    assert options.output_dir == Path("output_sgd_influence")
    assert options.methods == ("Hara", "Ours", "Random")
    assert (options.n_epochs, options.n_trials, options.dataset) == (20, 6, "cifar10")
    assert options.removal_counts == (
        0, 1, 10, 40, 100, 200, 600, 1000, 3000, 5000, 10000, 30000,
    )  # fmt: skip
    assert options.seeds == tuple(range(6))
    assert (options.device_ids, options.retrain_all) == (("0",), False)
    other = parse(eval_influence_functions)
    assert other.output_dir == Path("output_influence_functions")
    assert other.methods == ("Influence_functions", "Random")


@pytest.mark.parametrize(
    "arguments",
    [
        "-o out -e 3 -nt 2 -r 10 0 1 -ds mnist -di 1 -ra",
        "--output_dir out --n_epochs 3 --n_trials 2 --remove_n_list 10 0 1 --dataset mnist "
        "--device-id 1 --retrain_all",
    ],
)
def test_names_and_short_forms(arguments: str) -> None:
    options = parse(eval_sgd_influence, *arguments.split())
    assert options.output_dir == Path("out")
    assert (options.n_epochs, options.seeds, options.removal_counts) == (3, (0, 1), (0, 1, 10))
    assert (options.dataset, options.device_ids, options.retrain_all) == ("mnist", ("1",), True)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_grouped_and_complete(script: str) -> None:
    outcome = subprocess.run(
        [sys.executable, script, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for group in ("what is run:", "training:", "data:", "machine:", "output:"):
        assert group in outcome.stdout
    options = set(re.findall(r"^  .*(--[a-z_-]+)", outcome.stdout, re.MULTILINE)) - {"--help"}
    assert len(options) >= 18
    assert outcome.stdout.count("(default:") == len(options)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, utils.run.command; print({'numpy', 'nnabla', 'pandas'} & set(sys.modules))"
    outcome = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert outcome.stdout.strip() == "set()"


@pytest.mark.usefixtures("learnt")
def test_quiet_shows_the_verdicts_and_the_closing_table_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sgd_influence(tmp_path, "-r 0 -e 1 --methods Random -q --context cpu") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.strip().splitlines()
    table = next(i for i, line in enumerate(lines) if line.startswith("method  "))
    assert lines[0].startswith("Labels: ") and table <= 5
    assert "Trial 0: trained" not in printed.out
    assert "Trial 0: trained" in (tmp_path / "run.log").read_text()


@pytest.mark.parametrize(("full", "status"), [(True, 2), (False, 141)])
def test_output_that_cannot_be_written(
    full: bool, status: int, tmp_path: Path, data_cache: Path
) -> None:
    """A full disk, or a reader that has gone: no second error as Python exits."""
    if full:
        output = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, output = os.pipe()
        os.close(reader)
    outcome = subprocess.run(
        small_command(tmp_path / "out"), env=os.environ | {CACHE_VARIABLE: str(data_cache)},
        stdout=output, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(output)
    assert outcome.returncode == status, outcome.stderr
    assert "Exception ignored" not in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_interrupt_keeps_what_is_done(tmp_path: Path, data_cache: Path) -> None:
    command = [sys.executable, "eval_sgd_influence.py", *SMALL.split(), "-o", str(tmp_path)]
    command += ["-r", *map(str, range(1, 40))]
    environment = os.environ | {CACHE_VARIABLE: str(data_cache)}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True,
        preexec_fn=heed_signals,
    )  # fmt: skip
    while process.poll() is None and len(list(tmp_path.glob("score/**/*.csv"))) < 3:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in printed
    assert printed.strip().splitlines()[-1].startswith("eval_sgd_influence.py: interrupted; ")

    kept = contents(tmp_path)
    assert not list(tmp_path.glob("**/*.tmp*"))
    assert sgd_influence(tmp_path) == 0  # fewer n now; goes on with what is there
    assert kept.items() <= contents(tmp_path).items()


@pytest.mark.parametrize("place", ["file/inside", "readonly"])
def test_output_folder_that_cannot_be_made(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    output = Path("/proc/nowhere") if place == "readonly" else tmp_path / place
    assert sgd_influence(output) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("eval_sgd_influence.py: error: ")
    assert str(output.parent) in line


def test_log_file_holds_what_was_said_before_it_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utils.training.device.expects_gpu", lambda: True)
    assert sgd_influence(tmp_path, "-r 0 --methods Random -e 1 --model mlp") == 0
    assert "No GPU is used" in (tmp_path / "run.log").read_text()
