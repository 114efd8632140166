"""`--flip_labels`, and the method that finds wrong labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nnabla as nn
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.recorded import RecordedTrial, recorded_trial
from sgd_influence.flips_found import _flips_among_suspects
from tests.helpers.runs import contents, save_manifest, sgd_influence
from tests.helpers.tiny import digit_images, smooth_net
from utils.columns import IMAGE, LABEL, ROW, SET
from utils.data.decode import Form
from utils.data.flips import flipped, with_flips
from utils.data.images import ImageSet
from utils.data.label_table import IS_ISSUE
from utils.data.source import Source
from utils.data.splits import SplitFiles, TrialData
from utils.methods import METHODS
from utils.output.manifest import Manifest
from utils.output.paths import OutputPaths
from utils.output.results import FLIPPED, Results
from utils.output.storage import read_csv
from utils.training.network import Network
from utils.training.sgd import Optimiser, margins_of, step_batch
from utils.training.steps import plan_steps
from utils.training.trial import Trial

FLIPS = "--model mlp --methods AUM Random --flip_labels 0.2 -e 3"
FILE = "summary/flipped_labels.csv"
N_FLIPPED = (7, 15)
"""Of the sixty training images of the first two trials; a fifth of all 1,397."""

# ------------------------------------------------------------------- which labels


def test_a_share_of_the_labels_becomes_another_class() -> None:
    labels = np.resize(np.arange(10, dtype=np.int32), 5000)
    wrong = flipped(labels, 10, 0.3, seed=3)
    differ = wrong != labels
    assert differ.sum() == 1500
    assert wrong.dtype == labels.dtype
    distance = np.bincount((wrong - labels)[differ] % 10, minlength=10)
    assert distance[0] == 0 and distance[1:].min() > 120 and distance[1:].max() < 220
    assert np.array_equal(flipped(labels, 10, 0.3, seed=3), wrong)
    assert (flipped(labels, 10, 0.3, seed=4) != wrong).any()


def test_two_classes_change_places() -> None:
    labels = np.array([0, 1, 1, 0], np.int32)
    assert (flipped(labels, 2, 0.99, seed=0) == 1 - labels).all()


def test_rows_of_the_same_image_are_flipped_each_by_itself(tmp_path: Path) -> None:
    table = pd.DataFrame({IMAGE: ["/a", "/a"] * 50, LABEL: [0, 1] * 50})
    source = Source(
        name="twice", folder=tmp_path, training=table, test=table, n_classes=2,
        class_names=("0", "1"), fingerprint="", form=Form(), damping=0.1, n_validation=2,
    )  # fmt: skip
    rows = np.arange(30, 60)
    nothing = np.empty((len(rows), 1, 1, 1), np.uint8)
    labels = table[LABEL].to_numpy(np.int32)
    images = ImageSet(nothing, labels[rows], ("/a",) * len(rows), rows)
    data = TrialData(images, images, images, SplitFiles(tmp_path, tmp_path, tmp_path))
    wrong = flipped(labels, 2, 0.5, seed=1)
    assert with_flips(data, source, 0.5, 1).training.labels.tolist() == wrong[rows].tolist()
    assert len(set(zip(labels[rows], wrong[rows], strict=True))) == 4  # both fates of both labels


# ------------------------------------------------------------------- margins


def test_margins_are_those_of_a_loop() -> None:
    logits = np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32)
    labels = np.array([0, 3, 1, 2, 2, 0, 3], np.int32)
    naive = [row[k] - max(np.delete(row, k)) for row, k in zip(logits, labels, strict=True)]
    assert margins_of(logits, labels).tolist() == naive


@pytest.fixture(scope="module")
def noisy() -> tuple[RecordedTrial, np.ndarray]:
    """A training with a tenth of its labels wrong, and which they are."""
    clean = digit_images(0, 400)
    labels = flipped(clean.labels, 10, 0.1, seed=0)
    training = ImageSet(clean.images, labels, ())
    network = Network(smooth_net, training.shape, 10)
    steps = plan_steps(0, 400, 8, 32, 0.3)
    trial = recorded_trial(0, network, training, digit_images(400, 500), steps, Optimiser(), 1)
    return trial, labels != clean.labels


def test_margins_are_recorded_as_each_step_saw_its_batch(
    noisy: tuple[RecordedTrial, np.ndarray],
) -> None:
    trial = noisy[0]
    for t in (0, len(trial.steps) - 1):
        step = trial.steps[t]
        trial.network.load(trial.state_before(t))
        x, y = step_batch(trial.data.training, step)
        logits = trial.network.logits(nn.Variable.from_numpy_array(x), test=False)
        logits.forward()
        there = trial.margins()[step.epoch, step.indices]
        assert np.allclose(there, margins_of(logits.d, y[:, 0]), atol=1e-5)


def test_aum_finds_wrong_labels(noisy: tuple[RecordedTrial, np.ndarray]) -> None:
    trial, wrong = noisy
    score = METHODS["AUM"].score(trial)
    assert np.allclose(score, trial.margins().mean(axis=0))
    assert roc_auc_score(wrong, -score) > 0.85
    assert roc_auc_score(wrong, -METHODS["Random"].score(trial)) < 0.7


# ------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run of two trials."""
    output = tmp_path_factory.mktemp("flips")
    assert sgd_influence(output, f"{FLIPS} -nt 2") == 0
    return output


@pytest.fixture
def output(run: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(run, tmp_path / "out")


def test_the_flips_are_listed_and_trained_on(run: Path, data_cache: Path) -> None:
    flips = read_csv(run / FILE)
    assert tuple(flips) == FLIPPED
    assert flips["seed"].tolist() == [0] * N_FLIPPED[0] + [1] * N_FLIPPED[1]
    for seed in (0, 1):
        own = flips[flips["seed"] == seed].set_index("datasource_index")
        given = read_csv(next(data_cache.glob(f"**/*n_train_60*/digits_training_{seed}.csv")))
        scored = read_csv(run / f"influence/AUM/influence_aum_{seed}.csv")
        trained = scored.set_index("datasource_index").sort_index()[LABEL]
        differ = given.index[given[LABEL] != trained]
        assert differ.tolist() == own.index.tolist()
        assert own["label"].tolist() == given[LABEL][differ].tolist()
        assert own["flipped_to"].tolist() == trained[differ].tolist()
        assert own[IMAGE].tolist() == given[IMAGE][differ].tolist()


def test_a_run_says_what_is_flipped_and_what_was_found(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sgd_influence(output, f"{FLIPS} -nt 2") == 0
    printed = capsys.readouterr().out
    assert "Flipped labels experiment: 7 of 60 training images have the label of another" in printed
    flips = read_csv(output / FILE)
    for method in ("AUM", "Random"):
        found = 0
        for seed in (0, 1):
            name = f"influence/{method}/influence_{method.lower()}_{seed}.csv"
            worst = read_csv(output / name)["datasource_index"][:11]
            found += worst.isin(flips.loc[flips["seed"] == seed, "datasource_index"]).sum()
        line = f"Of the 11 worst by {method}, {found / 2:g} were flipped labels (expected by chance"
        assert f"{line}: 2.02)" in printed
    table = read_csv(output / "labels/label_issues.csv")
    suspects = table[(table["set"] == "training") & (table["is_label_issue"] == 1)]
    hits = suspects[IMAGE].isin(flips[IMAGE]).sum()
    both = f"{hits} of the {flips[IMAGE].nunique()} flipped labels"
    found_by_check = f"The labels of {len(suspects)} training images look wrong: {both}"
    none = f"The label check found none of the {flips[IMAGE].nunique()} flipped labels"
    assert (found_by_check if len(suspects) else none) in printed


def test_no_suspect_is_no_flip_found(tmp_path: Path) -> None:
    results = Results(OutputPaths(tmp_path))
    table = pd.DataFrame({SET: ["training"] * 2, ROW: [0, 1], IS_ISSUE: [0, 0]})
    results.keep(table, results.paths.label_issues)
    line = "The label check found none of the 2 flipped labels"
    assert _flips_among_suspects(results, {0, 1}) == line


def test_the_lists_of_an_experiment_are_not_for_use(
    output: Path, data_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is removed bears the label trained on; what is kept, the data set's own."""
    assert sgd_influence(output, f"{FLIPS} -nt 1 --cleanse_n 20") == 0
    experiment = "this is an experiment: 20 % of the images have a flipped label (--flip_labels)"
    assert f"Note: {experiment}" in capsys.readouterr().out
    recommendation = json.loads((output / "summary/recommendation.json").read_text())
    assert recommendation["what_if"].startswith(experiment)
    assert "This is an experiment" in (output / "report/index.html").read_text()
    flips = read_csv(output / FILE).query("seed == 0").set_index(IMAGE)
    removed = read_csv(output / "cleansed/AUM_removed_20.csv").set_index(IMAGE)[LABEL]
    kept = read_csv(output / "cleansed/AUM_train_cleansed_20.csv").set_index(IMAGE)[LABEL]
    found = flips.index.intersection(removed.index)
    assert len(found) > 0
    assert removed[found].tolist() == flips["flipped_to"][found].tolist()
    others = flips.index.intersection(kept.index)
    assert len(others) > 0
    assert kept[others].tolist() == flips["label"][others].tolist()


def test_a_trial_more_adds_its_flips(run: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    assert sgd_influence(first, FLIPS) == 0
    assert len(read_csv(first / FILE)) == N_FLIPPED[0]
    assert sgd_influence(first, f"{FLIPS} -nt 2") == 0
    assert contents(first) == contents(run)
    assert sgd_influence(first, FLIPS) == 0
    assert contents(first)[FILE] == contents(run)[FILE]


def test_flips_belong_to_the_settings(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sgd_influence(output, f"{FLIPS} --flip_labels 0.1") == 2
    assert "--flip_labels was 0.2, now 0.1" in capsys.readouterr().err
    assert sgd_influence(output, FLIPS.replace("--flip_labels 0.2", "")) == 2
    assert "--flip_labels was 0.2, now None" in capsys.readouterr().err
    assert FILE in Manifest.read(OutputPaths(output)).outputs


def test_one_split_has_one_set_of_flips(tmp_path: Path) -> None:
    assert sgd_influence(tmp_path, f"{FLIPS} -nt 2 -e 1 -r 0 --methods Random --split_seed 7") == 0
    flips = read_csv(tmp_path / FILE).drop(columns="seed").to_numpy().tolist()
    assert len(flips) > 2
    assert flips[: len(flips) // 2] == flips[len(flips) // 2 :]


def test_an_image_has_one_label_in_all_trials(data_cache: Path, tmp_path: Path) -> None:
    """Flipped in one that trains on it, it is in every other."""
    sizes = "--n_train 1000 --n_val 30 --n_test 30"
    more = f"--model mlp --methods Random --flip_labels 0.1 -nt 2 -e 1 -r 0 {sizes}"
    assert sgd_influence(tmp_path, more) == 0
    scored = [
        read_csv(tmp_path / f"influence/Random/influence_random_{seed}.csv").set_index(IMAGE)
        for seed in (0, 1)
    ]
    both = scored[0].index.intersection(scored[1].index)
    assert len(both) > 500
    assert scored[0][LABEL][both].equals(scored[1][LABEL][both])
    flips = read_csv(tmp_path / FILE)
    assert all(80 < n < 120 for n in flips["seed"].value_counts())
    assert flips["seed"].nunique() == 2


def test_nothing_is_listed_without_flips(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sgd_influence(tmp_path, "--model mlp --methods Random -r 0") == 0
    assert not (tmp_path / FILE).exists()
    assert "lipped" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("share", "printed"),
    [
        ("0.0001", "--flip_labels 0.0001: of 1397 images that is none; give a larger share"),
        ("0", "--flip_labels 0.0: must be a share above 0 and below 1"),
        ("1", "--flip_labels 1.0: must be a share above 0 and below 1"),
        ("nan", "--flip_labels nan: must be a share above 0 and below 1"),
    ],
)
def test_shares_that_cannot_be(
    share: str, printed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sgd_influence(tmp_path / "out", f"--flip_labels {share}") == 2
    assert printed in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------- the record


def test_a_training_that_goes_on_has_the_same_margins(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, step = [], Trial.take_step

    def fails_in_the_last_epoch(trial, t: int, removed: np.ndarray | None = None) -> float:
        taken.append(t)
        if len(taken) == 10:
            raise KeyboardInterrupt
        return step(trial, t, removed)

    monkeypatch.setattr(Trial, "take_step", fails_in_the_last_epoch)
    assert sgd_influence(tmp_path, f"{FLIPS} -j 1") == 130
    assert sgd_influence(tmp_path, f"{FLIPS} -j 1") == 0
    assert taken[9:13] == [9, 8, 9, 10]  # the last epoch of four steps again, no other
    name = "infl_results_sgd/seed_00/margins.npy"
    assert (tmp_path / name).read_bytes() == (run / name).read_bytes()
    assert np.load(run / name).all()


def test_a_training_without_margins_is_one_line(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    margins = output / "infl_results_sgd/seed_00/margins.npy"
    manifest = Manifest.read(OutputPaths(output))
    del manifest.outputs["infl_results_sgd/seed_00/margins.npy"]
    save_manifest(manifest)
    for path in (margins, output / "influence/AUM/influence_aum_0.csv"):
        path.unlink()
    assert sgd_influence(output, FLIPS) == 2
    assert f"{margins}: is not there, an earlier version did" in capsys.readouterr().err
