"""The one pipeline of both commands: train -> infl -> eval -> analyze, over all trials."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from sgd_influence.analyze import analyze
from sgd_influence.class_counts import unvalidated_classes
from sgd_influence.flips_found import say_what_was_found
from sgd_influence.verify import check_groups
from utils.console import RESULT, open_log_file
from utils.data.checks import Checks
from utils.data.datasets import folders_of, prepare
from utils.data.flips import record_flips, with_flips
from utils.data.source import Source
from utils.data.splits import TrialData, draw_split, fingerprint, load_trial, split_of_trial
from utils.errors import UserError
from utils.kernels import cores
from utils.methods import METHODS
from utils.options import SGD_SOLVER, Options
from utils.output.folder import ClaimedFolder, OutputFolder
from utils.output.manifest import Manifest, Settings, remove_temporaries
from utils.output.paths import OutputPaths
from utils.output.results import Results
from utils.output.runs import add_run, run_of
from utils.output.settings import check_apart, check_output_folder, claimed, settings_of
from utils.output.usage import Watch, free_space, memory_limit, physical_cores, written_bytes
from utils.page.page import write_page
from utils.page.predictions import record_for_page
from utils.run.messages import closing_line, lost_classes, opening_block, unused_options
from utils.run.preflight import Estimate, check_memory, check_space, estimate
from utils.run.tasks import tasks_of
from utils.run.worker_process import Setup
from utils.run.workers import InProcess, Processes, Workers, run_tasks
from utils.signals import stop_if_asked
from utils.training.device import choose_backend, set_context
from utils.training.from_scratch import remark_on_retraining
from utils.training.model_check import checked_model
from utils.training.models import Model
from utils.training.network import Network
from utils.training.nnp_net import NnpNet
from utils.training.soundness import solves_of, warnings_of
from utils.training.steps import Step, load_steps, plan_steps
from utils.training.trial import Trial, make_trial
from utils.units import duration

if TYPE_CHECKING:
    from utils.run.dask_cluster import Cluster

log = logging.getLogger("data_cleansing")


def run(options: Options) -> None:
    """Run all stages; finished ones are reused from the output folder.

    Raises:
        UserError: the data, the output folder or the machine does not allow it.
    """
    with Watch().running() as watch:
        _run(options, watch)


def _run(options: Options, watch: Watch) -> None:
    started = time.monotonic()
    work = prepared(options)
    paths = work.paths
    with _cluster_of(options) as client:
        if options.dry_run:
            check_output_folder(paths, work.settings)
            folder = OutputFolder(paths.root)
            _preflight(work, work.trial(options.seed, folder), client)
            report_checks(work.source.checks, folder, "a run lists them in")
            stop_if_asked()
            return
        with claimed(paths, work.settings, options.overwrite) as folder:
            folder.account.check_versions()
            folder.check_outputs()
            open_log_file(paths.log)
            results = work.results(folder)
            expected = _preflight(work, work.checked_trial(options.seed, folder, results), client)
            record_checks(work.source.checks, folder)
            before, ready = written_bytes(paths.root), time.monotonic()
            elsewhere = _compute(work, folder, results, expected, client)
            memory = elsewhere + watch.peak()
            size = max(0, written_bytes(paths.root) - before)
            seconds = time.monotonic() - started
            add_run(run_of(options.command_line, seconds, memory, size), folder)
    if not options.no_report:  # the account of the folder is whole now
        log.info("Page to look at: %s", write_page(OutputFolder(paths.root), results).resolve())
    memory = elsewhere + watch.peak()
    size, ended = max(0, written_bytes(paths.root) - before), time.monotonic()
    log.info(closing_line(expected, size, memory, ended - ready))
    first = f"{duration(ready - started)} to read the data and estimate"
    log.info("Finished in %s (%s): %s", duration(ended - started), first, paths.root.resolve())


def record_checks(checks: Checks | None, folder: OutputFolder) -> None:
    """Write what was found in a user's own images, and report it."""
    if checks is not None:
        folder.save_csv(checks.duplicates, folder.duplicates)
        folder.save_csv(checks.quality, folder.image_quality)
        report_checks(checks, folder, "listed in")


def report_checks(checks: Checks | None, folder: OutputFolder, words: str) -> None:
    """Report what was found; `words` stand before the path of a list."""
    if checks is not None:
        checks.report(folder.duplicates, folder.image_quality, words)


def _compute(
    work: Prepared, folder: ClaimedFolder, results: Results, expected: Estimate, client: Any
) -> int:
    """Compute what is missing and put it together.

    Returns the peak memory, in bytes, of workers that are not processes of this one.
    """
    options = work.options
    methods = [METHODS[name] for name in options.methods]
    tasks = tasks_of(options, results, methods, work.counts)
    if work.source.problems:  # at once: other runs on the same images write that file too
        folder.save_bytes(work.source.problems.read_bytes(), folder.data_problems)
    with _workers(work, expected.workers, client) as workers:
        trial, memory = run_tasks(
            tasks, lambda seed: work.checked_trial(seed, folder, results), workers, expected.seconds
        )
    analyze(options, work.source, trial, results)
    record_warnings(folder, work.remark, options.methods)
    say_what_was_found(results, options.methods, options.seeds)
    record_for_page(options, work.source, work.model, folder, results)
    return 0 if client is None else memory


def record_warnings(folder: ClaimedFolder, remark: str, methods: Sequence[str]) -> None:
    """Put into the manifest why the scores in the folder should not be followed.

    Args:
        folder: with the scores.
        remark: of `remark_on_retraining`; one of an earlier command stays if none of the methods
            predicts what a removal changes and there is no new one.
        methods: of this command.
    """
    folder.account.warnings = warnings_of(folder, METHODS)
    folder.account.solves = solves_of(folder, METHODS)
    if remark or any(METHODS[name].predicts for name in methods):
        folder.account.remarks = [remark] if remark else []


@dataclass(frozen=True)
class Prepared:
    """What a run works on.

    Attributes:
        options: as parsed.
        backend: where nnabla computes.
        source: the images.
        load: gives the split of a trial by its seed; the latest is kept.
        model: builds the graph.
        damping: alpha of the influence functions; None: their solver chooses it.
        settings: what the results depend on.
        counts: the n to remove.
        paths: the files of the run.
        remark: of `remark_on_retraining`.
    """

    options: Options
    backend: str
    source: Source
    load: Callable[[int], TrialData]
    model: Model
    damping: float | None
    settings: Settings
    counts: list[int]
    paths: OutputPaths
    remark: str

    def trial(self, seed: int, folder: OutputFolder) -> Trial:
        """Open a trial that writes into `folder`, on the GPU whose turn it is."""
        options, data = self.options, self.load(seed)
        self.use_device(seed)
        steps = steps_of(options, seed, len(data.training), folder)
        model, classes = self.model, self.source.n_classes
        return make_trial(options, seed, data, steps, model, classes, self.damping, folder)

    def use_device(self, seed: int) -> None:
        """Build graphs for the GPU whose turn it is in the trial of a seed."""
        devices = self.options.device_ids
        set_context(self.backend, devices[(seed - self.options.seed) % len(devices)])

    def results(self, folder: OutputFolder) -> Results:
        """The tables of the folder, whose images are known by their rows in the source."""
        split = partial(split_of_trial, self.options, self.source)
        return Results(folder, lambda seed: split(seed).training)

    def checked_trial(self, seed: int, folder: ClaimedFolder, results: Results) -> Trial:
        """Open a trial after its split is noted, or compared with what an earlier run noted.

        Raises:
            UserError: the data have changed since.
        """
        data = self.load(seed)
        check_inputs(folder.account, data)
        record_flips(data, seed, folder, results)
        return self.trial(seed, folder)

    def setup(self, trial: Trial, folder: Path) -> Setup:
        """What workers need of a trial that was handed over in `folder`."""
        return Setup(
            options=self.options,
            seed=trial.seed,
            backend=self.backend,
            n_classes=self.source.n_classes,
            damping=self.damping,
            root=self.paths.root.absolute(),
            folder=folder,
            claim=self.paths.lock.read_bytes(),
            graph=trial.network.graph,
            net=self.model if isinstance(self.model, NnpNet) else None,
        )


def prepared(options: Options, source: Source | None = None) -> Prepared:
    """Choose where to compute, make the images ready, and check the model on them.

    Args:
        options: as parsed.
        source: the images, where they are ready already.

    Raises:
        UserError: any of it cannot be done, or images lie in the output folder or that among them.
    """
    paths = OutputPaths(options.output_dir)
    check_apart(paths, folders_of(options.dataset, options.data_dir))
    backend = choose_backend(options.context, options.device_ids)
    set_context(backend, options.device_ids[0])
    threadpool_limits(1, "blas")  # nnabla computes on one core; more would change the last bits
    source = source or prepare(
        options.dataset,
        options.data_dir,
        options.allow_unverified_data,
        options.image_size,
        options.color,
        options.resize,
        options.skip_broken,
    )
    if os.path.isdir(options.dataset):  # a link in there may lead to images elsewhere
        check_apart(paths, source.image_folders())
    load = lru_cache(maxsize=1)(partial(load_data, options, source))
    training = load(options.seed).training
    model = checked_model(options.model, training.shape, source.n_classes)
    damping = damping_of(options, source)
    network = Network(model, training.shape, source.n_classes)
    return Prepared(
        options=options,
        backend=backend,
        source=source,
        load=load,
        model=model,
        damping=damping,
        settings=settings_of(options, source.fingerprint, network.graph, damping),
        counts=counts_below(len(training), options),
        paths=paths,
        remark=remark_on_retraining(options, network, len(training)),
    )


def damping_of(options: Options, source: Source) -> float | None:
    """Alpha of the influence functions: as given, else [H]'s for its solver, else to be chosen."""
    if options.damping is None and options.if_solver == SGD_SOLVER:
        return source.damping
    return options.damping


@contextmanager
def _cluster_of(options: Options) -> Iterator[Any]:
    """A client of the Dask cluster that computes; None without one."""
    if options.dask_scheduler is None:
        yield None
        return
    from utils.run.dask_cluster import connected

    with connected(options.dask_scheduler) as client:
        yield client


@contextmanager
def _workers(work: Prepared, n_workers: int, client: Any) -> Iterator[Workers]:
    """The workers that compute the tasks; they leave nothing in the output folder."""
    if client is None and n_workers == 1:
        cores.share(work.options.jobs or physical_cores())
        try:
            yield InProcess(work.use_device)
        finally:
            cores.share(1)
        return
    try:
        with _started(work, n_workers, client).running() as workers:
            yield workers
    finally:
        remove_temporaries(work.paths)


def _started(work: Prepared, n_workers: int, client: Any) -> Processes | Cluster:
    if client is None:
        return Processes(n_workers, work.backend, work.options.device_ids, work.setup)
    from utils.run.dask_cluster import Cluster

    return Cluster(client, work.setup, work.paths.root, work.paths.lock.read_bytes())


def counts_below(n_train: int, options: Options) -> list[int]:
    """The n that can be removed, 0 included.

    Raises:
        UserError: none of those given can, or another option asks for more images than there are.
    """
    if min(options.remove_n_list) >= n_train:
        given = " ".join(map(str, options.remove_n_list))
        raise UserError(
            f"--remove_n_list {given}: there are only {n_train} training images; give a smaller n"
        )
    if options.cleanse_n is not None and options.cleanse_n >= n_train:
        raise UserError(
            f"--cleanse_n {options.cleanse_n}: there are only {n_train} training images in a "
            "trial; give a smaller number"
        )
    check_groups(options.verify, n_train)
    return [n for n in options.removal_counts if n < n_train]


def load_data(options: Options, source: Source, seed: int) -> TrialData:
    """Draw the split of a trial, write its CSV files and decode its images."""
    split_seed = options.split_seed_of(seed)
    split = draw_split(source, split_seed, options.n_train, options.n_val, options.n_test)
    data = load_trial(source, split)
    if options.flip_labels is None:
        return data
    return with_flips(data, source, options.flip_labels, options.split_seed or 0)


def check_inputs(manifest: Manifest, data: TrialData) -> None:
    """Note what the split of a trial names, or compare it with what an earlier run noted.

    Raises:
        UserError: the data have changed since.
    """
    manifest.check_input(data.files.training, fingerprint(data.training))
    manifest.check_input(data.files.validation, fingerprint(data.validation))
    manifest.check_input(data.files.test, fingerprint(data.test))


def steps_of(options: Options, seed: int, n_train: int, paths: OutputPaths) -> list[Step]:
    """The steps of a trial: those recorded, before its training those planned."""
    if paths.steps(seed).exists():
        return load_steps(paths.steps(seed))
    return plan_steps(
        seed, n_train, options.n_epochs, options.batch_size, options.lr, options.lr_schedule
    )


def _preflight(work: Prepared, trial: Trial, client: Any) -> Estimate:
    """Log what will be done and what it takes; refuse it if the disk has too little space."""
    options = work.options
    alone = estimate(options, trial, work.counts)
    expected, free = alone.by(_n_workers(work, alone, client)), free_space(trial.folder.root)
    lines = opening_block(options, work.source, trial, work.backend, work.counts, expected, free)
    for line in lines:
        log.log(RESULT if options.dry_run else logging.INFO, line)
    check_space(expected.space, free, trial.folder.root)
    if client is None:
        check_memory(alone, expected, options.jobs, memory_limit())
    remarks = (
        work.remark,
        lost_classes(work.source, trial),
        unvalidated_classes(options, work.source),
        *unused_options(options, trial.folder),
    )
    for remark in filter(None, remarks):
        log.warning("%s", remark)
    return expected


def _n_workers(work: Prepared, alone: Estimate, client: Any) -> int:
    """How many workers compute."""
    if client is not None:
        return len(client.ncores())
    if work.options.jobs is not None:
        return min(work.options.jobs, max(1, alone.parts))
    places = len(work.options.device_ids) if work.backend == "cudnn" else physical_cores()
    return alone.workers_that_pay(places)
