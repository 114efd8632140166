"""The benchmark of growth, on sets small enough for a test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import benchmarks.scaling as scaling
from benchmarks.make_archives import write_idx
from benchmarks.scaling import STAGES, Work, exponent, exponents
from utils.output.storage import read_csv


def test_exponent_of_a_power_law():
    x = np.array([500.0, 1000.0, 4000.0])
    assert exponent(x, 3 * x**1.25) == pytest.approx(1.25)


def test_exponents_are_of_each_axis_alone():
    n = np.array([1.0, 2.0, 4.0])
    of_axis = {
        "images": {"n_images": n, "cpu_s": n, "peak_bytes": n**2},
        "removals": {"n_removals": n, "cpu_s": n**0.5, "peak_bytes": n},
    }
    tables = [
        pd.DataFrame({"axis": axis, **columns, **{f"{stage}_cpu_s": n for stage in STAGES}})
        for axis, columns in of_axis.items()
    ]
    figures = exponents(pd.concat(tables))
    assert {a: (f["time"], f["memory"]) for a, f in figures.items()} == {
        "images": (1.0, 2.0),
        "removals": (0.5, 1.0),
    }


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Two points of one axis, each in a process of its own."""
    rng = np.random.default_rng(0)
    write_idx(rng.integers(0, 255, (700, 28, 28), np.uint8), tmp_path / "t10k-images-idx3-ubyte.gz")
    write_idx(np.resize(np.arange(10, dtype=np.uint8), 700), tmp_path / "t10k-labels-idx1-ubyte.gz")
    works = [Work("steps", n_images=64, n_epochs=epochs, width=2) for epochs in (1, 3)]
    monkeypatch.setattr("benchmarks.scaling.AXES", {"steps": works})
    scaling.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")])
    table = read_csv(tmp_path / "out" / "scaling.csv")
    assert list(table["steps"]) == [1, 3]
    assert (table[[f"{stage}_cpu_s" for stage in STAGES]] > 0).all(axis=None)
    assert (tmp_path / "out" / "scaling.png").stat().st_size > 1000
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(figures) == {"steps"}
