"""The lines before a run, which name the work and its estimated cost, and after it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from utils.columns import LABEL
from utils.data.depth import scales_text
from utils.data.source import Source, listed_classes
from utils.kernels.blas import VARIABLE, given_kernels
from utils.methods import METHODS
from utils.options import FINAL, RECOMPUTE, STEPS, Options
from utils.output.paths import OutputPaths
from utils.output.usage import machine_memory, memory_limit
from utils.presets import preset_of
from utils.run.preflight import Estimate
from utils.training.trial import Trial
from utils.units import counted, duration, shown_bytes

SOLVING = ("damping", "if_solver")
"""Options of methods with a solver."""
WORTH_SAYING = 1.1
"""Slowdown by other programs above which it is reported."""


def opening_block(
    options: Options,
    source: Source,
    trial: Trial,
    backend: str,
    counts: Sequence[int],
    estimate: Estimate,
    free: int,
) -> list[str]:
    """The lines logged before work starts.

    Args:
        options: as parsed.
        source: the images.
        trial: the first trial.
        backend: where nnabla computes.
        counts: the n that will run.
        estimate: what the run takes.
        free: bytes free where it writes.
    """
    rows = {
        "Data set": f"{options.dataset}: {trial.sizes}",
        **_images(source),
        "Training CSV": trial.data.files.training,
        **_flips(trial),
        **_preset(options),
        "Model": f"{options.model}, {trial.network.n_parameters:,} parameters, on {backend}",
        "Training": _training(options, trial),
        "Trials": f"{options.n_trials} (seed {', '.join(map(str, options.seeds))})",
        "Methods": ", ".join(options.methods) + _left_out(options),
        "Removing n": " ".join(map(str, counts)) + _skipped(options, counts),
        "Output": trial.folder.root.resolve(),
        "Cache": _cache(trial),
        "Workers": _workers(options, estimate),
    }
    return [f"{name:<15}{text}" for name, text in (rows | _needs(estimate, free)).items()]


def unused_options(options: Options, paths: OutputPaths) -> list[str]:
    """A warning for each option of the scores that is given and that none of the methods uses.

    Args:
        options: as parsed.
        paths: of the output folder; where trials are trained, `--cover_epochs` has to be repeated.
    """
    given = {name: getattr(options, name) != getattr(Options, name) for name in SOLVING}
    users = {name: [m for m in METHODS if name in METHODS[m].settings] for name in given}
    given["verify"] = bool(options.verify)
    users["verify"] = [m for m in METHODS if METHODS[m].predicts]
    given["cover_epochs"] = options.n_covered_epochs > 1 and not paths.trained()
    users["cover_epochs"] = [m for m in METHODS if METHODS[m].sweeps]
    return [
        f"--{name}: no method of this run ({', '.join(options.methods)}) uses it; it is for "
        f"{', '.join(users[name])}"
        for name in given
        if given[name] and not set(users[name]) & set(options.methods)
    ]


def lost_classes(source: Source, trial: Trial) -> str:
    """That the training images drawn lack classes of the data set; empty if they have all."""
    labels = (
        trial.data.training.labels if trial.data.given_labels is None else trial.data.given_labels
    )
    drawn, given = set(labels.tolist()), set(source.training[LABEL])
    if not (lost := given - drawn):
        return ""
    return (
        f"--n_train {trial.n_train}: no training image of {listed_classes(lost, source)} is "
        "drawn, so every image of such a class counts as an error; raise it"
    )


def closing_line(estimate: Estimate, size: float, memory: float, seconds: float) -> str:
    """What the run used, compared with its estimate: bytes on disk, bytes of memory, seconds."""
    total = estimate.total
    return (
        f"Used (estimated): {duration(seconds)} ({duration(estimate.whole)}), "
        f"{shown_bytes(size)} on disk ({shown_bytes(total.size)}), "
        f"{shown_bytes(memory)} of memory at most ({shown_bytes(estimate.memory)})"
    )


def _needs(estimate: Estimate, free: int) -> dict[str, str]:
    """The rows of what the run takes."""
    total, stages, limit = estimate.total, estimate.stages, memory_limit()
    group = "" if limit.size == machine_memory() else f" ({limit.of})"
    sizes = ", ".join(f"{name} {shown_bytes(work.size)}" for name, work in stages.items())
    times = ", ".join(f"{name} {duration(work.seconds)}" for name, work in stages.items())
    times += f", starting workers {duration(estimate.start)}" if estimate.start else ""
    return {
        "Disk": f"{shown_bytes(total.size)} to write ({sizes}); {shown_bytes(free)} are free",
        "Memory": f"about {shown_bytes(estimate.memory)}, of {shown_bytes(limit.size)}{group}",
        "Rough time": f"{duration(estimate.whole)} on this machine for the work left ({times})"
        + _slowed(estimate, os.nice(0)),
    }


def _slowed(estimate: Estimate, nice: int) -> str:
    """What makes the run slower than the machine alone would; empty where nothing does.

    Args:
        estimate: what the run takes.
        nice: above 0 the run has a low priority.
    """
    load, factor = estimate.load, estimate.load.slowdown_by_others(estimate.workers)
    text = ""
    if factor >= WORTH_SAYING:
        cores = counted(load.cores or 1, "core")
        text = f"; load {load.others:.1f} on {cores}: other programs slow it {factor:.1f}-fold"
    if (kernels := given_kernels()) and load.cores:
        text += f"; {VARIABLE}={kernels} chooses the BLAS kernels, others may be faster"
    return text + (f"; low priority (nice {nice}): it may take longer" if nice > 0 else "")


def _cache(trial: Trial) -> str:
    """What is kept of the training."""
    covered, kept = trial.covered, trial.kept_steps
    states = {
        STEPS: f"the state before each of the {len(covered)} covered steps",
        RECOMPUTE: f"parameters are kept before {len(kept)} of the {len(covered)} covered steps, "
        "and computed again for the others",
        FINAL: "the final state and the one that removals retrain from",
    }
    return f"{trial.cache}: {states[trial.cache]}"


def _images(source: Source) -> dict[str, str]:
    """The rows of images that were left out, and of the scale of those of more than 8 bits."""
    rows = {}
    if source.problems:
        count = counted(source.n_problems, "broken image")
        rows["Left out"] = f"{count}, listed in {source.problems}"
    if source.form.scales:
        rows["Pixels"] = f"{scales_text(source.form.scales)} to 0..255, the same for all images"
    return rows


def _flips(trial: Trial) -> dict[str, str]:
    """The row of an experiment with wrong labels; none without it."""
    given, labels = trial.data.given_labels, trial.data.training.labels
    if given is None:
        return {}
    count = f"{(labels != given).sum()} of {trial.n_train} training images"
    where = trial.folder.flipped_labels.relative_to(trial.folder.root)
    return {"Flipped labels": f"experiment: {count} have the label of another class, see {where}"}


def _preset(options: Options) -> dict[str, str]:
    """The row of a preset; none without one."""
    if options.preset is None:
        return {}
    flags = preset_of(options.preset).flags
    return {"Preset": f"{options.preset}: {flags}, unless given otherwise"}


def _workers(options: Options, estimate: Estimate) -> str:
    """Who computes."""
    if options.dask_scheduler:
        return f"{estimate.workers} of the Dask cluster at {options.dask_scheduler}"
    several = f"{estimate.workers} processes in parallel"
    return several if estimate.workers > 1 else "this process"


def _left_out(options: Options) -> str:
    names = " and ".join(options.left_out)
    return f" ({names} is left out: --cache {FINAL} keeps no states)" if names else ""


def _training(options: Options, trial: Trial) -> str:
    start = "the first step" if options.retrain_all else "the start of the last epoch"
    sgd = [f"{options.lr_schedule} learning rate {options.lr:g}"]
    sgd += [f"momentum {options.momentum:g}"] if options.momentum else []
    sgd += [f"weight decay {options.weight_decay:g}"] if options.weight_decay else []
    of_epoch = counted(len(trial.steps) // trial.n_epochs, "step")
    steps = f"{counted(trial.n_epochs, 'epoch')} of {of_epoch}"
    batch = f"batch {options.batch_size}"
    return f"{steps}, {batch}, {', '.join(sgd)}; removals retrain from {start}"


def _skipped(options: Options, counts: Sequence[int]) -> str:
    skipped = [str(n) for n in options.removal_counts if n not in counts]
    reason = "not below the number of training images"
    text = f" (skipped: {' '.join(skipped)}, {reason})" if skipped else ""
    given = options.remove_n_list
    repeated = [str(n) for n in options.removal_counts if given.count(n) > 1]
    return text + (f" (given more than once: {' '.join(repeated)})" if repeated else "")
