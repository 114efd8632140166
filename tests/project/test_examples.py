"""The examples run, at small size: the scripts, the notebook, and the code of docs/python.md."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib
import nnabla as nn
import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.helpers.runs import ROOT

EXAMPLES, PAGE = ROOT / "examples", ROOT / "docs" / "python.md"
NOTEBOOK = EXAMPLES / "first_look.ipynb"
SMALLER = {
    "n_images, n_epochs = 1797, 10": "n_images, n_epochs = 120, 2",
    "n_groups=20": "n_groups=6",
    'issues.index[issues["is_label_issue"]]': "issues.index[:10]",  # so small a net suspects none
}
"""What the notebook does, and what a test does in its place."""


@pytest.fixture(autouse=True)
def as_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    with nn.parameter_scope("", scope={}):
        yield
    assert [*tmp_path.iterdir()] == []


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "score_arrays",
            (r"Hara_exact: \d+% of the 12 worst have", r"Label check: \d+ labels marked"),
        ),
        ("own_training_loop", (r"Hara: \d+% of the 9 worst have", r"The most harmful images: \d+")),
    ],
)
def test_script_runs(name: str, lines: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    example(name).main(n_images=120, n_epochs=2)
    printed = capsys.readouterr().out
    for line in lines:
        assert re.search(f"^{line}", printed, re.MULTILINE), line


def test_every_example_is_run() -> None:
    names = {path.name for path in EXAMPLES.iterdir() if path.is_file()}
    assert names == {"score_arrays.py", "own_training_loop.py", NOTEBOOK.name}


def cells() -> list[dict[str, Any]]:
    """The code cells of the notebook."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_notebook_runs() -> None:
    code = ["".join(cell["source"]) for cell in cells()]
    assert all(whole in "".join(code) for whole in SMALLER)
    space: dict[str, Any] = {"__name__": "__main__"}
    for number, source in enumerate(code):
        for whole, small in SMALLER.items():
            source = source.replace(whole, small)
        exec(compile(source, f"cell {number}", "exec"), space)
    assert space["scores"].shape == (120,)
    assert len(space["issues"]) == 120


def test_notebook_is_shown_as_it_was_executed() -> None:
    assert [cell["execution_count"] for cell in cells()] == list(range(1, len(cells()) + 1))
    outputs = [output for cell in cells() for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {
        "stream", "execute_result", "display_data",
    }  # fmt: skip
    assert any("image/png" in output.get("data", {}) for output in outputs)


def test_code_of_the_page_runs() -> None:
    X, y = load_digits(return_X_y=True)
    X = X[:120].reshape(-1, 8, 8) / 16
    space: dict[str, Any] = {"X": X, "y": y[:120], "np": np}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) > 3
    for block in blocks:
        small = block.replace("n_epochs=20", 'n_epochs=2, model="mlp", context="cpu"')
        small = small.replace("n_groups=40", "n_groups=6")
        exec(compile(small, "block", "exec"), space)
    assert space["scores"].shape == (120,)
