"""The options of both commands. Edit the defaults in `Options` for a new data set.

Nothing heavy is imported here, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

from utils.cache import CACHES, FINAL, RECOMPUTE
from utils.errors import UserError
from utils.methods import METHODS
from utils.units import bytes_of, printable


@dataclass(frozen=True)
class Options:
    """Everything that a person may choose, with its default; checked when built.

    Raises:
        UserError: an option is out of its range.
    """

    program: str
    output_dir: Path
    methods: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    dataset: str = "cifar10"
    n_epochs: int = 20
    n_trials: int = 6
    remove_n_list: tuple[int, ...] = (
        0, 1, 10, 40, 100, 200, 600, 1000, 3000, 5000, 10000, 30000,
    )  # fmt: skip
    device_id: str = "0"
    retrain_all: bool = False
    cover_epochs: int | None = 1
    damping: float | None = None
    verify: int = 0
    cleanse_n: int | None = None
    relabel_candidates: bool = False
    relabel_confidence: float = 0.9
    dry_run: bool = False
    seed: int = 0
    batch_size: int = 64
    lr: float = 0.05
    lr_schedule: str = "constant"
    momentum: float = 0.0
    weight_decay: float = 0.0
    model: str = "six_convolutions"
    data_dir: Path | None = None
    image_size: int | None = None
    color: str = "auto"
    n_train: int | None = None
    n_val: int | None = None
    n_test: int | None = None
    split_seed: int | None = None
    flip_labels: float | None = None
    allow_unverified_data: bool = False
    jobs: int | None = None
    dask_scheduler: str | None = None
    context: str = "auto"
    conv: str = "fast"
    cache: str = RECOMPUTE
    cache_memory: int = 1000**3
    overwrite: bool = False
    no_report: bool = False
    command_line: str = ""
    quiet: bool = False
    verbose: bool = False

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            for value in _as_tuple(getattr(self, name)):
                if value is not None and value < least:
                    raise UserError(f"--{name} {value}: must be a whole number of at least {least}")
        _check(math.isfinite(self.lr) and self.lr > 0, f"--lr {self.lr}: must be a number above 0")
        _check(
            self.cover_epochs is None or self.cover_epochs <= self.n_epochs,
            f"--cover_epochs {self.cover_epochs}: there are {self.n_epochs} epochs (--n_epochs)",
        )
        _check(
            self.damping is None or (math.isfinite(self.damping) and self.damping > 0),
            f"--damping {self.damping}: must be a number above 0",
        )
        _check(
            self.flip_labels is None or 0 < self.flip_labels < 1,
            f"--flip_labels {self.flip_labels}: must be a share above 0 and below 1",
        )
        _check(
            self.verify == 0 or self.verify >= 6, f"--verify {self.verify}: needs 6 groups or more"
        )
        _check(
            0 < self.relabel_confidence <= 1,
            f"--relabel_confidence {self.relabel_confidence}: must be above 0 and at most 1",
        )
        _check(0 <= self.momentum < 1, f"--momentum {self.momentum}: must be from 0 to below 1")
        _check(
            math.isfinite(self.weight_decay) and self.weight_decay >= 0,
            f"--weight_decay {self.weight_decay}: must be a number of at least 0",
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
        _check(
            not (self.cache == FINAL and needing_states(self.methods)),
            f"--cache {FINAL}: keeps no states of the steps, which "
            f"{' and '.join(needing_states(self.methods))} of --methods needs; give --cache "
            f"{RECOMPUTE} or other --methods",
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


def folder(text: str) -> Path:
    """The path of a folder; an empty one would silently be the working directory."""
    if not text:
        raise ValueError("empty path")
    return Path(text)


def number_or_all(text: str) -> int | None:
    """A number of epochs; None for all of them."""
    return None if text == "all" else int(text)


_LEAST = {
    "n_epochs": 1, "n_trials": 1, "batch_size": 1, "n_train": 1, "n_val": 1, "n_test": 1,
    "image_size": 1, "jobs": 1,
    "cover_epochs": 1, "seed": 0, "split_seed": 0, "remove_n_list": 0,
    "cleanse_n": 0,
}  # fmt: skip


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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        line = f"{self.prog}: error: {message} (see {self.prog} --help)"
        self.exit(2, f"{printable(line)}\n")


def parse_options(command: Command, arguments: Sequence[str] | None = None) -> Options:
    """Parse a command line.

    Args:
        command: whose options.
        arguments: the command line without the program; None is sys.argv's.

    Raises:
        UserError: an option is out of its range.
        SystemExit: status 0 after `--help`, 2 where argparse cannot read the command line.
    """
    chosen = vars(_build_parser(command).parse_args(arguments))
    if chosen["cache"] == FINAL and chosen["methods"] is command.methods:
        chosen["left_out"] = needing_states(command.methods)
        chosen["methods"] = [m for m in command.methods if m not in chosen["left_out"]]
    chosen["remove_n_list"] = tuple(chosen["remove_n_list"])
    chosen["methods"] = tuple(dict.fromkeys(chosen["methods"]))
    given = sys.argv[1:] if arguments is None else arguments
    chosen["command_line"] = shlex.join(["python", command.program, *given])
    return Options(program=command.program, **chosen)


def _build_parser(command: Command) -> argparse.ArgumentParser:
    parser = _Parser(prog=command.program, description=command.description, allow_abbrev=False)
    default = {field.name: field.default for field in fields(Options)}
    default |= {"output_dir": Path(command.output_dir), "methods": command.methods}
    for add in (_add_run, _add_training, _add_data, _add_machine, _add_output):
        add(parser, default)
    return parser


def _add(
    group: argparse._ArgumentGroup, default: dict[str, Any], *names: str, text: str, **more: Any
) -> None:
    name = names[-1].lstrip("-").replace("-", "_")
    value = default[name]
    shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
    if more.get("action") == "store_true":
        shown = "off"
    more.setdefault("default", value)
    shown = more.pop("default_text", shown)
    group.add_argument(*names, help=f"{text} (default: {shown})", **more)


def _add_run(parser: argparse.ArgumentParser, default: dict[str, Any]) -> None:
    group = parser.add_argument_group("what is run")
    _add(group, default, "-ds", "--dataset", metavar="NAME_OR_PATH",
         text="data set: cifar10, mnist, stl10 or digits (built in, no download), or a path: a "
         "folder of class folders, a folder with NNC CSV files, or one such file")  # fmt: skip
    _add(group, default, "-nt", "--n_trials", type=int, metavar="N",
         text="number of trials; each trains, scores and retrains with its own seed")  # fmt: skip
    _add(group, default, "--seed", type=int, metavar="SEED",
         text="seed of the first trial; trial k uses SEED + k and depends on it alone")  # fmt: skip
    _add(group, default, "-r", "--remove_n_list", type=int, nargs="+", metavar="N",
         text="how many of the most harmful images to remove, in any order; 0 always runs, "
         "an N not below the number of training images is skipped")  # fmt: skip
    _add(group, default, "--methods", nargs="+", choices=tuple(METHODS), metavar="METHOD",
         text=f"methods that score the images, of {', '.join(METHODS)}")  # fmt: skip
    _add(group, default, "-ra", "--retrain_all", action="store_true",
         text="after a removal retrain from the first step instead of from the start of the "
         "last epoch; the scores still cover the last epochs of --cover_epochs")  # fmt: skip
    _add(group, default, "--cover_epochs", type=number_or_all, metavar="N",
         text="over how many last epochs the scores sweep: a number, or all")  # fmt: skip
    _add(group, default, "--damping", type=float, metavar="ALPHA",
         default_text="by the data set: 10 for cifar10, else 0.1",
         text="alpha above 0 of Influence_functions, which solve (H + ALPHA I) v = gradient, H in "
         "nats per squared parameter; raise it where they diverge")  # fmt: skip
    _add(group, default, "--verify", type=int, nargs="?", const=40, metavar="K",
         default_text="off; 40 without a number",
         text="remove K groups of a tenth of the images for real, retrain, and compare with the "
         "scores: half random groups, half parts of the rankings")  # fmt: skip
    _add(group, default, "--cleanse_n", type=int, metavar="N", default_text="what is recommended",
         text="how many images the cleansed data set leaves out, recommended or not")  # fmt: skip
    _add(group, default, "--relabel_candidates", action="store_true",
         text="list those of the removed images that a net trained without them is confident to "
         "be of another class, for a person to confirm; nothing is relabelled")  # fmt: skip
    _add(group, default, "--relabel_confidence", type=float, metavar="P",
         text="probability of the other class from which on an image is listed so")  # fmt: skip
    _add(group, default, "--dry_run", action="store_true",
         text="say what the run would write, the memory and the time that it takes, and end; "
         "writes no results, only the images and CSV files of the data set where they are "
         "missing")  # fmt: skip


def _add_training(parser: argparse.ArgumentParser, default: dict[str, Any]) -> None:
    group = parser.add_argument_group("training")
    _add(group, default, "-e", "--n_epochs", type=int, metavar="N",
         text="training length in epochs")  # fmt: skip
    _add(group, default, "--batch_size", type=int, metavar="N",
         text="images per training step")  # fmt: skip
    _add(group, default, "--lr", type=float, metavar="RATE",
         text="learning rate of SGD")  # fmt: skip
    _add(group, default, "--lr_schedule", choices=("constant", "step", "cosine"),
         text="how the learning rate changes over the training: constant; step, a tenth after "
         "half and a hundredth after three quarters of it; or cosine, down to 0")  # fmt: skip
    _add(group, default, "--momentum", type=float, metavar="MU",
         text="momentum of SGD, at least 0 and below 1")  # fmt: skip
    _add(group, default, "--weight_decay", type=float, metavar="LAMBDA",
         text="L2 coefficient: LAMBDA/2 |parameters|^2 is added to each image's loss")  # fmt: skip
    _add(group, default, "--model", metavar="NAME",
         text="network: six_convolutions, resnet, mlp, or your own as module:function, a "
         "function (x, n_classes, test) that returns logits in ordinary nnabla")  # fmt: skip


def _add_data(parser: argparse.ArgumentParser, default: dict[str, Any]) -> None:
    group = parser.add_argument_group("data")
    _add(group, default, "--data_dir", type=Path, metavar="DIR",
         default_text="$NNABLA_DATA_CLEANSING_CACHE, else ~/.cache/nnabla_data_cleansing",
         text="folder with the archives of the data set, where its images and CSV files are "
         "written too; if it is read-only they go to the cache folder")  # fmt: skip
    _add(group, default, "--image_size", type=int, metavar="N",
         default_text="by what is there, from 32 to 128; digits: 8",
         text="side in pixels of the squares that images are cropped and resized to")  # fmt: skip
    _add(group, default, "--color", choices=("auto", "gray", "rgb"),
         text="channels of the images: gray, rgb, or auto: gray if all are gray")  # fmt: skip
    for name, what in (("train", "training"), ("val", "validation"), ("test", "test")):
        _add(group, default, f"--n_{name}", type=int, metavar="N", default_text="all",
             text=f"number of {what} images, a stratified seeded subset")  # fmt: skip
    _add(group, default, "--split_seed", type=int, metavar="SEED",
         default_text="the trial's seed",
         text="seed that draws the validation images, the same for all trials")  # fmt: skip
    _add(group, default, "--flip_labels", type=float, metavar="SHARE", default_text="off",
         text="what if: give this share of the images, above 0 and below 1, the label of another "
         "class in training, the same in all trials, drawn by --split_seed (0 without), "
         "to see which methods find them; the data set's own files stay as they are")  # fmt: skip
    _add(group, default, "--allow_unverified_data", action="store_true",
         text="accept archives whose MD5 is not the published one, with a warning")  # fmt: skip


def _add_machine(parser: argparse.ArgumentParser, default: dict[str, Any]) -> None:
    group = parser.add_argument_group("machine")
    _add(group, default, "-j", "--jobs", type=int, metavar="N",
         default_text="as many as pay: the cores or, with cudnn, the GPUs of --device-id, if there "
         "is work and memory for them",
         text="number of worker processes that trials, methods, removals and groups of --verify "
         "are spread over, each on one core or GPU, and on the cores of those with nothing to do; "
         "the results are the same with any number; 1: this process on one core")  # fmt: skip
    _add(group, default, "--dask_scheduler", metavar="ADDRESS", default_text="none",
         text="spread them over the workers of a Dask cluster instead, whose scheduler has this "
         "address, such as tcp://host:8786; needs requirements-dask.txt")  # fmt: skip
    _add(group, default, "--context", choices=("auto", "cpu", "cudnn"),
         text="where nnabla computes: cpu, cudnn (a GPU, by nnabla-ext-cuda), or auto: cudnn "
         "where it works, else cpu")  # fmt: skip
    _add(group, default, "--conv", choices=("fast", "nnabla"),
         text="a net's functions on a CPU: fast, by NumPy's BLAS and compiled loops, seven times "
         "as fast as nnabla's; or nnabla; they differ in the last bits")  # fmt: skip
    _add(group, default, "--cache", choices=CACHES,
         text="states of the training kept on disk, beside the final one: steps, before every "
         "covered step; recompute, before every sqrt(T)-th of T covered steps, the others are "
         "trained once more when they are needed, with the same scores; final, none, so that "
         "Hara is left out")  # fmt: skip
    _add(group, default, "--cache_memory", type=bytes_of, metavar="SIZE", default_text="1GB",
         text="memory for states that --cache recompute trains once more, such as 500MB or "
         "2GiB; with less it trains them several times")  # fmt: skip
    _add(group, default, "-di", "--device-id", metavar="ID",
         text="GPU number, or several separated by commas that workers take in turn (with "
         "--jobs 1 the trials)")  # fmt: skip


def _add_output(parser: argparse.ArgumentParser, default: dict[str, Any]) -> None:
    group = parser.add_argument_group("output")
    _add(group, default, "-o", "--output_dir", type=folder, metavar="DIR",
         text="folder for everything that the run writes")  # fmt: skip
    _add(group, default, "--overwrite", action="store_true",
         text="delete the results in the output folder that other options made, instead of "
         "refusing to run; files that no run wrote stay")  # fmt: skip
    _add(group, default, "--no_report", action="store_true",
         text="do not write report/index.html, the page to look at; python -m utils.page DIR "
         "writes it afterwards")  # fmt: skip
    _add(group, default, "-q", "--quiet", action="store_true",
         text="show warnings, errors and the closing table only")  # fmt: skip
    _add(group, default, "-v", "--verbose", action="store_true",
         text="show also losses per epoch and what each stage reads and writes")  # fmt: skip
