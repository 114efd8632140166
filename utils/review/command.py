"""The steps of `python -m utils.review`."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pandas as pd

from utils.columns import LABEL, ROW, SET
from utils.console import RESULT
from utils.data.decisions import DECISION, RELABEL, REMOVE, read_decisions
from utils.data.label_table import IS_ISSUE, read_class_names, read_label_issues
from utils.data.source import TEST, TRAINING, VALIDATION
from utils.errors import UserError
from utils.link_free import check_place, read_file
from utils.output.folder import OutputFolder
from utils.output.manifest import Manifest, manifest_of_run
from utils.output.paths import OutputPaths
from utils.review.export import export
from utils.review.reviewed import Reviewed
from utils.review.worth import gains, measure
from utils.units import counted

log = logging.getLogger("data_cleansing")


def review(folder: Path, decisions: Path, how: str, n_trials: int) -> None:
    """Check decisions, write the reviewed data set, and measure its gain in test accuracy.

    Args:
        folder: the output folder of a run.
        decisions: the file of the page.
        how: csv, folder or filelist.
        n_trials: trainings on each list; 0 for none.

    Raises:
        UserError: the folder has no label check, a decision cannot be followed, or no training
            image is left.
    """
    paths = OutputFolder(folder)
    manifest = _manifest(paths)
    names, issues = read_class_names(paths.classes), read_label_issues(paths)
    decided = read_decisions(decisions, issues, names)
    data = Reviewed.of(issues, decided, names)
    _check_left(data, decisions)
    check_place(paths.root, paths.reviewed.name, folder=True)
    log.info("%s: %s", decisions, _counts(decided))
    written = export(data, paths.reviewed, how)
    log.info("Reviewed data set: %s (%s)", written.resolve(), _sizes(data))
    _keep(decisions, paths)
    _log_undecided(paths, issues, decided)
    if manifest.options.get("flip_labels"):
        log.warning("A what-if: labels were flipped on purpose (--flip_labels); not for use")
    if n_trials and data.changes_training:
        _log_worth(data, measure(paths, manifest.options, data, n_trials))
    elif n_trials:
        log.info("No training image changes, so there is nothing to measure.")


def _manifest(paths: OutputPaths) -> Manifest:
    """The manifest of a folder with a label check; UserError if it has none."""
    manifest = manifest_of_run(paths)
    if not paths.label_issues.exists():
        what = "has no labels/label_issues.csv: its run is not finished, or of an earlier version"
        raise UserError(f"{paths.root}: {what}; give the run's command again")
    return manifest


def _check_left(data: Reviewed, decisions: Path) -> None:
    """Raise a UserError if no training image is left; warn if a class has none left."""
    if data.after[TRAINING].empty:
        raise UserError(f"{decisions}: removes every training image; keep some")
    lost = sorted(set(data.before[TRAINING][LABEL]) - set(data.after[TRAINING][LABEL]))
    if lost:
        names = ", ".join(data.class_names.get(label, str(label)) for label in lost)
        log.warning("%s: no training image is left of %s", decisions, names)


def _counts(decided: pd.DataFrame) -> str:
    by_kind = decided[DECISION].value_counts()
    kinds = [f"{n:,} {kind}" for kind, n in by_kind.sort_index().items()]
    return f"{counted(len(decided), 'decision')}: {', '.join(kinds)}"


def _sizes(data: Reviewed) -> str:
    sizes = {part: len(data.after[part]) for part in (TRAINING, VALIDATION, TEST)}
    return ", ".join(f"{n:,} {part}" for part, n in sizes.items() if n) + " images"


def _keep(decisions: Path, paths: OutputFolder) -> None:
    """Copy the decisions to where the page reads them; an earlier file is renamed."""
    check_place(paths.root, paths.decisions.relative_to(paths.root).as_posix())
    if paths.decisions.exists():
        if read_file(paths.decisions) == decisions.read_bytes():
            return
        earlier = free_name(paths.decisions)
        os.rename(paths.decisions, earlier)
        log.info("%s: the earlier file is now %s", paths.decisions, earlier.name)
    paths.save_bytes(decisions.read_bytes(), paths.decisions)


def free_name(path: Path) -> Path:
    """The first of name_2, name_3, ... that is not there."""
    number = 2
    while os.path.lexists(other := path.with_name(f"{path.stem}_{number}{path.suffix}")):
        number += 1
    return other


def _log_undecided(paths: OutputPaths, issues: pd.DataFrame, decided: pd.DataFrame) -> None:
    """Log how many suspects have no decision yet."""
    suspects = issues[issues[IS_ISSUE] == 1]
    done = pd.MultiIndex.from_frame(decided[[SET, ROW]])
    left = int((~pd.MultiIndex.from_frame(suspects[[SET, ROW]]).isin(done)).sum())
    if left:
        what = "%s without a decision; python -m utils.page %s shows them"
        log.info(what, counted(left, "suspect"), paths.root)


def _log_worth(data: Reviewed, trainings: pd.DataFrame) -> None:
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
    if data.test_from_suspects:
        relabelled, removed = (int((data.decided_test == k).sum()) for k in (RELABEL, REMOVE))
        changed = f"{relabelled:,} relabelled, {removed:,} removed" if data.changes_test else "none"
        log.log(
            RESULT,
            "The test images come from the folders under suspicion, so some of their labels may be "
            "wrong too (changed by the review: %s).", changed,
        )  # fmt: skip
