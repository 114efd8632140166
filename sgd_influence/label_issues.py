"""The verdict on the labels: `labels/label_issues.csv` and `labels/verdict.json` of a run.

It uses what the trainings of the run recorded. Nothing is trained for it, and no other result
depends on it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sgd_influence.label_check import Checked, Evidence, check_labels
from sgd_influence.label_record import load_record, sizes_of
from sgd_influence.poor_net import harmful_options, poor_net
from utils.columns import IMAGE, INDEX, LABEL, SEED, TO
from utils.data.source import TEST, TRAINING, VALIDATION, Source
from utils.data.splits import split_of_trial, validation_set
from utils.options import Options
from utils.output.paths import latest
from utils.output.results import Results
from utils.output.storage import load_array
from utils.training.trial import Trial

log = logging.getLogger("data_cleansing")

VERSION = 1
ISSUE, SCORE = "is_label_issue", "label_score"
PREDICTED, PREDICTED_SCORE = "predicted_label", "predicted_score"
COLUMNS = [
    IMAGE, LABEL, "set", ISSUE, SCORE, PREDICTED, PREDICTED_SCORE, "aum", "n_trials", "row",
]  # fmt: skip
SETS = (TRAINING, VALIDATION, TEST)
SHOWN_DIGITS = 6
NOT_RECORDED = (
    "Labels were not checked: the trainings in this folder are of an earlier version, which did "
    "not record what the check needs; a run into another --output_dir does"
)

PARTLY_RECORDED = (
    "Labels were checked by %d of %d trials: the trainings of the others are of an earlier version"
)


def check_of_run(
    options: Options, source: Source, trial: Trial, results: Results
) -> dict[str, Any] | None:
    """Check all labels, and write the table and the verdict; returns the latter.

    Args:
        options: as parsed.
        source: the images of the data set.
        trial: one of the trials, all being of one size.
        results: the tables of the run.

    Returns:
        The content of labels/verdict.json; None where the trainings recorded too little.
    """
    folder, n_epochs = trial.folder, trial.n_epochs
    seeds = [s for s in options.seeds if folder.label_record(s, n_epochs).exists()]
    if not seeds:
        log.warning(NOT_RECORDED)
        return None
    if len(seeds) < len(options.seeds):
        log.warning(PARTLY_RECORDED, len(seeds), len(options.seeds))
    seen = [part for seed in seeds for part in seen_by(options, source, trial, results, seed)]
    images, evidence = merged(seen)
    checked = check_labels(evidence)
    table = issue_table(images, checked)
    reason = poor_net(trial, seeds, checked)
    verdict = verdict_of(table, checked, source, reason, harmful_options(options))
    folder.save_csv(table, folder.label_issues)
    results.keep(table, latest(folder.label_issues))
    folder.save_json(verdict, folder.label_verdict)
    return verdict


# ---------------------------------------------------------------- what the trials recorded


@dataclass(frozen=True)
class Seen:
    """What one trial says of N images of one set.

    Attributes:
        name: of the set in the data set: training, validation or test.
        images: x:image, y:label (the label trained on or evaluated with) and row, in the data
            set's table of the set; a row per image (N,).
        probabilities: (N, K), mean over the epochs.
        margins: (N,), mean over the epochs.
        trained: whether the trial trained on them.
    """

    name: str
    images: pd.DataFrame
    probabilities: np.ndarray
    margins: np.ndarray
    trained: bool


def seen_by(
    options: Options, source: Source, trial: Trial, results: Results, seed: int
) -> Iterator[Seen]:
    """What the trial of a seed says of its training, validation and test images."""
    paths, split = trial.folder, split_of_trial(options, source, seed)
    record = load_record(paths.label_record(seed, trial.n_epochs), sizes_of(trial))
    margins = load_array(paths.margins(seed), (trial.n_epochs, trial.n_train))
    held_out = validation_set(source)
    for name, rows, means, by_epoch, trained in (
        (TRAINING, split.training, record.training, margins, True),
        (held_out, split.validation, record.validation, record.validation_margins, False),
        (TEST, split.test, record.test, record.test_margins, False),
    ):
        images = source.images[[IMAGE, LABEL]].iloc[rows]
        images = images.assign(row=rows - source.rows_of_set(name).start)
        if trained:
            images[LABEL] = labels_trained_on(images, results, seed)
        yield Seen(name, images, means, by_epoch.mean(axis=0, dtype=np.float64), trained)


def labels_trained_on(table: pd.DataFrame, results: Results, seed: int) -> np.ndarray:
    """The labels of a trial's training images (n_train,), those of `--flip_labels` included."""
    labels = table[LABEL].to_numpy(np.int64).copy()
    flips = results.flips()
    if flips is not None:
        flips = flips[flips[SEED] == seed]
        labels[flips[INDEX].to_numpy()] = flips[TO].to_numpy()
    return labels


def merged(seen: Sequence[Seen]) -> tuple[pd.DataFrame, Evidence]:
    """Each image once, with what all trials say of it.

    An image's label is the one trained on in some trial (a flipped one with `--flip_labels`);
    margins of another label do not count.

    Returns:
        x:image, y:label, set, row, aum and n_trials; what the check takes, in the same order.
    """
    order = sorted(seen, key=lambda part: not part.trained)
    rows = pd.concat(
        [p.images.assign(set=p.name, aum=p.margins, trained=p.trained) for p in order],
        ignore_index=True,
    )
    groups = rows.groupby(["set", "row"])
    number = groups.ngroup().to_numpy()
    images = groups[[IMAGE, LABEL]].first()
    same = rows[LABEL].to_numpy() == images[LABEL].to_numpy()[number]
    images["aum"] = rows[same].groupby(["set", "row"])["aum"].mean()
    images["n_trials"] = groups.size()
    images = images.reset_index()
    k = order[0].probabilities.shape[1]
    sums = np.zeros((2, len(images), k), np.float32)
    counts = np.zeros((2, len(images)), np.int64)
    ends = np.cumsum([len(part.images) for part in order])[:-1]
    for part, at in zip(order, np.split(number, ends), strict=True):
        sums[int(not part.trained), at] += part.probabilities
        counts[int(not part.trained), at] += 1
    sums /= np.maximum(counts, 1)[:, :, None]
    evidence = Evidence(
        labels=images[LABEL].to_numpy(np.int64),
        groups=images["set"].map(SETS.index).to_numpy(np.int64),
        trained=sums[0],
        n_trained=counts[0],
        held=sums[1],
        n_held=counts[1],
    )
    return images, evidence


def issue_table(images: pd.DataFrame, checked: Checked) -> pd.DataFrame:
    """`COLUMNS`, the label that is most likely wrong first; suspects before all others."""
    table = images.assign(
        **{
            ISSUE: checked.suspect.astype(int),
            SCORE: checked.score.round(SHOWN_DIGITS),
            PREDICTED: checked.predicted,
            PREDICTED_SCORE: checked.predicted_score.round(SHOWN_DIGITS),
        }
    )
    by = [ISSUE, SCORE, "aum"]
    return table.sort_values(by, ascending=[False, True, True], kind="stable")[COLUMNS]


def verdict_of(
    table: pd.DataFrame, checked: Checked, source: Source, reason: str, harmful: str
) -> dict[str, Any]:
    """The content of labels/verdict.json.

    Args:
        table: of `issue_table`.
        checked: what it shows.
        source: the images of the data set.
        reason: why the number is a lower limit; empty if it is none.
        harmful: which options harm the check; empty if none does.
    """
    suspects = table[table[ISSUE] == 1]
    per_class = _per_class(table, source.class_names)
    pairs = suspects.groupby([LABEL, PREDICTED]).size().sort_values(ascending=False, kind="stable")
    return {
        "version": VERSION,
        "n_images": len(table),
        "n_issues": checked.count.n,
        "low": checked.count.low,
        "high": checked.count.high,
        "n_issues_test": int((suspects["set"] == TEST).sum()),
        "at_least": bool(reason),
        "reason": reason or None,
        "harmful_options": harmful or None,
        "per_class": per_class,
        "given_to_suggested": [
            {"given": int(given), "suggested": int(suggested), "n": int(n)}
            for (given, suggested), n in pairs.items()
        ],
        "suspicious_classes": [row["label"] for row in per_class if row["n_issues"] > row["n"] / 2],
        "validation_from_suspects": source.validation is None and len(suspects) > 0,
    }


def _per_class(table: pd.DataFrame, names: Sequence[str]) -> list[dict[str, Any]]:
    counts = table.groupby(LABEL)[ISSUE].agg(["size", "sum"])
    return [
        {"label": int(label), "class": names[label], "n": int(n), "n_issues": int(wrong)}
        for label, n, wrong in counts.itertuples()
    ]


def label_words(verdict: dict[str, Any]) -> list[str]:
    """The verdict in words, for the terminal."""
    n, high = verdict["n_issues"], verdict["high"]
    look, of = ("looks" if n == 1 else "look"), f"of {verdict['n_images']:,} labels"
    test = f", {verdict['n_issues_test']:,} of them in the test set" if n else ""
    review = "; review labels/label_issues.csv, the worst come first" if n else ""
    if verdict["at_least"]:
        how = f"at least {n:,} {of} {look} wrong" if verdict["low"] else f"{n:,} {of} {look} wrong"
        lines = [f"Labels: {how}{test}, and up to {high:,} may be{review}", verdict["reason"]]
    else:
        interval = f" (95 % interval {verdict['low']:,} to {high:,})"
        lines = [f"Labels: about {n:,} {of} {look} wrong{interval}{test}{review}"]
    names = {row["label"]: row["class"] for row in verdict["per_class"]}
    classes = ", ".join(names[label] for label in verdict["suspicious_classes"])
    swapped = "most labels of a class look wrong, as if folders were swapped or merged"
    lines += [f"But {swapped}: {classes}"] if classes else []
    lines += [verdict["harmful_options"]] if verdict["harmful_options"] else []
    return lines


def removal_words(verdict: dict[str, Any]) -> list[str]:
    """What the verdict on the labels means for the one on removal."""
    if not verdict["validation_from_suspects"]:
        return []
    return [
        "But the validation images are drawn from the same data, some of whose labels look wrong: "
        "the removals were judged by those labels too"
    ]
