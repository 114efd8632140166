"""The reproduction of the papers' experiments and the measured differences: runs, tables, pages."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import deviations, reproduction
from benchmarks.make_archives import write_full, write_idx
from benchmarks.pictures import small_net
from benchmarks.reproduction_tables import (
    blocks_of,
    chosen_table,
    errors_of,
    errors_tables,
    filled,
    verdict,
)
from benchmarks.stored import stored
from utils.data.datasets import DATASETS, read_mnist
from utils.errors import UserError
from utils.output.storage import read_csv

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
SCORES = ["val_loss", "test_loss", "val_accuracy", "test_accuracy"]
BLOCKS = ("runs", "errors", "chosen", "storage")
PAGE = "".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in BLOCKS)


def row(method: str, seed: int, n: int, accuracy: float) -> dict[str, object]:
    return {"run": "subset", "dataset": "mnist", "method": method, "seed": seed, "n_drops": n,
            "test_accuracy": accuracy}  # fmt: skip


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with the test images of a data set of the size of 60."""
    folder = tmp_path / "data"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 28, 28), dtype=np.uint8)
    write_idx(pixels, folder / "t10k-images-idx3-ubyte.gz")
    write_idx((np.arange(60) % 10).astype(np.uint8), folder / "t10k-labels-idx1-ubyte.gz")
    return folder


def test_trials_are_run_and_stored_one_by_one(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproduction, "N_TRAIN", 40)
    monkeypatch.setattr(reproduction, "N_TEST", 20)
    monkeypatch.setitem(
        reproduction.OPTIONS, "subset",
        "--n_train 20 --n_val 10 --n_test 10 --image_size 8 --model mlp -e 1 -r 2 --context cpu",
    )  # fmt: skip
    monkeypatch.setattr(reproduction, "commit", lambda: "0012345")  # must stay text
    out, page = tmp_path / "out", tmp_path / "page.md"
    page.write_text(PAGE)
    where = ["--work", str(tmp_path / "work"), "--out", str(out), "--page", str(page)]
    reproduction.main(
        [
            "--data",
            str(images),
            "--run",
            "subset",
            "--seeds",
            "0",
            "1",
            "--datasets",
            "mnist",
            *where,
        ]
    )
    scores = read_csv(out / "reproduction.csv")
    assert scores.groupby(["seed", "method", "n_drops"]).size().to_dict() == {
        (seed, method, n): 1
        for seed in (0, 1)
        for method, n in (("No Removal", 0), ("Hara", 2), ("Ours", 2),
                          ("Influence_functions", 2), ("Random", 2), ("Hara_exact", 2))
    }  # fmt: skip
    assert (read_csv(out / "reproduction_runs.csv")["cpu_seconds"] > 0).all()
    assert (out / "reproduction_subset.png").exists()
    assert "| No Removal |" in page.read_text()
    assert "| subset | mnist | 0, 1 |" in page.read_text()
    assert "| 0012345 |" in page.read_text()


def test_a_trial_is_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_command(arguments: list[str]) -> tuple[int, float]:
        output = Path(arguments[arguments.index("-o") + 1])
        (output / "summary").mkdir(parents=True, exist_ok=True)
        scores = [row("No Removal", 3, 2, 0.5), row("Influence_functions", 3, 2, 0.6)]
        summary = pd.DataFrame(scores).reindex(columns=["seed", "method", "n_drops", *SCORES])
        summary.to_csv(output / "summary" / "summary.csv")
        assert "Influence_functions" in arguments
        return status, 1.5

    monkeypatch.setattr(reproduction, "run_command", run_command)
    experiment = reproduction.Experiment("subset", "mnist", "-r 2")
    status = 0
    rows = reproduction.run_trial(experiment, 3, [], tmp_path)
    assert list(zip(rows["method"], rows["n_drops"], strict=True)) == [
        ("No Removal", 0),
        ("Influence_functions", 2),
    ]
    assert rows["cpu_seconds"].tolist() == [1.5, 1.5]
    status = 2
    with pytest.raises(SystemExit):
        reproduction.run_trial(experiment, 3, [], tmp_path)


def test_full_archives_are_taken_or_made(images: Path, tmp_path: Path) -> None:
    """Those in the data folder where they are whole, else archives of all its images."""
    full = reproduction.Experiment("full", "mnist", "")
    with pytest.raises(UserError, match="is not there, and --run full needs all images"):
        reproduction.archives_of(full, images, tmp_path / "work")
    pixels = np.random.default_rng(1).integers(0, 256, (90, 28, 28), dtype=np.uint8)
    write_idx(pixels, images / "train-images-idx3-ubyte.gz")
    write_idx((np.arange(90) % 10).astype(np.uint8), images / "train-labels-idx1-ubyte.gz")
    assert reproduction.archives_of(full, images, tmp_path)[1] == str(images)
    write_full(images, tmp_path, names=["mnist"])
    made = [read_mnist([tmp_path / f.name for f in DATASETS["mnist"].archives])]
    (training, labels), (test, _) = made[0]
    order = np.random.default_rng(0).permutation(90)
    assert np.array_equal(training[..., 0], pixels[order])
    assert np.array_equal(labels, order % 10) and len(test) == 60


def test_rows_of_other_trials_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    old = pd.DataFrame([row("Hara", 0, 1, 0.5), row("Hara", 1, 1, 0.6)])
    old.to_csv(path, index=False)
    merged = reproduction.merged(pd.DataFrame([row("Hara", 1, 1, 0.7)]), path)
    assert merged["test_accuracy"].tolist() == [0.5, 0.7]


def test_change_is_paired_and_only_clear_ones_are_named() -> None:
    rows = [row("No Removal", seed, 0, 0.5 + 0.1 * seed) for seed in range(3)]
    rows += [row("Hara", seed, 6, 0.52 + 0.1 * seed + 0.001 * seed) for seed in range(3)]
    rows += [row("Random", seed, 6, 0.5 + 0.1 * seed + 0.05 * (seed - 1)) for seed in range(3)]
    errors = errors_of(pd.DataFrame(rows))
    change = errors[errors["method"] == "Hara"]["change"]
    assert change.to_numpy() == pytest.approx([-2, -2.1, -2.2])
    assert verdict(errors).endswith(": Hara at n = 6 (-2.10).")


def test_changes_of_two_trials_are_not_judged_and_columns_have_their_trials() -> None:
    rows = [row("No Removal", seed, 0, 0.5) for seed in range(3)]
    rows += [row("Hara", seed, 6, 0.6) for seed in range(3)]
    rows += [row("Hara", seed, 9, 0.7) for seed in range(2)]
    scores = pd.DataFrame(rows)
    assert verdict(errors_of(scores)).endswith(": Hara at n = 6 (-10.00).")
    assert "| trials | 3 | 2 |" in errors_tables(scores)


def test_n_is_chosen_on_validation_among_those_of_all_trials() -> None:
    def full(method: str, seed: int, n: int, accuracy: float, loss: float) -> dict[str, object]:
        return row(method, seed, n, accuracy) | {"run": "full", "val_loss": loss}

    rows = [full("No Removal", seed, 0, 0.5, 1.0) for seed in range(2)]
    rows += [full("Hara", 0, 5, 0.51, 0.8), full("Hara", 0, 9, 0.6, 0.9)]
    rows += [full("Hara", 1, 5, 0.52, 0.9), full("Hara", 1, 9, 0.54, 0.8)]
    rows += [full("Hara", 0, 70, 0.9, 0.1)]  # one trial alone has it
    without = chosen_table(pd.DataFrame(rows)).splitlines()
    assert without[2] == "| mnist | Hara | 5, 9 | -2.50 ± 2.12 | 1.50 |  |"
    rows += [full("Random", 0, 5, 0.51, 1.0), full("Random", 1, 5, 0.5, 1.0)]
    table = chosen_table(pd.DataFrame(rows)).splitlines()
    assert table[2] == "| mnist | Hara | 5, 9 | -2.50 ± 2.12 | 1.50 | -2.00 ± 2.83 |"
    assert table[3] == "| mnist | Random | 5, 5 | -0.50 ± 0.71 | 0.50 |  |"


def test_a_block_needs_its_place() -> None:
    text = "a\n<!-- x -->\nold\n<!-- /x -->\nb"
    assert filled(text, {"x": "new"}) == "a\n<!-- x -->\nnew\n<!-- /x -->\nb"
    with pytest.raises(ValueError, match="one place named y"):
        filled(text, {"y": "new"})


def test_figures_of_the_page_are_those_of_the_results() -> None:
    scores, runs = (stored(RESULTS / name) for name in (reproduction.RESULTS, reproduction.RUNS))
    text = (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8")
    assert filled(text, blocks_of(scores, runs)) == text


def test_measured_differences_are_those_of_the_results() -> None:
    raw = read_csv(RESULTS / "deviations.csv")
    text = (ROOT / "docs" / "differences.md").read_text(encoding="utf-8")
    assert filled(text, {"deviations": deviations.table_of(raw)}) == text


def test_variants_leave_out_what_they_say() -> None:
    """On one trial: they differ from the whole sweep, and from each other."""
    scores = deviations.scores_of(deviations.digits_trial(0, partial(small_net, smooth=True)))
    assert list(scores) == [*deviations.VARIANTS, deviations.FINAL]
    vectors = np.stack(list(scores.values()))
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert distances.min() > 1e-6 * np.abs(vectors).max()
