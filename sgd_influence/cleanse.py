"""The cleansed data set: the images for training without the worst n, and what was removed.

Images for training are those that some trial trained on, or held back from training for validation.
What no trial trained on is kept. Test images are not among them. The cleansed list has the labels
of the data set; what was removed has those trained on, some of them wrong with `--flip_labels`.
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
from utils.data.nnc_csv import read_nnc_csv
from utils.data.source import TEST, VALIDATION, Source, are_labels
from utils.data.splits import SplitFiles, draw_split
from utils.options import Options
from utils.output.folder import OutputFolder
from utils.output.ranking import joined
from utils.output.storage import read_csv

log = logging.getLogger("data_cleansing")

SUGGESTED, CONFIDENCE = "suggested_label", "confidence"
SUGGESTED_CLASS = "#suggested_class"
REMOVED_COLUMNS = [IMAGE, LABEL, "influence", "rank", SUGGESTED, CONFIDENCE]


def cleanse(
    options: Options,
    source: Source,
    folder: OutputFolder,
    tried: Tried,
    counts: Mapping[str, int],
) -> None:
    """Write the cleansed data set of each method, and the images that it leaves out.

    Args:
        options: as parsed; `--cleanse_n` goes before `counts`.
        source: the images of the data set.
        folder: of the run.
        tried: what the removals came to.
        counts: by method, how many images are recommended to be removed.
    """
    rows = {seed: _rows_of_split(options, source, seed) for seed in options.seeds}
    used = source.training.iloc[np.unique(np.concatenate(list(rows.values())))]
    for method, recommended in counts.items():
        n = recommended if options.cleanse_n is None else options.cleanse_n
        scored, heard = [], []
        for seed, row in rows.items():
            scored.append((read_csv(folder.influence(method, seed)), row))
            outcomes = {k: o for (m, k, s), o in tried.items() if (m, s) == (method, seed)}
            heard.append((row, outcomes))
        images = merged(scored)
        removed = removed_table(images, opinions(heard, n), n, source.class_names)
        kept = cleansed_table(used, removed, source.class_names)
        folder.save_csv(removed, folder.removed(method, n))
        folder.save_csv(kept, folder.cleansed(method, n))
        _say(options, folder.cleansed(method, n), source, len(used) - len(images), used, kept)
    _save_other_sets(options, source, folder)


def _save_other_sets(options: Options, source: Source, folder: OutputFolder) -> None:
    """Write the images that the run validated and tested on, for a run on a cleansed list.

    Validation images that come from the training images are in the cleansed lists already.
    """
    splits = [_split(options, source, seed) for seed in options.seeds]
    tables = {TEST: read_nnc_csv(splits[0].test)}
    if source.validation is not None:
        used = [read_nnc_csv(split.validation) for split in splits]
        tables[VALIDATION] = pd.concat(used).drop_duplicates(ignore_index=True)
    for name, table in tables.items():
        folder.save_csv(with_class_names(table, source.class_names), folder.cleansed_set(name))


def _rows_of_split(options: Options, source: Source, seed: int) -> np.ndarray:
    """The row in the data set of each training image of a trial, then of its validation images.

    Validation images that do not come from the training images of the data set are left out.
    """
    files = _split(options, source, seed)
    paths = list(read_nnc_csv(files.training)[IMAGE])
    if source.validation is None:
        paths += list(read_nnc_csv(files.validation)[IMAGE])
    return rows_of(paths, source.training[IMAGE])


def _split(options: Options, source: Source, seed: int) -> SplitFiles:
    sizes = options.n_train, options.n_val, options.n_test
    return draw_split(source, options.split_seed_of(seed), *sizes)


def _unscored(count: int) -> str:
    """Why some of the images kept were never judged."""
    if not count:
        return ""
    return f"; {count:,} of those kept have no score, because no trial trained on them"


def _say(
    options: Options,
    path: Path,
    source: Source,
    unscored: int,
    used: pd.DataFrame,
    kept: pd.DataFrame,
) -> None:
    """What the cleansed list holds; a warning if a class lost its last image."""
    n = f"{len(used) - len(kept)} removed" + (" (--cleanse_n)" if options.cleanse_n else "")
    log.info("%s: %s images kept, %s%s", path, f"{len(kept):,}", n, _unscored(unscored))
    lost = sorted(set(used[LABEL]) - set(kept[LABEL]))
    if lost:
        names = ", ".join(source.class_names[label] for label in lost)
        log.warning("%s: no image is left of %s", path, names)


# ---------------------------------------------------------------- the tables


def rows_of(paths: Sequence[str], pool: Sequence[str]) -> np.ndarray:
    """Which rows of `pool` (M,) the images `paths` (N,) are; (N,) int64.

    An image that is named several times is its first, second, ... row there.
    """
    return _numbered(pool).get_indexer(_numbered(paths))


def _numbered(paths: Sequence[str]) -> pd.MultiIndex:
    """Each path with how often it came before."""
    column = pd.Series(list(paths), dtype=object)
    return pd.MultiIndex.from_arrays([column, column.groupby(column).cumcount()])


def merged(by_trial: Sequence[tuple[pd.DataFrame, np.ndarray]]) -> pd.DataFrame:
    """All images that some trial trained on, the most harmful first.

    An image's place and influence are means over the trials that trained on it; its label is the
    one trained on (a flipped one with `--flip_labels`), in the trial where it was worst.

    Args:
        by_trial: the influence table, and the row in the data set of each row of the training CSV
            (n_train or more,).

    Returns:
        x:image, y:label, influence, place and rank (from 1) by `row` of the data set.
    """
    tables = [
        table.assign(row=rows[table["datasource_index"].to_numpy()]) for table, rows in by_trial
    ]
    return joined(tables, "row")


def opinions(by_trial: Sequence[tuple[np.ndarray, Mapping[int, Outcomes]]], n: int) -> pd.DataFrame:
    """What networks retrained without an image say of it, over the trials that left it out.

    In each trial the smallest removal of at least n images that has it among them counts. The
    class with the largest mean probability is suggested; a trial that prefers another class counts
    as 0 in that mean, so that the confidence is never too high.

    Args:
        by_trial: per trial the rows as in `merged`, and the outcomes by n removed.
        n: how many images are removed.

    Returns:
        The columns `SUGGESTED` and `CONFIDENCE` by row of the data set.
    """
    said = pd.concat([_said(rows, outcomes, n) for rows, outcomes in by_trial])
    trials = said.groupby("row").size()
    sums = said.groupby(["row", "predicted"])["confidence"].sum()
    best = sums.sort_values(ascending=False, kind="stable").reset_index().groupby("row").first()
    confidence = best["confidence"] / trials
    return pd.DataFrame({SUGGESTED: best["predicted"].astype("Int64"), CONFIDENCE: confidence})


def _said(rows: np.ndarray, outcomes: Mapping[int, Outcomes], n: int) -> pd.DataFrame:
    """The opinions of one trial: row, predicted and confidence."""
    parts = [pd.DataFrame({"row": [], "predicted": [], "confidence": []}, dtype="int64")]
    for _, o in sorted((m, o) for m, o in outcomes.items() if m >= n):
        columns = {"row": rows[o.removed], "predicted": o.predicted, "confidence": o.confidence}
        parts.append(pd.DataFrame(columns).astype({"confidence": "float64"}))
    return pd.concat(parts).drop_duplicates("row")


def removed_table(
    images: pd.DataFrame, said: pd.DataFrame, n: int, class_names: Sequence[str]
) -> pd.DataFrame:
    """The n worst: `REMOVED_COLUMNS` by row of the data set, and the names of both classes.

    Args:
        images: of `merged`.
        said: of `opinions`.
        n: how many.
        class_names: K names; if they are not 0 to K - 1 they come along as the columns `CLASS` and
            `SUGGESTED_CLASS`.
    """
    removed = images.head(n).join(said)[REMOVED_COLUMNS]
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
        training: images for training, with `x:image` absolute and `y:label` a whole number.
        removed: of `removed_table`.
        class_names: K names; if they are not 0 to K - 1 they come along as the column `CLASS`.
    """
    return with_class_names(training.drop(index=removed.index), class_names)


def with_class_names(table: pd.DataFrame, class_names: Sequence[str]) -> pd.DataFrame:
    """The table with the column `CLASS`, unless the classes have no names but their labels."""
    if are_labels(class_names) or CLASS in table:
        return table
    return table.assign(**{CLASS: [class_names[label] for label in table[LABEL]]})
