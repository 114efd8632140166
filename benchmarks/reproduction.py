"""The experiments of [H] section 7.2 and of [S]: accuracy against the number of images removed.

    python benchmarks/reproduction.py --data PATH [--run full|parted|subset|...] [--jobs 2]

PATH holds the images of MNIST or CIFAR-10, each as the official archives or as in
benchmarks/make_archives.py. With --run full (the default) all images are used; parted takes the
10,000 test images alone, parted by seed; subset takes a few small ones of these, in minutes. Each
trial is a run of eval_sgd_influence.py; a benchmark that was cut off resumes. After each trial
results, pictures and the tables of docs/reproduction.md are written; rows of other runs are kept.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import nnabla as nn
import pandas as pd
from joblib import Parallel, delayed

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the repository, when run as a script

from benchmarks.make_archives import FULL as ALL_IMAGES
from benchmarks.make_archives import shuffled_parts, write_full
from benchmarks.reproduction_tables import blocks_of, draw_runs, fill_page
from benchmarks.stored import beside_stored, processor, stored
from sgd_influence.eval import SCORE_COLUMNS
from utils.data.datasets import DATASETS
from utils.errors import UserError
from utils.methods import NO_REMOVAL
from utils.options import Options
from utils.output.storage import read_csv, save_csv
from utils.training.device import choose_backend

METHODS = ("Hara", "Ours", "Influence_functions", "Random")
"""What the trials remove by; those of the small runs by Hara_exact too."""
N_TRAIN, N_TEST, PARTING_SEED = 7000, 3000, 0
"""How the 10,000 test images of a data set are parted."""

RESULTS, RUNS = "reproduction.csv", "reproduction_runs.csv"
KEYS = ["run", "dataset", "seed"]


@dataclass(frozen=True)
class Experiment:
    """How a data set is run.

    Attributes:
        run: a key of `OPTIONS`.
        dataset: a row of `DATASETS`.
        options: of eval_sgd_influence.py, besides the data, the trials and the folder.
    """

    run: str
    dataset: str
    options: str

    @property
    def methods(self) -> tuple[str, ...]:
        """What its trials remove by."""
        return METHODS if self.run == "full" else (*METHODS, "Hara_exact")


SUBSET = "--n_train 400 --n_val 300 --n_test 600 --image_size 16 -e 6 -r 8 40"
PARTED = "--n_val 1000 -e 20 -r 1 10 40 100 200 600 1000 3000"
FULL = f"-e 20 -r {' '.join(map(str, Options.remove_n_list[1:]))}"
OPTIONS = {"full": FULL, "parted": PARTED, "subset": SUBSET}


def archives_of(experiment: Experiment, data: Path, work: Path) -> list[str]:
    """The options that name the archives; those that are not in `data` are made in `work`."""
    full = experiment.run == "full"
    if full and are_there(experiment.dataset, data):
        return ["--data_dir", str(data), "--allow_unverified_data"]
    folder = work / ("archives_full" if full else "archives")
    if not are_there(experiment.dataset, folder):
        folder.mkdir(parents=True, exist_ok=True)
        if full:
            try:
                write_full(data, folder, names=[experiment.dataset])
            except FileNotFoundError as missing:
                raise UserError(
                    f"{missing.filename}: is not there, and --run full needs all images; with the "
                    "test images alone give --run parted or --run subset"
                ) from missing
        else:
            read, write = ALL_IMAGES[experiment.dataset]
            write(*shuffled_parts(*read(data), N_TRAIN, N_TEST, PARTING_SEED), folder)
    return ["--data_dir", str(folder), "--allow_unverified_data"]


def are_there(dataset: str, folder: Path) -> bool:
    """Whether all archives of the data set are in `folder`."""
    return all((folder / archive.name).exists() for archive in DATASETS[dataset].archives)


def run_trial(experiment: Experiment, seed: int, where: Sequence[str], work: Path) -> pd.DataFrame:
    """Run a trial and read its scores.

    Returns:
        A row per method and n, with the columns run, dataset, seed, method, n_drops, the four
        scores, and cpu_seconds of the commands.
    """
    output = work / f"{experiment.run}_{experiment.dataset}_{seed}"
    command = f"eval_sgd_influence.py -ds {experiment.dataset} --seed {seed} -nt 1 "
    arguments = [*(command + experiment.options).split(), *where, "-o", str(output), "--methods"]
    status, seconds = run_command([*arguments, *experiment.methods])
    if status:
        sys.exit(status)
    return scores_of(read_csv(output / "summary" / "summary.csv")).assign(
        run=experiment.run, dataset=experiment.dataset, cpu_seconds=seconds
    )


def run_command(arguments: Sequence[str]) -> tuple[int, float]:
    """Run a script of the repository; returns its exit status and its CPU seconds."""
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, used.ru_utime + used.ru_stime


def scores_of(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of single trials; nothing removed is n = 0, once."""
    rows = summary.dropna(subset="seed").astype({"seed": int})
    unchanged = rows["method"] == NO_REMOVAL
    rows.loc[unchanged, "n_drops"] = 0
    return rows.drop_duplicates(["method", "seed", "n_drops"])[
        ["seed", "method", "n_drops", *SCORE_COLUMNS]
    ]


@cache
def machine() -> str:
    """The kind of machine, as far as Python knows it."""
    place = "a GPU" if choose_backend("auto", ("0",)) == "cudnn" else "the CPU"
    return f"{processor()}, nnabla {nn.__version__} on {place}"


def commit() -> str:
    """The commit that the work tree is at, with a + where it was changed since."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()


def store(rows: pd.DataFrame, experiment: Experiment, folder: Path) -> None:
    """Write the scores of a trial and how it was run; rows of other trials are kept."""
    cpu_seconds = round(float(rows["cpu_seconds"].iloc[0]))
    run = rows[KEYS].head(1).assign(
        options=experiment.options, cpu_seconds=cpu_seconds, machine=machine(), commit=commit()
    )  # fmt: skip
    scores = rows[[*KEYS, "method", "n_drops", *SCORE_COLUMNS]]
    save_csv(merged(scores, folder / RESULTS), folder / RESULTS)
    save_csv(merged(run, folder / RUNS), folder / RUNS)


def merged(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    """`rows` and those at `path` of other trials, in order."""
    return beside_stored(rows, path, KEYS).sort_values(KEYS, kind="stable", ignore_index=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the trials and write what came out."""
    options = _parse(arguments)
    experiments = [Experiment(options.run, name, OPTIONS[options.run]) for name in options.datasets]
    where = {e: archives_of(e, options.data, options.work) for e in experiments}
    trials = product(options.seeds, experiments)
    tasks = (delayed(run_trial)(e, seed, where[e], options.work) for seed, e in trials)
    parallel = Parallel(options.jobs, backend="threading", return_as="generator_unordered")
    for rows in parallel(tasks):
        dataset = rows["dataset"].iloc[0]
        store(rows, next(e for e in experiments if e.dataset == dataset), options.out)
        scores, runs = stored(options.out / RESULTS), stored(options.out / RUNS)
        draw_runs(scores, options.out)
        if options.page.exists():
            fill_page(options.page, blocks_of(scores, runs))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the images")
    parser.add_argument("--run", choices=OPTIONS, default="full", help="default: full")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=list(range(5)), help="of the trials; default: 0..4"
    )
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time; default: 1")
    parser.add_argument(
        "--datasets", nargs="+", choices=("mnist", "cifar10"), default=["mnist", "cifar10"],
        metavar="NAME", help="default: mnist cifar10",
    )  # fmt: skip
    parser.add_argument(
        "--work", type=Path, default=ROOT / "output_reproduction",
        help="folder of the runs; default: output_reproduction",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results",
        help="folder of the CSV files and pictures; default: benchmarks/results",
    )  # fmt: skip
    parser.add_argument(
        "--page", type=Path, default=ROOT / "docs" / "reproduction.md",
        help="whose tables are rewritten; default: docs/reproduction.md",
    )  # fmt: skip
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        main()
    except UserError as problem:
        sys.exit(f"reproduction.py: error: {problem}")
