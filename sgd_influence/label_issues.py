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

from sgd_influence.label_check import Checked, Evidence, check_known_classes
from sgd_influence.label_record import load_record, sizes_of
from sgd_influence.poor_net import harmful_options, learnt, poor_net, unfit_net
from utils.columns import CLASS, IMAGE, LABEL, ROW, SET
from utils.data.flips import labels_trained_on
from utils.data.label_table import (
    CONFIDENCE,
    GIVEN,
    IS_ISSUE,
    PREDICTED,
    SCORE,
    SETS,
    VERSION,
    verdict_in,
)
from utils.data.source import TEST, TRAINING, Source, are_labels
from utils.data.splits import split_of_trial, validation_set
from utils.options import Options
from utils.output.results import Results
from utils.output.storage import load_array
from utils.training.trial import Trial

log = logging.getLogger("data_cleansing")

AUM = "aum"
NAME, PREDICTED_NAME = "class", "predicted_class"
COLUMNS = [IMAGE, LABEL, SET, IS_ISSUE, SCORE, PREDICTED, CONFIDENCE, AUM, "n_trials", ROW]
COLUMNS += [NAME, PREDICTED_NAME]
SHOWN_DIGITS = 6
NOT_RECORDED = (
    "Labels were not checked: the trainings in this folder are of an earlier version, which did "
    "not record what the check needs; run the command with another --output_dir"
)

PARTLY_RECORDED = (
    "Labels were checked by %d of %d trials: the trainings of the others are of an earlier version"
)


def check_of_run(
    options: Options, source: Source, trial: Trial, results: Results
) -> dict[str, Any] | None:
    """Check all labels by all trials of the folder, and write the table and the verdict.

    Args:
        options: as parsed.
        source: the images of the data set.
        trial: one of the trials, all being of one size.
        results: the tables of the run.

    Returns:
        The content of labels/verdict.json; None where the trainings recorded too little.

    Raises:
        UserError: a record cannot be read, or the folder cannot be written.
    """
    folder, n_epochs = trial.folder, trial.n_epochs
    trained = folder.trained()
    seeds = [s for s in trained if folder.label_record(s, n_epochs).exists()]
    if not seeds:
        log.warning(NOT_RECORDED)
        return None
    if len(seeds) < len(trained):
        log.warning(PARTLY_RECORDED, len(seeds), len(trained))
    seen = [part for seed in seeds for part in seen_by(options, source, trial, results, seed)]
    images, evidence = merged(seen)
    found = learnt(options, source, results, seeds)
    checked = check_known_classes(evidence, found.sound)
    reason = unfit_net(found)
    if reason:
        checked = checked.without_suspects(evidence.labels)
    reason = reason or poor_net(found, checked)
    table = issue_table(images, checked, source.class_names)
    shape, harmful = trial.network.image_shape, harmful_options(options)
    verdict = verdict_of(table, checked, source, shape, reason, harmful)
    table = with_given(table, source)
    folder.save_csv(table, folder.label_issues)
    results.keep(table, folder.latest(folder.label_issues))
    folder.save_json(verdict, folder.label_verdict)
    return verdict


# ---------------------------------------------------------------- what the trials recorded


@dataclass(frozen=True)
class Seen:
    """The predictions of one trial for N images of one set.

    Attributes:
        name: of the set in the data set: training, validation or test.
        images: (N,) rows of x:image, y:label (trained on or evaluated with) and row, the image's
            row in the data set's table of that set.
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
    """The predictions that a trial recorded for its training, validation and test images.

    Args:
        options: as parsed.
        source: the images of the data set.
        trial: one of the run, for the folder and the sizes.
        results: the tables of the run.
        seed: of the trial to read.

    Raises:
        UserError: a record cannot be read.
    """
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
        images = images.assign(**{ROW: rows - source.rows_of_set(name).start})
        if trained:
            images[LABEL] = labels_trained_on(images[LABEL].to_numpy(np.int64), results, seed)
        yield Seen(name, images, means, by_epoch.mean(axis=0, dtype=np.float64), trained)


def merged(seen: Sequence[Seen]) -> tuple[pd.DataFrame, Evidence]:
    """Each image once, with the predictions of all trials.

    An image's label is the one trained on in some trial (a flipped one with `--flip_labels`);
    margins of another label do not count.

    Returns:
        x:image, y:label, set, row, aum and n_trials; and the evidence, in the same order.
    """
    order = sorted(seen, key=lambda part: not part.trained)
    rows = pd.concat(
        [part.images.assign(**{SET: part.name, AUM: part.margins}) for part in order],
        ignore_index=True,
    )
    by_image = rows.groupby([SET, ROW])
    number = by_image.ngroup().to_numpy()
    images = by_image[[IMAGE, LABEL]].first()
    same = rows[LABEL].to_numpy() == images[LABEL].to_numpy()[number]
    images[AUM] = rows[same].groupby([SET, ROW])[AUM].mean()
    images["n_trials"] = by_image.size()
    images = images.reset_index()
    return images, _evidence(order, images, number)


def _evidence(order: Sequence[Seen], images: pd.DataFrame, number: np.ndarray) -> Evidence:
    """The mean predictions for each image.

    Args:
        order: sets of predictions.
        images: a row per image (N,).
        number: the row in `images` of each prediction, set by set.
    """
    shape = len(images), order[0].probabilities.shape[1]
    sums, counts = np.zeros((2, *shape), np.float32), np.zeros((2, len(images)), np.int64)
    ends = np.cumsum([len(part.images) for part in order])[:-1]
    for part, at in zip(order, np.split(number, ends), strict=True):
        sums[int(not part.trained), at] += part.probabilities
        counts[int(not part.trained), at] += 1
    sums /= np.maximum(counts, 1)[:, :, None]
    return Evidence(
        labels=images[LABEL].to_numpy(np.int64),
        groups=images[SET].map(SETS.index).to_numpy(np.int64),
        trained=sums[0],
        n_trained=counts[0],
        held=sums[1],
        n_held=counts[1],
    )


def issue_table(images: pd.DataFrame, checked: Checked, class_names: Sequence[str]) -> pd.DataFrame:
    """`COLUMNS`, the label that is most likely wrong first; suspects before all others.

    Args:
        images: (N,) rows of the data set.
        checked: what the check says of their labels.
        class_names: (K,), by label.
    """
    name_of = dict(enumerate(class_names))
    table = images.assign(
        **{
            NAME: images[LABEL].map(name_of),
            PREDICTED_NAME: pd.Series(checked.predicted, images.index).map(name_of),
            IS_ISSUE: checked.suspect.astype(int),
            SCORE: checked.score.round(SHOWN_DIGITS),
            PREDICTED: checked.predicted,
            CONFIDENCE: checked.predicted_score.round(SHOWN_DIGITS),
        }
    )
    by = [IS_ISSUE, SCORE, AUM]
    return table.sort_values(by, ascending=[False, True, True], kind="stable")[COLUMNS]


def with_given(table: pd.DataFrame, source: Source) -> pd.DataFrame:
    """The table with the further columns of the user's own CSV files, named `GIVEN` and their name.

    Args:
        table: of `issue_table`.
        source: the images of the data set.
    """
    ours = [IMAGE, LABEL] if are_labels(source.class_names) else [IMAGE, LABEL, CLASS]
    given = source.all_columns().drop(columns=ours, errors="ignore").add_prefix(GIVEN)
    starts = {name: source.rows_of_set(name).start for name in SETS}
    rows = table[ROW] + table[SET].map(starts)
    return table.join(given.iloc[rows].set_axis(table.index))


def verdict_of(
    table: pd.DataFrame,
    checked: Checked,
    source: Source,
    image_shape: Sequence[int],
    reason: str,
    harmful: str,
) -> dict[str, Any]:
    """The content of labels/verdict.json.

    Args:
        table: of `issue_table`.
        checked: what it shows.
        source: the images of the data set.
        image_shape: (C, H, W) of the images that the net got.
        reason: why the number is a lower bound; empty if it is an estimate.
        harmful: which options make the check worse; empty for none.
    """
    suspects = table[table[IS_ISSUE] == 1]
    per_class = _per_class(table, source.class_names)
    return {
        "version": VERSION,
        "n_images": len(table),
        "n_issues": checked.count.n,
        "low": checked.count.low,
        "high": checked.count.high,
        "n_issues_test": int((suspects[SET] == TEST).sum()),
        "at_least": bool(reason),
        "reason": reason or None,
        "harmful_options": harmful or None,
        "per_class": per_class,
        "given_to_suggested": _given_to_suggested(suspects),
        "suspicious_classes": [row["label"] for row in per_class if row["n_issues"] > row["n"] / 2],
        "untrained_classes": list(checked.untrained),
        "validation_from_suspects": source.validation is None
        and bool((suspects[SET] != TEST).any()),
        "test_drawn": source.test_drawn,
        "n_undrawn": len(source.images) - len(table),
        "image_shape": list(image_shape),
    }


def _given_to_suggested(suspects: pd.DataFrame) -> list[dict[str, int]]:
    """How many suspects there are of each given and suggested label, the most frequent first."""
    sizes = suspects.groupby([LABEL, PREDICTED]).size()
    return [
        {"given": int(given), "suggested": int(suggested), "n": int(n)}
        for (given, suggested), n in sizes.sort_values(ascending=False, kind="stable").items()
    ]


def _per_class(table: pd.DataFrame, names: Sequence[str]) -> list[dict[str, Any]]:
    counts = table.groupby(LABEL)[IS_ISSUE].agg(["size", "sum"])
    return [
        {"label": int(label), "class": names[label], "n": int(n), "n_issues": int(wrong)}
        for label, n, wrong in counts.itertuples()
    ]


def label_words(verdict: dict[str, Any], table: str) -> list[str]:
    """The verdict in words, for the terminal; `table` is the name of the file of all labels."""
    found, names = verdict_in(verdict), {row["label"]: row["class"] for row in verdict["per_class"]}
    headline = f"Labels: {found.headline[0].lower()}{found.headline[1:]}"
    if found.n_issues:
        headline += f"; review labels/{table}, the worst come first"
    return [headline, *found.remarks, *found.warnings(lambda label: names[label])]


def about_validation(verdict: dict[str, Any] | None, flipped: bool = False) -> str:
    """What the verdict on labels means for the verdict on removal; empty if nothing.

    Args:
        verdict: the content of labels/verdict.json, if there is one.
        flipped: `--flip_labels` made labels wrong, of training images only.
    """
    if verdict is None or flipped or not verdict["validation_from_suspects"]:
        return ""
    return (
        "the validation images are drawn from the same data, some of whose labels look wrong; "
        "wrong validation labels make gains look smaller"
    )
