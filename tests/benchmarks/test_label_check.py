"""The benchmark of the label check, on records made up for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import label_records
from benchmarks.label_check import (
    CALIBRATION,
    calibration_by_chance,
    calibration_error,
    calibration_of,
    evidence_of,
    main,
    rows_of,
)
from benchmarks.label_records import cell_of, human_labels, neighbours
from sgd_influence.label_check import check_labels


def write_record(path: Path, seed: int, trial: int) -> None:
    """300 images of three classes, a tenth with another label; a third is held out."""
    rng = np.random.default_rng(seed)
    right = rng.integers(0, 3, 300).astype(np.int32)
    given = np.where(rng.random(300) < 0.1, (right + 1) % 3, right).astype(np.int32)
    held = np.random.default_rng(trial).permutation(300)[:100]
    logits = rng.standard_normal((5, 300, 3))
    logits[:, np.arange(300), right] += 5
    trained = np.setdiff1d(np.arange(300), held)
    np.savez(
        path, right=right, given=given, trained=trained, held=held, losses=np.ones(5),
        before=logits[:, trained].astype(np.float16), after=logits[:, held].astype(np.float16),
        final=logits[-1, trained].astype(np.float16),
    )  # fmt: skip


def test_a_row_per_data_set_and_one_for_all_its_trials(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for trial in (0, 1):
        write_record(tmp_path / f"mnist-uniform-0.1_1_{trial}.npz", 1, trial)
    (tmp_path / "cifar10-human-3_0_0_try.npz").touch()  # of another training
    rows = rows_of(tmp_path)
    assert rows["trials"].tolist() == [1, 2]
    assert (rows["auc"] > 0.95).all() and (rows["auc_aum"] > 0.95).all()
    assert rows["low"].le(rows["wrong"]).all() and rows["high"].ge(rows["wrong"]).all()
    page = tmp_path / "page.md"
    blocks = "<!-- check -->\n<!-- /check -->\n", "<!-- calibration -->\n<!-- /calibration -->\n"
    page.write_text("".join(blocks))
    out = tmp_path / "rows.csv"
    main(["--records", str(tmp_path), "--out", str(out), "--page", str(page)])
    assert len(pd.read_csv(out)) == 2
    assert len(pd.read_csv(tmp_path / CALIBRATION)) == 1
    for table in capsys.readouterr().out.strip().split("\n\n"):
        assert table in page.read_text()


def test_calibration_error_is_that_of_equal_bins_below_a_half() -> None:
    score = np.array([0.1] * 10 + [0.4] * 10 + [0.9] * 50)
    right = np.array([False] * 10 + [True] * 5 + [False] * 5 + [True] * 50)
    assert calibration_error(score, right, 2) == pytest.approx((0.1 + 0.1) / 2)
    assert np.isnan(calibration_error(score[20:], right[20:], 2))


def test_seeds_of_a_half_are_calibrated_together(tmp_path: Path) -> None:
    for seed in (0, 1, 3):
        write_record(tmp_path / f"mnist-uniform-0.1_{seed}_0.npz", seed, 0)
    rows = calibration_of(tmp_path)
    assert rows["seeds"].tolist() == ["0", "1 3"]
    below = [_below(tmp_path / f"mnist-uniform-0.1_{seed}_0.npz") for seed in (0, 1, 3)]
    assert rows["below"].tolist() == [below[0], below[1] + below[2]]
    assert (rows["brier_best"] <= rows["brier"]).all()


def _below(path: Path) -> int:
    return int((check_labels(evidence_of([dict(np.load(path))])).score < 0.5).sum())


def test_calibration_by_chance_falls_with_the_number_of_images() -> None:
    few, many = (calibration_by_chance(np.full(n, 0.3)) for n in (40, 4000))
    assert few > 0.1 > 0.03 > many > 0


def test_labels_of_annotators(tmp_path: Path) -> None:
    names = [f"test/{number}.jpg" for number in range(400)]
    counts = np.tile([9, 1, *[0] * 8], (400, 1))
    table = pd.DataFrame(counts, columns=[f"class{k}" for k in range(10)]).assign(file=names)
    table = table[["file", *table.columns[:-1]]]
    table.to_csv(tmp_path / "cifar10h-counts.csv", index=False)
    right, rows = np.zeros(400, np.int32), np.arange(400)
    one, three = (human_labels(tmp_path, rows, right, n, 0) for n in (1, 3))
    assert set(one) == set(three) == {0, 1}
    assert one.mean() == pytest.approx(0.1, abs=0.05)
    assert three.mean() == pytest.approx(1 - 0.9**3, abs=0.08)
    assert (three >= one).all()
    assert cell_of("cifar10-human-3").kind == "human"


def test_nearest_neighbours_are_those_of_the_same_direction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(label_records, "N_NEIGHBOURS", 4)
    angles = np.concatenate([np.linspace(0, 0.2, 6), np.linspace(1.4, 1.6, 6)])
    known = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    labels = np.array([0, 0, 0, 3, 3, 3, *[1] * 6])
    found = neighbours(known, known[[0, 11]], labels)
    assert found.shape == (2, 10)
    assert found[0, [0, 3]].tolist() == [0.75, 0.25] and found[1, 1] == 1
