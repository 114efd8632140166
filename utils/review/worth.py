"""The gain from decisions: nets trained from scratch on both lists, tested on the same images.

Each seed trains a net on the original list and one on the reviewed list, with the options of the
run. The gain is the mean over seeds of the difference of the two test accuracies; its 95 % interval
comes from Student's t of the paired differences. Finished trainings are kept in
reviewed/trainings.csv and reused if images, labels, net and options are the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from threadpoolctl import threadpool_limits

from utils.columns import IMAGE, LABEL, ROW
from utils.console import progress
from utils.data.datasets import form_of
from utils.data.images import ImageSet, Pool, decode_images
from utils.data.own_data import Wanted
from utils.data.source import TEST, TRAINING, cache_folder
from utils.data.user_paths import Part, Rows, shown
from utils.errors import UserError
from utils.kernels import cores
from utils.output.folder import OutputFolder
from utils.output.storage import read_csv
from utils.output.usage import physical_cores
from utils.review.reviewed import Reviewed
from utils.training.device import choose_backend, set_context
from utils.training.evaluation import Evaluator, check_finite
from utils.training.model_check import checked_model
from utils.training.network import Network
from utils.training.sgd import SGD, Optimiser
from utils.training.steps import plan_steps
from utils.units import duration, shown_ends

log = logging.getLogger("data_cleansing")

UInt8 = npt.NDArray[np.uint8]
Stamps = Mapping[str, tuple[int, int]]
"""What tells whether an image file is another one, by path."""
LISTS = ("original", "reviewed")
NEEDED = (
    "dataset", "image_size", "color", "resize", "model", "n_epochs", "batch_size", "lr",
    "lr_schedule", "momentum", "weight_decay", "conv",
)  # fmt: skip
"""Options of a run that a training depends on."""
GIVEN, AFTER = "test_accuracy", "test_accuracy_reviewed_labels"
COLUMNS = ("list", "seed", "key", "n_training", GIVEN, AFTER)


def measure(
    paths: OutputFolder, options: Mapping[str, Any], data: Reviewed, n_trials: int
) -> pd.DataFrame:
    """Train on both lists; a row of `COLUMNS` per list and seed.

    Args:
        paths: of the run; finished trainings are kept there.
        options: of the run, from its manifest.
        data: the data set before and after the review.
        n_trials: the seeds are 0 to n_trials - 1.

    Raises:
        UserError: an image is missing or broken, the model is not found, a training diverges, or
            the list of finished trainings cannot be read.
    """
    file = paths.reviewed / "trainings.csv"
    done = _finished(file)
    stamps = {path: _stamp(path) for part in (TRAINING, TEST) for path in data.before[part][IMAGE]}
    work = _Work(_needed(options, paths), data, stamps)
    wanted = [(name, seed) for seed in range(n_trials) for name in LISTS]
    missing = [one for one in wanted if (*one, work.keys[one[0]]) not in done]
    if missing:
        work.read_images()
    for number, (name, seed) in enumerate(missing):
        started = time.monotonic()
        done[name, seed, work.keys[name]] = work.trained(name, seed)
        rows = [(*key, *scores) for key, scores in done.items()]
        paths.save_csv(pd.DataFrame(rows, columns=list(COLUMNS)), file)
        if number == 0 and len(missing) > 1:
            took = time.monotonic() - started
            one, left = duration(took), duration(took * (len(missing) - 1))
            log.info("The first of %d trainings took %s: about %s left", len(missing), one, left)
    rows = [(*key, *done[key]) for key in ((*one, work.keys[one[0]]) for one in wanted)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


Scores = tuple[int, float, float]
"""Number of training images, test accuracy with given and with reviewed labels."""


def _finished(file: Path) -> dict[tuple[str, int, str], Scores]:
    """The trainings of earlier commands by list, seed and key."""
    if not file.exists():
        return {}
    try:
        table = read_csv(file, COLUMNS)
        if list(table) != list(COLUMNS):
            raise ValueError("other columns")  # which the next training would not keep
        return {
            (str(name), int(seed), str(key)): (int(n), float(given), float(after))
            for name, seed, key, n, given, after in table.itertuples(index=False)
        }
    except (UserError, ValueError) as error:
        remedy = "put it back, or remove it: its trainings are then repeated"
        raise UserError(f"{file}: is not as it was written; {remedy}") from error


# ---------------------------------------------------------------- gains


@dataclass(frozen=True)
class Gain:
    """Test accuracy on both lists, means over seeds, and what the review gains.

    Attributes:
        original, reviewed: fractions.
        points: their difference in points of accuracy.
        interval: its 95 % interval; None with one seed.
    """

    original: float
    reviewed: float
    points: float
    interval: tuple[float, float] | None

    @property
    def text(self) -> str:
        """The gain with its interval."""
        if self.interval is None:
            return f"{self.points:+.2f} (one seed gives no interval)"
        ends = shown_ends(self.interval)
        if ends is None:
            return f"{self.points:+.2f} (the same with every seed, which gives no interval)"
        return f"{self.points:+.2f} (95 % interval {ends[0]} to {ends[1]})"


def gains(trainings: pd.DataFrame) -> dict[str, Gain]:
    """The gain by the labels of the test images: as given, and as reviewed."""
    return {
        name: _gain(trainings.pivot(index="seed", columns="list", values=column))
        for name, column in (("given", GIVEN), ("reviewed", AFTER))
    }


def _gain(by_list: pd.DataFrame) -> Gain:
    before, after = (by_list[name].to_numpy(np.float64) for name in LISTS)
    differences = 100 * (after - before)
    mean = float(differences.mean())
    interval = None
    if len(differences) > 1:
        error = float(differences.std(ddof=1)) / np.sqrt(len(differences))
        half = float(stats.t.ppf(0.975, len(differences) - 1) * error)
        interval = (mean - half, mean + half)
    return Gain(float(before.mean()), float(after.mean()), mean, interval)


# ---------------------------------------------------------------- trainings


def _needed(options: Mapping[str, Any], paths: OutputFolder) -> dict[str, Any]:
    """The options `NEEDED`; UserError if the manifest lacks one."""
    missing = [name for name in NEEDED if name not in options]
    if missing:
        what = f"names no {missing[0]}; give the run's command again"
        raise UserError(f"{paths.manifest}: {what}")
    return {name: options[name] for name in NEEDED}


class _Work:
    """What the trainings share: where they compute, the net, and by `read_images` the images.

    Attributes:
        keys: by list, a hash of images, labels, net and options, which identifies its trainings.

    Raises:
        UserError: an image is broken, or the model is not found or cannot be trained.
    """

    def __init__(self, options: dict[str, Any], data: Reviewed, stamps: Stamps) -> None:
        self._options, self._data = options, data
        set_context(choose_backend("auto", ["0"]), "0")
        threadpool_limits(1, "blas")
        rows = Rows(
            tuple(Part(part, table.astype({LABEL: "str"})) for part, table in data.before.items())
        )
        wanted = Wanted(options["image_size"], options["color"], options["resize"])
        self._files = list(dict.fromkeys(rows.paths))
        self._form = form_of(options["dataset"], rows, wanted)
        (height, width, channels), n_classes = self._decoded(1).shape[1:], len(data.class_names)
        shape = (channels, height, width)
        self._model = checked_model(options["model"], shape, n_classes)
        graph = Network(self._model, shape, n_classes, conv=options["conv"]).graph
        settings = json.dumps([options, n_classes, graph], sort_keys=True)
        self.keys = {name: _key(settings, self._training(name), data, stamps) for name in LISTS}

    def _training(self, name: str) -> pd.DataFrame:
        return (self._data.before if name == LISTS[0] else self._data.after)[TRAINING]

    def _decoded(self, n: int) -> UInt8:
        """The first n of the files."""
        files = self._files[:n]

        def where(number: int) -> str:
            return shown(files[number])

        return decode_images(files, self._form, where, "reading images", cache_folder())[0]

    def read_images(self) -> None:
        """Decode all images, which the trainings need."""
        images = self._decoded(len(self._files))
        self._pool = Pool(images, {file: number for number, file in enumerate(self._files)})
        self._test = self._images(self._data.before[TEST])

    def _images(self, table: pd.DataFrame) -> ImageSet:
        paths = tuple(table[IMAGE])
        return ImageSet(self._pool.pick(paths), table[LABEL].to_numpy(np.int32), paths)

    def trained(self, name: str, seed: int) -> Scores:
        """Train on a list from scratch, and test."""
        table = self._training(name)
        cores.share(physical_cores())
        try:
            predicted = self._predictions(self._images(table), name, seed)
        finally:
            cores.share(1)
        return len(table), *_accuracies(predicted, self._data)

    def _predictions(self, training: ImageSet, name: str, seed: int) -> np.ndarray:
        """The predicted labels (n_test,) of a net that is trained with this seed."""
        o, n_classes = self._options, len(self._data.class_names)
        network = Network(self._model, training.shape, n_classes, seed, o["conv"])
        sgd = SGD(network, Optimiser(o["momentum"], o["weight_decay"]))
        steps = plan_steps(
            seed, len(training), o["n_epochs"], o["batch_size"], o["lr"], o["lr_schedule"]
        )
        for step in progress(steps, f"seed {seed}, {name} list"):
            loss = sgd.step(training, step)
            check_finite(loss, f"{name} list, seed {seed}: the loss in epoch {step.epoch + 1}")
        return Evaluator(network).probabilities(self._test.images).argmax(axis=1)


def _accuracies(predicted: np.ndarray, data: Reviewed) -> tuple[float, float]:
    """Test accuracy with the given labels, and with the reviewed labels of the images kept."""
    before, after = data.before[TEST], data.after[TEST]
    given = float((predicted == before[LABEL].to_numpy()).mean())
    left = predicted[before[ROW].isin(after[ROW]).to_numpy()]
    return given, float((left == after[LABEL].to_numpy()).mean())


def _stamp(path: str) -> tuple[int, int]:
    """Size in bytes and time of the last change (ns) of an image; a UserError if it is gone."""
    if not os.path.isfile(path):
        what = "is gone, and the original list needs it; put it back, or give -nt 0"
        raise UserError(f"{shown(path)}: {what}")
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _key(settings: str, training: pd.DataFrame, data: Reviewed, stamps: Stamps) -> str:
    """A hash of settings and of images: paths, labels, sizes and times of the last change."""
    digest = hashlib.sha256(settings.encode())
    for table in (training, data.before[TEST], data.after[TEST]):
        digest.update(table[[IMAGE, LABEL]].to_csv(index=False).encode(errors="surrogateescape"))
        digest.update(repr([stamps[path] for path in table[IMAGE]]).encode())
    return digest.hexdigest()[:16]
