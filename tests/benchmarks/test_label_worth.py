"""What marked labels are worth: which images each training leaves out, and the table."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.label_noise import SETTINGS
from benchmarks.label_worth import ALL, MARKED, ORACLE, RANDOM, WORST, left_out, main
from tests.benchmarks.test_label_check import write_record


def test_trainings_leave_out_what_their_names_say(tmp_path: Path) -> None:
    write_record(tmp_path / "record.npz", 1, 0)
    record = dict(np.load(tmp_path / "record.npz"))
    wrong, masks = record["right"] != record["given"], left_out(record, 1)
    assert not masks[ALL].any() and (masks[ORACLE] == wrong).all()
    assert masks[RANDOM].sum() == masks[MARKED].sum() > 0
    assert masks[WORST].sum() == wrong.sum()
    assert (masks[MARKED] & wrong).sum() > (masks[RANDOM] & wrong).sum()


def test_rows_are_kept_and_changes_are_against_all_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = []

    def train(command: list[str], check: bool) -> None:
        data = np.load(command[2])
        assert (data["test_labels"] != data["labels"]).any() and data["images"].shape[0] == 300
        trained.append(int(data["seed"]))
        left = (~data["kept"]).sum(axis=1)
        np.savez(command[3], accuracy=0.5 + 0.001 * left)

    pixels = np.zeros((600, 16, 16), np.uint8)
    labels = np.arange(600) % 3
    setting = replace(SETTINGS["mnist"], images=lambda *_: (pixels, labels))
    monkeypatch.setitem(SETTINGS, "mnist", setting)
    monkeypatch.setattr(subprocess, "run", train)
    for seed in (1, 3):
        write_record(tmp_path / f"mnist-uniform-0.1_{seed}_0.npz", seed, 0)
    out, page = tmp_path / "rows.csv", tmp_path / "page.md"
    page.write_text("<!-- worth -->\n<!-- /worth -->\n")
    where = ["--data", str(tmp_path), "--records", str(tmp_path), "--out", str(out)]
    main(["mnist-uniform-0.1/1", *where])
    main(["mnist-uniform-0.1/1", "mnist-uniform-0.1/3", *where, "--page", str(page)])
    assert trained == [1, 3]  # the first one is kept
    rows = pd.read_csv(out)
    wrong = rows[rows["training"] == ORACLE]["n"].mean()
    table = capsys.readouterr().out
    oracle = next(line for line in table.splitlines()[::-1] if ORACLE in line)
    assert f"| {wrong:.0f}: {wrong:.0f} |" in oracle and f"| +{wrong / 10:.2f}" in oracle
    assert oracle in page.read_text()
