"""The pieces of a run that can be computed by themselves, and which have to come before which.

    train, epoch 1 -> ... -> last epoch -> score by each method -> retrain without its n worst
                                        -> retrain with nothing removed (n = 0, for all methods)
    all of these -> retrain without each group of --verify -> the verification table
    training -> retrain with moved weights, twice, for --verify

A piece depends on its trial alone and can be computed in any process; its result is written by the
process that owns the output folder.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sgd_influence.eval import (
    evaluate_without,
    read_by_retraining,
    validation_loss_without,
    worst,
)
from sgd_influence.influence_table import save_influence, warn_if_unsound
from sgd_influence.outcomes import Outcomes, archive_of, load_outcomes
from sgd_influence.train import (
    epochs_done,
    read_by_epoch,
    record_steps,
    remove_passed_records,
    train_epoch,
    warn_if_nothing_is_learnt,
    write_nnp,
)
from sgd_influence.verify import Verification, smoothness_of_trial
from utils.methods import Method, Scores
from utils.options import Options
from utils.output.results import Results
from utils.training.smoothness import SHIFT, SIGNS, retrain_moved, smoothness_words
from utils.training.soundness import problems_in
from utils.training.trial import Trial

log = logging.getLogger("data_cleansing")

Evaluated = tuple[pd.DataFrame, Outcomes]
"""The result of a removal: scores by epoch, and outcomes by image."""

Computation = Callable[[Trial], Any]
"""Writes nothing but through the folder of the trial, and can be pickled."""


@dataclass(frozen=True)
class Job:
    """What a worker does.

    Attributes:
        compute: what it computes.
        reads: the files under the output folder that it reads meanwhile.
    """

    compute: Computation
    reads: Sequence[Path]


def _nothing(trial: Trial) -> None:
    """No job, because the result is there already."""


@dataclass(frozen=True)
class Task:
    """A piece of a run.

    Attributes:
        name: unique within the run.
        seed: of its trial.
        needs: names of the tasks that are finished before.
        job: gives what a worker computes; None if there is nothing to be computed (any more).
        finish: writes and logs the result of the job, None if there was no job; runs in the
            process that owns the output folder, one task after the other.
        stage: whose part of the estimate it is.
    """

    name: str
    seed: int
    needs: tuple[str, ...]
    job: Callable[[Trial], Job | None]
    finish: Callable[[Trial, Any], None]
    stage: str = ""


def tasks_of(
    options: Options, results: Results, methods: Sequence[Method], counts: Sequence[int]
) -> list[Task]:
    """All tasks of a run, those of a trial in a row, each after those that it needs.

    Args:
        options: as parsed.
        results: the tables that are there, and that the tasks add to.
        methods: that score the images.
        counts: the n that are removed, 0 among them.
    """
    tasks: list[Task] = []
    for seed in options.seeds:
        trained = results.paths.final_model(seed).exists()
        tasks += [_reused_training(seed)] if trained else _training(seed, options.n_epochs)
        trained_by = tasks[-1].name
        tasks += [_unchanged(seed, methods, trained_by, results)]
        tasks += _smoothness(seed, methods, trained_by) if options.verify else []
        tasks += [_scoring(seed, method, trained_by, results) for method in methods]
        removals = [(method, n) for method in methods for n in counts if n > 0]
        tasks += [_removal(seed, method, n, results) for method, n in removals]
        tasks += _verification(seed, methods, options.verify, results)
    return tasks


class Schedule:
    """Which task comes next: the first whose needs are met.

    Args:
        tasks: each after those that it needs.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._waiting = {task.name: task for task in tasks}
        self._unfinished = set(self._waiting)

    def next(self) -> Task | None:
        """Take the first task that needs no other to be finished; None while there is none."""
        for name, task in self._waiting.items():
            if self._unfinished.isdisjoint(task.needs):
                return self._waiting.pop(name)
        return None

    def finished(self, task: Task) -> bool:
        """Note that a task is finished; whether it was the last of its trial."""
        self._unfinished.remove(task.name)
        return not any(name.startswith(_trial(task.seed)) for name in self._unfinished)

    def __bool__(self) -> bool:
        return bool(self._unfinished)


def _trial(seed: int) -> str:
    return f"trial {seed}: "


# ---------------------------------------------------------------- train


def _reused_training(seed: int) -> Task:
    def say(trial: Trial, _: None) -> None:
        remove_passed_records(trial, trial.n_epochs)
        if not trial.folder.final_nnp(seed).exists():
            write_nnp(trial)
        log.info("Trial %d: training reused from the output folder", seed)

    return Task(f"{_trial(seed)}train", seed, (), _nothing, say, "train")


def _training(seed: int, n_epochs: int) -> list[Task]:
    names = [f"{_trial(seed)}train, epoch {epoch + 1}/{n_epochs}" for epoch in range(n_epochs)]
    return [
        Task(
            name=name,
            seed=seed,
            needs=tuple(names[epoch - 1 : epoch]),
            job=partial(_epoch_job, epoch=epoch),
            finish=partial(_epoch_finished, epoch=epoch),
            stage="train",
        )
        for epoch, name in enumerate(names)
    ]


def _epoch_job(trial: Trial, epoch: int) -> Job | None:
    done = epochs_done(trial)
    if epoch < done:
        if epoch + 1 == done:
            log.info("Trial %d: training resumes with epoch %d", trial.seed, done + 1)
        return None
    record_steps(trial)
    return Job(partial(train_epoch, epoch=epoch), read_by_epoch(trial, epoch))


def _epoch_finished(trial: Trial, _: None, epoch: int) -> None:
    if epoch + 1 == trial.n_epochs:
        warn_if_nothing_is_learnt(trial)
        write_nnp(trial)
        log.info("Trial %d: trained", trial.seed)


# ---------------------------------------------------------------- score


def _score_name(seed: int, method: str) -> str:
    return f"{_trial(seed)}infl, {method}"


def _scoring(seed: int, method: Method, trained: str, results: Results) -> Task:
    def job(trial: Trial) -> Job | None:
        if trial.folder.influence(method.name, seed).exists():
            return None
        states = trial.states_there() if method.needs_states else []
        margins = [trial.folder.margins(seed)] if method.needs_margins else []
        files = [trial.state_path(t) for t in (*states, len(trial.steps))]
        return Job(method.scores, [*margins, *files])

    finish = partial(_scores_finished, method=method, results=results)
    return Task(_score_name(seed, method.name), seed, (trained,), job, finish, "infl")


def _scores_finished(trial: Trial, scores: Scores | None, method: Method, results: Results) -> None:
    if scores is None:
        log.info("Trial %d: influence by %s reused", trial.seed, method.name)
        for unsound in problems_in(trial.folder, method.name, [trial.seed]).values():
            warn_if_unsound(trial, method, unsound.problems, unsound.remedy)
        return
    save_influence(trial, scores, method, results)
    log.info("Trial %d: influence by %s written", trial.seed, method.name)


# ---------------------------------------------------------------- eval


def _unchanged_name(seed: int) -> str:
    return f"{_trial(seed)}eval, n = 0"


def _unchanged(seed: int, methods: Sequence[Method], trained: str, results: Results) -> Task:
    """n = 0: one run that all methods share."""

    def names(trial: Trial, there: bool) -> list[str]:
        return [m.name for m in methods if trial.folder.evaluated(m.name, 0, seed) == there]

    def job(trial: Trial) -> Job | None:
        removed, name = np.zeros(trial.n_train, bool), _unchanged_name(seed)
        if names(trial, there=True):
            return None
        return _retraining(evaluate_without, trial, removed, name)

    def finish(trial: Trial, found: Evaluated | None) -> None:
        if found is None:
            found = _read_evaluated(trial, names(trial, there=True)[0], results)
        for name in names(trial, there=False):
            _save_evaluated(trial, name, 0, found, results)

    return Task(_unchanged_name(seed), seed, (trained,), job, finish, "eval")


def _removal(seed: int, method: Method, n: int, results: Results) -> Task:
    name = f"{_trial(seed)}eval, {method.name}, n = {n}"

    def job(trial: Trial) -> Job | None:
        if trial.folder.evaluated(method.name, n, seed):
            return None
        removed = worst(results.influence(method.name, seed), n)
        return _retraining(evaluate_without, trial, removed, name)

    def finish(trial: Trial, found: Evaluated | None) -> None:
        if found is not None:
            _save_evaluated(trial, method.name, n, found, results)
        _print_scores(trial, method, n, results, "reused" if found is None else "evaluated")

    needs = (_score_name(seed, method.name),)
    return Task(name, seed, needs, job, finish, "eval")


def _print_scores(trial: Trial, method: Method, n: int, results: Results, what: str) -> None:
    """For --verbose: the result of a removal."""
    last = results.table(trial.folder.score(method.name, n, trial.seed)).iloc[-1]
    losses = "validation loss %.4f, accuracy %.4f; test loss %.4f, accuracy %.4f"
    figures = last["val_loss"], last["val_accuracy"], last["test_loss"], last["test_accuracy"]
    line = f"Trial %d: %s, n = %d %s: {losses}"
    log.debug(line, trial.seed, method.name, n, what, *figures)


def _read_evaluated(trial: Trial, method: str, results: Results) -> Evaluated:
    """The result of removing none."""
    scores = results.table(trial.folder.score(method, 0, trial.seed))
    return scores, load_outcomes(trial.folder.outcomes(method, 0, trial.seed))


def _save_evaluated(trial: Trial, method: str, n: int, found: Evaluated, results: Results) -> None:
    (scores, outcomes), folder = found, trial.folder
    path = folder.score(method, n, trial.seed)
    folder.save_bytes(archive_of(outcomes), folder.outcomes(method, n, trial.seed))
    folder.save_csv(scores, path)
    results.keep(scores, path)


def _retraining(
    what: Callable[..., object],
    trial: Trial,
    removed: np.ndarray,
    description: str,
) -> Job:
    """The job of `evaluate_without` or `validation_loss_without`."""
    compute = partial(what, removed=removed, description=description)
    return Job(compute, read_by_retraining(trial, removed))


# ---------------------------------------------------------------- verify


def _verification(
    seed: int, methods: Sequence[Method], n_groups: int, results: Results
) -> list[Task]:
    """A task per group, and one for the table; none without `--verify`."""
    verification = Verification(methods, n_groups, results)
    scored = (*(_score_name(seed, method.name) for method in methods), _unchanged_name(seed))
    groups = [_group(seed, verification, number, scored) for number in range(n_groups)]

    def save_table(trial: Trial, _: None) -> None:
        verification.save_table(trial)

    needs = (*scored, *(task.name for task in groups))
    table = Task(f"{_trial(seed)}verify, table", seed, needs, _nothing, save_table, "verify")
    return [*groups, table] if n_groups else []


def _group(seed: int, verification: Verification, number: int, needs: tuple[str, ...]) -> Task:
    name = f"{_trial(seed)}verify, group {number + 1}/{verification.n_groups}"

    def job(trial: Trial) -> Job | None:
        group = verification.groups(trial)[number]
        if verification.known(trial, number):
            return None
        name = f"trial {seed}: {group.name}"
        return _retraining(validation_loss_without, trial, group.members, name)

    def finish(trial: Trial, loss: float | None) -> None:
        if loss is not None:
            verification.save_true_change(trial, number, loss)

    return Task(name, seed, needs, job, finish, "verify")


def _smoothness(seed: int, methods: Sequence[Method], trained: str) -> list[Task]:
    """How smooth the training is, reported before the scores, removals and groups begin."""

    def report(trial: Trial, _: None) -> None:
        if words := smoothness_words(*smoothness_of_trial(trial, methods[0].name)):
            log.info("Trial %d: %s", seed, words)

    moved = [_moved(seed, sign, trained) for sign in SIGNS]
    needs = (_unchanged_name(seed), *(task.name for task in moved))
    return [*moved, Task(f"{_trial(seed)}smoothness", seed, needs, _nothing, report, "verify")]


def _moved(seed: int, sign: int, trained: str) -> Task:
    """A retraining with the weights of all images moved, for the smoothness of the training."""

    def job(trial: Trial) -> Job | None:
        if trial.folder.moved_losses(seed, sign).exists():
            return None
        start = trial.state_path(trial.retrain_start)
        return Job(partial(retrain_moved, sign=sign), [start])

    def finish(trial: Trial, losses: np.ndarray | None) -> None:
        if losses is not None:
            trial.folder.save_array(losses, trial.folder.moved_losses(seed, sign))

    name = f"{_trial(seed)}verify, weights {sign * SHIFT:+g}"
    return Task(name, seed, (trained,), job, finish, "verify")
