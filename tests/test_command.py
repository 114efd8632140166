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
from tests.runs import SMALL, contents, influence_functions, sgd_influence
from utils.options import parse_options
from utils.source import CACHE_VARIABLE

ROOT = Path(__file__).parents[1]
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
    code = "import sys, utils.command; print({'numpy', 'nnabla', 'pandas'} & set(sys.modules))"
    outcome = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert outcome.stdout.strip() == "set()"


MISTAKES = {
    "-e 0": "--n_epochs 0: must be a whole number of at least 1",
    "-e 1.5": "argument -e/--n_epochs: invalid int value: '1.5'",
    "-nt 0": "--n_trials 0",
    "-r -1": "--remove_n_list -1: must be a whole number of at least 0",
    "-r x": "argument -r/--remove_n_list: invalid int value: 'x'",
    "--lr 0": "--lr 0.0: must be a number above 0",
    "--lr nan": "--lr nan",
    "--batch_size 0": "--batch_size 0",
    "--seed -1": "--seed -1",
    "-di gpu0": "--device-id gpu0: expected a GPU number",
    "-di 0,": "--device-id 0,: expected a GPU number",
    "--methods Hare": "argument --methods: invalid choice: 'Hare'",
    "--context gpu": "argument --context: invalid choice: 'gpu'",
    "-ds digitz": "'digitz'",
    "--n_train 5": "--n_train",
    "--n_train 5000": "--n_train",
    "--n_test 401": "--n_test",
    "-q -v": "--quiet and --verbose",
    "--epochs 3": "unrecognized arguments: --epochs 3",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_mistake_is_one_line_and_status_2(
    arguments: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    try:
        status: object = sgd_influence(output, arguments)
    except SystemExit as end:  # argparse's own
        status = end.code
    said = capsys.readouterr()
    assert status == 2
    lines = [line for line in said.err.splitlines() if "No GPU is used" not in line]
    assert len(lines) == 1, said.err
    assert lines[0].startswith("eval_sgd_influence.py: error: ")
    assert MISTAKES[arguments] in lines[0]
    assert not list(output.glob("**/*.csv"))


def test_output_path_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("mine")
    assert sgd_influence(tmp_path / "out") == 2
    assert "is a file; name a folder" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


def test_folder_of_the_other_command_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sgd_influence(tmp_path, "-r 0 -e 1 --methods Random") == 0
    assert influence_functions(tmp_path, "-r 0 -e 1 --methods Random") == 2
    expected = "the command was eval_sgd_influence.py, now eval_influence_functions.py"
    assert expected in capsys.readouterr().err


def test_quiet_shows_the_closing_table_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sgd_influence(tmp_path, "-r 0 -e 1 --methods Random -q --context cpu") == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.split()[:3] == ["method", "n", "removed"]
    assert "Trial 0: trained" in (tmp_path / "run.log").read_text()


def test_interrupt_keeps_what_is_done(tmp_path: Path, data_cache: Path) -> None:
    command = [sys.executable, "eval_sgd_influence.py", *SMALL.split(), "-o", str(tmp_path)]
    command += ["-r", *map(str, range(1, 40))]
    environment = os.environ | {CACHE_VARIABLE: str(data_cache)}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and len(list(tmp_path.glob("score/**/*.csv"))) < 3:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in said
    assert said.strip().splitlines()[-1].startswith("eval_sgd_influence.py: interrupted; ")

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


def test_diverging_training_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sgd_influence(tmp_path, "--lr 1e9 --model mlp") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(r"the loss in epoch 1, step \d \(learning rate 1e\+09\) is (nan|inf)", line)
    assert not list(tmp_path.glob("**/final_model.h5"))


def test_cut_score_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sgd_influence(tmp_path, "-r 5 --methods Random -e 1 --model mlp") == 0
    cut = tmp_path / "score/Random/score_delete_worst_5_seed_0.csv"
    cut.write_text("")
    assert sgd_influence(tmp_path, "-r 5 --methods Random -e 1 --model mlp") == 2
    assert f"{cut}: cannot be read" in capsys.readouterr().err


def test_folder_of_something_else_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fig").mkdir()
    (tmp_path / "fig" / "mine.png").write_text("mine")
    for more in ("", "--overwrite"):
        assert sgd_influence(tmp_path, more) == 2
        assert "without the manifest.json of one" in capsys.readouterr().err
    assert (tmp_path / "fig" / "mine.png").read_text() == "mine"


def test_log_file_holds_what_was_said_before_it_opened(tmp_path: Path) -> None:
    assert sgd_influence(tmp_path, "-r 0 --methods Random -e 1 --model mlp") == 0
    assert "No GPU is used" in (tmp_path / "run.log").read_text()
