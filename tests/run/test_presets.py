"""`--preset`: options that are set together, where the command line does not give them."""

from __future__ import annotations

from dataclasses import fields

import pytest

import utils.presets
from eval_sgd_influence import COMMAND
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
