"""The benchmark of wrong labels, on a few images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import benchmarks.label_noise as label_noise
from benchmarks.label_noise import FIGURES, KEYS, SETTINGS, flipped_labels, found, main
from benchmarks.make_archives import write_idx
from benchmarks.reproduction_tables import filled
from tests.helpers.runs import ROOT
from utils.data.images import ImageSet
from utils.errors import UserError
from utils.output.storage import read_csv
from utils.training.evaluation import Evaluator
from utils.training.network import Network
from utils.training.sgd import Optimiser
from utils.training.steps import Step


def test_figures_of_a_ranking() -> None:
    wrong = np.zeros(50, bool)
    wrong[[0, 1, 2, 3]] = True
    scores = np.arange(50.0)
    assert found(scores, wrong) == (1.0, 1.0, 1.0)
    scores[[2, 3]] = 7.5, 90  # the eighth and the last of all
    auc, worst_10, worst_20 = found(scores, wrong)
    assert (worst_10, worst_20) == (0.5, 0.75)
    assert auc == pytest.approx((46 + 46 + 42 + 0) / (4 * 46))
    assert np.isnan(found(np.full(50, np.nan), wrong)).all()


def test_similar_flips_are_of_the_same_images_and_go_to_the_partner() -> None:
    labels = np.resize(np.arange(10, dtype=np.int32), 1000)
    for setting in SETTINGS.values():
        assert sorted(np.ravel(setting.similar)) == list(range(10))
        partner = dict(setting.similar) | {b: a for a, b in setting.similar}
        uniform, similar = (
            flipped_labels(labels, kind, setting.similar, 0.2, 0) for kind in ("uniform", "similar")
        )
        rows = np.flatnonzero(similar != labels)
        assert len(rows) == 200
        assert np.array_equal(rows, np.flatnonzero(uniform != labels))
        assert [partner[k] for k in labels[rows]] == similar[rows].tolist()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """120 images whose class is a bright row, in batches that fit so few."""
    monkeypatch.setattr(label_noise, "BATCH", 8)
    labels = np.resize(np.arange(10, dtype=np.uint8), 120)
    images = np.random.default_rng(0).integers(0, 60, (120, 28, 28), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label + 2 : 2 * label + 6] = 255
    write_idx(images, tmp_path / "t10k-images-idx3-ubyte.gz")
    write_idx(labels, tmp_path / "t10k-labels-idx1-ubyte.gz")
    return tmp_path


def test_command(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Later calls replace their own rows alone."""
    page = data / "page.md"
    page.write_text("before\n<!-- table -->\n<!-- /table -->\n", encoding="utf-8")
    common = ["--data", str(data), "--out", str(data), "--page", str(page)]
    common += ["--small", "80", "40", "6"]
    train = [*common, "--only", "mnist/uniform/0.1"]
    main([*train, "--seeds", "1", "0", "--methods", "AUM", "Random", label_noise.LOSS])
    rows = read_csv(data / "label_noise.csv")
    assert list(rows) == [*KEYS, *FIGURES, "seconds"]
    assert rows["seed"].tolist() == [0] * 3 + [1] * 3
    assert rows["method"].tolist() == ["AUM", "Random", label_noise.LOSS] * 2
    assert rows.groupby("method")["auc"].mean()["AUM"] > 0.8
    assert "| mnist, uniform, 10 % | AUM | 2 | " in capsys.readouterr().out
    assert page.read_text(encoding="utf-8").count("| AUM | 2 | ") == 1
    main([*train, "--seeds", "1", "--methods", "Ours", "AUM"])
    after = read_csv(data / "label_noise.csv")
    assert len(after) == 7
    others = after[after["method"] != "Ours"].reset_index(drop=True)
    assert others[[*KEYS, *FIGURES]].equals(rows[[*KEYS, *FIGURES]])


def test_probabilities_out_of_fold(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image's are of a net that was trained on the other folds and has not seen it."""
    trained: set[bytes] = set()
    judged: list[bytes] = []

    class Watched:
        def __init__(self, network: Network, optimiser: Optimiser) -> None:
            trained.clear()

        def step(self, images: ImageSet, step: Step) -> None:
            trained.update(image.tobytes() for image in images.images[step.indices])

    def number(evaluator: Evaluator, images: np.ndarray) -> np.ndarray:
        held = [image.tobytes() for image in images]
        judged.extend(held)
        assert len(trained) == 60 and trained.isdisjoint(held)
        return np.array([[int(image in everything[:20])] * 10 for image in held])

    monkeypatch.setattr(label_noise, "SGD", Watched)
    monkeypatch.setattr(Evaluator, "probabilities", number)
    work = label_noise.Work("mnist", "uniform", 0.1, 0, (), data, (80, 40, 1))
    trial, _ = label_noise.noisy_trial(work, data)
    everything = [image.tobytes() for image in trial.data.training.images]
    of_fold = label_noise.out_of_fold(trial, work.setting)
    assert sorted(judged) == sorted(everything)
    assert of_fold[:, 0].tolist() == [1] * 20 + [0] * 60


def test_cleanlab_that_is_missing_is_one_line(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_noise, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -r requirements-benchmarks\.txt"):
        main(["--data", str(data), "--methods", label_noise.CLEANLAB])


def test_table_of_the_page_is_that_of_the_results() -> None:
    rows = read_csv(ROOT / "benchmarks" / "results" / "label_noise.csv")
    text = (ROOT / "docs" / "label_noise.md").read_text(encoding="utf-8")
    assert filled(text, {"table": label_noise.table_of(rows)}) == text


def test_table_says_what_diverged() -> None:
    key = {"data": "mnist", "kind": "uniform", "fraction": 0.2, "method": "Ours"}
    nan = float("nan")
    rows = pd.DataFrame(
        [
            {**key, "seed": 0, "auc": 0.5, "worst_10": 0.25, "worst_20": 0.5},
            {**key, "seed": 1, "auc": nan, "worst_10": nan, "worst_20": nan},
        ]
    )
    last = label_noise.table_of(rows).splitlines()[-1]
    assert last == "| mnist, uniform, 20 % | Ours | 2, diverged in 1 | 0.500 | 25 % | 50 % |"
