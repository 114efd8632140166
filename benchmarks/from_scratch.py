"""Which ranking to remove by when the net is trained again from the first step.

    python benchmarks/from_scratch.py [--data PATH] [--tasks NAME ...] [--seeds S ...] [--lr RATE]
                                      [--methods NAME ...] [--work DIR] [--page PAGE]

Each task and seed is one run of eval_sgd_influence.py with --preset smooth, -ra and all epochs
covered: the n worst images by each method are removed, and the net is trained again from its first
step. EK-FAC, kronfluence's influence functions with the damping of its papers, is asked for by
--methods and needs the Python of `make peers`; it scores the same training. Tasks:

digits_flipped, mnist_flipped, cifar10_flipped: a tenth of the training labels is flipped.
cifar10_human: wrong labels by people, the first wrong one of three annotators of CIFAR-10H;
    validation images are drawn from these.

--lr is the learning rate, by default that of the preset. Test labels are the right ones; MNIST and
CIFAR-10 are resized to 16 px. The images come from --data (see benchmarks/real_images.py; CIFAR-10
needs it). Rows, one per removal, go to benchmarks/results/from_scratch.csv next to those of other
tasks, rates, seeds and methods; with --page the table between its comments `from_scratch` is
replaced, and an empty --seeds does that alone. With --work the runs are kept and resumed, but for
EK-FAC, which is computed again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the repository, when run as a script

from benchmarks.peers.compare import run_peers
from benchmarks.peers.ours import problem_of
from benchmarks.peers.problem import load_result, problem_path, scores_path
from benchmarks.reproduction_tables import fill_page, markdown, mean_and_deviation
from benchmarks.small_sets import N_ANNOTATORS, cifar10_csv, mnist_archives
from benchmarks.stored import beside_stored
from eval_sgd_influence import COMMAND
from sgd_influence.eval import evaluate_without
from sgd_influence.replay import states_of
from utils.errors import UserError
from utils.methods import CONTROL, NO_REMOVAL
from utils.options import Options, parse_options
from utils.output.folder import OutputFolder
from utils.output.paths import OutputPaths
from utils.output.storage import read_csv, save_csv
from utils.presets import PRESETS
from utils.run.command import main as run_command
from utils.run.pipeline import prepared
from utils.units import counted

RESULTS = ROOT / "benchmarks" / "results" / "from_scratch.csv"
ALWAYS = (
    "--preset smooth --lr {} -ra --cover_epochs all -nt 1 -j 1 --context cpu --no_report -q "
    "--allow_unverified_data"
)
OURS = ("Hara_exact", "AUM", "Influence_functions", CONTROL)
EKFAC = "EK-FAC"
PEER = "kronfluence EKFAC, damped"
"""What benchmarks/peers calls it."""
METHODS = (*OURS[:-1], EKFAC, CONTROL)
"""The rows of the tables."""
FLIPS = "--flip_labels 0.1"
KEYS = ["task", "lr", "seed", "method"]
LR: float = PRESETS["smooth"].options["lr"]


@dataclass(frozen=True)
class Task:
    """A row of the table.

    Attributes:
        data: digits, mnist or cifar10.
        options: of the command.
        sizes: training and validation images; None for the product's defaults.
        human: labels by people.
    """

    data: str
    options: str
    sizes: tuple[int, int] | None = None
    human: bool = False


TASKS = {
    "digits_flipped": Task("digits", f"{FLIPS} -r 0 10 40 100 200"),
    "mnist_flipped": Task(
        "mnist", f"{FLIPS} -r 0 10 40 100 200 --image_size 16 --n_test 2000", (1000, 500)
    ),
    "cifar10_flipped": Task("cifar10", f"{FLIPS} -r 0 40 100 200 400 --image_size 16", (2000, 500)),
    "cifar10_human": Task("cifar10", "-r 0 40 100 200 400 --image_size 16", (2000, 500), True),
}


@dataclass(frozen=True)
class Work:
    """What is measured, and where.

    Attributes:
        lr: the learning rate.
        methods: of `METHODS`.
        data: folder with the real images.
        folder: of the runs.
        python: with the other libraries.
    """

    lr: float
    methods: Sequence[str]
    data: Path | None
    folder: Path
    python: Path


def rows_of(name: str, seed: int, work: Work) -> pd.DataFrame:
    """A row per method and n of one run.

    Args:
        name: of the task.
        seed: of everything in the run.
        work: what is measured.

    Returns:
        Columns task, lr, seed, method, n, val_loss (nats), val_accuracy, test_accuracy, and gain
        (points of test accuracy over the training without removal).

    Raises:
        UserError: the run ended with an error, or EK-FAC gave no scores.
    """
    task, output = TASKS[name], work.folder / name / f"lr_{work.lr}" / f"seed_{seed}"
    words = [*ALWAYS.format(work.lr).split(), *task.options.split(), *_images(task, seed, work)]
    if task.sizes:
        words += ["--n_train", str(task.sizes[0]), "--n_val", str(task.sizes[1])]
    own = [method for method in work.methods if method != EKFAC]
    words += ["--seed", str(seed), "--methods", *(own or [CONTROL]), "-o", str(output)]
    if status := run_command(COMMAND, words if own else [*words, "-r", "0"]):
        raise UserError(f"{name}, seed {seed}: the run ended with status {status}")
    table = read_csv(OutputPaths(output).summary).rename(columns={"n_drops": "n"})
    table = table[table["seed"] == seed]
    unchanged = table[table["method"] == NO_REMOVAL].iloc[:1].assign(n=0)
    parts = [unchanged, table[table["method"].isin(work.methods)]]
    if EKFAC in work.methods:
        parts.append(ekfac_rows(parse_options(COMMAND, words), work.python))
    table = pd.concat(parts, ignore_index=True)
    gain = 100 * (table["test_accuracy"] - float(unchanged["test_accuracy"].iloc[0]))
    shown = ["n", "val_loss", "val_accuracy", "test_accuracy", "gain"]
    return table.assign(task=name, lr=work.lr, seed=seed, gain=gain)[[*KEYS, *shown]]


def ekfac_rows(options: Options, python: Path) -> pd.DataFrame:
    """The scores after each removal by EK-FAC, of a run that is finished.

    Args:
        options: of the run.
        python: with the other libraries.

    Returns:
        Columns method, n and `SCORE_COLUMNS`.
    """
    trial = prepared(options).trial(options.seed, OutputFolder(options.output_dir))
    folder = options.output_dir / "peers"
    (folder / "results").mkdir(parents=True, exist_ok=True)
    problem_of(trial, states_of(trial)).save(problem_path(folder))
    run_peers(python, "checkpoints", folder)
    run_peers(python, "score", folder, PEER)
    if error := load_result(folder, PEER).error:
        raise UserError(f"{PEER}: {error}")
    order = np.argsort(np.load(scores_path(folder, PEER)), kind="stable")
    rows = []
    for n in filter(None, options.removal_counts):
        removed = np.isin(np.arange(trial.n_train), order[:n])
        scores, _ = evaluate_without(trial, removed, f"{EKFAC}, n = {n}")
        rows.append(scores.iloc[-1:].assign(method=EKFAC, n=n))
    return pd.concat(rows, ignore_index=True)


def _images(task: Task, seed: int, work: Work) -> list[str]:
    """The options that name the images."""
    if task.data == "cifar10":
        assert task.sizes is not None
        kind = "human" if task.human else "right"
        folder = work.folder / f"{kind}_data" / str(seed)
        cifar10_csv(folder, seed, work.data, sum(task.sizes), N_ANNOTATORS if task.human else 0)
        return ["-ds", str(folder)]
    words = ["-ds", task.data]
    if task.data == "mnist" and work.data:
        words += ["--data_dir", str(mnist_archives(work.data, work.folder / "archives"))]
    return words


def table_of(rows: pd.DataFrame) -> str:
    """The gain in points of test accuracy by task, rate and method against n, over the seeds."""
    parts = []
    known = rows.groupby(["task", "lr"])
    for task, lr in sorted(known.groups, key=lambda group: (list(TASKS).index(group[0]), group[1])):
        own = known.get_group((task, lr))
        counts = sorted(n for n in own["n"].unique() if n)
        unchanged = 100 * own.loc[own["method"] == NO_REMOVAL, "test_accuracy"]
        trials = counted(own["seed"].nunique(), "trial")
        parts.append(f"`{task}`, lr {lr:g}, {trials}, No Removal {mean_and_deviation(unchanged)} %")
        table: list[tuple[str, ...]] = [("method", *(f"n = {n}" for n in counts))]
        for method in METHODS:
            by_count = dict(iter(own[own["method"] == method].groupby("n")["gain"]))
            if by_count:
                gains = (by_count.get(n) for n in counts)
                cells = ("" if g is None else mean_and_deviation(g, "+") for g in gains)
                table.append((method, *cells))
        parts.append(markdown(table))
    return "\n\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with the real images")
    parser.add_argument(
        "--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="NAME",
        help=f"of {', '.join(TASKS)}; default: all",
    )  # fmt: skip
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--lr", type=float, default=LR, help=f"default: the preset's, {LR}")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(OURS), metavar="NAME",
        help=f"of {', '.join(METHODS)}; default: all but {EKFAC}",
    )  # fmt: skip
    parser.add_argument(
        "--python", type=Path, default=Path(".venv-peers/bin/python"),
        help="Python with kronfluence; default: %(default)s",
    )  # fmt: skip
    parser.add_argument("--work", type=Path, help="folder to keep the runs in")
    parser.add_argument("--out", type=Path, default=RESULTS, help=f"default: {RESULTS}")
    parser.add_argument("--page", type=Path, help="whose table is replaced")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.work or Path(temporary)
        work = Work(options.lr, options.methods, options.data, folder, options.python)
        for seed in options.seeds:
            for name in options.tasks:
                rows = rows_of(name, seed, work)
                save_csv(beside_stored(rows, options.out, KEYS), options.out)
    table = table_of(read_csv(options.out))
    print(table)
    if options.page:
        fill_page(options.page, {"from_scratch": table})


if __name__ == "__main__":
    try:
        main()
    except (OSError, UserError) as problem:  # images that are not there
        sys.exit(f"from_scratch.py: error: {problem}")
