"""The cleansed data set: the images for training without the worst n, and what was removed.

Images for training are those that some trial trained on, or held back from training for validation.
Those of them that no trial of the command trained on are kept. Test images are not among them. The
cleansed list has the labels of the data set; the list of removed images has the labels trained on,
of which `--flip_labels` makes some wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sgd_influence.outcomes import Outcomes
from sgd_influence.recommend import Tried
from utils.columns import CLASS, IMAGE, LABEL
from utils.data.source import TEST, TRAINING, VALIDATION, Source, are_labels
from utils.data.splits import Split, split_of_trial, table_of
from utils.options import Options
from utils.output.folder import OutputFolder
from utils.output.ranking import joined
from utils.output.results import Results

log = logging.getLogger("data_cleansing")

SUGGESTED, CONFIDENCE = "suggested_label", "confidence"
SUGGESTED_CLASS = "#suggested_class"
REMOVED_COLUMNS = [IMAGE, LABEL, "influence", "rank", SUGGESTED, CONFIDENCE]


def cleanse(
    options: Options,
    source: Source,
    folder: OutputFolder,
    results: Results,
    tried: Tried,
    counts: Mapping[str, int],
) -> None:
    """Write the cleansed data set of each method, and the images that it leaves out.

    Args:
        options: as parsed.
        source: the images of the data set.
        folder: of the run.
        results: its tables.
        tried: the results of the removals.
        counts: by method, how many images are left out.
    """
    splits = {seed: split_of_trial(options, source, seed) for seed in options.seeds}
    training = source.training.set_axis(source.rows_of_set(TRAINING))
    used = training.iloc[_used(source, list(splits.values()))]
    for method, n in counts.items():
        images = joined([results.influence(method, seed) for seed in splits])
        heard = []
        for seed, split in splits.items():
            outcomes = {k: o for (m, k, s), o in tried.items() if (m, s) == (method, seed)}
            heard.append((split.training, outcomes))
        removed = removed_table(images, opinions(heard, n), n, source.class_names)
        kept = cleansed_table(used, removed, source.class_names)
        folder.save_csv(removed, folder.removed(method, n))
        results.keep(removed, folder.latest(folder.removed(method, n)))
        path = folder.cleansed(method, n)
        folder.save_csv(kept, path)
        _say(options, folder.latest(path), source, used, kept)
    if counts:
        lists = folder.cleansed_set(TEST).parent
        _log_unseen(lists, len(source.training), len(used), list(splits.values()))
    _save_other_sets(source, folder, list(splits.values()))


def _used(source: Source, splits: Sequence[Split]) -> np.ndarray:
    """The rows of the training set that some trial trained on, or held back for validation."""
    rows = [split.training for split in splits]
    rows += [split.validation for split in splits if source.validation is None]
    return np.unique(np.concatenate(rows))


def _log_unseen(lists: Path, n: int, n_used: int, splits: Sequence[Split]) -> None:
    """How many of the n_used images listed were not trained on, and how many of all n are not."""
    trained = np.unique(np.concatenate([split.training for split in splits]))
    if unscored := n_used - len(trained):
        what = "without a score, because no trial of this command trained on them"
        log.info("%s: listed images %s: %s", lists, what, f"{unscored:,}")
    if undrawn := n - n_used:
        what = "not listed, because no trial of this command used them (--n_train, --n_val)"
        log.info("%s: training images of the data set %s: %s", lists, what, f"{undrawn:,}")


def _save_other_sets(source: Source, folder: OutputFolder, splits: Sequence[Split]) -> None:
    """Write the images that the run validated and tested on, for a run on a cleansed list.

    Validation images that come from the training images are in the cleansed lists already.
    """
    tables = {TEST: table_of(source, TEST, splits[0].test)}
    if source.validation is not None:
        rows = pd.unique(np.concatenate([split.validation for split in splits]))
        tables[VALIDATION] = table_of(source, VALIDATION, rows)
    for name, table in tables.items():
        folder.save_csv(with_class_names(table, source.class_names), folder.cleansed_set(name))


def _say(
    options: Options, path: Path, source: Source, used: pd.DataFrame, kept: pd.DataFrame
) -> None:
    """What the cleansed list holds; a warning if a class lost its last image."""
    n = f"{len(used) - len(kept)} removed" + (" (--cleanse_n)" if options.cleanse_n else "")
    log.info("%s: %s images kept, %s", path, f"{len(kept):,}", n)
    lost = sorted(set(used[LABEL]) - set(kept[LABEL]))
    if lost:
        names = ", ".join(source.class_names[label] for label in lost)
        log.warning("%s: no image is left of %s", path, names)


# ---------------------------------------------------------------- the tables


def opinions(by_trial: Sequence[tuple[np.ndarray, Mapping[int, Outcomes]]], n: int) -> pd.DataFrame:
    """The class that networks retrained without an image predict for it, over all trials.

    In each trial the smallest removal of at least n images that has it among them counts. The
    class with the largest mean probability is suggested; a trial that prefers another class counts
    as 0 in that mean, so that the confidence is never too high.

    Args:
        by_trial: per trial the rows of its training images (n_train,), and the outcomes by n
            removed.
        n: how many images are removed.

    Returns:
        The columns `SUGGESTED` and `CONFIDENCE` by row of the data set.
    """
    judged = pd.concat([_opinion(rows, outcomes, n) for rows, outcomes in by_trial])
    trials = judged.groupby("row").size()
    sums = judged.groupby(["row", "predicted"])["confidence"].sum()
    best = sums.sort_values(ascending=False, kind="stable").reset_index().groupby("row").first()
    confidence = best["confidence"] / trials
    return pd.DataFrame({SUGGESTED: best["predicted"].astype("Int64"), CONFIDENCE: confidence})


def _opinion(rows: np.ndarray, outcomes: Mapping[int, Outcomes], n: int) -> pd.DataFrame:
    """The opinions of one trial: row, predicted and confidence."""
    parts = [pd.DataFrame({"row": [], "predicted": [], "confidence": []}, dtype="int64")]
    for _, o in sorted((m, o) for m, o in outcomes.items() if m >= n):
        columns = {"row": rows[o.removed], "predicted": o.predicted, "confidence": o.confidence}
        parts.append(pd.DataFrame(columns).astype({"confidence": "float64"}))
    return pd.concat(parts).drop_duplicates("row")


def removed_table(
    images: pd.DataFrame, judged: pd.DataFrame, n: int, class_names: Sequence[str]
) -> pd.DataFrame:
    """The n worst: `REMOVED_COLUMNS` by row of the data set, and the names of both classes.

    Args:
        images: of `joined`.
        judged: of `opinions`.
        n: how many.
        class_names: K names; if they are not 0 to K - 1, the columns `CLASS` and `SUGGESTED_CLASS`
            have them.
    """
    removed = images.head(n).join(judged)[REMOVED_COLUMNS]
    if are_labels(class_names):
        return removed
    names = dict(enumerate(class_names))
    called = {CLASS: removed[LABEL].map(names), SUGGESTED_CLASS: removed[SUGGESTED].map(names)}
    return removed.assign(**called)


def cleansed_table(
    training: pd.DataFrame, removed: pd.DataFrame, class_names: Sequence[str]
) -> pd.DataFrame:
    """The images without the removed, with the user's further columns.

    Args:
        training: images for training by row, with `x:image` absolute and `y:label` a whole number.
        removed: of `removed_table`.
        class_names: K names; if they are not 0 to K - 1, the column `CLASS` has them.
    """
    return with_class_names(training.drop(index=removed.index), class_names)


def with_class_names(table: pd.DataFrame, class_names: Sequence[str]) -> pd.DataFrame:
    """The table with the column `CLASS`, unless the classes have no names but their labels."""
    if are_labels(class_names):
        return table
    return table.assign(**{CLASS: [class_names[label] for label in table[LABEL]]})
