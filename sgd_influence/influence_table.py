"""The influence table: a row per training image, the most harmful first."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import pandas as pd

from sgd_influence.guessing import loss_never_falls
from utils.columns import IMAGE, INDEX, LABEL
from utils.errors import UserError
from utils.methods import Method, Scores
from utils.output.results import Results
from utils.output.storage import read_csv
from utils.training.from_scratch import kinks_in
from utils.training.soundness import remedy, soundness_of
from utils.training.trial import Trial

log = logging.getLogger("data_cleansing")

LEARN = "train with another --lr, for more epochs or with another --model"
"""The remedy for scores of a training that learnt nothing."""


def save_influence(trial: Trial, scores: Scores, method: Method, results: Results) -> None:
    """Write and keep the scores of a method, and warn if they should not be trusted.

    Raises:
        UserError: a score is not finite.
    """
    if not np.isfinite(scores.influence).all():
        raise UserError(
            f"the influences by {method.name} are not finite in trial {trial.seed}: the sweep "
            f"diverges; leave {method.name} out of --methods, or choose a lower --lr and another "
            "--output_dir"
        )
    if method.predicts:
        _check_soundness(trial, scores, method)
    table = influence_table(trial, scores.influence)
    path = trial.folder.influence(method.name, trial.seed)
    trial.folder.save_csv(table, path)
    results.keep(table, path)


def _check_soundness(trial: Trial, scores: Scores, method: Method) -> None:
    """Write whether the scores can be trusted, and warn if not.

    A training that learnt nothing is a problem of its scores too, but was warned of before.
    """
    curve = read_csv(trial.folder.learning_curve(trial.seed))
    covered = trial.steps[trial.covered_start :]
    soundness = soundness_of(scores, covered, float(curve["val_loss"].iloc[-1]))
    nothing = loss_never_falls(curve, trial.data.training.labels)
    learnt = (f"the {nothing}",) if nothing else ()
    problems = (*learnt, *soundness.problems)
    kinks = bool(kinks_in(trial.network))
    advice = LEARN if nothing else remedy(method, trial.retrain_all, kinks)
    whole = replace(soundness, problems=problems, remedy=advice if problems else "")
    trial.folder.save_json(asdict(whole), trial.folder.soundness(method.name, trial.seed))
    warn_if_unsound(trial, method, soundness.problems, advice)


def warn_if_unsound(trial: Trial, method: Method, problems: Sequence[str], advice: str) -> None:
    """Warn of scores with problems, and say what to do (`advice`, may be empty)."""
    if problems:
        log.warning(
            "Trial %d: the scores by %s: %s; do not remove images by them%s",
            trial.seed, method.name, "; ".join(problems), f": {advice}" if advice else "",
        )  # fmt: skip


def influence_table(trial: Trial, influence: np.ndarray) -> pd.DataFrame:
    """The influence CSV, by row: the most harmful image first, ties in the training order."""
    training = trial.data.training
    table = pd.DataFrame(
        {
            IMAGE: training.paths,
            LABEL: training.labels,
            "influence": influence,
            INDEX: np.arange(trial.n_train),
        },
        index=training.rows,
    )
    return table.sort_values("influence", kind="stable")
