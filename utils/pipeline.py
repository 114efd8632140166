"""The one pipeline of both commands: train -> infl -> eval -> analyze, over all trials."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from sgd_influence.analyze import Scores, choose, closing_table, draw, summarise
from sgd_influence.eval import SCORE_COLUMNS, retrain_without, worst
from sgd_influence.train import train
from sgd_influence.verify import TRUSTED, compare, verify
from utils.console import RESULT, open_log_file
from utils.context import choose_backend, set_context
from utils.datasets import prepare
from utils.errors import UserError
from utils.flips import record_flips, say_what_was_found, with_flips
from utils.manifest import Manifest
from utils.methods import METHODS, Method
from utils.model_check import checked_model
from utils.network import Network
from utils.nnc_csv import IMAGE, LABEL
from utils.options import Options
from utils.paths import OutputPaths
from utils.preflight import Estimate, check_space, estimate
from utils.report import (
    closing_line,
    counted,
    duration,
    opening_block,
    sizes_of,
)
from utils.settings import check_output_folder, claimed, settings_of
from utils.sgd import Optimiser
from utils.source import Source
from utils.splits import TrialData, described, draw_split, load_trial
from utils.steps import load_steps, plan_steps
from utils.storage import read_csv, save_csv, unreadable
from utils.trial import Trial
from utils.usage import free_space, peak_memory, written_bytes

log = logging.getLogger("data_cleansing")

DISTRUST = (
    "The ranking by %s should not be trusted on this data: its agreement with true retraining is "
    "%.2f, its 95 %% interval %.2f to %.2f with --verify %d. Try more groups, more validation "
    "images, more epochs, a lower learning rate, or another method."
)


def run(options: Options) -> None:
    """Run all stages; finished ones are taken up from the output folder.

    Raises:
        UserError: the data, the output folder or the machine does not allow it.
    """
    started = time.monotonic()
    backend = choose_backend(options.context, options.device_ids)
    set_context(backend, options.device_ids[0])
    threadpool_limits(1, "blas")  # nnabla computes on one core; more would change the last bits
    source = prepare(
        options.dataset,
        options.data_dir,
        options.allow_unverified_data,
        options.image_size,
        options.color,
    )
    load = lru_cache(maxsize=1)(partial(load_data, options, source))
    n_train, shape = len(load(options.seed).training), load(options.seed).training.shape
    model = checked_model(options.model, shape, source.n_classes)
    damping = source.damping if options.damping is None else options.damping

    paths = OutputPaths(options.output_dir)
    graph = Network(model, shape, source.n_classes).graph
    settings = settings_of(options, source.fingerprint, graph, damping)
    counts = counts_below(n_train, options)

    def trial_of(number: int) -> Trial:
        set_context(backend, options.device_ids[number % len(options.device_ids)])
        seed = options.seeds[number]
        network = Network(model, shape, source.n_classes, seed, options.conv)
        return open_trial(options, seed, load(seed), network, damping, paths)

    if options.dry_run:
        check_output_folder(paths, settings)
        _preflight(options, trial_of(0), backend, counts)
        return
    with claimed(paths, settings, options.overwrite) as manifest:
        open_log_file(paths.log)
        manifest.check_versions()
        manifest.check_outputs()
        for number, seed in enumerate(options.seeds):
            check_inputs(manifest, load(seed))
            record_flips(load(seed), seed, paths)
            trial = trial_of(number)
            if number == 0:
                expected = _preflight(options, trial, backend, counts)
                before, ready = written_bytes(paths.root), time.monotonic()
            run_trial(trial, [METHODS[name] for name in options.methods], counts, options.verify)
        _analyze(options, trial)
        say_what_was_found(paths, options.methods, options.seeds)
        size = max(0, written_bytes(paths.root) - before)
        log.info(closing_line(expected, size, peak_memory(), time.monotonic() - ready))
    log.info("Finished in %s: %s", duration(time.monotonic() - started), paths.root.resolve())


def counts_below(n_train: int, options: Options) -> list[int]:
    """The n that can be removed, 0 included.

    Raises:
        UserError: none of those given can.
    """
    if min(options.remove_n_list) >= n_train:
        given = " ".join(map(str, options.remove_n_list))
        raise UserError(
            f"--remove_n_list {given}: there are only {n_train} training images; give an n below"
        )
    return [n for n in options.removal_counts if n < n_train]


def load_data(options: Options, source: Source, seed: int) -> TrialData:
    """Draw the split of a trial, write its CSV files and decode its images."""
    split_seed = seed if options.split_seed is None else options.split_seed
    files = draw_split(source, split_seed, options.n_train, options.n_val, options.n_test)
    data = load_trial(source, files)
    if options.flip_labels is None:
        return data
    return with_flips(data, source.n_classes, options.flip_labels, split_seed)


def check_inputs(manifest: Manifest, data: TrialData) -> None:
    """Note what the split of a trial names, or compare it with what an earlier run noted.

    Raises:
        UserError: the data have changed since.
    """
    manifest.check_input(data.files.training, described(data.training))
    manifest.check_input(data.files.validation, described(data.validation))
    manifest.check_input(data.files.test, described(data.test))


def open_trial(
    options: Options,
    seed: int,
    data: TrialData,
    network: Network,
    damping: float,
    paths: OutputPaths,
) -> Trial:
    """What the stages of a trial share; recorded steps are read, others planned."""
    if paths.steps(seed).exists():
        steps = load_steps(paths.steps(seed))
    else:
        n, batch = len(data.training), options.batch_size
        steps = plan_steps(seed, n, options.n_epochs, batch, options.lr, options.lr_schedule)
    optimiser = Optimiser(options.momentum, options.weight_decay)
    return Trial(
        seed=seed,
        data=data,
        network=network,
        optimiser=optimiser,
        steps=steps,
        retrain_all=options.retrain_all,
        cover_epochs=options.n_covered_epochs,
        damping=damping,
        cache=options.cache,
        cache_memory=options.cache_memory,
        paths=paths,
    )


def _preflight(options: Options, trial: Trial, backend: str, counts: Sequence[int]) -> Estimate:
    """Say what will be done and what it takes; refuse it where the disk has no room for it."""
    expected, free = estimate(options, trial, counts), free_space(trial.paths.root)
    for line in opening_block(options, trial, backend, counts, expected, free):
        log.log(RESULT if options.dry_run else logging.INFO, line)
    check_space(expected.total.size, free, trial.paths.root)
    if options.retrain_all and trial.covered_start > 0:
        log.info(
            "The scores cover the last %d of %d retrained epochs; --cover_epochs all covers all.",
            options.n_covered_epochs, options.n_epochs,
        )  # fmt: skip
    return expected


def run_trial(
    trial: Trial, methods: Sequence[Method], counts: Sequence[int], n_groups: int
) -> None:
    """Train, score by each method, retrain after each removal, and verify if asked for.

    Finished parts are kept.
    """
    if trial.paths.final_model(trial.seed).exists():
        log.info("Trial %d: training taken up from the output folder", trial.seed)
    else:
        train(trial)
        log.info("Trial %d: trained", trial.seed)
    for method in methods:
        _score(trial, method)
    for method in methods:
        for n in counts:
            _evaluate_removal(trial, methods, method, n)
    if n_groups:
        verify(trial, methods, n_groups)


def _score(trial: Trial, method: Method) -> None:
    path = trial.paths.influence(method.name, trial.seed)
    if path.exists():
        log.info("Trial %d: influence by %s taken up", trial.seed, method.name)
        return
    influence = method.score(trial)
    if not np.isfinite(influence).all():
        raise UserError(
            f"the influences by {method.name} are not finite in trial {trial.seed}: the sweep "
            "diverges; choose a lower --lr and another --output_dir"
        )
    save_csv(influence_table(trial, influence), path)
    log.info("Trial %d: influence by %s written", trial.seed, method.name)


def influence_table(trial: Trial, influence: np.ndarray) -> pd.DataFrame:
    """The influence CSV: ascending, the most harmful image first; ties in the training order."""
    training = trial.data.training
    table = pd.DataFrame(
        {
            IMAGE: training.paths,
            LABEL: training.labels,
            "influence": influence,
            "datasource_index": np.arange(trial.n_train),
        }
    )
    return table.sort_values("influence", kind="stable")


def read_influence(path: Path, n_train: int) -> pd.DataFrame:
    """Read an influence CSV.

    Raises:
        UserError: it cannot be read, or does not hold each training image once.
    """
    table = read_csv(path, columns=(IMAGE, LABEL, "influence", "datasource_index"))
    images, counts = np.unique(table["datasource_index"], return_counts=True)
    if not np.array_equal(images, np.arange(n_train)) or (counts > 1).any():
        what = f"does not hold each of the {n_train} training images once"
        raise unreadable(path, what, f"{len(table)} rows, {len(images)} images")
    return table


def _evaluate_removal(trial: Trial, methods: Sequence[Method], method: Method, n: int) -> None:
    path = trial.paths.score(method.name, n, trial.seed)
    if path.exists():
        log.debug("Trial %d: %s, n = %d taken up", trial.seed, method.name, n)
        return
    save_csv(_removal_scores(trial, methods, method, n), path)
    log.debug("Trial %d: %s, n = %d evaluated", trial.seed, method.name, n)


def _removal_scores(
    trial: Trial, methods: Sequence[Method], method: Method, n: int
) -> pd.DataFrame:
    """The scores after removing the n worst; n = 0 is one run that all methods share."""
    if n == 0:
        shared = [trial.paths.score(other.name, 0, trial.seed) for other in methods]
        done = next((path for path in shared if path.exists()), None)
        if done:
            return read_csv(done)
    influence = read_influence(trial.paths.influence(method.name, trial.seed), trial.n_train)
    description = f"trial {trial.seed}: eval, {method.name}, n = {n}"
    return retrain_without(trial, worst(influence, n), description)


def _analyze(options: Options, trial: Trial) -> None:
    summary = summarise(_load_scores(trial.paths))
    save_csv(summary, trial.paths.summary, index=True)
    title = f"{options.dataset}: {sizes_of(trial)}, {counted(trial.n_epochs, 'epoch')}"
    draw(summary, title, trial.paths.figure)
    agreements = (
        compare(trial.paths, options.methods, options.seeds, title) if options.verify else {}
    )
    log.log(RESULT, "\n%s", closing_table(choose(summary, options.methods), agreements))
    for method, agreement in agreements.items():
        if METHODS[method].predicts and not agreement.random >= TRUSTED:
            bounds = agreement.random, agreement.low, agreement.high
            log.log(RESULT, DISTRUST, method, *bounds, options.verify)


def _load_scores(paths: OutputPaths) -> Scores:
    """All score files of the folder: earlier commands with other n or methods count too."""
    return {
        (method, seed, n): read_csv(path, columns=SCORE_COLUMNS)
        for method in METHODS
        for seed, n, path in sorted(paths.scores(method))
    }
