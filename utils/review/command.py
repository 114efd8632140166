"""The steps of `python -m utils.review`."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from utils.columns import IMAGE, LABEL, ROW, SET
from utils.console import RESULT
from utils.data.decisions import (
    DECISION,
    NEW_LABEL,
    RELABEL,
    REMOVE,
    UNDO,
    as_written,
    merged,
    no_decisions,
    read_decisions,
)
from utils.data.label_table import (
    IS_ISSUE,
    LabelVerdict,
    read_class_names,
    read_given,
    read_label_issues,
    read_label_verdict,
)
from utils.data.source import TEST, TRAINING, VALIDATION
from utils.errors import UserError
from utils.link_free import check_place, read_file
from utils.output.folder import OutputFolder
from utils.output.lock import FolderLock
from utils.output.manifest import FileDigest, Manifest, manifest_of_run
from utils.output.own_files import check_own
from utils.output.paths import OutputPaths, free_name
from utils.output.storage import csv_bytes
from utils.review.export import csv_name, export
from utils.review.reviewed import Reviewed
from utils.review.worth import gains, measure
from utils.units import counted

log = logging.getLogger("data_cleansing")

RUNNABLE = {"csv": csv_name(TRAINING), "folder": ""}
"""By how it is written, the path below the reviewed data set that `-ds` takes."""


def review(folder: Path, decisions: Path, how: str, n_trials: int) -> None:
    """Check decisions, write the reviewed data set, and measure its gain in test accuracy.

    Args:
        folder: the output folder of a run.
        decisions: the file of the page.
        how: csv, folder or filelist.
        n_trials: trainings on each list; 0 for none.

    Raises:
        UserError: the folder has no label check, or its table was edited; another process writes to
            it; an image is gone, a decision cannot be followed, or a set has no image left.
    """
    paths = OutputFolder(folder)
    manifest_of_run(paths)  # a folder without a run gets no lock
    check_own(paths.lock, paths)
    with FolderLock(paths.lock):
        _review(paths, decisions, how, n_trials)


def _review(paths: OutputFolder, decisions: Path, how: str, n_trials: int) -> None:
    manifest, found = _manifest(paths), _verdict(paths)
    names, issues = read_class_names(paths.classes), read_label_issues(paths)
    check_place(paths.root, paths.decisions.relative_to(paths.root).as_posix())
    given = read_decisions(decisions, issues, names)
    earlier = _earlier(paths, issues, names)
    decided = merged(earlier, given)
    _check_some(decisions, given, earlier)
    data = Reviewed.of(issues, read_given(paths), decided, names)
    _check_left(data, decisions)
    _check_images(data, paths)
    check_place(paths.root, paths.reviewed.name, folder=True)
    log.info("%s: %s", decisions, _counts(given))
    _log_numbers(decisions, given, names)
    written = export(data, paths.reviewed, how)
    if how == "filelist" and (n := int((decided[DECISION] == RELABEL).sum())):
        log.warning("A file list has no labels: %s not in it", counted(n, "new label"))
    log.info("Reviewed data set: %s (%s)", written.resolve(), _sizes(data))
    if found and found.n_undrawn:
        what = "not in it: the run used only a part (--n_train, --n_val or --n_test)"
        log.warning("%s of the data set %s", counted(found.n_undrawn, "image"), what)
    if how in RUNNABLE and not manifest.options.get("flip_labels"):
        log.info("To train on it: -ds %s", written.resolve() / RUNNABLE[how])
    if not _is_kept(decisions, paths):
        _log_merged(paths, earlier, given, decided)
        _keep(decided, names, paths)
    _log_undecided(paths, issues, decided)
    if manifest.options.get("flip_labels"):
        log.warning("An experiment: labels were flipped on purpose (--flip_labels); not for use")
    if n_trials and data.changes_training:
        trainings = measure(paths, manifest.options | _form_of_run(found), data, n_trials)
        _log_worth(data, trainings, test_drawn=found is None or found.test_drawn)
    elif n_trials:
        log.info("No training image changes, so there is nothing to measure.")


def _manifest(paths: OutputPaths) -> Manifest:
    """The manifest of a folder with a label check; UserError if it has none, or an edited one.

    The table of all images is the data set: rows that a person takes out would be lost.
    """
    manifest, table = manifest_of_run(paths), paths.latest(paths.label_issues)
    if not table.exists():
        what = "has no labels/label_issues.csv: its run is not finished, or of an earlier version"
        raise UserError(f"{paths.root}: {what}; give the run's command again")
    if not paths.classes.exists():
        what = "has no summary/classes.csv: its run is not finished, or was one from Python"
        raise UserError(f"{paths.root}: {what}; give the command of a run")
    known = manifest.outputs.get(table.relative_to(paths.root).as_posix())
    if known != FileDigest.of(table):
        what = "was edited, so it may lack images; give the run's command again, which keeps it and"
        raise UserError(f"{table}: {what} writes the whole table next to it")
    return manifest


def _verdict(paths: OutputPaths) -> LabelVerdict | None:
    """What the check found; None where that cannot be read, which is logged."""
    try:
        return read_label_verdict(paths)
    except UserError as error:
        log.warning("%s", error)
        return None


def _form_of_run(found: LabelVerdict | None) -> dict[str, object]:
    """Options that make of the images what the run did, though it may have seen more of them."""
    if found is None or not found.image_shape:
        return {}
    channels, side, _ = found.image_shape
    return {"image_size": side, "color": "gray" if channels == 1 else "rgb"}


def _check_some(decisions: Path, given: pd.DataFrame, earlier: pd.DataFrame) -> None:
    """Raise a UserError if there is no decision, or only undone ones that no review had."""
    if given.empty:
        what = f"decide on the page and save it again, or fill in the column {DECISION}"
        raise UserError(f"{decisions}: has no decision; {what}")
    if earlier.empty and (given[DECISION] == UNDO).all():
        raise UserError(f"{decisions}: undoes decisions that no review applied; decide on an image")


def _check_left(data: Reviewed, decisions: Path) -> None:
    """Raise a UserError if no image of a set is left, or one class only for training.

    Warn if a class has no training image left.
    """
    for part, before in data.before.items():
        if len(before) and data.after[part].empty:
            raise UserError(f"{decisions}: removes every {part} image; keep some")
    if data.after[TRAINING][LABEL].nunique() < 2 <= data.before[TRAINING][LABEL].nunique():
        only = data.class_names[data.after[TRAINING][LABEL].iloc[0]]
        what = f"leaves training images of one class only, {only!r}"
        raise UserError(f"{decisions}: {what}; keep some of another")
    lost = sorted(set(data.before[TRAINING][LABEL]) - set(data.after[TRAINING][LABEL]))
    if lost:
        names = ", ".join(data.class_names.get(label, str(label)) for label in lost)
        log.warning("%s: no training image is left of %s", decisions, names)


def _check_images(data: Reviewed, paths: OutputPaths) -> None:
    """Raise a UserError unless all images of the reviewed data set are where the run read them.

    Warn of images that were written after the labels were checked.
    """
    files = [file for table in data.after.values() for file in table[IMAGE]]
    gone = [file for file in files if not os.path.isfile(file)]
    if gone:
        what = f"{len(gone):,} of {len(files):,} images are not where the run read them"
        remedy = "put them back, or run on the data set as it is now into another --output_dir"
        raise UserError(f"{paths.root}: {what}, such as {gone[0]!r}; {remedy}")
    judged = os.stat(paths.latest(paths.label_issues)).st_mtime_ns
    newer = [file for file in files if os.stat(file).st_mtime_ns > judged]
    if newer:
        what = "was written" if len(newer) == 1 else "were written"
        log.warning(
            "%s %s after the labels were checked, such as %r: decisions may be about another one",
            counted(len(newer), "image"), what, newer[0],
        )  # fmt: skip


def _log_numbers(decisions: Path, given: pd.DataFrame, names: Mapping[int, str]) -> None:
    """Log what a new label means, where some class has that number for a name."""
    for label in sorted(set(given[NEW_LABEL][given[DECISION] == RELABEL])):
        if str(label) in names.values() and names[label] != str(label):
            what = f"{NEW_LABEL} is a label, not a name: {label} is the class {names[label]!r}"
            log.info("%s: %s (summary/classes.csv)", decisions, what)
            return


def _counts(decided: pd.DataFrame) -> str:
    by_kind = decided[DECISION].value_counts()
    kinds = [f"{n:,} {kind}" for kind, n in by_kind.sort_index().items()]
    return f"{_number(decided)}: {', '.join(kinds)}"


def _number(decided: pd.DataFrame) -> str:
    return counted(len(decided), "decision")


def _sizes(data: Reviewed) -> str:
    sizes = {part: len(data.after[part]) for part in (TRAINING, VALIDATION, TEST)}
    return ", ".join(f"{n:,} {part}" for part, n in sizes.items() if n) + " images"


def _earlier(paths: OutputPaths, issues: pd.DataFrame, names: Mapping[int, str]) -> pd.DataFrame:
    """The decisions of earlier reviews; maybe none."""
    if not os.path.lexists(paths.decisions):
        return no_decisions()
    return merged(no_decisions(), read_decisions(paths.decisions, issues, names, applied=True))


def _is_kept(decisions: Path, paths: OutputPaths) -> bool:
    """Whether the given file is the one where the page reads decisions."""
    return paths.decisions.exists() and os.path.samefile(decisions, paths.decisions)


def _log_merged(
    paths: OutputPaths, earlier: pd.DataFrame, given: pd.DataFrame, decided: pd.DataFrame
) -> None:
    """Log what became of the decisions of earlier reviews, if there are any."""
    if earlier.empty:
        return
    both = earlier.merge(given, on=[SET, ROW], suffixes=("", "_now"))
    same = both[DECISION].eq(both[f"{DECISION}_now"]) & both[NEW_LABEL].eq(both[f"{NEW_LABEL}_now"])
    fates = {
        "kept": len(earlier) - len(both),
        "given again": int(same.sum()),
        "replaced": int((~same & both[f"{DECISION}_now"].ne(UNDO)).sum()),
        "undone": int(both[f"{DECISION}_now"].eq(UNDO).sum()),
    }
    fate = ", ".join(f"{n:,} {word}" for word, n in fates.items() if n)
    log.info("%s: %s of earlier reviews: %s", paths.decisions, _number(earlier), fate)
    log.info("Both together: %s", _counts(decided) if len(decided) else "no decision is left")


def _keep(decided: pd.DataFrame, names: Mapping[int, str], paths: OutputFolder) -> None:
    """Write the decisions to where the page reads them; what an earlier file had is kept."""
    content = csv_bytes(as_written(decided, names), paths.decisions)
    if paths.decisions.exists():
        if (before := read_file(paths.decisions)) == content:
            return
        earlier = free_name(paths.decisions.parent, paths.decisions.stem, paths.decisions.suffix)
        paths.save_bytes(before, earlier)
        log.info("%s: the earlier file is now %s", paths.decisions, earlier.name)
    paths.save_bytes(content, paths.decisions)


def _log_undecided(paths: OutputPaths, issues: pd.DataFrame, decided: pd.DataFrame) -> None:
    """Log how many suspects have no decision yet."""
    suspects = issues[issues[IS_ISSUE] == 1]
    done = pd.MultiIndex.from_frame(decided[[SET, ROW]])
    left = int((~pd.MultiIndex.from_frame(suspects[[SET, ROW]]).isin(done)).sum())
    if left:
        what = "%s without a decision; python -m utils.page %s shows them"
        log.info(what, counted(left, "suspect"), paths.root)


def _log_worth(data: Reviewed, trainings: pd.DataFrame, test_drawn: bool) -> None:
    """Log the closing table: test accuracy on both lists, and the gain with its interval."""
    n_test, n_trials = len(data.before[TEST]), trainings["seed"].nunique()
    seeds = counted(n_trials, "seed")
    log.log(RESULT, "")
    log.log(RESULT, "Test accuracy, mean of %s (%s)", seeds, counted(n_test, "test image"))
    log.log(RESULT, "%-22s%10s%10s   %s", "test labels", "original", "reviewed", "gain (points)")
    for name, gain in gains(trainings).items():
        if name != "reviewed" or data.changes_test:
            row = f"{gain.original:.2%}", f"{gain.reviewed:.2%}", gain.text
            log.log(RESULT, "%-22s%10s%10s   %s", name, *row)
    if test_drawn:
        relabelled, removed = (int((data.decided_test == k).sum()) for k in (RELABEL, REMOVE))
        changed = f"{relabelled:,} relabelled, {removed:,} removed" if data.changes_test else "none"
        log.log(
            RESULT,
            "The test images were drawn from the images under suspicion, so some of their labels "
            "may be wrong too (changed by the review: %s).", changed,
        )  # fmt: skip
