"""The Python interface: the command's results from arrays and CSV files, and nothing else."""

from __future__ import annotations

import doctest
import importlib
import inspect
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nnabla as nn
import nnabla.random
import numpy as np
import pandas as pd
import pytest
from nnabla.ext_utils import get_extension_context
from PIL import Image
from threadpoolctl import threadpool_info, threadpool_limits

import sgd_influence
from sgd_influence import METHODS, Cleanser, Images, UserError
from sgd_influence.train import train_epoch
from tests.helpers.nnp import console_project, write_nnp
from tests.helpers.own_images import class_folders, rows_of
from tests.helpers.runs import ROOT
from tests.helpers.runs import sgd_influence as run_command
from tests.helpers.tiny import dense_net, logistic_regression
from utils.columns import IMAGE, LABEL
from utils.data.source import CACHE_VARIABLE
from utils.methods import Method
from utils.training.models import MODELS
from utils.training.trial import Trial

OPTIONS: dict[str, Any] = {
    "model": "mlp",
    "n_epochs": 2,
    "batch_size": 8,
    "seed": 3,
    "context": "cpu",
}
COMMAND = (
    "-e 2 --batch_size 8 --seed 3 --model mlp --context cpu --image_size 8 -nt 1 -r 0 3 "
    "--verify 6 --no_report"
)


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An NNC CSV file of 40 images in no order."""
    folder = tmp_path_factory.mktemp("images")
    class_folders(folder, per_class=20)
    rows = np.random.default_rng(0).permutation(rows_of(40)).tolist()
    path = folder / "images.csv"
    path.write_text("\n".join(["x:image,y:label", *rows, ""]))
    return path


@pytest.fixture(scope="module")
def output(csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command makes of it."""
    folder = tmp_path_factory.mktemp("command") / "out"
    more = f"-ds {csv} --methods Hara AUM"
    assert run_command(folder, more, COMMAND) == 0
    return folder


@pytest.fixture(scope="module")
def fitted(csv: Path) -> Iterator[Cleanser]:
    with Cleanser(Images.from_csv(csv, image_size=8), **OPTIONS) as cleanser:
        yield cleanser.fit()


@pytest.fixture
def places(csv: Path) -> dict[str, int]:
    """The row of the CSV file of each image."""
    named = pd.read_csv(csv)[IMAGE]
    return {str(csv.parent / name): row for row, name in enumerate(named)}


def arrays_of(csv: Path) -> tuple[np.ndarray, np.ndarray]:
    table = pd.read_csv(csv)
    images = [np.asarray(Image.open(csv.parent / name)) for name in table[IMAGE]]
    return np.stack(images), table[LABEL].to_numpy()


def small(**more: Any) -> Images:
    rng = np.random.default_rng(0)
    given = {"X": rng.integers(0, 256, (40, 8, 8), np.uint8), "y": np.arange(40) % 2}
    return Images(**given | more)


# ---------------------------------------------------------------- the same as the command


@pytest.mark.parametrize("method", ["Hara", "AUM"])
def test_scores_are_those_of_the_command_in_the_order_of_y(
    method: str, output: Path, fitted: Cleanser, places: dict[str, int]
) -> None:
    path = output / "influence" / method / f"influence_{method.lower()}_3.csv"
    table = pd.read_csv(path, float_precision="round_trip")
    expected = np.full(40, np.nan)
    expected[[places[name] for name in table[IMAGE]]] = table["influence"]
    assert fitted.score(method).tobytes() == expected.tobytes()
    assert len(table) == fitted.training_mask_.sum() == 28
    assert np.array_equal(fitted.training_mask_, ~np.isnan(expected))


def test_a_removal_is_that_of_the_command(output: Path, fitted: Cleanser) -> None:
    removal = fitted.remove(3)
    for n in (0, 3):
        path = output / "score" / "Hara" / f"score_delete_worst_{n}_seed_3.csv"
        row = pd.read_csv(path, float_precision="round_trip").iloc[-1]
        assert removal.loc[n].equals(row.set_axis(removal.columns)), n
    worst = np.isin(np.arange(40), np.argsort(fitted.score())[:3])
    assert fitted.remove(worst).equals(removal)


def test_a_verification_is_that_of_the_command(output: Path, fitted: Cleanser) -> None:
    agreement = fitted.verify(n_groups=6)
    path = output / "verification" / "verification_seed_3.csv"
    table = pd.read_csv(path, float_precision="round_trip")
    own = table[table["method"] == "Hara"].reset_index(drop=True)
    pd.testing.assert_frame_equal(fitted.groups_, own, check_exact=True)
    summary = pd.read_csv(output / "summary" / "agreement.csv", float_precision="round_trip")
    assert agreement["agreement"].tolist() == summary.loc[0, ["random", "ranking"]].tolist()
    assert agreement["low"].tolist() == summary.loc[0, ["low", "ranking_low"]].tolist()
    smoothness = pd.read_csv(output / "summary" / "smoothness.csv", float_precision="round_trip")
    assert [fitted.smoothness_] == smoothness["smoothness"].tolist()


def test_label_issues_are_those_of_the_command(
    output: Path, fitted: Cleanser, places: dict[str, int]
) -> None:
    table = pd.read_csv(output / "labels" / "label_issues.csv", float_precision="round_trip")
    issues = fitted.label_issues()
    assert issues.index.tolist() == [places[name] for name in table[IMAGE]]
    assert issues[IMAGE].tolist() == table[IMAGE].tolist()
    assert set(issues["set"]) == {"training"}  # the one that the user gave
    assert np.array_equal(issues["given_label"], fitted.images.y[issues.index])
    for column in ("is_label_issue", "label_score", "predicted_label", "predicted_score", "aum"):
        assert (issues[column].to_numpy() == table[column].to_numpy()).all(), column
    assert fitted.label_verdict_["n_images"] == 40
    assert str(fitted.label_verdict_["harmful_options"]).startswith("n_epochs ")


def test_arrays_score_as_the_files_that_hold_them(csv: Path, fitted: Cleanser) -> None:
    X, y = arrays_of(csv)
    assert np.array_equal(fitted.images.y, y)
    with Cleanser(Images(X, 10 * y + 1), **OPTIONS) as cleanser:
        assert cleanser.fit().score().tobytes() == fitted.score().tobytes()
    assert cleanser.images.classes.tolist() == [1, 11]


def test_arrays_of_other_forms_hold_the_same_pixels(csv: Path) -> None:
    X, y = arrays_of(csv)
    for given in (X.transpose(0, 3, 1, 2), X / 255, X.astype(float) / 255, X.astype(np.int64)):
        pool = Images(given, y)._source.pool
        assert pool is not None
        assert np.array_equal(pool.images, X)


@pytest.mark.parametrize(
    ("X", "brightest"),
    [
        (np.eye(8, dtype=np.int64), 1),
        (np.eye(8, dtype=np.uint8), 1),
        (np.eye(8) / 255, 1),
        (np.eye(8) / 9, 28),
        (16 * np.eye(8, dtype=np.uint8), 16),
        (np.eye(8), None),
        (32 * np.eye(8, dtype=np.uint8), None),
        (0 * np.eye(8, dtype=np.uint8), None),
    ],
)
def test_pixels_on_another_scale_are_one_warning(
    X: np.ndarray, brightest: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    small(X=np.broadcast_to(X, (40, 8, 8)))
    printed = capsys.readouterr().err
    assert printed.count("nearly black") == (brightest is not None)
    if brightest:
        assert f"X: all images are nearly black, the brightest pixel is {brightest} of" in printed


def test_sets_that_are_given_are_used() -> None:
    val, test = np.zeros((4, 8, 8), np.uint8), np.full((6, 8, 8), 255, np.uint8)
    y_val, y_test = [0, 1, 0, 1], [0, 1, 2, 0, 1, 2]
    images = small(X_val=val, y_val=y_val, X_test=test, y_test=y_test)
    with Cleanser(images, **OPTIONS) as cleanser:
        assert np.isfinite(cleanser.fit().score()).all()
        issues = cleanser.label_issues().sort_index(kind="stable")
    assert images.classes.tolist() == [0, 1, 2]
    for name, labels in (("training", images.y), ("validation", y_val), ("test", y_test)):
        own = issues[issues["set"] == name]
        assert own.index.tolist() == list(range(len(labels)))
        assert own["given_label"].tolist() == list(labels)


def test_places_count_in_the_set_of_the_user(csv: Path, tmp_path: Path) -> None:
    """Half of a validation set becomes the test set; both keep their places in valid.csv."""
    rows = [f"{csv.parent}/{row}" for row in rows_of(40)]
    for name, part in (("train", rows[:30]), ("valid", rows[30:])):
        (tmp_path / f"{name}.csv").write_text("\n".join(["x:image,y:label", *part, ""]))
    images = Images.from_csv(tmp_path, image_size=8)
    places = images.places(np.arange(40))
    assert len(images) == 30
    for name, place, path in zip(
        places["set"], places["row"], images._source.images[IMAGE], strict=True
    ):
        start = 0 if name == "training" else 30
        assert path == rows[start + place].rpartition(",")[0]


# ---------------------------------------------------------------- models, seeds, folders


def test_a_seed_gives_one_result_and_another_seed_another() -> None:
    scores = []
    for seed in (3, 3, 4):
        np.random.seed(seed)  # noqa: NPY002  nothing of the user's counts
        with Cleanser(small(), **OPTIONS | {"seed": seed}) as cleanser:
            scores.append(cleanser.fit().score())
    assert scores[0].tobytes() == scores[1].tobytes()
    assert scores[0].tobytes() != scores[2].tobytes()


def test_functions_are_models_also_of_one_name() -> None:
    def net(x: nn.Variable, n_classes: int, test: bool) -> nn.Variable:
        return dense_net(x, n_classes, test)

    def other(x: nn.Variable, n_classes: int, test: bool) -> nn.Variable:
        return logistic_regression(x, n_classes, test)

    other.__qualname__ = net.__qualname__
    images = small()
    both = [Cleanser(images, **OPTIONS | {"model": model}) for model in (net, other)]
    assert [size_of(one) for one in both] == [4 * 3 + 3 + 3 * 2 + 2, 64 * 2 + 2]
    MODELS.pop(f"{net.__module__}:{net.__qualname__}")


def size_of(cleanser: Cleanser) -> int:
    opened = cleanser.fit()._opened
    assert opened is not None
    return opened.trial.network.n_parameters


SEEN: list[list[str]] = []


def probe(trial: Trial) -> np.ndarray:
    """A method that notes where it computes."""
    SEEN.append(nn.get_current_context().backend)
    return np.arange(trial.n_train)


@pytest.fixture
def own_context() -> Iterator[nn.Context]:
    """Where the user's own graphs compute."""
    before, own = nn.get_current_context(), nn.Context(["cpu:half"], "CpuCachedArray")
    nn.set_default_context(own)
    yield own
    nn.set_default_context(before)


@pytest.mark.usefixtures("own_context")
def test_a_method_of_the_user_computes_where_the_command_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(METHODS, "Probe", Method("Probe", f"{__name__}:probe", predicts=False))
    with Cleanser(small(), **OPTIONS) as cleanser:
        scores = cleanser.fit().score("Probe")
        assert np.array_equal(scores[cleanser.training_mask_], np.arange(28))
        with nn.context_scope(nn.Context()), pytest.raises(UserError, match=r"^called inside nn\."):
            cleanser.score("Probe")
    assert [get_extension_context("cpu").backend] == SEEN


def test_a_folder_that_is_named_is_reused_and_others_are_refused(
    csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, folder = small(), tmp_path / "out"
    first = Cleanser(images, **OPTIONS, output_dir=folder).fit()
    scores = first.score()
    state = next(folder.glob("infl_results_sgd/seed_03/final_model.h5"))
    written = state.stat().st_mtime_ns
    again = Cleanser(images, **OPTIONS, output_dir=folder).fit()  # the first is still open
    assert again.score().tobytes() == scores.tobytes()
    assert state.stat().st_mtime_ns == written
    with pytest.raises(UserError, match=r"^\S+: holds results of other options: lr was 0.05, now"):
        Cleanser(images, **OPTIONS, output_dir=folder, lr=0.1).fit()
    first.close()
    assert state.exists()
    assert run_command(folder, f"-ds {csv}", COMMAND) == 2  # a command keeps to its own
    assert "the command was sgd_influence, now eval_sgd_influence.py" in capsys.readouterr().err


def test_nothing_is_left_on_disk(
    csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("temporary", "cache", "working"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "working")
    images = Images.from_csv(csv, image_size=8)
    cleanser = Cleanser(images, **OPTIONS).fit()
    cleanser.remove(2)
    assert any((tmp_path / "temporary").iterdir())
    del cleanser, images
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []
    assert [*(tmp_path / "temporary").iterdir()] == []
    assert {path.name for path in csv.parent.iterdir()} == {"cat", "dog", "images.csv"}


def test_the_memory_of_a_removal_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[int] = []
    monkeypatch.setattr("sgd_influence.interface.release_memory", lambda: given_back.append(1))
    with Cleanser(small(), **OPTIONS) as cleanser:
        cleanser.fit()
        mask = cleanser.training_mask_ & (np.arange(len(cleanser.training_mask_)) % 2 == 0)
        for _ in range(2):
            cleanser.remove(mask)
    assert len(given_back) == 2


def test_a_folder_that_is_named_from_here_stays_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with Cleanser(small(), **OPTIONS, output_dir="out") as cleanser:
        cleanser.fit()
        monkeypatch.chdir(tmp_path / "elsewhere")
        cleanser.score("Random")
    assert (tmp_path / "out/influence/Random").is_dir()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_the_process_is_left_as_it_was(
    own_context: nn.Context, capfd: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("data_cleansing")
    generator = nnabla.random.prng
    with threadpool_limits(2, "blas"), nn.auto_forward(True):
        before = threads_of_blas(), log.level, [*log.handlers], [*log.filters], log.propagate
        with Cleanser(small(), **OPTIONS) as cleanser:
            cleanser.fit().score("Random")
        after = threads_of_blas(), log.level, [*log.handlers], [*log.filters], log.propagate
        assert after == before
        assert nn.get_auto_forward()
    assert nn.get_current_context() is own_context
    assert nnabla.random.prng is generator
    printed = capfd.readouterr()
    assert printed.out == ""
    assert [line for line in printed.err.splitlines() if "guessing" not in line] == []


def threads_of_blas() -> list[int]:
    return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]


def test_verbose_prints_what_a_command_prints(capfd: pytest.CaptureFixture[str]) -> None:
    with Cleanser(small(), **OPTIONS, verbose=True) as cleanser:
        cleanser.fit().score("Random")
    assert "Trial 3: trained\nTrial 3: influence by Random written\n" in capfd.readouterr().out


# ---------------------------------------------------------------- mistakes


PIXELS = np.zeros((6, 8, 8), np.uint8)


def one_pixel(value: float) -> np.ndarray:
    images = PIXELS.astype(float)
    images[4, 2, 3] = value
    return images


@pytest.mark.parametrize(
    ("X", "line"),
    [
        (np.zeros((6, 64)), "X has the shape (6, 64); give (N, H, W)"),
        (np.zeros((6, 8, 8, 4)), "X has the shape (6, 8, 8, 4); give"),
        (np.zeros((6, 3, 8, 3)), "X has the shape (6, 3, 8, 3), and either axis may be"),
        (np.zeros((0, 8, 8)), "X has the shape (0, 8, 8), without an image"),
        (PIXELS + 255.0, "X holds float64 from 255 to 255; give whole numbers 0 to 255"),
        (PIXELS.astype(int) - 1, "X holds int64 from -1 to -1; give"),
        (PIXELS * np.nan, "X[0] has pixels that are NaN or infinite; correct that image, or"),
        (one_pixel(np.inf), "X[4] has pixels that are NaN or infinite; correct that image, or"),
        (PIXELS.astype(bool), "X holds bool; give"),
        (PIXELS.astype(str), "X holds <U3; give"),
        ([[1, 2], [3]], "X: list does not become an array (setting an array element"),
        (None, "X and y: give both"),
    ],
)
def test_images_of_another_shape_or_type_are_refused(X: Any, line: str) -> None:
    with pytest.raises(UserError) as raised:
        Images(X, np.arange(6) % 2)
    assert_one_line(raised.value, line)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"y": np.zeros((40, 2), int)}, "y has the shape (40, 2); give one label per image, (40,)"),
        ({"y": np.arange(39) % 2}, "y has the shape (39,); give one label per image, (40,)"),
        (
            {"y": np.arange(40) % 2 * 1.0},
            "y holds float64; give whole numbers, such as y.astype(int)",
        ),
        (
            {"y": ["cat", "dog"] * 20},
            "y holds <U3; give whole numbers, such as np.unique(y, return_inverse=True)[1]",
        ),
        (
            {"y": np.array([0, 2**63] * 20, np.uint64)},
            "y holds 9223372036854775808; give labels up",
        ),
        ({"y": [[1], [2, 3]] * 20}, "y: list does not become an array ("),
        ({"y": None}, "X and y: give both"),
        ({"y": np.ones(40, int)}, "y: all images are of one class"),
        ({"X_val": PIXELS}, "X_val and y_val: give both, or neither"),
        ({"X_test": PIXELS, "y_test": [0] * 5}, "y_test has the shape (5,); give one label"),
        ({"X_val": PIXELS[:, :7], "y_val": [0] * 6}, "X_val: its images are (7, 8, 1), those of X"),
        ({"X": PIXELS[:3], "y": [0, 1, 0]}, "X and y: 3 images of 2 classes are too few"),
    ],
)
def test_sets_that_do_not_fit_are_refused(given: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as raised:
        small(**given)
    assert_one_line(raised.value, line)


@pytest.mark.parametrize("labels", [[0.0, 0.5], [0.0, np.nan]])
def test_labels_that_a_change_of_type_would_falsify(labels: list[float]) -> None:
    with pytest.raises(UserError, match=r"^y holds float64; give whole numbers$"):
        small(y=labels * 20)


def test_images_are_copied() -> None:
    pixels = np.full((40, 8, 8), 7, np.uint8)
    images = small(X=pixels)
    pixels[:] = 0
    pool = images._source.pool
    assert pool is not None
    assert (pool.images == 7).all()


def test_labels_may_be_a_column() -> None:
    assert small(y=(np.arange(40) % 2)[:, None]).y.shape == (40,)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"n_epochs": 0}, "n_epochs 0: must be a whole number of at least 1"),
        ({"n_epochs": 2.5}, "n_epochs 2.5: must be a whole number"),
        ({"batch_size": "64"}, "batch_size '64': must be a whole number"),
        ({"lr": -1}, "lr -1.0: must be a number above 0"),
        ({"lr": None}, "lr None: must be a number"),
        ({"lr_schedule": "linear"}, "lr_schedule 'linear': must be one of constant, step, cosine"),
        ({"context": "gpu"}, "context 'gpu': must be one of auto, cpu, cudnn"),
        ({"cover_epochs": 3}, "cover_epochs 3: there are 2 epochs (n_epochs)"),
        ({"cover_epochs": "al"}, "cover_epochs 'al': must be a whole number"),
        ({"model": 5}, "model is int; give a name or a function"),
        ({"preset": "smoth"}, "preset smoth: not known; known are smooth"),
        ({"preset": PIXELS}, "preset array([[["),
        (
            {"context": np.array(["cpu", "auto"])},
            "context array(['cpu', 'auto'], dtype=",
        ),
        ({"output_dir": ""}, "output_dir '': give a path"),
        ({"output_dir": 3}, "output_dir 3: give a path"),
        ({"output_dir": PIXELS}, "output_dir array([[["),
        ({"lr": PIXELS}, "lr array([[["),
        ({"seed": 2**32}, "seed 4294967296: nnabla takes seeds below 4294967296, and there are 1"),
        ({"device_id": "a"}, "device_id a: expected a GPU number"),
    ],
)
def test_options_out_of_range_are_refused(given: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as raised:
        Cleanser(small(), **OPTIONS | given)
    assert_one_line(raised.value, line)


def test_a_preset_sets_what_is_not_given() -> None:
    default = {"model": "six_convolutions", "n_epochs": 20, "lr": 0.05}
    smooth = {"model": "smooth_convolutions", "n_epochs": 20, "lr": 0.005}
    for given in ({}, {"lr": 0.05}, {"model": "mlp", "n_epochs": 3}):
        for preset, values in ((None, default), ("smooth", smooth)):
            options = Cleanser(small(), preset=preset, **given).options
            assert {name: getattr(options, name) for name in values} == values | given


def test_a_retraining_that_scores_cannot_predict_is_said_once(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with Cleanser(small(), **OPTIONS, retrain_all=True) as cleanser:
        cleanser.fit().fit()
    printed = capfd.readouterr().err
    assert printed.count("retrain_all retrains from the first step") == 1
    assert 'use preset="smooth" (not model mlp) cover_epochs="all"' in printed


def test_a_method_that_does_not_predict_training_from_scratch_is_said_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with Cleanser(small(), **OPTIONS, retrain_all=True, output_dir=tmp_path) as cleanser:
        cleanser.fit().score("Hara_exact")
        cleanser.score()
        cleanser.remove(2)
    printed = capfd.readouterr().err
    line = "retrain_all retrains from the first step, which the scores by Hara predict poorly"
    assert printed.count(line) == 1
    assert "use Hara_exact" in printed and "the scores by Hara_exact" not in printed
    manifest = json.loads((tmp_path / "manifest.json").read_text("utf-8"))
    assert "the net has kinks" in manifest["remarks"][0]


def test_images_are_needed() -> None:
    with pytest.raises(UserError, match=r"^images is ndarray; give Images\(X, y\)$"):
        Cleanser(PIXELS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("action", "line"),
    [
        (lambda c: c.score("Hare"), "method 'Hare': not known; known are Hara, "),
        (lambda c: c.score(None), "method None: not known; known are Hara, "),
        (lambda c: c.verify(["Hara"], 6), "method ['Hara']: not known; known are Hara, "),
        (lambda c: c.remove([[1], [1, 2]]), "remove: list does not become an array ("),
        (
            lambda c: c.remove(pd.Series(c.training_mask_)[::-1]),
            "remove: is a Series whose index is not 0, 1, 2, ..., which may be in another order",
        ),
        (lambda c: c.remove(0), "remove(0): give a number from 1 to 27"),
        (lambda c: c.remove(28), "remove(28): give a number from 1 to 27"),
        (lambda c: c.remove(True), "remove: is bool of the shape (); give a number, or a mask"),
        (
            lambda c: c.remove([1, 2]),
            "remove: is int64 of the shape (2,); give a number, or a mask",
        ),
        (lambda c: c.remove(np.zeros(40, bool)), "remove: the mask names 0 of 28 images"),
        (lambda c: c.remove(c.training_mask_), "remove: the mask names 28 of 28 images"),
        (lambda c: c.remove(np.ones(40, bool)), "remove: the mask names 12 images that are held"),
        (lambda c: c.verify(n_groups=3), "n_groups 3: needs 6 groups or more"),
        (lambda c: c.verify(n_groups=0), "n_groups 0: needs 6 groups or more"),
        (
            lambda c: c.verify(n_groups=10**6),
            "n_groups 1000000: more groups than there are training images (28); give 28 or fewer",
        ),
        (lambda c: c.score(PIXELS), "method array([[[0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0"),
    ],
)
def test_operations_that_do_not_fit_are_refused(
    action: Callable[[Cleanser], object], line: str, fitted: Cleanser
) -> None:
    with pytest.raises(UserError) as raised:
        action(fitted)
    assert_one_line(raised.value, line)


def test_fit_comes_first_and_again_after_close() -> None:
    cleanser = Cleanser(small(), **OPTIONS)
    for method in (cleanser.score, cleanser.verify, cleanser.label_issues):
        with pytest.raises(UserError, match=r"^nothing is trained yet; call fit\(\) first$"):
            method()
    cleanser.fit().close()
    with pytest.raises(UserError, match="nothing is trained yet"):
        cleanser.score()
    scores = cleanser.fit().score()
    assert np.isfinite(scores).sum() == 28
    cleanser.close()


def test_a_training_that_was_interrupted_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    epochs: list[int] = []

    def train(trial: Trial, epoch: int) -> None:
        if epochs == [0]:
            epochs.append(-1)
            raise KeyboardInterrupt
        epochs.append(epoch)
        train_epoch(trial, epoch)

    monkeypatch.setattr("utils.run.tasks.train_epoch", train)
    with Cleanser(small(), **OPTIONS) as cleanser, Cleanser(small(), **OPTIONS) as other:
        with pytest.raises(KeyboardInterrupt):
            cleanser.fit()
        with pytest.raises(UserError, match=r"^nothing is trained yet; call fit\(\) first$"):
            cleanser.score()
        cleanser.fit()
        assert epochs == [0, -1, 1]
        assert cleanser.score().tobytes() == other.fit().score().tobytes()


def test_broken_images_are_refused_or_left_out(csv: Path, tmp_path: Path) -> None:
    rows = [f"{csv.parent}/{row}" for row in rows_of(20)]
    file = tmp_path / "a list.csv"
    file.write_text("\n".join(["x:image,y:label", *rows, "gone.png,0", "away.png,1", ""]))
    with pytest.raises(
        UserError, match=r"row 22: .* 2 broken images; skip_broken=True leaves such"
    ):
        Images.from_csv(file)
    assert len(Images.from_csv(file, skip_broken=True)) == 20


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        Images.from_csv(tmp_path / "images.csv")
    assert_one_line(raised.value, f"{tmp_path}/images.csv: is not there; give an NNC CSV file")
    with pytest.raises(UserError, match=r"^path '': give a path$"):
        Images.from_csv("")
    with pytest.raises(UserError, match=r"^color 'grey': must be one of auto, gray, rgb$"):
        Images.from_csv(tmp_path, color="grey")


@pytest.mark.parametrize(
    ("size", "line"),
    [
        (0, "image_size 0: must be a whole number of at least 1"),
        (-3, "image_size -3: must be a whole number of at least 1"),
        ("8", "image_size '8': must be a whole number"),
        (8.0, "image_size 8.0: must be a whole number"),
    ],
)
def test_a_size_that_no_image_has_is_refused(size: Any, line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        Images.from_csv(tmp_path, image_size=size)
    assert_one_line(raised.value, line)


def test_arrays_that_do_not_fit_a_saved_net_need_no_option_of_files(tmp_path: Path) -> None:
    path = write_nnp(tmp_path / "net.nnp", console_project())
    rng = np.random.default_rng(0)
    images = Images(rng.integers(0, 256, (40, 9, 9, 3), np.uint8), np.arange(40) % 2)
    with pytest.raises(UserError) as raised, Cleanser(images, **OPTIONS | {"model": path}) as one:
        one.fit()
    assert_one_line(raised.value, f"model {path}: network MainRuntime takes images of 1x8x8")
    assert "give images of that size and colour, or change its input" in str(raised.value)


def assert_one_line(error: UserError, beginning: str) -> None:
    text = str(error)
    assert text.startswith(beginning)
    assert "\n" not in text
    assert "--" not in text
    assert error.__suppress_context__ or error.__context__ is None


# ---------------------------------------------------------------- the public module


def test_at_most_six_names_each_described() -> None:
    assert len(sgd_influence.__all__) <= 6
    assert set(sgd_influence.__all__) <= set(dir(sgd_influence))
    for name in sgd_influence.__all__:
        assert inspect.getdoc(getattr(sgd_influence, name)), name
    assert METHODS["Hara"].name == "Hara"


@pytest.mark.parametrize(
    "module",
    ["sgd_influence", *(f"sgd_influence.{m}" for m in ("arrays", "interface", "recorder"))],
)
def test_examples_of_docstrings_run(module: str) -> None:
    outcome = doctest.testmod(importlib.import_module(module), raise_on_error=False)
    assert outcome.attempted > 4
    assert outcome.failed == 0


OTHER = {
    "a module": ("utils.py", "", "utils.py"),
    "a package": ("utils/__init__.py", "", "utils/__init__.py"),
    "a folder": ("utils/mine.py", "import utils; ", "utils"),  # ours wins unless it is imported
}
"""What the user has, what is imported before, and what the line names."""


@pytest.mark.parametrize("kind", OTHER)
def test_a_module_called_utils_of_the_user_is_named(kind: str, tmp_path: Path) -> None:
    made, before, named = OTHER[kind]
    (tmp_path / made).parent.mkdir(exist_ok=True)
    (tmp_path / made).write_text("print('this is not executed')\n")
    outcome = imported(tmp_path, f"{before}import sys; sys.path.append({str(ROOT)!r})")
    assert outcome.stdout == ""
    last = outcome.stderr.splitlines()[-1]
    assert last.startswith("ImportError: sgd_influence needs its package utils in ")
    assert f"but 'import utils' finds {tmp_path / named}; rename that one" in last


def test_a_module_called_utils_without_a_place_is_reported(tmp_path: Path) -> None:
    code = f"import sys, types; sys.path.append({str(ROOT)!r}); "
    outcome = imported(tmp_path, code + "sys.modules['utils'] = types.ModuleType('utils')")
    assert "but 'import utils' finds no such package; rename" in outcome.stderr.splitlines()[-1]


def imported(folder: Path, before: str) -> subprocess.CompletedProcess[str]:
    """A program in `folder` that imports the interface after some other lines."""
    command = [sys.executable, "-c", f"{before}; import sgd_influence"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_our_utils_is_found_first_when_it_comes_first(tmp_path: Path) -> None:
    (tmp_path / "utils.py").write_text("answer = 42\n")
    outcome = imported(tmp_path, f"import sys; sys.path.insert(0, {str(ROOT)!r})")
    assert (outcome.returncode, outcome.stderr) == (0, "")


def test_kernels_of_blas_are_chosen_before_numpy_is_loaded(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import sgd_influence"
    code += "; assert 'utils' in sys.modules and 'numpy' not in sys.modules"
    outcome = imported(tmp_path, code)
    assert (outcome.returncode, outcome.stderr) == (0, "")
