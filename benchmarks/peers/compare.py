"""The product compared with other libraries: time, memory, disk and quality on the same trainings.

    make peers DATA=PATH
    python benchmarks/peers/compare.py --data PATH --python .venv-peers/bin/python

The product trains on MNIST with a tenth of the labels wrong, or on CIFAR-10; every method scores
all training images of that training in a process of its own, on one core. Two truths: the change of
the validation loss when a group of 10 % is left out of the last epoch, and of the whole training.
On `DECIDED`, the worst images by each method are removed too, the net is trained again from its
first step, and its accuracy is measured on other images.
PATH holds the test images; without it the official archives are taken.

--work keeps problems and truths (of the same training; they take most of the time), so that a rerun
only scores again, and removes by the new scores. Written into --out: peers.csv, a row per problem,
seed and method; rows there of other problems and seeds are kept. The last line is JSON: {method:
mean AUC over the seeds}.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository, when run as a script

from benchmarks.peers.problem import (
    SHARES,
    Problem,
    Result,
    decisions_path,
    load_result,
    parity_path,
    problem_path,
    result_path,
    scores_path,
    truth_path,
)
from benchmarks.stored import beside_stored, processor
from utils.methods import NO_REMOVAL
from utils.output.storage import read_csv, save_csv

HERE = Path(__file__).parent
OURS = (
    *("Hara_exact", "Hara_smoothed", "Ours_exact", "Influence_functions", "AUM", "Random"),
    "Hara_exact, all epochs",
)
PEERS = (
    *("captum TracInCP", "captum TracInCP self", "kronfluence EKFAC", "kronfluence EKFAC, damped"),
    *("pyDVL CG", "pyDVL Arnoldi", "pyDVL EKFAC", "dattri CG", "dattri TracIn", "dattri TRAK"),
    *("dattri TRAK, half the epochs", "TRAK", "cleanlab"),
)
SEEDS = {
    "mnist_cnn": (0, 1, 2),
    "mnist_2000": (0,),
    "smooth_mnist": (0, 1, 2),
    "smooth_small": (0, 1, 2),
    "cifar_cnn": (0, 1, 2),
}
"""The seeds of each problem."""
TRUTHS = ("last", "whole")
WITHOUT_TRUTH = ("mnist_2000",)
"""Problems too large to retrain for each group: AUC alone."""
DECIDED = ("smooth_small", "smooth_mnist")
"""Problems of MNIST's images that are trained again from the first step without the worst."""
GAINS = {share: f"gain_{100 * share:g}" for share in SHARES}
"""By the share removed, the column of points of test accuracy gained."""
UNCHANGED = "unchanged"
"""The column of the test accuracy without removal, in %."""
ONE_CORE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def run(options: argparse.Namespace, problem: str, seed: int) -> pd.DataFrame:
    """Build a problem, score it by all methods, retrain for the truth: a row per method."""
    folder = options.work / f"{problem}_{seed}"
    (folder / "results").mkdir(parents=True, exist_ok=True)
    data = ["--data", str(options.data)] if options.data else []
    _ours("build", folder, problem, str(seed), *data)
    for command in ("checkpoints", "parity"):
        run_peers(options.python, command, folder)
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(partial(score, options, folder), options.methods))
    if problem not in WITHOUT_TRUTH:
        for which in TRUTHS:
            _ours("truth", folder, which, "--groups", str(options.groups[which]))
    if problem in DECIDED:
        _ours("decide", folder, *data, *options.methods)
    return table_of(folder, options.methods).assign(problem=problem, seed=seed)


def score(options: argparse.Namespace, folder: Path, name: str) -> None:
    """Score by a method, in a process of its own."""
    for path in (result_path(folder, name), scores_path(folder, name)):
        path.unlink(missing_ok=True)
    if name in OURS:
        _ours("score", folder, name)
    else:
        run_peers(options.python, "score", folder, name)


def _ours(command: str, folder: Path, *arguments: str) -> None:
    _child(sys.executable, "ours.py", command, str(folder), *arguments)


def run_peers(python: Path, command: str, folder: Path, *arguments: str) -> None:
    """Run peers.py, in the Python of the other libraries, for a problem's folder."""
    _child(str(python), "peers.py", command, str(folder), *arguments)


def _child(python: str, script: str, *arguments: str) -> None:
    print(f"{script} {' '.join(arguments)}", file=sys.stderr, flush=True)
    command = [python, str(HERE / script), *arguments]
    log = subprocess.run(
        command, env=os.environ | ONE_CORE, capture_output=True, text=True, check=False
    )
    killed_while_scoring = log.returncode < 0 and arguments[0] == "score"  # a result as well
    if log.returncode and not killed_while_scoring:
        sys.exit(
            f"compare.py: error: {' '.join(command)} ended with {log.returncode}:\n{log.stderr}"
        )


# ---------------------------------------------------------------- figures


def table_of(folder: Path, methods: Sequence[str]) -> pd.DataFrame:
    """The results of a problem with their figures, a row per method that was run."""
    problem = Problem.load(problem_path(folder))
    parity = json.loads(parity_path(folder).read_text(encoding="utf-8"))
    apart = {f"parity: {name}": value for name, value in parity.items()}
    rows = [
        asdict(result) | figures_of(folder, problem, result) | apart
        for result in (load_result(folder, name) for name in methods)
    ]
    return pd.DataFrame(rows)


def figures_of(folder: Path, problem: Problem, result: Result) -> dict[str, float]:
    """AUC of the flipped labels, Spearman's correlation with each truth, gains by decisions."""
    if result.error:
        return {}
    scores = np.load(scores_path(folder, result.method))
    figures = {"auc": auc(scores, problem.wrong)}
    for which in TRUTHS:
        path = truth_path(folder, which)
        if path.exists() and result.predicts:
            losses = read_csv(path)["loss"].to_numpy()
            removals = problem.removals[: len(losses) - 1]
            figures[f"spearman_{which}"] = agreement(removals @ scores, losses[1:] - losses[0])
            figures[f"groups_{which}"] = len(removals)
    return figures | gains_of(folder, result.method)


def gains_of(folder: Path, method: str) -> dict[str, float]:
    """Test accuracy without removal in %, and the points gained without a method's worst images."""
    if not decisions_path(folder).exists():
        return {}
    rows = read_csv(decisions_path(folder)).set_index(["method", "share"])["test_accuracy"]
    unchanged = rows[NO_REMOVAL, 0.0]
    gains = {GAINS[share]: 100 * (rate - unchanged) for share, rate in rows[method].items()}
    return {UNCHANGED: 100 * unchanged} | gains


def auc(scores: np.ndarray, wrong: np.ndarray) -> float:
    """Probability that a wrong label scores lower than a right one, ties halved.

    NaN without wrong labels, or where a score is missing.
    """
    if not wrong.any() or not np.isfinite(scores).all():
        return float("nan")
    return float(roc_auc_score(wrong, -scores))


def agreement(predicted: np.ndarray, true: np.ndarray) -> float:
    """Spearman's correlation (R,), (R,)."""
    return float(spearmanr(predicted, true).statistic)


HEADINGS = (
    *("method", "package", "CPU s", "MB at most (before)", "MB on disk"),
    *("Spearman, last epoch", "Spearman, whole training", "AUC"),
    *(f"points gained without the worst {share:.0%}" for share in SHARES),
)


FIGURES = ("spearman_last", "spearman_whole", "auc", *GAINS.values())


def shown(table: pd.DataFrame) -> Iterator[str]:
    """Means over the seeds as the rows of a Markdown table."""
    for problem, rows in table.groupby("problem", sort=False):
        yield f"\n{problem}, seeds: {', '.join(map(str, rows['seed'].unique()))}\n"
        yield f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}"
        for method, own in rows.groupby("method", sort=False):
            yield _shown_row(str(method), own)


def _shown_row(method: str, rows: pd.DataFrame) -> str:
    scored = rows[rows["error"].fillna("") == ""]
    if scored.empty:
        return f"| {method} | {rows['package'].iloc[0]} | {rows['error'].iloc[0]} |"
    mean = scored.mean(numeric_only=True)
    figures = [_mean_and_deviation(scored.get(c)) for c in FIGURES]
    memory = f"{mean['peak_bytes'] / 1e6:.0f} ({mean['idle_bytes'] / 1e6:.0f})"
    cells = [
        method, rows["package"].iloc[0], f"{mean['cpu_s']:.1f}", memory,
        f"{mean['disk_bytes'] / 1e6:.1f}", *figures,
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _mean_and_deviation(values: pd.Series | None) -> str:
    if values is None or values.isna().all():
        return ""
    return f"{values.mean():.2f}" + (f" ± {values.std():.2f}" if len(values) > 1 else "")


def paired(table: pd.DataFrame, column: str, best: str = "Hara_exact, all epochs") -> pd.DataFrame:
    """How far `best` is ahead of each method on the same trainings.

    Args:
        table: as `table_of` gives it, with columns problem and seed.
        column: one of `FIGURES`.
        best: the method that the others are compared with.

    Returns:
        Columns problem, method, seeds, difference (its mean), and standard_errors, by how many the
        mean differs from 0; NaN for a single seed.
    """
    rows = []
    for problem, own in table.groupby("problem", sort=False):
        figures = own.pivot(index="seed", columns="method", values=column)
        if best not in figures:
            continue
        for method in figures.columns.drop(best):
            ahead = (figures[best] - figures[method]).dropna()
            if len(ahead):
                rows.append((problem, method, len(ahead), ahead.mean(), _errors_apart(ahead)))
    return pd.DataFrame(
        rows, columns=["problem", "method", "seeds", "difference", "standard_errors"]
    )


def _errors_apart(ahead: pd.Series) -> float:
    """By how many standard errors the mean differs from 0; without a deviation infinite, or 0."""
    mean, error = float(ahead.mean()), float(ahead.std()) / len(ahead) ** 0.5
    if error == 0:
        return math.copysign(math.inf, mean) if mean else 0.0
    return mean / error


# ---------------------------------------------------------------- the command


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every problem and seed; the table is written after each."""
    options = _parse(arguments)
    path = options.out / "peers.csv"
    for problem in options.problems:
        for seed in SEEDS[problem] if options.seeds is None else options.seeds:
            new = run(options, problem, seed).assign(machine=machine())
            save_csv(beside_stored(new, path, ["problem", "seed", "method"]), path)
    table = read_csv(path)
    print("\n".join(shown(table)))
    for column in table.columns.intersection(FIGURES[1:], sort=False):
        ahead = paired(table, column)
        if len(ahead):
            print(f"\nHara_exact over all epochs less the method, {column}:\n{ahead.round(2)}")
    print(json.dumps(table.groupby("method", sort=False)["auc"].mean().round(3).to_dict()))


def machine() -> str:
    """The CPU, how many cores of it there are, and Python's platform."""
    return f"{processor()}, {os.cpu_count()} cores, {platform.system()}"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with the test images")
    parser.add_argument(
        "--python", type=Path, default=Path(".venv-peers/bin/python"),
        help="Python with the other libraries; default: .venv-peers/bin/python",
    )  # fmt: skip
    parser.add_argument(
        "--work", type=Path, default=Path("output_peers"),
        help="folder of problems and truths; default: output_peers",
    )  # fmt: skip
    parser.add_argument("--problems", nargs="+", choices=SEEDS, default=list(SEEDS), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 0 1 2, of mnist_2000 0")
    parser.add_argument(
        "--methods", nargs="+", choices=(*OURS, *PEERS), default=[*OURS, *PEERS], metavar="NAME"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="scorings side by side; default: 1"
    )
    for which in TRUTHS:
        parser.add_argument(
            f"--groups_{which}", type=int, default=100, metavar="N",
            help=f"groups of the truth of {which}; default: 100",
        )  # fmt: skip
    parser.add_argument("--out", type=Path, default=HERE.parent / "results")
    options = parser.parse_args(arguments)
    options.groups = {which: getattr(options, f"groups_{which}") for which in TRUTHS}
    return options


if __name__ == "__main__":
    main()
