"""How far do the scores agree with true retraining? One row per task, seed and method.

    python benchmarks/fidelity.py --data PATH [--seeds 0 1 2 3 4] [--tasks NAME ...]
    python benchmarks/fidelity.py --quick --data PATH

Images are removed for real and the recorded training is repeated without them, in the same order.
Single images (MNIST 1 against 7, section 7.1 of Hara et al., NeurIPS 2019): Kendall's tau of score
and change of the validation loss, and the Jaccard index of the 10 lowest and 10 highest together.
Groups of 2 % or 10 % (nets with BatchNorm): Spearman's correlation of summed scores and change.
PATH holds the MNIST and CIFAR-10 test images; without it the official archives are taken.

The last line is JSON: task to {method: figure}, the mean over the seeds. The full run writes
figures and raw results as CSV into --out, and pictures next to them, after each training; its rows
of other tasks and seeds are kept. --quick writes nothing.
With --page docs/fidelity.md the tables there are replaced; an empty --seeds does that alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.stats import kendalltau, spearmanr
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parents[1]))  # the repository, when run as a script

from benchmarks.against_oracle import oracle_columns
from benchmarks.converged import SOLVED, converged_columns, solved_influence
from benchmarks.fidelity_pictures import (
    FROM_SCRATCH,
    SHOWN_SEED,
    SHOWN_TASK,
    draw_figures,
    draw_from_scratch,
    draw_scatter,
)
from benchmarks.recorded import RecordedTrial
from benchmarks.reproduction_tables import fill_page, markdown, mean_and_deviation
from benchmarks.stored import beside_stored
from benchmarks.tasks import QUICK, TASKS, Task
from utils.errors import UserError
from utils.methods import CONTROL, METHODS
from utils.options import SGD_SOLVER
from utils.output.storage import read_csv, save_csv
from utils.training.network import State

APART = 1e-3
"""Relative distance of the two starts from which the truth is computed twice."""
AGAIN = "truth again"
ORACLE = "oracle: "
"""What the columns of the double-precision oracle begin with."""
DOUBLE, PRECISION = "Hara_exact, double precision", "Hara_exact, single against double"
N_EXTREMES = 10
JUDGED = tuple(name for name, method in METHODS.items() if method.predicts or name == CONTROL)
"""The methods that predict changes of the validation loss, and the control."""
INFLUENCE_FUNCTIONS = "Influence_functions"
BY_SGD = f"{INFLUENCE_FUNCTIONS} (sgd)"
"""By the reference's solver."""
KINKED = (
    *("logreg", "dnn", "mnist_cnn", "mnist_cnn_8px"),
    *("mnist_cnn_momentum", "mnist_cnn_8px_momentum", "mnist_cnn_all_epochs"),
    *("cifar_cnn", "cifar_cnn_lr_0.002"),
)
"""The tasks of the page's first table; logistic regression has no kinks."""
SMOOTH = tuple(name for name in TASKS if name.startswith(("smooth", "stock")))
"""Those of its second table, with the stock net on the same trainings."""
SHOWN = (
    *(AGAIN, "Hara_exact", "Hara_smoothed", "Hara", "Ours_exact", "Ours", "Ours_mean"),
    *("Influence_functions", "Random"),
)
"""The columns of both tables."""
QUICK_GROUPS = dict.fromkeys(
    ("cifar_cnn", "smooth_small_2", "smooth_small_10", "smooth_mnist_cnn", "smooth_cifar_cnn"), 25
)
QUICK_SEEDS = {"mnist_cnn": 3} | dict.fromkeys(
    ("cifar_cnn", "smooth_small_2", "smooth_dnn", "smooth_mnist_cnn", "smooth_cifar_cnn"), 1
)
"""Seeds of the quick run, where not all."""


@dataclass(frozen=True)
class Work:
    """One training to judge.

    Attributes:
        tasks: rows of the table that build the same training.
        seed: of everything in it.
        data: folder with the images.
        quick: the product's methods alone.
    """

    tasks: tuple[Task, ...]
    seed: int
    data: Path | None
    quick: bool


def judge(work: Work) -> pd.DataFrame:
    """Train, remove for real, score: a row per removal.

    Returns:
        Columns task, seed, removal, true (nats), and a predicted change (nats) per method.
    """
    threadpool_limits(1, "blas")
    first = work.tasks[0]
    trial = first.build(work.seed, work.data)
    scores = {} if first.converged else scores_of(first, trial, work.quick)
    parts = []
    for task in work.tasks:
        removals = task.removals(trial)
        columns = (
            converged_columns(trial)
            if task.converged
            else judged(task, trial, removals, scores, work.quick)
        )
        where = {"task": task.name, "seed": work.seed, "removal": np.arange(len(removals))}
        parts.append(pd.DataFrame(where | columns))
    return pd.concat(parts, ignore_index=True)


def judged(
    task: Task,
    trial: RecordedTrial,
    removals: np.ndarray,
    scores: dict[str, np.ndarray],
    quick: bool,
) -> dict[str, np.ndarray]:
    """The true changes (R,) and the predicted ones, of masks (R, n_train), by column name."""
    columns = {"true": true_changes(trial, removals, trial.state_before(trial.retrain_start))}
    n_again = 0 if quick else task.n_again
    if n_again:
        again = true_changes(trial, removals[:n_again], shifted_start(trial))
        columns[AGAIN] = np.pad(again, (0, len(removals) - n_again), constant_values=np.nan)
    columns |= {name: removals @ influence for name, influence in scores.items()}
    if not task.group and not quick:
        columns |= oracle_columns(trial)
    if task.convex and not quick:
        trial.network.load(trial.final_state())
        columns[SOLVED] = solved_influence(trial)
    return columns


def true_changes(trial: RecordedTrial, removals: np.ndarray, start: State) -> np.ndarray:
    """Changes of the mean validation loss (R,) when the masks (R, n_train) are left out."""
    nothing = np.zeros((1, trial.n_train), bool)
    validation, first = trial.data.validation, trial.retrain_start
    losses = [
        trial.recorded.loss_without(removed, validation, first, start)
        for removed in np.concatenate([nothing, removals])
    ]
    return np.array(losses[1:]) - losses[0]


def shifted_start(trial: RecordedTrial) -> State:
    """The state from which removals retrain, each parameter array `APART` away in a random way."""
    state = dict(trial.state_before(trial.retrain_start))
    rng = np.random.default_rng([trial.seed, 6])
    for name in trial.network.theta:
        noise = rng.standard_normal(state[name].shape)
        noise *= APART * np.linalg.norm(state[name]) / max(float(np.linalg.norm(noise)), 1e-12)
        state[name] = (state[name] + noise).astype(np.float32)
    return state


def scores_of(task: Task, trial: RecordedTrial, quick: bool) -> dict[str, np.ndarray]:
    """The scores (n_train,) by each method of the product."""
    scores = {name: METHODS[name].score(trial) for name in JUDGED}
    by_sgd = replace(trial, if_solver=SGD_SOLVER, damping=task.sgd_damping)
    scores[BY_SGD] = METHODS[INFLUENCE_FUNCTIONS].score(by_sgd)
    if task.covered_too and not quick:
        last = replace(trial, cover_epochs=1)
        for name in ("Hara_exact", "Ours_exact"):
            scores[f"{name}, last epoch"] = METHODS[name].score(last)
    return scores


# ---------------------------------------------------------------- figures


def figures_of(raw: pd.DataFrame) -> pd.DataFrame:
    """The figures of each task, seed and method from the rows of `judge`.

    Returns:
        Columns task, seed, method, figure (tau or Spearman) and jaccard (single images only).
    """
    rows = []
    for (task, seed), table in raw.groupby(["task", "seed"], sort=False):
        known = table.dropna(axis="columns", how="all")
        oracle = known.filter(like=ORACLE).columns
        for method in known.columns[4:].difference(oracle, sort=False):
            rows.append((task, seed, method, *_agreement(str(task), known, "true", method)))
        if len(oracle):
            columns = f"{ORACLE}true", f"{ORACLE}Hara_exact"
            rows.append((task, seed, DOUBLE, *_agreement(str(task), known, *columns)))
            both = known["Hara_exact"], known[f"{ORACLE}Hara_exact"]
            rows.append((task, seed, PRECISION, spearmanr(*both).statistic, np.nan))
    return pd.DataFrame(rows, columns=["task", "seed", "method", "figure", "jaccard"])


def _agreement(task: str, table: pd.DataFrame, true: str, predicted: str) -> tuple[float, float]:
    """Tau and Jaccard index for single images, Spearman and nan for groups."""
    known = table[[true, predicted]].dropna().to_numpy().T
    if TASKS[task].group:
        return float(spearmanr(*known).statistic), float("nan")
    return float(kendalltau(*known).statistic), jaccard(*known)


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Jaccard index of the `N_EXTREMES` lowest and highest of a (n,) and of b, taken together."""
    first, second = (
        {*np.argsort(values)[:N_EXTREMES], *np.argsort(values)[-N_EXTREMES:]} for values in (a, b)
    )
    return len(first & second) / len(first | second)


def table_of(figures: pd.DataFrame) -> str:
    """Mean and standard deviation over the seeds, as lines."""
    head = f"{'task':<24} {'method':<28} {'seeds':>5} {'tau or Spearman':>16} {'Jaccard':>16}"
    lines = [head]
    for (task, method), rows in figures.groupby(["task", "method"], sort=False):
        cells = [_mean_and_deviation(rows[column]) for column in ("figure", "jaccard")]
        lines.append(f"{task:<24} {method:<28} {len(rows):>5} {cells[0]:>16} {cells[1]:>16}")
    return "\n".join(lines)


def task_table(figures: pd.DataFrame, tasks: Sequence[str]) -> str:
    """A Markdown table with a row for each of the tasks that was run."""
    rows: list[tuple[str, ...]] = [("task", "seeds", *SHOWN)]
    for task, of_task in figures[figures["task"].isin(tasks)].groupby("task", sort=False):
        by_method = dict(iter(of_task.groupby("method")["figure"]))
        cells = (mean_and_deviation(by_method[m]) if m in by_method else "" for m in SHOWN)
        rows.append((f"`{task}`", str(of_task["seed"].nunique()), *cells))
    return markdown(rows)


def _mean_and_deviation(values: pd.Series) -> str:
    return "" if values.isna().all() else mean_and_deviation(values, digits=3)


def summary_of(figures: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Task to {method: mean figure}, in the order of the figures."""
    means = figures.groupby(["task", "method"], sort=False)["figure"].mean()
    summary: dict[str, dict[str, float]] = {}
    for (task, method), figure in means.items():
        summary.setdefault(task, {})[method] = round(float(figure), 4)
    return summary


# ---------------------------------------------------------------- command line


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its table and, last, its JSON line."""
    started, options = time.monotonic(), _parse(arguments)
    parts = []
    for part in _judged_in_parallel(_work_of(options), options.jobs):
        parts.append(part)
        if not options.quick:
            store(part, options.out)
    if options.page:
        stored = read_csv(options.out / "fidelity.csv")
        tables = {"kinked": task_table(stored, KINKED), "smooth": task_table(stored, SMOOTH)}
        fill_page(options.page, tables)
    if not parts:
        return
    figures = figures_of(in_order(pd.concat(parts)))
    print(table_of(figures))
    print(f"{time.monotonic() - started:.0f} s")
    print(json.dumps(summary_of(figures)))


def _work_of(options: argparse.Namespace) -> list[Work]:
    """The trainings that the command line asks for; rows that share one are judged together."""
    quick, data = options.quick, options.data
    trainings: dict[Hashable, list[Task]] = {}
    for name in QUICK if quick else options.tasks:
        task = TASKS[name]
        trainings.setdefault((task.build, task.converged), []).append(_sized(task, quick))
    return [
        Work(tuple(tasks), seed, data, quick)
        for tasks in trainings.values()
        for seed in options.seeds[: QUICK_SEEDS.get(tasks[0].name) if quick else None]
    ]


def _judged_in_parallel(work: Sequence[Work], jobs: int) -> Iterator[pd.DataFrame]:
    """The rows of each training as it is judged; the last in the table, the longest, begin."""
    judged_parts = Parallel(n_jobs=jobs, return_as="generator_unordered")(
        delayed(judge)(one) for one in work[::-1]
    )
    for number, part in enumerate(judged_parts, start=1):
        print(f"{number} of {len(work)} trainings judged", file=sys.stderr)
        yield part


def store(raw: pd.DataFrame, folder: Path) -> None:
    """Write the rows of `judge`, their figures and the pictures.

    Rows there of the same tasks and seeds are replaced, all others are kept.
    """
    path = folder / "fidelity_raw.csv"
    raw = beside_stored(raw, path, ["task", "seed"])
    raw = in_order(raw[raw["task"].isin(TASKS)])
    figures = figures_of(raw)
    save_csv(raw, path)
    save_csv(figures, folder / "fidelity.csv")
    shown = figures[figures["method"] != PRECISION]
    draw_figures(shown, AGAIN, folder / "fidelity.png")
    if SHOWN_TASK in set(raw["task"]):
        draw_scatter(raw, folder / "fidelity_scatter.png")
    if FROM_SCRATCH.keys() <= set(raw.loc[raw["seed"] == SHOWN_SEED, "task"]):
        draw_from_scratch(raw, folder / "fidelity_from_scratch.png")


def in_order(raw: pd.DataFrame) -> pd.DataFrame:
    """Rows in the order of the table of tasks, then of the seeds."""
    place = {name: number for number, name in enumerate(TASKS)}
    order = raw.assign(place=raw["task"].map(place)).sort_values(
        ["place", "seed", "removal"], ignore_index=True
    )
    return order.drop(columns="place")


def _sized(task: Task, quick: bool) -> Task:
    return replace(task, n_groups=QUICK_GROUPS.get(task.name, task.n_groups)) if quick else task


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with the real images")
    parser.add_argument(
        "--seeds", type=int, nargs="*", default=list(range(5)), help="default: 0..4"
    )
    parser.add_argument(
        "--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="NAME",
        help=f"default: all, {', '.join(TASKS)}",
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="tasks (i) to (iv), a small (vi), in 10 minutes"
    )
    parser.add_argument("--page", type=Path, help="page whose tables are replaced")
    parser.add_argument("--jobs", type=int, default=2, help="processes; default: 2")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results",
        help="folder of the CSV files; default: benchmarks/results",
    )  # fmt: skip
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        main()
    except (OSError, UserError) as problem:  # images that are not there
        sys.exit(f"fidelity.py: error: {problem}")
