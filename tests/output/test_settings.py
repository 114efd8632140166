"""What results depend on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from utils.methods import METHODS
from utils.options import Options
from utils.output.settings import settings_of


def settings_with(method: str) -> dict[str, object]:
    options = Options(program="tests", output_dir=Path("nowhere"), methods=(method,))
    return dict(settings_of(options, "data", "graph", damping=0.5))


@pytest.mark.parametrize(
    ("method", "of_solver", "sweep"),
    [("Influence_functions", (0.5, "gauss_newton"), None), ("Hara", (None, None), "damped"),
     ("Ours", (None, None), "damped"), ("Hara_exact", (None, None), None),
     ("AUM", (None, None), None), ("Random", (None, None), None)],
)  # fmt: skip
def test_a_setting_counts_only_with_its_methods(
    method: str, of_solver: tuple[object, object], sweep: str | None
) -> None:
    settings = settings_with(method)
    assert (settings["damping"], settings["if_solver"]) == of_solver
    assert settings["sweep"] == sweep


def test_a_row_of_the_table_names_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(METHODS["AUM"], name="Mine", settings=("damping",))
    monkeypatch.setitem(METHODS, "Mine", row)
    assert settings_with("Mine")["damping"] == 0.5
