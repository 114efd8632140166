"""The options of both commands. Edit the defaults in `Options` for a new data set.

Each field carries its flags, its help text and its limit. The parser, the settings that the
manifest keeps and the table in docs/options.md are made from them. Nothing heavy is imported here,
so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from utils.command_line import Parser
from utils.errors import UserError
from utils.methods import METHODS
from utils.presets import PRESETS, preset_of, presets_text
from utils.units import bytes_of

STEPS, RECOMPUTE, FINAL = "steps", "recompute", "final"
CACHES = (STEPS, RECOMPUTE, FINAL)
"""Which states of its training a trial keeps on disk: the values of `--cache`."""

GAUSS_NEWTON, SGD_SOLVER = "gauss_newton", "sgd"
"""The values of `--if_solver`."""

SEEDS = 2**32
"""How many seeds nnabla has for initial parameters."""

MOST_TRIALS = 10_000
"""More trials would keep the program busy for minutes before it prints anything."""

RUN, TRAINING, DATA = "what is run", "training", "data"
MACHINE, OUTPUT = "machine", "output"
GROUPS = (RUN, TRAINING, DATA, MACHINE, OUTPUT)
"""The groups of `--help`, in their order."""


@dataclass(frozen=True)
class Option:
    """How a field of `Options` is given on the command line.

    Attributes:
        group: of `--help`.
        text: its meaning and unit.
        flags: short forms before the long one.
        shown: how help shows the default, if not as it is.
        least: the smallest value allowed, of whole numbers.
        changes_results: results made with another value must not be mixed with new ones.
        argparse: further arguments of `ArgumentParser.add_argument`.
    """

    group: str
    text: str
    flags: tuple[str, ...] = ()
    shown: str = ""
    least: int | None = None
    changes_results: bool = True
    argparse: Mapping[str, Any] = field(default_factory=dict)


def option(
    default: Any,
    group: str,
    text: str,
    *flags: str,
    shown: str = "",
    least: int | None = None,
    changes_results: bool = True,
    **more: Any,
) -> Any:
    """A field of `Options` with a flag; a default of False makes it a switch."""
    if default is False:
        more["action"], shown = "store_true", "off"
    given = Option(group, text, flags, shown, least, changes_results, more)
    return field(default=default, metadata={"option": given})


def folder(text: str) -> Path:
    """The path of a folder; an empty one would silently be the working directory."""
    if not text:
        raise argparse.ArgumentTypeError("empty path")
    return Path(text)


def number_or_all(text: str) -> int | None:
    """A number of epochs; None for all of them."""
    try:
        return None if text == "all" else int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number, or all") from error


def _sample(what: str, drawn: str = "drawn by the seed", shown: str = "all") -> Any:
    text = f"number of {what} images, a stratified subset {drawn}"
    return option(None, DATA, text, type=int, metavar="N", shown=shown, least=1)


def _replaying() -> str:
    """The methods that need the states before the covered steps."""
    *names, last = [name for name, method in METHODS.items() if method.needs_states]
    return f"{', '.join(names)} and {last}"


@dataclass(frozen=True)
class Options:
    """Everything that a person may choose, with its default; checked when built.

    Raises:
        UserError: an option is out of its range.
    """

    program: str
    output_dir: Path = option(
        MISSING, OUTPUT, "folder for everything that the run writes", "-o", type=folder,
        metavar="DIR", changes_results=False,
    )  # fmt: skip
    methods: tuple[str, ...] = option(
        MISSING, RUN, f"methods that score the images: any of {', '.join(METHODS)}", nargs="+",
        choices=METHODS, metavar="METHOD", changes_results=False,
    )  # fmt: skip
    left_out: tuple[str, ...] = ()
    dataset: str = option(
        "cifar10", RUN,
        "data set: digits (comes with the program), cifar10, mnist or stl10 (downloaded once), or "
        "a path: a folder of class folders, a folder with CSV files of Neural Network Console, or "
        "one such file",
        "-ds", metavar="NAME_OR_PATH",
    )  # fmt: skip
    n_trials: int = option(
        6, RUN,
        "number of trials, at most 10,000; each trains, scores and retrains with its own seed",
        "-nt", type=int, metavar="N", least=1, changes_results=False,
    )  # fmt: skip
    seed: int = option(
        0, RUN, "seed of the first trial; trial k depends on the seed SEED + k alone",
        type=int, metavar="SEED", least=0, changes_results=False,
    )  # fmt: skip
    remove_n_list: tuple[int, ...] = option(
        (0, 1, 10, 40, 100, 200, 600, 1000, 3000, 5000, 10000, 30000), RUN,
        "numbers n to try: for each, the n most harmful of all training images are removed and "
        "the net is retrained; 0 always runs; numbers not below the number of training images are "
        "skipped",
        "-r", type=int, nargs="+", metavar="N", least=0, changes_results=False,
    )  # fmt: skip
    retrain_all: bool = option(
        False, RUN,
        "after a removal retrain from the first step instead of from the start of the last "
        "epoch; to get scores that predict this, add --preset smooth --cover_epochs all --methods "
        "Hara_exact",
        "-ra",
    )  # fmt: skip
    cover_epochs: int | None = option(
        1, RUN, "number of last epochs that the scores cover, or all", type=number_or_all,
        metavar="N", least=1,
    )  # fmt: skip
    if_solver: str = option(
        GAUSS_NEWTON, RUN,
        "how Influence_functions solve (A + ALPHA I) v = gradient: gauss_newton, with A the "
        "Gauss-Newton matrix, by conjugate gradients; or sgd, with A the Hessian, by two passes of "
        "SGD as in nnabla's example, which often diverge",
        choices=(GAUSS_NEWTON, SGD_SOLVER),
    )  # fmt: skip
    damping: float | None = option(
        None, RUN,
        "damping ALPHA > 0 of Influence_functions, in nats per squared parameter; raise it if "
        "the solver does not converge",
        type=float, metavar="ALPHA",
        shown="gauss_newton: a tenth of A's largest eigenvalue, at an optimum a millionth; sgd: 10 "
        "for cifar10, else 0.1",
    )  # fmt: skip
    verify: int = option(
        0, RUN,
        "measure whether the scores predict removals: remove K groups of a tenth of the images "
        "(half of them cut from the rankings, at most ten from each, the others random; K from 6 "
        "to the number of training images), retrain, and compare; also retrain twice with slightly "
        "changed weights of all images, to measure whether small removals have predictable effects",
        type=int, nargs="?", const=40, metavar="K", shown="off; 40 if K is not given",
        changes_results=False,
    )  # fmt: skip
    cleanse_n: int | None = option(
        None, RUN, "number of images to leave out of the cleansed data set",
        type=int, metavar="N", shown="as recommended", least=0, changes_results=False,
    )  # fmt: skip
    dry_run: bool = option(
        False, RUN,
        "print the estimated disk space, memory and time of the run, and stop; writes no "
        "results, only missing images and CSV files of the data set",
        changes_results=False,
    )  # fmt: skip
    preset: str | None = option(
        None, TRAINING,
        f"set several options; those that are given keep their values; {presets_text()}",
        choices=PRESETS, metavar="NAME", shown="none", changes_results=False,
    )  # fmt: skip
    n_epochs: int = option(
        20, TRAINING, "training length in epochs", "-e", type=int, metavar="N", least=1
    )
    batch_size: int = option(
        64, TRAINING, "images per training step", type=int, metavar="N", least=1
    )
    lr: float = option(0.05, TRAINING, "learning rate of SGD", type=float, metavar="RATE")
    lr_schedule: str = option(
        "constant", TRAINING,
        "how the learning rate changes: constant: not at all; step: to a tenth after half of the "
        "training, to a hundredth after three quarters; cosine: down to 0",
        choices=("constant", "step", "cosine"),
    )  # fmt: skip
    momentum: float = option(
        0.0, TRAINING, "momentum of SGD, at least 0 and below 1", type=float, metavar="MU"
    )
    weight_decay: float = option(
        0.0, TRAINING, "L2 coefficient: LAMBDA/2 |parameters|^2 is added to each image's loss",
        type=float, metavar="LAMBDA",
    )  # fmt: skip
    model: str = option(
        "six_convolutions", TRAINING,
        "network: six_convolutions, that of nnabla's example; smooth_convolutions or "
        "smooth_resnet, without kinks (ReLU, max pooling), for scores that predict training from "
        "scratch (-ra); resnet; mlp; a .nnp file of Neural Network Console or nnabla, whose graph "
        "is trained from new initial parameters; or module:function, a function of your own "
        "(x, n_classes, test) that returns logits in ordinary nnabla",
        metavar="NAME",
    )  # fmt: skip
    data_dir: Path | None = option(
        None, DATA,
        "folder with the archives of the data set; its images and CSV files are written there "
        "too, or to the cache folder if it is read-only or holds other files in their place",
        type=folder, metavar="DIR",
        shown="$NNABLA_DATA_CLEANSING_CACHE, else ~/.cache/nnabla_data_cleansing",
        changes_results=False,
    )  # fmt: skip
    image_size: int | None = option(
        None, DATA, "side in pixels of the square images that the net gets",
        type=int, metavar="N", shown="from the images, 32 to 128; digits: 8", least=1,
    )  # fmt: skip
    color: str = option(
        "auto", DATA, "channels of the images: gray, rgb, or auto: gray if all are gray",
        choices=("auto", "gray", "rgb"),
    )  # fmt: skip
    resize: str = option(
        "crop", DATA,
        "how images become square: crop keeps the central square, pad adds black borders, stretch "
        "changes the aspect ratio",
        choices=("crop", "pad", "stretch"),
    )  # fmt: skip
    skip_broken: bool = option(
        False, DATA,
        "leave out images of your own that cannot be read, in every set, instead of stopping; "
        "data_problems.csv lists them in either case",
        changes_results=False,
    )  # fmt: skip
    n_train: int | None = _sample("training")
    n_val: int | None = _sample(
        "validation",
        shown="all; without a validation set 10,000 (digits 400, stl10 1,000, your own data 15 %)",
    )
    n_test: int | None = _sample("test", "that is the same in every trial")
    split_seed: int | None = option(
        None, DATA,
        "one seed for all trials, by which validation images, --n_train and --n_val are drawn",
        type=int, metavar="SEED", shown="the trial's seed", least=0,
    )  # fmt: skip
    flip_labels: float | None = option(
        None, DATA,
        "experiment: train with wrong labels for this share of the images (above 0, below 1), to "
        "see which methods find them; drawn by --split_seed (else seed 0), the same in all trials; "
        "the data set's own files do not change",
        type=float, metavar="SHARE", shown="off",
    )  # fmt: skip
    allow_unverified_data: bool = option(
        False, DATA, "accept archives whose MD5 is not the published one, with a warning",
        changes_results=False,
    )  # fmt: skip
    jobs: int | None = option(
        None, MACHINE,
        "number of worker processes; each uses one core or GPU, and the cores of idle workers; "
        "any number gives the same results; 1: this process alone, on one core",
        "-j", type=int, metavar="N", least=1, changes_results=False,
        shown="as many as save time, at most one per core or, with cudnn, per GPU of --device-id",
    )  # fmt: skip
    dask_scheduler: str | None = option(
        None, MACHINE,
        "use the workers of a Dask cluster instead of --jobs: the address of its scheduler, such "
        "as tcp://host:8786, or the scheduler's file; needs requirements-dask.txt",
        metavar="ADDRESS", shown="none", changes_results=False,
    )  # fmt: skip
    context: str = option(
        "auto", MACHINE,
        "where nnabla computes: cpu, cudnn (a GPU, with nnabla-ext-cuda), or auto: cudnn where "
        "it works, else cpu",
        choices=("auto", "cpu", "cudnn"), changes_results=False,
    )  # fmt: skip
    conv: str = option(
        "fast", MACHINE,
        "how a net's functions are computed on a CPU: fast (BLAS and compiled loops, seven times "
        "as fast) or nnabla (its own functions); results differ in the last bits",
        choices=("fast", "nnabla"),
    )  # fmt: skip
    cache: str = option(
        RECOMPUTE, MACHINE,
        "which states of the training are kept on disk, besides the final one and the one that "
        "removals retrain from. steps: before every covered step; recompute: before every "
        "sqrt(T)-th of the T covered steps, the others are computed again when needed, with the "
        f"same scores; final: none, so that {_replaying()} cannot run",
        choices=CACHES, changes_results=False,
    )  # fmt: skip
    cache_memory: int = option(
        1000**3, MACHINE,
        "memory for the states that --cache recompute computes again, such as 500MB or 2GiB; with "
        "little memory they are computed several times",
        type=bytes_of, metavar="SIZE", shown="1GB", changes_results=False,
    )  # fmt: skip
    device_id: str = option(
        "0", MACHINE,
        "GPU number, or several separated by commas, which workers (with --jobs 1: trials) use in "
        "turn",
        "-di", metavar="ID", changes_results=False,
    )  # fmt: skip
    overwrite: bool = option(
        False, OUTPUT,
        "delete results in the output folder that were made with other options, instead of "
        "refusing to run; files that no run wrote stay",
        changes_results=False,
    )  # fmt: skip
    no_report: bool = option(
        False, OUTPUT,
        "do not write report/index.html; python -m utils.page DIR writes it later",
        changes_results=False,
    )  # fmt: skip
    command_line: str = ""
    quiet: bool = option(
        False, OUTPUT, "print only warnings, errors, the verdicts and the closing table", "-q",
        changes_results=False,
    )  # fmt: skip
    verbose: bool = option(
        False, OUTPUT, "also print the losses and accuracies of each epoch and of each removal",
        "-v", changes_results=False,
    )  # fmt: skip

    def __post_init__(self) -> None:
        self._check_least()
        self._check_training()
        self._check_scoring()
        self._check_run()

    def _check_least(self) -> None:
        for name, given in options_by_name().items():
            for value in _as_tuple(getattr(self, name)):
                if given.least is not None and value is not None and value < given.least:
                    least = f"must be a whole number of at least {given.least}"
                    raise UserError(f"--{name} {value}: {least}")

    def _check_training(self) -> None:
        _check(math.isfinite(self.lr) and self.lr > 0, f"--lr {self.lr}: must be a number above 0")
        _check(
            self.flip_labels is None or 0 < self.flip_labels < 1,
            f"--flip_labels {self.flip_labels}: must be a share above 0 and below 1",
        )
        _check(0 <= self.momentum < 1, f"--momentum {self.momentum}: must be from 0 to below 1")
        _check(
            math.isfinite(self.weight_decay) and self.weight_decay >= 0,
            f"--weight_decay {self.weight_decay}: must be a number of at least 0",
        )

    def _check_scoring(self) -> None:
        _check(
            self.cover_epochs is None or self.cover_epochs <= self.n_epochs,
            f"--cover_epochs {self.cover_epochs}: there are {self.n_epochs} epochs (--n_epochs)",
        )
        _check(
            self.damping is None or (math.isfinite(self.damping) and self.damping > 0),
            f"--damping {self.damping}: must be a number above 0",
        )
        _check(
            self.verify == 0 or self.verify >= 6, f"--verify {self.verify}: needs 6 groups or more"
        )
        _check(
            not (self.cache == FINAL and needing_states(self.methods)),
            f"--cache {FINAL}: keeps no states of the steps, which "
            f"{' and '.join(needing_states(self.methods))} of --methods needs; give --cache "
            f"{RECOMPUTE} or other --methods",
        )

    def _check_run(self) -> None:
        _check(
            self.n_trials <= MOST_TRIALS,
            f"--n_trials {self.n_trials}: must be at most {MOST_TRIALS:,}; more can follow with "
            "another --seed",
        )
        _check(
            self.seed + self.n_trials <= SEEDS,
            f"--seed {self.seed}: nnabla takes seeds below {SEEDS}, and there are {self.n_trials} "
            "trials (--n_trials)",
        )
        _check(
            all(device.isdecimal() for device in self.device_ids),
            f"--device-id {self.device_id}: expected a GPU number, or several separated by "
            "commas, such as 0 or 0,1",
        )
        _check(
            self.jobs is None or self.dask_scheduler is None,
            "--jobs and --dask_scheduler: give one of the two; a cluster has its own workers",
        )
        _check(not (self.quiet and self.verbose), "--quiet and --verbose: give one of the two")
        _check(
            not (self.dry_run and self.overwrite), "--dry_run and --overwrite: give one of the two"
        )

    @property
    def device_ids(self) -> tuple[str, ...]:
        """The GPU numbers that runs take in turn."""
        return tuple(part.strip() for part in self.device_id.split(","))

    @property
    def n_covered_epochs(self) -> int:
        """Over how many last epochs the scores sweep."""
        return self.n_epochs if self.cover_epochs is None else self.cover_epochs

    @property
    def removal_counts(self) -> tuple[int, ...]:
        """n to remove: ascending, each once, 0 included."""
        return tuple(sorted({0, *self.remove_n_list}))

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each trial."""
        return tuple(range(self.seed, self.seed + self.n_trials))

    def split_seed_of(self, seed: int) -> int:
        """The seed of the split of the trial with this seed."""
        return seed if self.split_seed is None else self.split_seed


def needing_states(methods: Sequence[str]) -> tuple[str, ...]:
    """Those of the methods that `--cache final` keeps too little for."""
    return tuple(name for name in methods if METHODS[name].needs_states)


def options_by_name() -> dict[str, Option]:
    """The options of the command line, in the order of the fields."""
    return {f.name: f.metadata["option"] for f in fields(Options) if "option" in f.metadata}


def result_options() -> tuple[str, ...]:
    """The options that results depend on."""
    return tuple(name for name, given in options_by_name().items() if given.changes_results)


def _as_tuple(value: int | tuple[int, ...] | None) -> tuple[int | None, ...]:
    return value if isinstance(value, tuple) else (value,)


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise UserError(message)


@dataclass(frozen=True)
class Command:
    """What tells one of the two commands from the other.

    Attributes:
        program: the name of the script.
        description: what it does, for `--help`.
        output_dir: the default output folder.
        methods: the methods that run by default.
    """

    program: str
    description: str
    output_dir: str
    methods: tuple[str, ...]


def parse_options(command: Command, arguments: Sequence[str] | None = None) -> Options:
    """Parse a command line.

    Args:
        command: whose options.
        arguments: the command line without the program; None is sys.argv's.

    Raises:
        UserError: an option is out of its range.
        SystemExit: status 0 after `--help`, 2 where argparse cannot read the command line.
    """
    chosen = _parsed(build_parser(command), arguments)
    if chosen["cache"] == FINAL and chosen["methods"] is command.methods:
        chosen["left_out"] = needing_states(command.methods)
        chosen["methods"] = [m for m in command.methods if m not in chosen["left_out"]]
    chosen["remove_n_list"] = tuple(chosen["remove_n_list"])
    chosen["methods"] = tuple(dict.fromkeys(chosen["methods"]))
    given = sys.argv[1:] if arguments is None else arguments
    chosen["command_line"] = shlex.join(["python", command.program, *given])
    return Options(program=command.program, **chosen)


def _parsed(parser: Parser, arguments: Sequence[str] | None) -> dict[str, Any]:
    """The value of each option, where it is not given the preset's, else the default."""
    chosen = vars(parser.parse_args(arguments))
    if chosen["preset"]:
        parser.set_defaults(**preset_of(chosen["preset"]).options)
        chosen = vars(parser.parse_args(arguments))
    return chosen


def build_parser(command: Command) -> Parser:
    """The parser of a command, made from the fields of `Options`."""
    parser = Parser(prog=command.program, description=command.description, allow_abbrev=False)
    own = {"output_dir": Path(command.output_dir), "methods": command.methods}
    given = {f.name: f for f in fields(Options) if "option" in f.metadata}
    for title in GROUPS:
        group = parser.add_argument_group(title)
        for name, field_ in given.items():
            if field_.metadata["option"].group == title:
                _add(group, field_, own.get(name, field_.default))
    return parser


def _add(group: argparse._ArgumentGroup, field_: Field, default: Any) -> None:
    given: Option = field_.metadata["option"]
    shown = given.shown or default_text(default)
    more = {"default": default, **given.argparse}
    text = f"{given.text} (default: {shown})".replace("%", "%%")  # argparse formats it
    group.add_argument(*given.flags, long_flag(field_.name), help=text, **more)


def long_flag(name: str) -> str:
    """The long form on the command line; `--device-id` has the reference's hyphen."""
    return "--device-id" if name == "device_id" else f"--{name}"


def default_text(default: Any) -> str:
    """A default as help shows it."""
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
