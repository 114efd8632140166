"""The comparisons of benchmarks/gpu.py."""

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.gpu import agreement, largest, milliseconds, shared_bytes
from utils.output.storage import save_csv


def write_scores(run: Path, method: str, scores: dict[int, float]) -> None:
    folder = run / "influence" / method
    folder.mkdir(parents=True)
    table = pd.DataFrame({"datasource_index": list(scores), "influence": list(scores.values())})
    save_csv(table, folder / f"influence_{method.lower()}_0.csv")


def test_scores_are_compared_by_image(tmp_path: Path) -> None:
    write_scores(tmp_path / "a", "Hara", {0: 3.0, 1: 4.0, 2: 0.0})
    write_scores(tmp_path / "b", "Hara", {2: 0.0, 1: 4.0, 0: 3.0})
    write_scores(tmp_path / "a", "Ours", {0: 3.0, 1: 4.0, 2: 0.0})
    write_scores(tmp_path / "b", "Ours", {1: 3.0, 0: 4.0, 2: 0.0})
    figures = agreement(tmp_path / "a", tmp_path / "b")
    assert np.allclose(figures["Hara"], (0, 1))
    assert np.allclose(figures["Ours"], (2**0.5 / 5, 0.5))
    assert largest(figures) == "Ours: difference 2.8e-01 of the scores' norm, Spearman 0.5000"


def test_files_with_other_bytes_are_named(tmp_path: Path) -> None:
    for run, content in (("a", "1"), ("b", "2")):
        (tmp_path / run / "score").mkdir(parents=True)
        (tmp_path / run / "score" / "equal.csv").write_text("0")
        (tmp_path / run / "score" / "other.csv").write_text(content)
        (tmp_path / run / "score" / "net.nnp").write_text(content)
    (tmp_path / "a" / "score" / "missing.csv").touch()
    answer = shared_bytes(tmp_path / "a", tmp_path / "b", ("score",))
    assert answer == "1 of 3 files; not score/missing.csv, score/other.csv"


def test_actions_are_timed_after_three_others() -> None:
    done: list[int] = []
    assert 0 <= milliseconds(lambda: done.append(1)) < 1000
    assert len(done) == 33
