"""Messages before the first stage and after the last: `--dry_run`, space, what was used."""

from __future__ import annotations

import json
import re
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

import utils.run.pipeline
from tests.helpers.own_images import picture
from tests.helpers.runs import contents, influence_functions, sgd_influence
from utils.output.usage import Limit, free_space, machine_memory, peak_memory, written_bytes
from utils.training import activations
from utils.units import bytes_of, shown_bytes, shown_ends

FACTOR = 1.5
"""How far an estimate may be from what then happens."""


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("500MB", 500 * 1000**2),
        ("1.5 GiB", 3 * 2**29),
        ("64kib", 2**16),
        ("2tb", 2 * 1000**4),
        ("1e3 KB", 10**6),
        ("7B", 7),
    ],
)
def test_bytes_with_their_unit(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "5", "GB", "1 2 GB", "0GB", "-1GB", "1 GBs", "infGB", "0.1B"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="must be a number above 0 with its unit"):
        bytes_of(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1236000, "1.24 MB"), (999_700, "1 MB"), (21.7e9, "21.7 GB"),
     (123.4e6, "123 MB"), (99.97e9, "100 GB"), (78.2e15, "78200 TB")],
)  # fmt: skip
def test_bytes_are_shown_with_three_figures(size: float, text: str) -> None:
    assert shown_bytes(size) == text


def test_ends_of_an_interval_that_look_the_same() -> None:
    assert shown_ends([-0.5, 1.25]) == ("-0.50", "+1.25")
    assert shown_ends([-0.004, 0.004]) is None  # not -0.00 to +0.00
    assert shown_ends([0.301, 0.304]) is None


def in_bytes(shown: str) -> int:
    return bytes_of(shown.strip())


def rows(printed: str) -> dict[str, str]:
    """The rows of the opening block."""
    return dict(re.findall(r"^(\w[\w ]{0,13}?) {2,}(.*)$", printed, re.MULTILINE))


@pytest.mark.parametrize("quiet", ["", "-q"])
def test_dry_run_says_what_a_run_takes_and_writes_nothing(
    quiet: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "folder" / "out"
    assert sgd_influence(output, f"--dry_run --verify 6 --context cpu {quiet}") == 0
    assert not output.parent.exists()
    printed = rows(capsys.readouterr().out)
    stages = "train|infl|eval|verify|analyze"
    assert re.fullmatch(r".* to write \(.*\); .* are free", printed["Disk"])
    assert re.findall(stages, printed["Disk"]) == stages.split("|")
    assert re.findall(stages, printed["Rough time"]) == stages.split("|")
    at_most, there = map(in_bytes, printed["Memory"].removeprefix("about ").split(", of "))
    assert at_most >= 100e6
    assert there == pytest.approx(machine_memory(), rel=0.01)


def test_dry_run_counts_what_is_not_done_yet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = "--model mlp -r 0 5"
    assert sgd_influence(tmp_path, f"{small} --methods Random") == 0
    before = contents(tmp_path, "**/*.*")
    capsys.readouterr()
    assert sgd_influence(tmp_path, f"{small} --methods Random --dry_run") == 0
    done = rows(capsys.readouterr().out)
    assert re.findall(r"\((\w+) [^,()]*\)", done["Disk"]) == ["analyze"]
    assert sgd_influence(tmp_path, f"{small} 7 --methods Random Ours --dry_run") == 0
    more = rows(capsys.readouterr().out)
    assert re.findall("train|infl|eval|analyze", more["Disk"]) == ["infl", "eval", "analyze"]
    assert contents(tmp_path, "**/*.*") == before


def test_dry_run_is_refused_where_the_run_would_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sgd_influence(tmp_path, "--model mlp -r 0 --methods Random") == 0
    before = contents(tmp_path, "**/*.*")
    assert sgd_influence(tmp_path, "--model mlp -r 0 --methods Random --lr 0.02 --dry_run") == 2
    assert "--lr was 0.05, now 0.02" in capsys.readouterr().err
    assert contents(tmp_path, "**/*.*") == before


@pytest.mark.parametrize("dry", ["", "--dry_run"])
def test_too_little_space_is_refused_with_both_figures(
    dry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(utils.run.pipeline, "free_space", lambda folder: 3_000_000)
    assert sgd_influence(tmp_path, f"--cache steps {dry}") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(
        r"--output_dir \S+: the run writes about 8\.\d+ MB, but only 3 MB are free there; free "
        r"some space, or choose another --output_dir or a --cache that keeps less$",
        line,
    )
    assert not list(tmp_path.glob("infl_results_sgd/**/*"))


USED = re.compile(
    r"Used \(estimated\): .* \(.*\), (.*) on disk \((.*)\), (.*) of memory at most \((.*)\)"
)


@pytest.mark.parametrize(
    "more",
    [
        "-r 0 --cache steps",
        "-ra --cover_epochs all --momentum 0.9 --methods Ours Random",
        "--model mlp --verify 6 -nt 2 --cache final",
        "--model mlp --n_train 997 -e 5",
    ],
)
def test_bytes_and_memory_are_within_the_factor(
    more: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Memory is only bounded from above: what other tests took counts for this process too."""
    assert sgd_influence(tmp_path, more) == 0
    used = USED.search(capsys.readouterr().out)
    assert used
    size, expected, memory, estimated = map(in_bytes, used.groups())
    assert size == pytest.approx(written_bytes(tmp_path), rel=0.02)
    assert expected / FACTOR < size < expected * FACTOR
    assert memory < estimated * FACTOR


@pytest.mark.parametrize(
    ("given", "warned"),
    [
        (
            "--damping 0.1",
            "--damping: no method of this run (Hara, Random) uses it; it is for I",
        ),
        ("--if_solver sgd", "--if_solver: no method of this run (Hara, Random) uses it; it is for"),
        ("--methods AUM --cover_epochs 2", "--cover_epochs: no method of this run (AUM) uses it"),
        ("--methods Influence_functions --damping 0.1", ""),
        ("--cover_epochs 2", ""),
        (
            "--methods AUM --verify 6",
            "--verify: no method of this run (AUM) uses it; it is for Hara",
        ),
        ("--verify 6", ""),
    ],
)
def test_an_option_that_no_method_uses(
    given: str, warned: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = "" if "--methods" in given else "--methods Hara Random"
    more = f"--model mlp -r 0 {methods} {given} --dry_run"
    assert sgd_influence(tmp_path / "out", more) == 0
    printed = capsys.readouterr()
    assert ("no method of this run" in printed.out + printed.err) == bool(warned)
    assert warned in printed.out + printed.err


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("-e 10000000000000000000", "choose fewer epochs (-e) or a larger --batch_size"),
        ("--model six_convolutions --image_size 64", "images at once take about "),
    ],
)
def test_what_cannot_be_computed_is_refused_before_it_is_tried(
    more: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(activations, "memory_limit", lambda: Limit(10**8, "here"))
    assert sgd_influence(tmp_path / "out", f"{more} --dry_run") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("eval_sgd_influence.py: error: ") and expected in line


def test_an_empty_data_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        sgd_influence(tmp_path / "out", "--data_dir= --dry_run")
    assert "--data_dir: empty path" in capsys.readouterr().err


def test_a_class_of_which_no_training_image_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(120):
        name = "rare" if number < 8 else ("cat", "dog")[number % 2]
        picture(tmp_path / "pets" / name / f"{number}.png", number)
    small = f"-ds {tmp_path / 'pets'} --model mlp --image_size 8 -e 1 -nt 1 --dry_run"
    for n_train, lost in (("30", False), ("3", True)):
        assert sgd_influence(tmp_path / "out", f"--n_train {n_train}", small) == 0
        printed = capsys.readouterr()
        words = f"--n_train {n_train}: no training image of rare is drawn, so every image of such a"
        assert (words in printed.out + printed.err) == lost


def test_a_class_without_validation_images_is_named_and_never_recommended_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part, names in {"train": "abc", "val": "ab", "test": "abc"}.items():
        for label, name in enumerate(names):
            for number in range(24):
                picture(tmp_path / "pets" / part / name / f"{number}.png", 3 * number + label)
    small = f"-ds {tmp_path / 'pets'} --model mlp --image_size 8 -e 2 -nt 1 --batch_size 8"
    more = "-r 0 24 --methods AUM Random --no_report"
    assert sgd_influence(tmp_path / "out", more, small) == 0
    printed = capsys.readouterr()
    assert "trial 0 has no validation image of c, so the cost of removing" in printed.err
    last = printed.out[printed.out.index("Recommended") :]
    assert "Note: trial 0 has no validation image of c, so the cost of removing" in last
    verdict = json.loads((tmp_path / "out" / "summary" / "recommendation.json").read_text())
    assert "no validation image of c" in verdict["validation"]


def test_influence_functions_estimate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert influence_functions(tmp_path, "--model mlp --verify 6") == 0
    used = USED.search(capsys.readouterr().out)
    assert used
    size, expected, _, _ = map(in_bytes, used.groups())
    assert expected / FACTOR < size < expected * FACTOR


def test_usage(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(bytes(1234))
    (tmp_path / "file").write_bytes(bytes(66))
    assert written_bytes(tmp_path) == 1300
    assert free_space(tmp_path / "not" / "there") == pytest.approx(free_space(tmp_path), rel=0.1)
    assert 50e6 < peak_memory() < 100e9
