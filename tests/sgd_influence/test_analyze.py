"""The summary and the picture, from scores made up by hand."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from sgd_influence.analyze import draw, summarise
from sgd_influence.eval import SCORE_COLUMNS
from utils.output.folder import OutputFolder


def scores(accuracy: dict[tuple[str, int, int], tuple[float, float]]) -> dict:
    """Score files with two epochs; the first one's values must not count."""
    return {
        key: pd.DataFrame([[9, 9, 0.1, 0.1], [1, 2, *values]], columns=SCORE_COLUMNS)
        for key, values in accuracy.items()
    }


def test_last_epoch_counts_and_seed_1_is_not_seed_10() -> None:
    table = summarise(
        scores({("Hara", 1, 0): (0.5, 0.5), ("Hara", 1, 10): (0.6, 0.7),
                ("Hara", 10, 0): (0.5, 0.5), ("Hara", 10, 10): (0.8, 0.9)})
    )  # fmt: skip
    hara = table[(table["method"] == "Hara") & table["seed"].notna()]
    assert dict(zip(hara["seed"], hara["test_accuracy"], strict=True)) == {1: 0.7, 10: 0.9}
    mean = table[(table["method"] == "Hara") & (table["mean"] == "mean")]
    assert mean["test_accuracy"].item() == pytest.approx(0.8)


def test_no_removal_is_flat_over_every_n() -> None:
    accuracy = {("Hara", 0, n): (0.5, 0.4 + n / 100) for n in (0, 1, 10)}
    table = summarise(scores(accuracy))
    flat = table[(table["method"] == "No Removal") & (table["mean"] == "mean")]
    assert flat["n_drops"].tolist() == [1, 10]
    assert flat["test_accuracy"].tolist() == [0.4, 0.4]


@pytest.mark.parametrize("counts", [[], [7], list(range(1, 11))])
@pytest.mark.parametrize("seeds", [[0], [0, 1, 2]])
def test_picture_for_no_one_and_ten_n(counts: list[int], seeds: list[int], tmp_path: Path) -> None:
    accuracy = {
        (method, seed, n): (0.5, 0.5 + seed / 10)
        for method in ("Hara", "Random")
        for seed in seeds
        for n in (0, *counts)
    }
    table = summarise(scores(accuracy))
    draw(table, "digits", OutputFolder(tmp_path))
    with Image.open(tmp_path / "fig" / "result.png") as picture:
        assert picture.size == (1200, 750)
