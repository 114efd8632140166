"""The verdict on the labels: `labels/label_issues.csv` and `labels/verdict.json` of a run.

It uses what the trainings of the run recorded. Nothing is trained for it, and no other result
depends on it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sgd_influence.cleanse import rows_of
from sgd_influence.label_check import Checked, check_labels
from sgd_influence.label_record import load_record, sizes_of
from utils.columns import IMAGE, LABEL
from utils.data.flips import INDEX, SEED, TO
from utils.data.nnc_csv import read_nnc_csv
from utils.data.source import TEST, TRAINING, VALIDATION, Source
from utils.data.splits import draw_split
from utils.options import Options
from utils.output.paths import OutputPaths
from utils.output.storage import load_array, read_csv, save_csv, save_json
from utils.training.trial import Trial

log = logging.getLogger("data_cleansing")

VERSION = 1
ISSUE, SCORE = "is_label_issue", "label_score"
PREDICTED, PREDICTED_SCORE = "predicted_label", "predicted_score"
COLUMNS = [
    IMAGE, LABEL, "set", ISSUE, SCORE, PREDICTED, PREDICTED_SCORE, "aum", "n_trials", "row",
]  # fmt: skip
NOT_RECORDED = (
    "Labels were not checked: the trainings here are of an earlier version, which did not record "
    "what the check needs; another --output_dir trains with it"
)


@dataclass(frozen=True)
class Seen:
    """What one trial says of N images of one set.

    Attributes:
        name: of the set in the data set: training, validation or test.
        rows: (N,) in the data set's table of it.
        paths: N absolute paths.
        labels: (N,), those that the net was trained on or evaluated with.
        probabilities: (N, K), mean over the epochs, before the net learnt from the image.
        margins: (N,), mean over the epochs.
        trained: whether the trial trained on them.
    """

    name: str
    rows: np.ndarray
    paths: Sequence[str]
    labels: np.ndarray
    probabilities: np.ndarray
    margins: np.ndarray
    trained: bool


def check_of_run(options: Options, source: Source, trial: Trial) -> dict[str, Any] | None:
    """Check all labels, and write the table and the verdict; returns the latter.

    Args:
        options: as parsed.
        source: the images of the data set.
        trial: one of the trials, all being of one size.

    Returns:
        The content of labels/verdict.json; None where the trainings recorded too little.
    """
    paths, n_epochs = trial.paths, trial.n_epochs
    seeds = [s for s in options.seeds if paths.label_record(s, n_epochs).exists()]
    if not seeds:
        log.warning(NOT_RECORDED)
        return None
    seen = [part for seed in seeds for part in seen_by(options, source, trial, seed)]
    images, probabilities = merged(seen)
    checked = check_labels(probabilities, images[LABEL].to_numpy(np.int64))
    table = issue_table(images, checked)
    verdict = verdict_of(table, checked, source)
    save_csv(table, paths.label_issues)
    save_json(verdict, paths.label_verdict)
    return verdict


def seen_by(options: Options, source: Source, trial: Trial, seed: int) -> list[Seen]:
    """What the trial of a seed says of its training, validation and test images."""
    paths = trial.paths
    files = draw_split(
        source, options.split_seed_of(seed), options.n_train, options.n_val, options.n_test
    )
    record = load_record(paths.label_record(seed, trial.n_epochs), sizes_of(trial))
    margins = load_array(paths.margins(seed), (trial.n_epochs, trial.n_train))
    own = source.validation is not None
    validation = (VALIDATION, source.validation) if own else (TRAINING, source.training)
    parts = [
        (TRAINING, source.training, files.training, record.training, margins),
        (*validation, files.validation, record.validation, record.validation_margins),
        (TEST, source.test, files.test, record.test, record.test_margins),
    ]
    tables = [read_nnc_csv(file) for _, _, file, _, _ in parts]
    rows = [
        rows_of(table[IMAGE], part[1][IMAGE]) for table, part in zip(tables, parts, strict=True)
    ]
    if not own:  # an image that is named twice may be in both
        both = rows_of([*tables[0][IMAGE], *tables[1][IMAGE]], source.training[IMAGE])
        rows[:2] = both[: len(tables[0])], both[len(tables[0]) :]
    return [
        Seen(
            name=name,
            rows=at,
            paths=table[IMAGE].tolist(),
            labels=labels_trained_on(table, paths, seed)
            if number == 0
            else table[LABEL].to_numpy(),
            probabilities=means.astype(np.float64),
            margins=margins_.mean(axis=0, dtype=np.float64),
            trained=number == 0,
        )
        for number, ((name, _, _, means, margins_), table, at) in enumerate(
            zip(parts, tables, rows, strict=True)
        )
    ]


def labels_trained_on(table: pd.DataFrame, paths: OutputPaths, seed: int) -> np.ndarray:
    """The labels of a trial's training images (n_train,), those of `--flip_labels` included."""
    labels = table[LABEL].to_numpy(np.int64).copy()
    if paths.flipped_labels.exists():
        flips = read_csv(paths.flipped_labels)
        flips = flips[flips[SEED] == seed]
        labels[flips[INDEX].to_numpy()] = flips[TO].to_numpy()
    return labels


def merged(seen: Sequence[Seen]) -> tuple[pd.DataFrame, np.ndarray]:
    """Each image once, over all trials.

    An image's label is the one trained on in some trial (a flipped one with `--flip_labels`);
    margins of another label do not count.

    Returns:
        x:image, y:label, set, row, aum and n_trials; (N, K) mean probabilities.
    """
    parts = [
        pd.DataFrame(
            {
                "set": part.name, "row": part.rows, IMAGE: part.paths, LABEL: part.labels,
                "aum": part.margins, "held_out": not part.trained,
            }
        )
        for part in seen
    ]  # fmt: skip
    rows = pd.concat(parts, ignore_index=True)
    order = np.argsort(rows["held_out"].to_numpy(), kind="stable")
    rows = rows.iloc[order]
    probabilities = np.concatenate([part.probabilities for part in seen])[order]
    groups = rows.groupby(["set", "row"], sort=True)
    number = groups.ngroup().to_numpy()
    images = groups[[IMAGE, LABEL]].first()
    same = rows[LABEL].to_numpy() == images[LABEL].to_numpy()[number]
    images["aum"] = rows[same].groupby(["set", "row"])["aum"].mean()
    images["n_trials"] = groups.size()
    sums = np.zeros((len(images), probabilities.shape[1]))
    np.add.at(sums, number, probabilities)
    return images.reset_index(), sums / images["n_trials"].to_numpy()[:, None]


def issue_table(images: pd.DataFrame, checked: Checked) -> pd.DataFrame:
    """`COLUMNS`, the label that is most likely wrong first; suspects before all others."""
    table = images.assign(
        **{
            ISSUE: checked.suspect.astype(int),
            SCORE: checked.score,
            PREDICTED: checked.predicted,
            PREDICTED_SCORE: checked.predicted_score,
        }
    )
    by = [ISSUE, SCORE, "aum"]
    return table.sort_values(by, ascending=[False, True, True], kind="stable")[COLUMNS]


def verdict_of(table: pd.DataFrame, checked: Checked, source: Source) -> dict[str, Any]:
    """The content of labels/verdict.json."""
    suspects = table[table[ISSUE] == 1]
    sizes, wrong = table.groupby(LABEL).size(), suspects.groupby(LABEL).size()
    names = source.class_names
    per_class = [
        {
            "label": int(label),
            "class": names[label],
            "n": int(n),
            "n_issues": int(wrong.get(label, 0)),
        }
        for label, n in sizes.items()
    ]
    pairs = suspects.groupby([LABEL, PREDICTED]).size().sort_values(ascending=False, kind="stable")
    return {
        "version": VERSION,
        "n_images": len(table),
        "n_issues": checked.count.n,
        "low": checked.count.low,
        "high": checked.count.high,
        "n_issues_test": int((suspects["set"] == TEST).sum()),
        "at_least": False,
        "reason": None,
        "harmful_options": None,
        "per_class": per_class,
        "given_to_suggested": [
            {"given": int(given), "suggested": int(suggested), "n": int(n)}
            for (given, suggested), n in pairs.items()
        ],
        "suspicious_classes": [row["label"] for row in per_class if row["n_issues"] > row["n"] / 2],
        "validation_from_suspects": source.validation is None and len(suspects) > 0,
    }


def label_words(verdict: dict[str, Any]) -> list[str]:
    """The verdict in words, for the terminal."""
    n, of = verdict["n_issues"], f"of {verdict['n_images']:,} labels look wrong"
    if not n:
        return [f"Labels: none {of}"]
    about = "at least" if verdict["at_least"] else "about"
    interval = f"95 % interval {verdict['low']:,} to {verdict['high']:,}"
    test = f", {verdict['n_issues_test']:,} of them test images" if verdict["n_issues_test"] else ""
    return [f"Labels: {about} {n:,} {of} ({interval}){test}; review labels/label_issues.csv"]
