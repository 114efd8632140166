"""The comparisons of benchmarks/gpu.py."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import gpu
from benchmarks.gpu import agreement, largest, milliseconds, shared_bytes
from tests.helpers.runs import sgd_influence
from utils.errors import UserError
from utils.output.storage import read_csv, save_csv


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


def test_answers_on_a_small_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run in the place of all: what is compared is equal, and a copy cut off is made again."""
    small, out = tmp_path / "small", tmp_path / "out"
    assert sgd_influence(small, "--model mlp --methods Hara AUM --no_report") == 0
    (out / "first_copied" / "influence").mkdir(parents=True)

    def run(folder: Path, options: str) -> None:
        assert not (folder / "influence").exists()
        shutil.copytree(small, folder, dirs_exist_ok=True)

    monkeypatch.setattr(gpu, "run", run)
    monkeypatch.setattr(gpu, "speeds", lambda: iter([("speed", "high")]))
    monkeypatch.setattr("shutil.which", lambda name: None)
    gpu.main(["--out", str(out), "--context", "cpu"])
    answers = read_csv(out / "gpu.csv").set_index("question")["answer"]
    same = "difference 0.0e+00 of the scores' norm, Spearman 1.0000"
    assert answers["run twice: largest difference"] == f"AUM: {same}"
    assert answers["same states scored on the CPU, Hara"] == same
    n, of = answers["run twice: files with the same bytes"].removesuffix(" files").split(" of ")
    assert n == of != "0"
    assert answers["memory of the GPU after each of six trials, MB"].startswith("not known")


def test_gpu_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> str:
        raise UserError("--context cudnn: there is none")

    monkeypatch.setattr(gpu, "choose_backend", fail)
    with pytest.raises(SystemExit, match="2"):
        gpu.main(["--out", str(tmp_path)])
    assert "--context cudnn: there is none" in capsys.readouterr().err
