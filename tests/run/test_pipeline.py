"""Whole runs: files, reruns, seeds, odd sizes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import utils.run.tasks
from tests.helpers.runs import contents, influence_functions, sgd_influence
from utils.columns import IMAGE
from utils.output.paths import UNREPEATABLE
from utils.output.storage import read_csv

ALL_METHODS = ["Hara", "Ours", "Random"]
SCORES = ["val_loss", "test_loss", "val_accuracy", "test_accuracy"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of one run of eval_sgd_influence.py."""
    output = tmp_path_factory.mktemp("finished")
    assert sgd_influence(output) == 0
    return output


def test_influence_files(finished: Path) -> None:
    for method in ALL_METHODS:
        path = finished / "influence" / method / f"influence_{method.lower()}_0.csv"
        table = read_csv(path)
        assert list(table) == ["x:image", "y:label", "influence", "datasource_index"]
        assert table["influence"].is_monotonic_increasing
        assert sorted(table["datasource_index"]) == list(range(60))
        for image in table[IMAGE]:
            assert Path(image).is_absolute()
            with Image.open(image) as picture:
                picture.verify()
    random = read_csv(finished / "influence/Random/influence_random_0.csv")
    assert random["influence"].tolist() == list(range(60))
    assert random["datasource_index"].tolist() != list(range(60))


def test_datasource_index_is_the_row_of_the_training_csv(finished: Path, data_cache: Path) -> None:
    training = read_csv(next(data_cache.glob("**/*n_train_60*/digits_training_0.csv")))
    table = read_csv(finished / "influence/Hara/influence_hara_0.csv")
    rows = training.iloc[table["datasource_index"]]
    assert rows[IMAGE].tolist() == table[IMAGE].tolist()
    assert rows["y:label"].tolist() == table["y:label"].tolist()


def test_score_files_and_shared_no_removal(finished: Path) -> None:
    for method in ALL_METHODS:
        for n in (0, 5):
            path = finished / "score" / method / f"score_delete_worst_{n}_seed_0.csv"
            table = read_csv(path)
            assert list(table) == SCORES
            assert len(table) == 1
    unchanged = [finished / f"score/{m}/score_delete_worst_0_seed_0.csv" for m in ALL_METHODS]
    assert len({path.read_bytes() for path in unchanged}) == 1


def test_no_removal_repeats_the_training(finished: Path) -> None:
    curve = read_csv(finished / "infl_results_sgd/seed_00/learning_curve.csv")
    assert list(curve) == ["epoch", "train_loss", "val_loss", "val_accuracy"]
    score = read_csv(finished / "score/Hara/score_delete_worst_0_seed_0.csv")
    assert score["val_loss"].iloc[-1] == curve["val_loss"].iloc[-1]
    assert score["val_accuracy"].iloc[-1] == curve["val_accuracy"].iloc[-1]


def test_summary(finished: Path) -> None:
    summary = read_csv(finished / "summary/summary.csv").iloc[:, 1:]
    assert list(summary) == [*SCORES, "method", "seed", "n_drops", "mean", "std"]
    assert set(summary["method"]) == {"No Removal", *ALL_METHODS}
    mean = summary[summary["mean"] == "mean"]
    assert mean["seed"].isna().all()
    hara = read_csv(finished / "score/Hara/score_delete_worst_5_seed_0.csv").iloc[-1]
    row = mean[(mean["method"] == "Hara") & (mean["n_drops"] == 5)].iloc[0]
    assert row[SCORES].astype(float).tolist() == hara.tolist()


def test_files_of_the_training(finished: Path) -> None:
    files = {str(p.relative_to(finished)) for p in finished.glob("infl_results_sgd/**/*.*")}
    folder = "infl_results_sgd/seed_00"
    states = {f"{folder}/epoch01/weights/model_step{t:04d}.h5" for t in (0, 2)}
    assert files == states | {
        f"{folder}/final_model.h5",
        f"{folder}/final_model.nnp",
        f"{folder}/steps.npz",
        f"{folder}/learning_curve.csv",
        f"{folder}/margins.npy",
        f"{folder}/label_record_0002.npz",
    }
    assert (finished / "fig/result.png").read_bytes().startswith(b"\x89PNG")


def test_same_command_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    assert sgd_influence(tmp_path) == 0
    assert contents(tmp_path) == contents(finished)
    for kind in ("h5", "nnp", "npz", "json"):
        there = contents(finished, f"**/*.{kind}")
        others = {k: v for k, v in there.items() if not k.startswith(("manifest", *UNREPEATABLE))}
        assert others.items() <= contents(tmp_path, f"**/*.{kind}").items()


def test_two_trials_equal_two_runs_of_one(finished: Path, tmp_path: Path) -> None:
    both, second = tmp_path / "both", tmp_path / "second"
    assert sgd_influence(both, "-nt 2") == 0
    assert sgd_influence(second, "--seed 1") == 0
    single = contents(finished) | contents(second)
    joint = ("summary", "cleansed", "labels")
    of_trials = {k: data for k, data in contents(both).items() if not k.startswith(joint)}
    assert of_trials == {name: single[name] for name in of_trials}
    assert len(of_trials) == sum(not name.startswith(joint) for name in single)

    summary = read_csv(both / "summary/summary.csv")
    hara = summary[(summary["method"] == "Hara") & (summary["n_drops"] == 5)]
    losses = hara[hara["seed"].notna()]["val_loss"].to_numpy()
    assert len(losses) == 2
    assert hara[hara["mean"] == "mean"]["val_loss"].item() == pytest.approx(losses.mean())
    assert hara[hara["std"] == "std"]["val_loss"].item() == pytest.approx(losses.std(ddof=1))


def test_influence_functions_run(tmp_path: Path) -> None:
    assert influence_functions(tmp_path) == 0
    path = tmp_path / "influence/Influence_functions/influence_influence_functions_0.csv"
    table = read_csv(path)
    assert len(table) == 60
    assert table["influence"].std() > 0
    summary = read_csv(tmp_path / "summary/summary.csv")
    assert set(summary["method"]) == {"No Removal", "Influence_functions", "Random"}


@pytest.mark.parametrize(
    "more",
    ["-e 1", "-ra", "--batch_size 100", "--batch_size 59", "-r 0", "-r 59", "--split_seed 7"],
)
def test_odd_sizes_run(more: str, tmp_path: Path) -> None:
    assert sgd_influence(tmp_path, f"{more} --methods Hara Random") == 0
    table = read_csv(tmp_path / "influence/Hara/influence_hara_0.csv")
    assert np.isfinite(table["influence"]).all()
    rows = len(read_csv(tmp_path / "score/Hara/score_delete_worst_0_seed_0.csv"))
    assert rows == (2 if more == "-ra" else 1)
    assert (tmp_path / "fig/result.png").exists()


def test_finished_stages_are_taken_up(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("a finished stage was run again")

    before = contents(finished)
    monkeypatch.setattr(utils.run.tasks, "train_epoch", forbidden)
    monkeypatch.setattr(utils.run.tasks, "evaluate_without", forbidden)
    assert sgd_influence(finished) == 0
    assert contents(finished) == before
    assert "training reused" in capsys.readouterr().out


def test_more_n_and_methods_extend_a_run(tmp_path: Path) -> None:
    assert sgd_influence(tmp_path, "-r 5 --methods Random") == 0
    first = contents(tmp_path, "score/**/*.csv") | contents(tmp_path, "**/*.h5")
    assert sgd_influence(tmp_path, "-r 10 5 5 --methods Ours Random") == 0
    after = contents(tmp_path, "score/**/*.csv") | contents(tmp_path, "**/*.h5")
    assert first.items() <= after.items()
    assert "score/Ours/score_delete_worst_10_seed_0.csv" in after
    assert sgd_influence(tmp_path, "-r 20 --methods Random") == 0
    summary = read_csv(tmp_path / "summary/summary.csv")
    mean = summary[summary["mean"] == "mean"]
    shown = mean[mean["method"] != "No Removal"][["method", "n_drops"]].to_numpy().tolist()
    pairs = [["Ours", 5], ["Ours", 10], ["Random", 5], ["Random", 10], ["Random", 20]]
    assert sorted(shown) == pairs
    recommendation = json.loads((tmp_path / "summary/recommendation.json").read_text())
    judged = {name: [row["n"] for row in rows] for name, rows in recommendation["gains"].items()}
    assert judged == {"Random": [5, 10, 20], "Ours": [5, 10]}
    assert "Not judged" not in recommendation["about"]
    assert sgd_influence(tmp_path, "-r 5 -nt 2 --methods Random") == 0
    recommendation = json.loads((tmp_path / "summary/recommendation.json").read_text())
    words = "Not judged: Ours, not scored in all trials of this command (--methods)."
    assert recommendation["about"].endswith(words)


def test_trials_with_no_image_in_common_and_other_methods(tmp_path: Path) -> None:
    """The page does without a comparison; the label check judges by all trials."""
    small = "-ds digits -e 1 -nt 1 -r 0 5 --n_train 12 --n_val 10 --n_test 10"
    assert sgd_influence(tmp_path, "--methods Hara --seed 0", small) == 0
    assert sgd_influence(tmp_path, "--methods AUM --seed 1", small) == 0
    trained = [
        set(read_csv(tmp_path / f"influence/{m}/influence_{m.lower()}_{seed}.csv")["x:image"])
        for m, seed in (("Hara", 0), ("AUM", 1))
    ]
    assert not trained[0] & trained[1]
    page = (tmp_path / "report/index.html").read_text(encoding="utf-8")
    assert "Fewer than two images have scores by all methods." in page
    issues = read_csv(tmp_path / "labels/label_issues.csv")
    assert trained[0] | trained[1] <= set(issues["x:image"])


def test_other_options_are_refused_unless_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sgd_influence(tmp_path, "-r 0 --methods Random") == 0
    before = contents(tmp_path)
    assert sgd_influence(tmp_path, "-r 0 --methods Random --lr 0.02 -e 1") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "--lr was 0.05, now 0.02" in line
    assert "--n_epochs was 2, now 1" in line
    assert contents(tmp_path) == before
    assert sgd_influence(tmp_path, "-r 0 --methods Random --lr 0.02 -e 1 --overwrite") == 0
    assert contents(tmp_path) != before


def test_skipped_n_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sgd_influence(tmp_path, "-r 60 3 1000 --methods Random") == 0
    printed = capsys.readouterr().out
    assert "Removing n     0 3 (skipped: 60 1000" in printed
    assert "skipped: 60 1000" in (tmp_path / "run.log").read_text()
