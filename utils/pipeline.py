"""The one pipeline of both commands: train -> infl -> eval -> analyze, over all trials."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import lru_cache, partial

import numpy as np
import pandas as pd

from sgd_influence.analyze import Scores, choose, closing_table, draw, summarise
from sgd_influence.eval import retrain_without, worst
from sgd_influence.train import train
from utils.console import RESULT, open_log_file
from utils.context import choose_backend, set_context
from utils.datasets import Source, TrialData, draw_split, load_trial, prepare
from utils.images import IMAGE, LABEL
from utils.methods import METHODS, Method
from utils.model_check import checked_model
from utils.network import Network
from utils.options import Options
from utils.paths import OutputPaths
from utils.report import duration, opening_block, remaining_steps, sizes_of, time_step
from utils.settings import claim_output_folder, settings_of
from utils.sgd import Optimiser
from utils.steps import load_steps, plan_steps
from utils.storage import read_csv, save_csv
from utils.trial import Trial

log = logging.getLogger("data_cleansing")


def run(options: Options) -> None:
    """Run all stages; finished ones are taken up from the output folder.

    Raises:
        UserError: the data, the output folder or the machine does not allow it.
    """
    started = time.monotonic()
    backend = choose_backend(options.context, options.device_ids)
    set_context(backend, options.device_ids[0])
    source = prepare(options.dataset, options.data_dir, options.allow_unverified_data)
    load = lru_cache(maxsize=1)(partial(load_data, options, source))
    n_train, shape = len(load(options.seed).training), load(options.seed).training.shape
    model = checked_model(options.model, shape, source.n_classes)

    paths = OutputPaths(options.output_dir)
    claim_output_folder(paths, settings_of(options, source.fingerprint), options.overwrite)
    open_log_file(paths.log)
    counts = [n for n in options.removal_counts if n < n_train]
    for number, seed in enumerate(options.seeds):
        set_context(backend, options.device_ids[number % len(options.device_ids)])
        network = Network(model, shape, source.n_classes, seed)
        trial = open_trial(options, seed, load(seed), network, source.damping, paths)
        if number == 0:
            _say_opening(options, trial, backend, counts)
        run_trial(trial, [METHODS[name] for name in options.methods], counts)
    _analyze(options, trial, counts)
    log.info("Finished in %s: %s", duration(time.monotonic() - started), paths.root.resolve())


def load_data(options: Options, source: Source, seed: int) -> TrialData:
    """Draw the split of a trial, write its CSV files and decode its images."""
    split_seed = seed if options.split_seed is None else options.split_seed
    files = draw_split(source, split_seed, options.n_train, options.n_val, options.n_test)
    return load_trial(source, files)


def open_trial(
    options: Options,
    seed: int,
    data: TrialData,
    network: Network,
    damping: float,
    paths: OutputPaths,
) -> Trial:
    """What the stages of a trial share; recorded steps are read, others planned."""
    if paths.final_model(seed).exists():
        steps = load_steps(paths.steps(seed))
    else:
        n, batch = len(data.training), options.batch_size
        steps = plan_steps(seed, n, options.n_epochs, batch, options.lr, options.lr_schedule)
    optimiser = Optimiser(options.momentum, options.weight_decay)
    return Trial(seed, data, network, optimiser, steps, options.retrain_all, damping, paths)


def _say_opening(options: Options, trial: Trial, backend: str, counts: Sequence[int]) -> None:
    seconds = time_step(trial) * remaining_steps(options, trial, counts)
    for line in opening_block(options, trial, backend, counts, seconds):
        log.info(line)


def run_trial(trial: Trial, methods: Sequence[Method], counts: Sequence[int]) -> None:
    """Train, score by each method, and retrain after each removal; finished parts are kept."""
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


def _score(trial: Trial, method: Method) -> None:
    path = trial.paths.influence(method.name, trial.seed)
    if path.exists():
        log.info("Trial %d: influence by %s taken up", trial.seed, method.name)
        return
    influence = method.score(trial)
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
    influence = read_csv(trial.paths.influence(method.name, trial.seed))
    description = f"trial {trial.seed}: eval, {method.name}, n = {n}"
    return retrain_without(trial, worst(influence, n), description)


def _analyze(options: Options, trial: Trial, counts: Sequence[int]) -> None:
    summary = summarise(_load_scores(options, trial.paths, counts))
    save_csv(summary, trial.paths.summary, index=True)
    title = f"{options.dataset}: {sizes_of(trial)}, {trial.n_epochs} epochs"
    draw(summary, title, trial.paths.figure)
    log.log(RESULT, "\n%s", closing_table(choose(summary, options.methods)))


def _load_scores(options: Options, paths: OutputPaths, counts: Sequence[int]) -> Scores:
    return {
        (method, seed, n): read_csv(paths.score(method, n, seed))
        for method in options.methods
        for seed in options.seeds
        for n in counts
    }
