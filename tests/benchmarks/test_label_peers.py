"""The comparison of the label check with cleanlab, on records made up for it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from benchmarks import label_peers
from benchmarks.label_check import worst_5
from benchmarks.label_noise import CLEANLAB
from benchmarks.label_peers import CHECK, difference_error, main
from tests.benchmarks.test_label_check import write_record
from utils.errors import UserError


@pytest.fixture
def cleanlab(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in: the probability of the label, and a count of 7."""
    rank, count = ModuleType("cleanlab.rank"), ModuleType("cleanlab.count")
    rank.get_label_quality_scores = lambda labels, p: p[np.arange(len(labels)), labels]  # type: ignore[attr-defined]
    count.num_label_issues = lambda labels, p: 7  # type: ignore[attr-defined]
    for name, module in (
        ("cleanlab", ModuleType("cleanlab")), ("cleanlab.rank", rank), ("cleanlab.count", count),
    ):  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(label_peers, "find_spec", lambda name: True)
    monkeypatch.setattr(label_peers, "DRAWS", 5)


def test_all_rankings_are_of_the_images_of_the_folds(
    tmp_path: Path, cleanlab: None, capsys: pytest.CaptureFixture[str]
) -> None:
    training = tmp_path / "mnist-uniform-0.1_1_0.npz"
    write_record(training, 1, 0)
    record = dict(np.load(training))
    rows = np.random.default_rng(5).permutation(300)
    sure = np.eye(3)[record["right"]] * 0.8 + 0.05
    for fold, part in enumerate((rows[:100], rows[100:200])):  # the third is not recorded yet
        np.savez(
            tmp_path / f"mnist-uniform-0.1_1_fold{fold}.npz", right=record["right"],
            given=record["given"], rows=part, probabilities=sure[part], neighbours=sure[part],
        )  # fmt: skip
    page = tmp_path / "page.md"
    page.write_text("<!-- peers -->\n<!-- /peers -->\n")
    out = tmp_path / "rows.csv"
    main(["--records", str(tmp_path), "--out", str(out), "--page", str(page)])
    table = pd.read_csv(out).set_index("ranking")
    wrong = (record["right"] != record["given"])[rows[:200]].sum()
    assert (table["images"] == 200).all() and (table["wrong"] == wrong).all()
    assert table["auc"][CLEANLAB] == 1 and table["n"][CLEANLAB] == 7
    assert table["auc_ahead"][CHECK] == pytest.approx(table["auc"][CHECK] - 1)
    assert capsys.readouterr().out.strip() in page.read_text()


def test_the_error_of_a_difference_is_that_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    wrong = rng.random(400) < 0.1
    score = np.where(wrong, -1, 0) + rng.standard_normal(400)
    monkeypatch.setattr(label_peers, "DRAWS", 50)
    assert difference_error(worst_5, wrong, score, score) == 0
    other = rng.standard_normal(400)
    assert difference_error(worst_5, wrong, score, other) > 0.03


def test_cleanlab_that_is_missing_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_peers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -r requirements-benchmarks\.txt"):
        main(["--records", str(tmp_path)])
