"""Every path under the output folder, by name."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from utils.methods import METHODS

TRAININGS, FINAL_MODEL = "infl_results_sgd", "final_model.h5"
FINAL_NNP = "final_model.nnp"
RESULT_FOLDERS = (
    "influence",
    "score",
    "summary",
    "fig",
    "verification",
    "cleansed",
    "labels",
    TRAININGS,
)
EDITABLE = ("cleansed", "labels")
"""Folders with lists that people work on: a file there that was changed stays as it is."""
UNREPEATABLE = ("run.log", "runs.json", "report")
"""What tells of times, and so differs between runs whose results are the same, byte for byte."""
_RESULTS = (
    "influence/*/influence_*.csv",
    "influence/*/soundness_*.json",
    "score/*/score_delete_worst_*_seed_*.csv",
    "score/*/outcomes_delete_worst_*_seed_*.npz",
    "verification/true_changes_seed_*.csv",
    "verification/verification_seed_*.csv",
    "verification/moved_losses_*_seed_*.npy",
    f"{TRAININGS}/seed_*/learning_curve.csv",
    f"{TRAININGS}/seed_*/steps.npz",
    f"{TRAININGS}/seed_*/margins.npy",
    f"{TRAININGS}/seed_*/label_record_*.npz",
    f"{TRAININGS}/seed_*/{FINAL_MODEL}",
    f"{TRAININGS}/seed_*/{FINAL_NNP}",
)
_STATES = "model_step*.h5"


def numbered(folder: Path, start: str, end: str = "") -> Iterator[Path]:
    """The paths <start><end>, <start>_2<end>, <start>_3<end>, ... in a folder."""
    yield folder / f"{start}{end}"
    for number in itertools.count(2):
        yield folder / f"{start}_{number}{end}"


def free_name(folder: Path, start: str, end: str = "") -> Path:
    """The first of `numbered` that is not there."""
    return next(path for path in numbered(folder, start, end) if not os.path.lexists(path))


def newer(path: Path) -> Iterator[Path]:
    """The names that a file of `EDITABLE` gets where those before were changed by a person."""
    return numbered(path.parent, f"{path.stem}.new", path.suffix)


def unrenamed(path: Path) -> Path:
    """The path that `newer` gave this name for, or the path itself."""
    return path.with_name(re.sub(r"\.new(_\d+)?$", "", path.stem) + path.suffix)


@dataclass(frozen=True)
class OutputPaths:
    """The files of one output folder."""

    root: Path

    @property
    def manifest(self) -> Path:
        """The options that the results here were made with, and the hash of each of them."""
        return self.root / "manifest.json"

    @property
    def lock(self) -> Path:
        """Who is running into the folder now."""
        return self.root / "run.lock"

    @property
    def log(self) -> Path:
        """The lines that runs logged."""
        return self.root / "run.log"

    @property
    def runs(self) -> Path:
        """The commands that were run into the folder, with their times."""
        return self.root / "runs.json"

    @property
    def page(self) -> Path:
        """The page to look at."""
        return self.root / "report" / "index.html"

    @property
    def classes(self) -> Path:
        """The name of each label."""
        return self.root / "summary" / "classes.csv"

    @property
    def predictions(self) -> Path:
        """The final models' predictions for the images that the page shows."""
        return self.root / "summary" / "predictions.csv"

    @property
    def summary(self) -> Path:
        """Scores of all trials, their means and standard deviations."""
        return self.root / "summary" / "summary.csv"

    @property
    def recommendation(self) -> Path:
        """How many images to remove, per method and overall, and why."""
        return self.root / "summary" / "recommendation.json"

    def latest(self, path: Path) -> Path:
        """The name under which the last run wrote a file of `EDITABLE`, by the account of it."""
        there = [path, *itertools.takewhile(os.path.lexists, newer(path))]
        written = self._written()
        ours = [p for p in there if p.relative_to(self.root).as_posix() in written]
        return (ours or there)[-1]

    def _written(self) -> set[str]:
        """The files that the account of the folder names; none where it cannot be read."""
        try:
            account = json.loads(self.manifest.read_bytes())
            return {*account["outputs"], *account["coming"]}
        except (OSError, ValueError, KeyError, TypeError):
            return set()

    def cleansed(self, method: str, n: int) -> Path:
        """The training images without the n worst, as an NNC CSV file."""
        return self.root / "cleansed" / f"{method}_train_cleansed_{n}.csv"

    def cleansed_set(self, name: str) -> Path:
        """The validation or test images that go with the cleansed lists."""
        return self.root / "cleansed" / f"{name}_cleansed.csv"

    def removed(self, method: str, n: int) -> Path:
        """The n worst images, the most harmful first."""
        return self.root / "cleansed" / f"{method}_removed_{n}.csv"

    def removed_lists(self, method: str) -> dict[int, Path]:
        """The lists of removed images that are there, by n; an earlier version's one is n = 0."""
        earlier = self.root / "cleansed" / f"{method}_removed.csv"
        lists = {0: earlier} if earlier.exists() else {}
        for path in (self.root / "cleansed").glob(f"{method}_removed_*.csv"):
            if named := re.fullmatch(rf"{re.escape(method)}_removed_(\d+)", path.stem):
                lists[int(named[1])] = self.latest(path)
        return dict(sorted(lists.items()))

    @property
    def label_issues(self) -> Path:
        """Every image of the data set, the one whose label is most likely wrong first."""
        return self.root / "labels" / "label_issues.csv"

    @property
    def label_verdict(self) -> Path:
        """How many labels look wrong, per class and overall."""
        return self.root / "labels" / "verdict.json"

    @property
    def decisions(self) -> Path:
        """A person's decisions on labels; no run writes this file."""
        return self.root / "labels" / "decisions.csv"

    @property
    def reviewed(self) -> Path:
        """The folder of the reviewed data sets, and of the trainings on them."""
        return self.root / "reviewed"

    @property
    def figure(self) -> Path:
        """Test accuracy against n removed."""
        return self.root / "fig" / "result.png"

    @property
    def verification(self) -> Path:
        """Predicted and true changes of the validation loss, a row per group and method."""
        return self.root / "summary" / "verification.csv"

    @property
    def agreement(self) -> Path:
        """How far each verified method agrees with true retraining."""
        return self.root / "summary" / "agreement.csv"

    @property
    def smoothness(self) -> Path:
        """How smooth the training of each verified trial is in the weights of its images."""
        return self.root / "summary" / "smoothness.csv"

    @property
    def verification_figure(self) -> Path:
        """Predicted against true changes."""
        return self.root / "fig" / "verification.png"

    @property
    def flipped_labels(self) -> Path:
        """The labels that `--flip_labels` made wrong, a row per image and trial."""
        return self.root / "summary" / "flipped_labels.csv"

    @property
    def data_problems(self) -> Path:
        """The images that `--skip_broken` left out, and why."""
        return self.root / "summary" / "data_problems.csv"

    @property
    def duplicates(self) -> Path:
        """Pairs of images that are the same, or nearly."""
        return self.root / "summary" / "duplicates.csv"

    @property
    def image_quality(self) -> Path:
        """Images per class, and images that a person should look at."""
        return self.root / "summary" / "image_quality.csv"

    def true_changes(self, seed: int) -> Path:
        """What removing the groups of a trial really changed."""
        return self.root / "verification" / f"true_changes_seed_{seed}.csv"

    def moved_losses(self, seed: int, sign: int) -> Path:
        """Losses of the validation images after a trial was retrained with moved weights."""
        name = f"moved_losses_{'plus' if sign > 0 else 'minus'}_seed_{seed}.npy"
        return self.root / "verification" / name

    def verified(self, seed: int) -> Path:
        """The rows of the verification table of one trial."""
        return self.root / "verification" / f"verification_seed_{seed}.csv"

    def influence(self, method: str, seed: int) -> Path:
        """The influence of each training image, the most harmful first."""
        return self.root / "influence" / method / f"influence_{method.lower()}_{seed}.csv"

    def soundness(self, method: str, seed: int) -> Path:
        """What tells whether the influences of a trial can be followed."""
        return self.root / "influence" / method / f"soundness_{seed}.json"

    def score(self, method: str, n: int, seed: int) -> Path:
        """Losses and accuracies after removing the n worst, a row per retrained epoch."""
        return self.root / "score" / method / f"score_delete_worst_{n}_seed_{seed}.csv"

    def outcomes(self, method: str, n: int, seed: int) -> Path:
        """The losses and hits of the network retrained after removing the n worst."""
        return self.root / "score" / method / f"outcomes_delete_worst_{n}_seed_{seed}.npz"

    def evaluated(self, method: str, n: int, seed: int) -> bool:
        """Whether the files of removing the n worst are there."""
        both = self.outcomes(method, n, seed), self.score(method, n, seed)
        return all(path.exists() for path in both)

    def training(self, seed: int) -> Path:
        """The folder of what a trial's training recorded."""
        return self.root / TRAININGS / f"seed_{seed:02d}"

    def steps(self, seed: int) -> Path:
        """The recorded steps of a trial."""
        return self.training(seed) / "steps.npz"

    def learning_curve(self, seed: int) -> Path:
        """Losses and accuracy per epoch of a trial."""
        return self.training(seed) / "learning_curve.csv"

    def margins(self, seed: int) -> Path:
        """The margin of each training image in each epoch of a trial."""
        return self.training(seed) / "margins.npy"

    def label_record(self, seed: int, n_epochs: int) -> Path:
        """What the label check needs of the first n epochs of a trial."""
        return self.training(seed) / f"label_record_{n_epochs:04d}.npz"

    def model_step(self, seed: int, epoch: int, step: int) -> Path:
        """The state before a step, counted within its epoch."""
        return self.training(seed) / f"epoch{epoch:02d}" / "weights" / f"model_step{step:04d}.h5"

    def final_model(self, seed: int) -> Path:
        """The state after the last step; written last, so it marks a finished training."""
        return self.training(seed) / FINAL_MODEL

    def final_nnp(self, seed: int) -> Path:
        """The trained net with its graph, for nnabla and Neural Network Console."""
        return self.training(seed) / FINAL_NNP

    def trained(self) -> list[int]:
        """The seeds of the trials whose training is finished."""
        marks = (self.root / TRAININGS).glob(f"seed_*/{FINAL_MODEL}")
        numbers = (path.parent.name.removeprefix("seed_") for path in marks)
        return sorted(int(number) for number in numbers if number.isdecimal())

    def results(self) -> Iterator[Path]:
        """What is there under the names of results, but for `states`, whoever wrote it."""
        for pattern in _RESULTS:
            yield from sorted(self.root.glob(pattern))
        once = [
            self.classes, self.predictions, self.summary, self.recommendation, self.verification,
            self.agreement, self.smoothness, self.verification_figure,
            self.flipped_labels, self.figure, self.duplicates, self.image_quality,
            self.data_problems, self.label_issues, self.label_verdict,
            *map(self.cleansed_set, ("validation", "test")),
        ]  # fmt: skip
        yield from filter(os.path.lexists, once)
        for method in METHODS:
            for kind in ("train_cleansed", "removed", "relabel"):
                yield from sorted((self.root / "cleansed").glob(f"{method}_{kind}*.csv"))

    def states(self) -> Iterator[Path]:
        """What is there under the names of states before a step, whoever wrote it."""
        yield from sorted((self.root / TRAININGS).glob(f"seed_*/epoch*/weights/{_STATES}"))

    def mark_of_training(self, path: Path) -> Path | None:
        """The file that marks the training finished to which `path` belongs; None for others."""
        folder, *inside = path.relative_to(self.root).parts
        return self.root / folder / inside[0] / FINAL_MODEL if folder == TRAININGS else None

    def lost_with(self, path: Path) -> list[Path]:
        """The files to give up where `path` is lost, so that what it belongs to is repeated.

        A label record sums over all epochs, and only the last one is kept: without it every epoch
        is repeated, as without the margins. The .nnp file is made from the final model alone.
        Scores are computed again without the file that tells whether they are sound.
        """
        if path.match("influence/*/soundness_*.json"):
            seed = path.stem.removeprefix("soundness_")
            return [path.with_name(f"influence_{path.parent.name.lower()}_{seed}.csv")]
        mark = self.mark_of_training(path)
        if mark is None or path.name == FINAL_NNP:
            return []
        is_record = path.name.startswith("label_record_")
        return [mark, mark.with_name("margins.npy")] if is_record else [mark]

    def influences(self, method: str) -> list[tuple[int, Path]]:
        """(seed, path) of the influence files of a method that are there, by seed."""
        found = (self.root / "influence" / method).glob(f"influence_{method.lower()}_*.csv")
        return sorted((int(seed), p) for p in found if (seed := p.stem.split("_")[-1]).isdecimal())

    def scores(self, method: str) -> Iterator[tuple[int, int, Path]]:
        """(seed, n, path) of the score files of a method that are there."""
        for path in (self.root / "score" / method).glob("score_delete_worst_*_seed_*.csv"):
            named = re.fullmatch(r"score_delete_worst_(\d+)_seed_(\d+)", path.stem)
            if named:
                yield int(named[2]), int(named[1]), path
