"""What is said before a run: the block that names the work and roughly how long it takes."""

from __future__ import annotations

import time
from collections.abc import Sequence

from utils.methods import METHODS
from utils.network import Network
from utils.options import Options
from utils.sgd import SGD
from utils.trial import Trial

SCORING_COST = 7.5
"""Scoring a step costs about this many training steps: one double backward (measured on a CPU)."""

EVALUATION_COST = 0.33
"""Evaluating an image costs about this share of training on it."""


def verification_steps(trial: Trial, n_groups: int) -> float:
    """Training steps that equal, in time, the verification of one trial."""
    images = len(trial.data.validation) + len(trial.data.test)
    evaluation = EVALUATION_COST * images / len(trial.steps[0].indices)
    return n_groups * (len(trial.steps) - trial.retrain_start + evaluation)


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
    rows = {
        "Data set": f"{options.dataset}: {sizes_of(trial)}",
        "Training CSV": trial.data.files.training,
        "Model": f"{options.model}, {trial.network.n_parameters:,} parameters, on {backend}",
        "Training": _training(options, trial),
        "Trials": f"{options.n_trials} (seed {', '.join(map(str, options.seeds))})",
        "Methods": ", ".join(options.methods),
        "Removing n": " ".join(map(str, counts)) + _skipped(options, counts),
        "Output": trial.paths.root.resolve(),
        "Rough time": f"{duration(seconds)} on this machine, for what is not done yet",
    }
    return [f"{name:<15}{text}" for name, text in rows.items()]


def sizes_of(trial: Trial) -> str:
    """How many images of what shape the parts have."""
    data, (channels, height, width) = trial.data, trial.network.image_shape
    parts = f"{len(data.training):,} training, {len(data.validation):,} validation"
    return f"{parts}, {len(data.test):,} test images of {channels}x{height}x{width}"


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural where it has to be."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _training(options: Options, trial: Trial) -> str:
    start = "the first step" if options.retrain_all else "the start of the last epoch"
    sgd = [f"{options.lr_schedule} learning rate {options.lr:g}"]
    sgd += [f"momentum {options.momentum:g}"] if options.momentum else []
    sgd += [f"weight decay {options.weight_decay:g}"] if options.weight_decay else []
    steps = f"{counted(trial.n_epochs, 'epoch')} of {len(trial.steps) // trial.n_epochs} steps"
    batch = f"batch {options.batch_size}"
    return f"{steps}, {batch}, {', '.join(sgd)}; removals retrain from {start}"


def _skipped(options: Options, counts: Sequence[int]) -> str:
    skipped = [str(n) for n in options.removal_counts if n not in counts]
    reason = "not below the number of training images"
    said = f" (skipped: {' '.join(skipped)}, {reason})" if skipped else ""
    given = options.remove_n_list
    repeated = [str(n) for n in options.removal_counts if given.count(n) > 1]
    return said + (f" (given more than once: {' '.join(repeated)})" if repeated else "")


def duration(seconds: float) -> str:
    """Seconds in words: 42 s, 3 min, 2 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def time_step(trial: Trial) -> float:
    """Seconds of one training step, timed on a network of its own; the second of two counts."""
    net = trial.network
    twin = Network(net.model, net.image_shape, net.n_classes, conv=net.conv)
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
    scoring = SCORING_COST * len(trial.steps) / trial.n_epochs
    total = 0.0
    for seed in options.seeds:
        if not trial.paths.final_model(seed).exists():
            total += len(trial.steps) + trial.n_epochs * validation
        total += scoring * _epochs_to_score(options, trial, seed)
        total += retraining * _missing_scores(options, trial, counts, seed)
        if not trial.paths.verified(seed).exists():
            total += verification_steps(trial, options.verify)
    return total


def _epochs_to_score(options: Options, trial: Trial, seed: int) -> int:
    """Epochs of double backward passes that the missing influences take."""
    missing = [m for m in options.methods if not trial.paths.influence(m, seed).exists()]
    epochs = [METHODS[name].scored_epochs for name in missing]
    return sum(trial.cover_epochs if number is None else number for number in epochs)


def _missing_scores(options: Options, trial: Trial, counts: Sequence[int], seed: int) -> int:
    runs = [(method, n) for method in options.methods for n in counts if n > 0]
    runs.append((options.methods[0], 0))
    return sum(not trial.paths.score(method, n, seed).exists() for method, n in runs)
