"""`--preset`: options that are set together, where the command line does not give them."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

import utils.presets
from eval_sgd_influence import COMMAND
from tests.helpers.runs import influence_functions, sgd_influence
from utils.options import TRAINING, Options, build_parser, options_by_name, parse_options
from utils.output.settings import settings_of
from utils.presets import PRESETS, Preset, presets_text

SMOOTH = PRESETS["smooth"].options


def parsed(line: str) -> Options:
    return parse_options(COMMAND, line.split())


def test_a_preset_sets_what_is_not_given() -> None:
    options = parsed("--preset smooth -e 3")
    assert {name: getattr(options, name) for name in SMOOTH} == SMOOTH
    assert options.n_epochs == 3
    assert options.methods == COMMAND.methods


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("order", ["{given} --preset smooth", "--preset smooth {given}"])
def test_what_is_given_counts_also_if_it_is_the_default(name: str, order: str) -> None:
    default = {f.name: f.default for f in fields(Options)}[name]
    assert default != SMOOTH[name]
    options = parsed(order.format(given=f"--{name} {default}"))
    assert getattr(options, name) == default
    for other in SMOOTH.keys() - {name}:
        assert getattr(options, other) == SMOOTH[other]


def test_only_the_values_that_result_count_for_a_resume() -> None:
    by_preset = parsed("--preset smooth")
    by_hand = parsed(" ".join(f"--{name} {value}" for name, value in SMOOTH.items()))
    assert settings_of(by_preset, "", "", None) == settings_of(by_hand, "", "", None)
    assert settings_of(by_preset, "", "", None) != settings_of(parsed(""), "", "", None)


def test_an_unknown_preset_is_one_line_with_a_suggestion(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        parsed("--preset smoth")
    line = capsys.readouterr().err
    assert end.value.code == 2
    assert line.count("\n") == 1
    assert "'smoth'" in line
    assert "did you mean smooth?" in line


def test_help_tells_what_each_preset_sets_and_why() -> None:
    shown = " ".join(build_parser(COMMAND).format_help().split())
    for name, preset in PRESETS.items():
        assert f"{name}: {preset.flags}" in presets_text()
        assert preset.purpose in presets_text()
        assert preset.purpose in shown
        assert preset.flags in shown


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_sets_options_of_the_training(name: str) -> None:
    given = options_by_name()
    assert {given[option].group for option in PRESETS[name].options} == {TRAINING}


def test_another_preset_is_one_more_row(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Preset({"n_epochs": 7, "lr_schedule": "cosine"}, "to try")
    monkeypatch.setitem(utils.presets.PRESETS, "tried", row)
    options = parsed("--preset tried --lr_schedule constant")
    assert (options.n_epochs, options.lr_schedule) == (7, "constant")


def test_a_wrong_value_next_to_a_preset_is_reported_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parsed("--preset smooth --lr fast")
    assert capsys.readouterr().err.count("\n") == 1


FROM_SCRATCH = "-ra --cover_epochs all -r 0 5"


def test_a_run_trains_the_smooth_net_and_the_same_values_resume_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = f"{FROM_SCRATCH} --methods Hara_exact Random"
    assert sgd_influence(tmp_path, f"--preset smooth {more}") == 0
    assert "-ra retrains" not in capsys.readouterr().err
    options = json.loads((tmp_path / "manifest.json").read_text("utf-8"))["options"]
    assert {name: options[name] for name in SMOOTH} == SMOOTH
    by_hand = " ".join(f"--{name} {value}" for name, value in SMOOTH.items())
    assert sgd_influence(tmp_path, f"{by_hand} {more}") == 0
    printed = capsys.readouterr()
    assert "training reused" in printed.out
    assert "influence by Hara_exact reused" in printed.out


def test_influence_functions_of_the_smooth_net_are_remarked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert influence_functions(tmp_path, f"--preset smooth {FROM_SCRATCH}") == 0
    remark = "no exact sweep among the methods (Influence_functions); use --methods Hara_exact"
    assert remark in capsys.readouterr().err
    manifest = json.loads((tmp_path / "manifest.json").read_text("utf-8"))
    assert {name: manifest["options"][name] for name in SMOOTH} == SMOOTH
    assert remark in manifest["remarks"][0]
