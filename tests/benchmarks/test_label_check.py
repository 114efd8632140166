"""The benchmark of the label check, on records made up for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.label_check import calibration_error, main, rows_of
from benchmarks.label_records import cell_of, human_labels


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
    page.write_text("<!-- check -->\n<!-- /check -->\n")
    out = tmp_path / "rows.csv"
    main(["--records", str(tmp_path), "--out", str(out), "--page", str(page)])
    assert len(pd.read_csv(out)) == 2
    assert capsys.readouterr().out.strip() in page.read_text()


def test_calibration_error_is_that_of_equal_bins_below_a_half() -> None:
    score = np.array([0.1] * 10 + [0.4] * 10 + [0.9] * 50)
    right = np.array([False] * 10 + [True] * 5 + [False] * 5 + [True] * 50)
    assert calibration_error(score, right, 2) == pytest.approx((0.1 + 0.1) / 2)
    assert np.isnan(calibration_error(score[20:], right[20:], 2))


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
