"""What is said before a run: the block that names the work and roughly how long it takes."""

from __future__ import annotations

import time
from collections.abc import Sequence

from utils.network import Network
from utils.options import Options
from utils.sgd import SGD
from utils.trial import Trial

SCORING_COST = 5.5
"""Scoring a step costs about this many training steps: one double backward (measured on a CPU)."""

EVALUATION_COST = 0.33
"""Evaluating an image costs about this share of training on it."""


def opening_block(
    options: Options, trial: Trial, backend: str, counts: Sequence[int], seconds: float
) -> list[str]:
    """The lines said before work starts.

    Args:
        options: as parsed.
        trial: the first trial.
        backend: where nnabla computes.
        counts: the n that will run.
        seconds: rough time of the whole run.
    """
    data, (channels, height, width) = trial.data, trial.network.image_shape
    sizes = f"{trial.n_train:,} training, {len(data.validation):,} validation, "
    sizes += f"{len(data.test):,} test images of {channels}x{height}x{width}"
    seeds = ", ".join(map(str, options.seeds))
    start = "the first step" if options.retrain_all else "the start of the last epoch"
    return [
        f"Data set       {options.dataset}: {sizes}, {trial.network.n_classes} classes",
        f"Model          {options.model}, {trial.network.n_parameters:,} parameters, on {backend}",
        f"Training       {trial.n_epochs} epochs of {len(trial.steps) // trial.n_epochs} steps, "
        f"batch {options.batch_size}, learning rate {options.lr:g} ({options.lr_schedule}), "
        f"momentum {options.momentum:g}, weight decay {options.weight_decay:g}",
        f"Trials         {options.n_trials}, seed {seeds}",
        f"Methods        {', '.join(options.methods)}",
        f"Removing n     {' '.join(map(str, counts))}{_skipped(options, counts)}",
        f"Retraining     from {start}",
        f"Output         {trial.paths.root.resolve()}",
        f"Rough time     {duration(seconds)} on this machine, for what is not done yet",
    ]


def _skipped(options: Options, counts: Sequence[int]) -> str:
    skipped = [str(n) for n in options.removal_counts if n not in counts]
    reason = "not below the number of training images"
    return f" (skipped: {' '.join(skipped)}, {reason})" if skipped else ""


def duration(seconds: float) -> str:
    """Seconds in words: 42 s, 3 min, 2 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def time_step(trial: Trial) -> float:
    """Seconds of one training step, timed on a network of its own; the second of two counts."""
    twin = Network(trial.network.model, trial.network.image_shape, trial.network.n_classes)
    sgd = SGD(twin, trial.optimiser)
    for _ in range(2):
        started = time.perf_counter()
        sgd.step(trial.data.training, trial.steps[0])
    return time.perf_counter() - started


def remaining_steps(options: Options, trial: Trial, counts: Sequence[int]) -> float:
    """Training steps that equal, in time, what the run has still to do."""
    batch = len(trial.steps[0].indices)
    validation = EVALUATION_COST * len(trial.data.validation) / batch
    test = EVALUATION_COST * len(trial.data.test) / batch
    retrained_epochs = trial.n_epochs if options.retrain_all else 1
    retraining = len(trial.steps) - trial.retrain_start + retrained_epochs * (validation + test)
    scoring = SCORING_COST * (len(trial.steps) - trial.covered_start)
    total = 0.0
    for seed in options.seeds:
        if not trial.paths.final_model(seed).exists():
            total += len(trial.steps) + trial.n_epochs * validation
        total += scoring * _missing_influences(options, trial, seed)
        total += retraining * _missing_scores(options, trial, counts, seed)
    return total


def _missing_influences(options: Options, trial: Trial, seed: int) -> int:
    scored = [method for method in options.methods if method != "Random"]
    return sum(not trial.paths.influence(method, seed).exists() for method in scored)


def _missing_scores(options: Options, trial: Trial, counts: Sequence[int], seed: int) -> int:
    runs = [(method, n) for method in options.methods for n in counts if n > 0]
    runs.append((options.methods[0], 0))
    return sum(not trial.paths.score(method, n, seed).exists() for method, n in runs)
