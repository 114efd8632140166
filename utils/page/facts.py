"""What the page tells, read from a finished output folder and nothing else."""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from utils.data.decisions import merged, no_decisions, read_decisions
from utils.data.label_table import (
    LabelVerdict,
    read_class_names,
    read_label_issues,
    read_label_verdict,
)
from utils.errors import UserError
from utils.methods import METHODS, Solved
from utils.output.manifest import Manifest, manifest_of_run
from utils.output.paths import OutputPaths
from utils.output.ranking import SHOWN_WORST
from utils.output.results import Results
from utils.output.runs import Run, load_runs
from utils.output.storage import check_columns, read_csv, read_versioned_json
from utils.page.seats import Seats, seats
from utils.page.verdict import Recommended, recommended
from utils.training.soundness import solves_in, warnings_of

log = logging.getLogger("data_cleansing")

READ_VERSION = 2
"""Of summary/recommendation.json."""
SUMMARY = ("val_loss", "val_accuracy", "test_accuracy", "method", "seed", "n_drops", "mean", "std")
CURVE = ("epoch", "train_loss", "val_loss", "val_accuracy")
VERIFICATION = ("method", "kind", "group", "predicted", "true")
AGREEMENT = ("method", "random", "low", "high", "ranking")
SMOOTHNESS = ("seed", "smoothness")
PROBLEMS = ("file", "problem")
"""The columns that the page reads of each table."""


@dataclass(frozen=True)
class Prediction:
    """What models say of an image.

    Attributes:
        label: the class they prefer.
        confidence: its probability.
        left_out: they were trained without the image.
    """

    label: int
    confidence: float
    left_out: bool


@dataclass(frozen=True)
class LabelCheck:
    """What the label check found, and what a person decided.

    Attributes:
        verdict: how many labels look wrong.
        issues: all images, the most suspicious first.
        decided: the decisions in the folder, as `merged` gives them; maybe none.
        problem: why those in the folder are not used: a sentence without full stop; maybe empty.
    """

    verdict: LabelVerdict
    issues: pd.DataFrame
    decided: pd.DataFrame
    problem: str


@dataclass(frozen=True)
class Facts:
    """The content of an output folder.

    Attributes:
        paths: of the folder.
        manifest: its account.
        rankings: per method by row, as `utils.output.ranking.ranked` gives it.
        summary: the table of scores.
        curves: the learning curve of each trial by its seed.
        verification, agreement: predicted and true changes, and how far they agree; None
            without `--verify`.
        smoothness: of the training in the weights of its images, mean over the trials; nan
            without `--verify`.
        learnt: the training loss falls in all of them.
        recommendation: what the run wrote; None where none is there, or one of another version.
        removed: per method the list of images that cleansed data leave out, where one is, by row:
            that of the last command, else the largest; removed_files: their paths.
        flips: the given label of each image that bears a flipped one, by row; None without
            `--flip_labels`.
        class_names: by label; empty where the run wrote none.
        predictions: what the final models say of the images shown, by row.
        runs: the commands that wrote here.
        seats: per method that predicts, `utils.page.seats.seats_of_worst`.
        left_out: the broken images that were left out; None where none were.
        unsound: `utils.training.soundness.warnings_of`: why scores should not be followed.
        solves: (method, trial, how far its solver came).
        labels: what the label check found; None in folders of earlier versions.
    """

    paths: OutputPaths
    manifest: Manifest
    rankings: Mapping[str, pd.DataFrame]
    summary: pd.DataFrame
    curves: Mapping[int, pd.DataFrame]
    verification: pd.DataFrame | None
    agreement: pd.DataFrame | None
    smoothness: float
    learnt: bool
    recommendation: Recommended | None
    removed: Mapping[str, pd.DataFrame]
    removed_files: Mapping[str, Path]
    flips: Mapping[int, int] | None
    class_names: Mapping[int, str]
    predictions: Mapping[int, Prediction]
    runs: list[Run]
    seats: Mapping[str, Seats]
    left_out: pd.DataFrame | None
    unsound: Mapping[str, Mapping[str, Sequence[str]]]
    solves: Sequence[tuple[str, int, Solved]]
    labels: LabelCheck | None

    @classmethod
    def read(cls, paths: OutputPaths, results: Results | None = None) -> Facts:
        """Read a folder.

        Args:
            paths: of the folder.
            results: its tables, where they are in memory; else they are read.

        Raises:
            UserError: it is not the folder of a finished run, or a file in it cannot be read.
        """
        manifest = _manifest(paths)
        results = results or Results(paths)
        methods = tuple(METHODS)
        class_names = read_class_names(paths.classes)
        smoothness, learnt = _smoothness(paths, results)
        recommendation = read_versioned_json(paths.recommendation, READ_VERSION, recommended)
        cleansed = recommendation.cleansed if recommendation else {}
        found = {method: results.removed(method, cleansed.get(method)) for method in methods}
        lists = {method: one for method, one in found.items() if one}
        return cls(
            paths=paths,
            manifest=manifest,
            rankings=results.rankings(),
            summary=_summary(paths, results),
            curves={s: read_csv(paths.learning_curve(s), CURVE) for s in paths.trained()},
            verification=results.table_if_there(paths.verification, VERIFICATION),
            agreement=results.table_if_there(paths.agreement, AGREEMENT),
            smoothness=smoothness,
            learnt=learnt,
            recommendation=recommendation,
            removed={method: table for method, (_, table) in lists.items()},
            removed_files={method: path for method, (path, _) in lists.items()},
            flips=None if results.flips() is None else results.given_labels(),
            class_names=class_names,
            predictions=_predictions(results.predictions()),
            runs=load_runs(paths.runs),
            seats=seats(results, [name for name in methods if METHODS[name].predicts]),
            left_out=results.table_if_there(paths.data_problems, PROBLEMS),
            unsound=warnings_of(paths, methods),
            solves=_solves(paths, methods),
            labels=_labels(paths, results, class_names),
        )

    @property
    def methods(self) -> list[str]:
        """Those that scored images here, in the order of their table."""
        return list(self.rankings)

    def name_of(self, label: int) -> str:
        """The name of a class."""
        return self.class_names.get(label, str(label))

    def n_recommended(self, method: str) -> int:
        """How many images were recommended to be removed by a method."""
        verdicts = self.recommendation.methods if self.recommendation else {}
        return verdicts[method].n if method in verdicts else 0

    def n_worst(self, method: str) -> int:
        """Of how many of the worst the page counts classes: those removed, else those shown."""
        removed = self.removed.get(method)
        wanted = SHOWN_WORST if removed is None or removed.empty else len(removed)
        return min(wanted, len(self.rankings[method]))

    def prediction(self, row: int, method: str = "") -> Prediction | None:
        """What models predict of an image; None where nothing is known.

        Among the images of a method, those trained without the image go first: those that were
        retrained without the images that this method removes.
        """
        return self._left_out.get(method, {}).get(row) or self.predictions.get(row)

    @cached_property
    def _left_out(self) -> dict[str, dict[int, Prediction]]:
        """By method and row, what the models trained without the image predict."""
        return {method: _suggestions(table) for method, table in self.removed.items()}

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of the results by the folder that they lie in."""
        sizes: Counter[str] = Counter()
        for name, known in self.manifest.outputs.items():
            sizes[name.split("/")[0]] += known.bytes
        return dict(sizes)


def _manifest(paths: OutputPaths) -> Manifest:
    manifest = manifest_of_run(paths)
    if not paths.summary.exists():
        raise UserError(f"{paths.root}: its run is not finished; give the run's command again")
    return manifest


def _labels(
    paths: OutputPaths, results: Results, class_names: Mapping[int, str]
) -> LabelCheck | None:
    verdict = read_label_verdict(paths)
    if verdict is None:
        return None
    issues = read_label_issues(paths, results)
    decided, problem = no_decisions(), ""
    if os.path.lexists(paths.decisions):
        try:
            given = read_decisions(paths.decisions, issues, class_names, applied=True)
            decided = merged(decided, given)
        except UserError as error:
            problem = f"The page does not use these decisions: {error}"
            log.warning("%s", problem)
    return LabelCheck(verdict, issues, decided, problem)


def _smoothness(paths: OutputPaths, results: Results) -> tuple[float, bool]:
    table = results.table_if_there(paths.smoothness, SMOOTHNESS)
    if table is None:
        return math.nan, True
    learnt = "learnt" not in table or bool(table["learnt"].all())  # earlier versions: not recorded
    return float(table["smoothness"].mean()), learnt


def _solves(paths: OutputPaths, methods: Sequence[str]) -> list[tuple[str, int, Solved]]:
    return [
        (method, seed, solved)
        for method in methods
        for seed, solved in solves_in(paths, method, paths.trained()).items()
    ]


def _summary(paths: OutputPaths, results: Results) -> pd.DataFrame:
    table = results.table(paths.summary)
    check_columns(table, SUMMARY, paths.summary)
    return table


def _predictions(table: pd.DataFrame | None) -> dict[int, Prediction]:
    if table is None:
        return {}
    columns = zip(table.index, table["predicted"], table["confidence"], strict=True)
    return {row: Prediction(int(k), float(confidence), False) for row, k, confidence in columns}


def _suggestions(removed: pd.DataFrame) -> dict[int, Prediction]:
    known = removed.dropna(subset=["suggested_label", "confidence"])
    columns = zip(known.index, known["suggested_label"], known["confidence"], strict=True)
    return {row: Prediction(int(k), float(confidence), True) for row, k, confidence in columns}
