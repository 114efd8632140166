"""The estimate of what the rest of a run takes: bytes on disk, memory and time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nnabla as nn

from sgd_influence.label_record import BYTES_PER_CLASS
from sgd_influence.replay import COMPARED, replayed_steps, room_for, states_there
from utils.errors import UserError
from utils.methods import METHODS, Method
from utils.options import Options
from utils.output.ranking import SHOWN_BEST, SHOWN_WORST
from utils.output.storage import read_csv
from utils.output.usage import (
    Limit,
    memory_limit,
    other_load,
    peak_memory,
    physical_cores,
    process_limit,
    taken_now,
)
from utils.page.page import LARGEST
from utils.run.costs import Costs, measure
from utils.training.activations import check_memory_of
from utils.training.device import on_gpu, release_memory
from utils.training.evaluation import evaluation_batch
from utils.training.kept_states import longest_segment
from utils.training.smoothness import SIGNS
from utils.training.trial import Trial
from utils.units import shown_bytes

ANALYSIS_SECONDS = 1.0
"""Summarising and drawing, with the import of what draws."""

START_SECONDS = 5.0
"""Starting worker processes, which import nnabla and build their graphs."""

TRACKER = 14e6
"""Bytes of memory of the process that cleans up after workers."""

CHECK = 75_000_000
"""Bytes of memory of the label check's libraries, which are loaded at the end."""

SHARED = 0.7
"""Share of a step's time in loops that idle cores take part in (six_convolutions, 32 px)."""

MARGIN = 1.1
"""How many times the counted bytes are expected."""

WORD, SINGLE, BIT = 8, 4, 1 / 8
"""Bytes of a number in an archive (indices, seeds, rates), of a loss or margin, and of a hit."""

CELL = 12
"""Bytes of a number in a table, on average over labels and decimals; paths are extra."""

FILE = 700
"""Bytes of a small file without its rows, of a verdict, or of an entry of the page."""

DRAWING = 65_000
"""Bytes of a figure, of a method's panel in one, or of the page without entries."""

LARGEST_PICTURE = 6000
"""Bytes of an image at most; a smaller one takes its pixels."""
AS_TEXT = 1.5
"""Bytes on the page of a byte of an image."""

INFLUENCE_COLUMNS, SCORE_COLUMNS, SUMMARY_COLUMNS = 3, 4, 10
GROUP_COLUMNS, PREDICTION_COLUMNS, LABEL_COLUMNS = 7, 3, 6
"""Numbers in a row of the tables."""


@dataclass(frozen=True)
class Work:
    """What is to be done.

    Attributes:
        size: bytes that are written.
        seconds: on this machine, by one process that has a core to itself.
        longest: seconds of its longest part that one process has to do alone.
        parts: of how many such parts it is.
    """

    size: float = 0.0
    seconds: float = 0.0
    longest: float = 0.0
    parts: int = 0

    @classmethod
    def of(cls, size: float, seconds: Sequence[float]) -> Work:
        """Of parts that take `seconds` each."""
        return cls(size, sum(seconds), max(seconds, default=0.0), len(seconds))

    def __add__(self, other: Work) -> Work:
        longest, parts = max(self.longest, other.longest), self.parts + other.parts
        return Work(self.size + other.size, self.seconds + other.seconds, longest, parts)

    def by(self, n_workers: int, slowdown: float = 1.0, alone: float = 1.0) -> Work:
        """The same with the seconds that several processes take, side by side.

        Args:
            n_workers: how many processes.
            slowdown: how many seconds one of them takes for a second of computing.
            alone: the same, while the others have nothing to do.
        """
        if n_workers == 1:
            return replace(self, seconds=alone * self.seconds)
        spread = slowdown * self.seconds / n_workers
        return replace(self, seconds=max(spread, alone * self.longest))


@dataclass(frozen=True)
class Load:
    """How busy the cores are.

    Attributes:
        others: processes of other programs that compete for the cores, on average.
        cores: how many there are; None where that does not matter, as on GPUs and clusters.
    """

    others: float = 0.0
    cores: int | None = None

    def slowdown(self, n_workers: int) -> float:
        """Seconds that a worker takes for a second of computing: cores are shared evenly."""
        return max(1.0, (n_workers + self.others) / self.cores) if self.cores else 1.0

    def alone(self, n_cores: int) -> float:
        """As `slowdown`, of a process on so many cores while no other worker computes."""
        if not self.cores:
            return 1.0
        idle = min(n_cores, max(1.0, self.cores - self.others))
        return self.slowdown(1) * (1 - SHARED + SHARED / idle)

    def slowdown_by_others(self, n_workers: int) -> float:
        """How many times longer the workers take than without other programs."""
        return self.slowdown(n_workers) / replace(self, others=0.0).slowdown(n_workers)


@dataclass(frozen=True)
class Estimate:
    """What the rest of a run takes.

    Attributes:
        stages: by name, those in which something is to be done.
        memory: bytes that the processes take at most at a time, what they share counted once.
        images: bytes of the images of all trials, which are written out for worker processes.
        workers: how many processes compute; with 1 it is this one.
        waiting: bytes of memory of this process while others compute, with the libraries and images
            that all have in common; as if it computed if None.
        each: bytes of memory of each of those others, without these; the same if None.
        load: of the cores that compute.
        cores: on which this process computes if it does.
        start: seconds until the workers on this machine have started.
    """

    stages: dict[str, Work]
    memory: float
    images: float = 0.0
    workers: int = 1
    waiting: float | None = None
    each: float | None = None
    load: Load = Load()
    cores: int = 1
    start: float = 0.0

    @property
    def total(self) -> Work:
        """All stages together."""
        return together(self.stages.values())

    @property
    def whole(self) -> float:
        """Seconds of all stages and of starting the workers."""
        return self.total.seconds + self.start

    @property
    def seconds(self) -> dict[str, float]:
        """Of each stage."""
        return {name: work.seconds for name, work in self.stages.items()}

    @property
    def space(self) -> float:
        """Bytes that are needed while the run goes on."""
        return self.total.size + (self.images if self.workers > 1 else 0.0)

    @property
    def parts(self) -> int:
        """How many parts there are at most that can be done side by side."""
        return max((work.parts for work in self.stages.values()), default=0)

    def by(self, n_workers: int) -> Estimate:
        """The same for `n_workers` workers, with the time that they take under the load.

        This process holds the images and waits for the workers, unless it computes itself.
        """
        slowdown = self.load.slowdown(n_workers)
        alone = self.load.alone(n_workers if n_workers > 1 else self.cores)
        stages = {name: work.by(n_workers, slowdown, alone) for name, work in self.stages.items()}
        if n_workers == 1:
            return replace(self, stages=stages)
        memory = max(self.memory, self._waiting + n_workers * self._each)
        start = START_SECONDS * slowdown if self.load.cores else 0.0
        return replace(self, stages=stages, memory=memory, workers=n_workers, start=start)

    def workers_in(self, size: float) -> int:
        """How many workers fit into `size` bytes of memory; 1 may be this process."""
        return max(1, int((size - self._waiting) // self._each))

    @property
    def _waiting(self) -> float:
        return self.memory if self.waiting is None else self.waiting

    @property
    def _each(self) -> float:
        return max(1.0, self.memory if self.each is None else self.each)

    def workers_that_pay(self, places: int) -> int:
        """The default number of workers: 1 where starting them takes longer than they save.

        Args:
            places: cores or GPUs for them.
        """
        room = self.workers_in(memory_limit().size)
        n_workers = max(1, min(places, self.parts, room))
        saved = self.by(1).total.seconds - self.by(n_workers).total.seconds
        return n_workers if saved > START_SECONDS * self.load.slowdown(n_workers) else 1


def together(work: Iterable[Work]) -> Work:
    """The sum of several pieces of work."""
    return sum(work, Work())


def estimate(options: Options, trial: Trial, counts: Sequence[int]) -> Estimate:
    """Estimate what is not done yet of all trials, from parts timed on the first one's data.

    Args:
        options: as parsed.
        trial: the first trial.
        counts: the n that will run.

    Raises:
        UserError: `--cache_memory` is too small for the network, the states that a method needs
            were not kept, or a batch takes more memory than there is.
    """
    methods = [METHODS[name] for name in options.methods]
    missing = [
        method
        for method in methods
        if not all(trial.folder.influence(method.name, seed).exists() for seed in options.seeds)
    ]
    room = _room(trial, missing)
    _check_batch(trial, missing)
    rest = _Rest(options, trial, methods, counts, measure(trial, missing, max(counts)), room)
    held = min(room, _longest_segment(trial)) + COMPARED if room else 0
    stages, images = rest.stages(), _held_bytes(trial)
    now, states = taken_now(), held * trial.state_bytes
    next_images = images if options.n_trials > 1 else 0
    release_memory()
    return Estimate(
        stages=stages,
        memory=max(peak_memory(), now.resident + max(states + next_images, CHECK)),
        images=options.n_trials * _image_bytes(trial),
        waiting=taken_now().resident + TRACKER,
        each=max(0, now.own + states - images),
        load=_load(options),
        cores=options.jobs or physical_cores(),
    )


def _check_batch(trial: Trial, missing: Sequence[Method]) -> None:
    """Refuse a batch that there is no memory for before it is tried."""
    shape, n_validation = trial.network.image_shape, len(trial.data.validation)
    logits = trial.network.logits(nn.Variable((1, *shape)), test=False)
    remedy = "give a smaller --image_size or --batch_size"
    n_images = max(len(step.indices) for step in trial.steps)
    check_memory_of(logits, n_images, any(method.predicts for method in missing), remedy)
    n_evaluated = min(evaluation_batch(shape), n_validation)
    check_memory_of(logits, n_evaluated, scored=False, remedy=remedy)


def _load(options: Options) -> Load:
    """Of the cores of this machine, where they compute."""
    if options.dask_scheduler or on_gpu():
        return Load()
    return Load(other_load(), physical_cores())


def check_memory(alone: Estimate, expected: Estimate, jobs: int | None, limit: Limit) -> None:
    """Refuse a run that there is no memory for.

    Args:
        alone: what it takes if this process computes.
        expected: what it takes.
        jobs: the number of processes that was asked for.
        limit: what all processes may take together.

    Raises:
        UserError: it takes more.
    """
    single = process_limit()
    if single is not None and single < min(alone.memory, limit.size):
        limit = Limit(single, "limit of a process, ulimit -v")
    there = f"but only {shown_bytes(limit.size)} are available ({limit.of})"
    if alone.memory > limit.size:
        raise UserError(
            f"the run takes about {shown_bytes(alone.memory)} of memory, {there}; free some, or "
            "give a smaller --batch_size, --image_size, --n_train or --cache_memory"
        )
    if jobs is not None and expected.memory > limit.size:
        raise UserError(
            f"--jobs {jobs}: {expected.workers} processes take about "
            f"{shown_bytes(expected.memory)} of memory, {there}; give --jobs "
            f"{alone.workers_in(limit.size)}, or free some memory"
        )


def check_space(needed: float, free: int, root: Path) -> None:
    """Refuse a run that the file system of its output folder has no room for.

    Raises:
        UserError: `needed` is more than `free` bytes.
    """
    if needed > free:
        raise UserError(
            f"--output_dir {root}: the run writes about {shown_bytes(needed)}, but only "
            f"{shown_bytes(free)} are free there; free some space, or choose another --output_dir "
            "or a --cache that keeps less"
        )


def _longest_segment(trial: Trial) -> int:
    """Covered steps from one kept state to the next, at most."""
    trained = trial.folder.final_model(trial.seed).exists()
    return longest_segment(states_there(trial) if trained else trial.kept_steps, trial.covered)


def _room(trial: Trial, missing: Sequence[Method]) -> int:
    """How many replayed states are held at most; 0 where nothing is replayed."""
    replays = any(method.needs_states for method in missing)
    if not replays or _longest_segment(trial) == 1:
        return 0
    return room_for(trial.cache_memory, trial.state_bytes)


def _image_bytes(trial: Trial) -> int:
    """Bytes of the images of a trial."""
    parts = (trial.data.training, trial.data.validation, trial.data.test)
    return sum(math.prod(part.images.shape) for part in parts)


def _held_bytes(trial: Trial) -> int:
    """Bytes of the images of a trial that are not in a pool shared by all trials."""
    parts = (trial.data.training, trial.data.validation, trial.data.test)
    return sum(getattr(part.images, "nbytes", 0) for part in parts)


@dataclass(frozen=True)
class _Rest:
    """What is not done yet, by stage.

    Attributes:
        options: as parsed.
        trial: the first trial; the others are of its size.
        methods: that will run.
        counts: the n that will run.
        costs: of the parts.
        room: states held by a replay; 0 without one.
    """

    options: Options
    trial: Trial
    methods: Sequence[Method]
    counts: Sequence[int]
    costs: Costs
    room: int

    def stages(self) -> dict[str, Work]:
        """The work of each stage over all trials, without stages where nothing is to be done."""
        seeds = self.options.seeds
        stages = {
            "train": together(self._training(seed) for seed in seeds),
            "infl": together(self._scoring(seed) for seed in seeds),
            "eval": together(self._removals(seed) for seed in seeds),
            "verify": together(self._verification(seed) for seed in seeds),
            "analyze": self._analysis(),
        }
        there = {name: work for name, work in stages.items() if work != Work()}
        return {name: replace(work, size=MARGIN * work.size) for name, work in there.items()}

    def _training(self, seed: int) -> Work:
        trial, costs = self.trial, self.costs
        if trial.folder.final_model(seed).exists():
            return Work()
        states = len(trial.kept_steps) + 1
        records = (2 * WORD + SINGLE) * trial.n_epochs * trial.n_train  # index, seed, margin
        records += 3 * WORD * len(trial.steps)  # epoch, size, learning rate
        seconds = len(trial.steps) * costs.step + states * costs.save
        n_val, n_test = len(trial.data.validation), len(trial.data.test)
        probabilities = BYTES_PER_CLASS * trial.network.n_classes
        records += probabilities * (trial.n_train + n_val + n_test)
        records += SINGLE * trial.n_epochs * (n_val + n_test)
        seconds += trial.n_epochs * (n_val + n_test) * costs.evaluation
        with_nnp = states + 1  # the trained net is written a second time, with its graph
        return Work.of(with_nnp * costs.state_file + records, [seconds])

    def _scoring(self, seed: int) -> Work:
        trial = self.trial
        paths = {method: trial.folder.influence(method.name, seed) for method in self.methods}
        size = sum(map(len, trial.data.training.paths))
        size += INFLUENCE_COLUMNS * CELL * trial.n_train + FILE
        seconds = [self._score_seconds(m) for m, path in paths.items() if not path.exists()]
        return Work.of(len(seconds) * size, seconds)

    def _score_seconds(self, method: Method) -> float:
        trial, costs = self.trial, self.costs
        epochs = method.epochs_in(trial)
        if epochs == 0:
            return 0.0
        seconds = len(trial.data.validation) * costs.gradient
        if epochs is not None:
            batches = epochs * len(trial.steps) / trial.n_epochs
            return seconds + batches * costs.product
        per_step = costs.sweep + (self._replay_seconds() if method.needs_states else 0.0)
        return seconds + len(trial.covered) * per_step

    def _replay_seconds(self) -> float:
        """Seconds of replaying, per covered step."""
        if not self.room:
            return 0.0
        length = _longest_segment(self.trial)
        return self.costs.step * replayed_steps(length, self.room) / length

    def _removals(self, seed: int) -> Work:
        missing = [
            (method.name, n)
            for method in self.methods
            for n in self.counts
            if not self.trial.folder.evaluated(method.name, n, seed)
        ]
        epochs = self.trial.n_epochs if self.options.retrain_all else 1
        runs = [n for _, n in missing if n > 0]
        runs += [0] if len([n for _, n in missing if n == 0]) == len(self.methods) else []
        n_val, n_test = len(self.trial.data.validation), len(self.trial.data.test)
        each = 2 * FILE + SCORE_COLUMNS * CELL * epochs + SINGLE * n_val + BIT * n_test
        size = len(missing) * each + WORD * sum(n for _, n in missing)
        return Work.of(size, [self._retraining_seconds(n) for n in runs])

    def _retraining_seconds(self, n_removed: int) -> float:
        trial = self.trial
        epochs = trial.n_epochs if self.options.retrain_all else 1
        last = len(trial.steps) if n_removed else trial.epoch_starts[-1]  # the final state is there
        evaluated = epochs * (len(trial.data.validation) + len(trial.data.test))
        return self._seconds_to(last, n_removed) + evaluated * self.costs.evaluation

    def _verifying_seconds(self, n_removed: int) -> float:
        """Seconds of a retraining that is evaluated once, on validation images."""
        evaluated = len(self.trial.data.validation)
        steps = self._seconds_to(len(self.trial.steps), n_removed)
        return steps + evaluated * self.costs.evaluation

    def _seconds_to(self, last: int, n_removed: int) -> float:
        """Seconds of retraining up to step `last`."""
        trial = self.trial
        n_steps = (last - trial.retrain_start) * (1 - n_removed / trial.n_train)
        return n_steps * self.costs.step

    def _verification(self, seed: int) -> Work:
        path = self.trial.folder.verified(seed)
        there = read_csv(path)["group"].nunique() if path.exists() else 0
        n_groups = max(0, self.options.verify - there)
        size = GROUP_COLUMNS * CELL * n_groups * (2 * len(self.methods) + 1)
        each = self._verifying_seconds(round(self.trial.n_train / 10))
        return Work.of(size, [each] * n_groups) + self._moved(seed)

    def _moved(self, seed: int) -> Work:
        """The retrainings with moved weights."""
        there = [self.trial.folder.moved_losses(seed, sign).exists() for sign in SIGNS]
        n_missing = there.count(False) if self.options.verify else 0
        size = SINGLE * len(self.trial.data.validation) + FILE
        return Work.of(n_missing * size, [self._verifying_seconds(0)] * n_missing)

    def _analysis(self) -> Work:
        n_rows = (len(self.methods) + 1) * len(self.counts) * (self.options.n_trials + 2)
        figures = 1 + (len(self.methods) if self.options.verify else 0)
        paths = (*self.trial.data.training.paths, *self.trial.data.validation.paths)
        cleansed = len(self.methods) * sum(len(path) + CELL for path in paths)
        labelled = (*paths, *self.trial.data.test.paths)
        labels = 2 * FILE + sum(len(path) + LABEL_COLUMNS * CELL for path in labelled)
        verdicts = FILE * (len(self.methods) + 1)
        table = n_rows * SUMMARY_COLUMNS * CELL
        size = table + figures * DRAWING + cleansed + labels + verdicts + self._page()
        return Work.of(size, [ANALYSIS_SECONDS])

    def _page(self) -> float:
        """Bytes of the page and of what is recorded for it, each method showing other images."""
        data, training = self.trial.data, self.trial.data.training
        shown = len(self.methods) * min(SHOWN_WORST + SHOWN_BEST, len(training))
        path = max(map(len, training.paths))
        recorded = shown * (PREDICTION_COLUMNS * CELL + path)
        if self.options.no_report:
            return recorded
        picture = AS_TEXT * min(math.prod(training.shape), LARGEST_PICTURE)
        reviewed = len(training) + len(data.validation) + len(data.test)
        pictures = (shown + reviewed) * picture
        return recorded + min(LARGEST, DRAWING + shown * (FILE + 2 * path) + pictures)
