"""Which arithmetic of the sweep cleanses at full size: variants of Hara and Ours, retrained.

    python benchmarks/full_size.py RUN_DIR --work DIR -ds cifar10 --seeds 0 1 2 [run options]

RUN_DIR is the output folder of a finished `eval_sgd_influence.py --cache steps` with the same
options. Each variant scores the training images of each trial; its n worst are removed and the
last epoch is retrained. Scores and rows are kept in --work, so that a benchmark that was cut off
resumes; several processes may share one --work. At the end the rows of --work are put next to the
others of benchmarks/results/full_size.csv, and the table of docs/fidelity.md is written from all.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any

import nnabla as nn
import nnabla.functions as F
import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the repository, when run as a script

from benchmarks.deviations import Derivatives, WithoutHessian
from benchmarks.reproduction_tables import cell, fill_page, markdown, mean_and_deviation
from benchmarks.stored import beside_stored
from eval_sgd_influence import COMMAND
from sgd_influence.eval import evaluate_without
from sgd_influence.replay import states_of
from utils.kernels.batch_norm import RunningStatistics
from utils.kernels.channels_last import channels_first, channels_last, lies_channels_last
from utils.kernels.maps import MapAffine, MapMoments
from utils.options import parse_options
from utils.output.folder import OutputFolder
from utils.output.storage import read_csv, save_csv
from utils.run.pipeline import prepared
from utils.training.adjoint import Arrays, DampedAdjoint, StepAdjoint, loss_gradient
from utils.training.gradients import gradient_graph
from utils.training.network import Network
from utils.training.sgd import Optimiser, step_batch
from utils.training.soundness import LAST
from utils.training.steps import by_epoch
from utils.training.trial import Trial

KEYS = ["dataset", "seed", "variant", "n"]
RESULTS = ROOT / "benchmarks" / "results" / "full_size.csv"
TRUE, FINAL, MEAN = "true", "final", "mean"
N_MEAN = 3
"""Epochs that `MEAN` averages over."""
SEATED = 200
"""The n of the worst images whose seats are reported."""
NAMES = {
    "damped-true": "damped, true states (**Hara**)",
    "damped-final": "damped, final state (**Ours**)",
    "published-true": "damped, batches of one, true states ([H]'s code)",
    "published-final": "damped, batches of one, final state",
    "exact-true": "exact, true states (**Hara_exact**)",
    "exact-final": "exact, final state (**Ours_exact**)",
    "exact-mean": "exact, true states, mean of the last three epochs",
    "no_hessian-true": "no Hessian term, true states",
    "gauss_newton-true": "exact with the Gauss-Newton matrix, true states",
}
"""What the tables call the variants."""


@contextmanager
def normalised_by_itself() -> Iterator[RunningStatistics]:
    """Build graphs whose BatchNorm sees each example as a batch of one."""

    def batch_normalization(
        x: nn.Variable, beta: nn.Variable, gamma: nn.Variable, *_: Any, eps: float = 1e-5, **__: Any
    ) -> nn.Variable:
        maps = list(range(2, x.ndim))
        if not maps:
            raise NotImplementedError("a batch of one has no variance without maps")
        if lies_channels_last(x):
            mean, squares = map(channels_first, MapMoments()(channels_last(x)))
            scale = gamma * (squares / float(np.prod(x.shape[2:])) + eps) ** -0.5
            terms = (channels_last(term) for term in (x, scale, beta - mean * scale))
            return channels_first(MapAffine()(*terms))
        centred = x - F.mean(x, maps, keepdims=True)
        variance = F.mean(centred**2, maps, keepdims=True)
        return centred * (gamma * (variance + eps) ** -0.5) + beta

    before = F.batch_normalization
    F.batch_normalization = batch_normalization
    try:
        yield RunningStatistics()
    finally:
        F.batch_normalization = before


class _BatchesOfOne(StepAdjoint):
    """The step with each example normalised as a batch of one."""

    def __init__(self, network: Network, optimiser: Optimiser) -> None:
        super().__init__(network, optimiser)
        self.through_statistics = False

    def batch_normalization(self, w: nn.Variable) -> AbstractContextManager[RunningStatistics]:
        """Each example by itself, whatever its weight."""
        return normalised_by_itself()


class Published(DampedAdjoint):
    """[H]'s published code: the Hessian divided once more, each gradient from a batch of one."""

    def __init__(self, network: Network, optimiser: Optimiser) -> None:
        super().__init__(network, optimiser)
        self._single = _BatchesOfOne(network, optimiser)

    def derivatives(self, x: np.ndarray, y: np.ndarray, d: Arrays, v: Arrays) -> Derivatives:
        """As with the Hessian divided, with the derivative by the weights from batches of one."""
        _, by_theta, by_statistics = super().derivatives(x, y, d, v)
        by_weight, _, _ = self._single.derivatives(x, y, d, v)
        return by_weight, by_theta, by_statistics


@dataclass(frozen=True)
class _JacobianGraph:
    x: nn.Variable
    a: nn.Variable
    q: dict[str, nn.Variable]
    logits: nn.Variable
    product: nn.Variable


class GaussNewton(StepAdjoint):
    """Exact, with the Gauss-Newton matrix of the batch's mean loss in the Hessian's place."""

    @cached_property
    def _jacobian(self) -> Callable[[int], _JacobianGraph]:
        return lru_cache(maxsize=2)(self._build_jacobian)

    def derivatives(self, x: np.ndarray, y: np.ndarray, d: Arrays, v: Arrays) -> Derivatives:
        """As the exact one, with another product by theta."""
        by_weight, _, by_statistics = super().derivatives(x, y, d, v)
        nothing = {name: 0 * array for name, array in d.items()}
        _, by_theta, _ = super().derivatives(x, y, nothing, v)  # through the statistics alone
        return by_weight, _sum_of(by_theta, self._product(x, d)), by_statistics

    def _product(self, x: np.ndarray, d: Arrays) -> Arrays:
        graph = self._jacobian(len(x))
        graph.x.d, graph.a.d = x, 0.0
        for name, variable in graph.q.items():
            variable.d = d[name]
        graph.a.grad.zero()
        graph.product.forward()
        graph.product.backward()
        tangent, theta = graph.a.g.copy(), self.network.theta
        graph.logits.forward()
        p = np.exp(graph.logits.d - graph.logits.d.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        curved = p * (tangent - (p * tangent).sum(axis=1, keepdims=True)) / len(x)
        for parameter in theta.values():
            parameter.grad.zero()
        graph.logits.backward(nn.NdArray.from_numpy_array(curved))
        return {name: parameter.g.astype(np.float64) for name, parameter in theta.items()}

    def _build_jacobian(self, batch_size: int) -> _JacobianGraph:
        x = nn.Variable((batch_size, *self.network.image_shape))
        logits = self.network.logits(x, test=False)
        a = nn.Variable(logits.shape, need_grad=True)
        theta = self.network.theta
        q = {name: nn.Variable(p.shape) for name, p in theta.items()}
        gradients = gradient_graph(F.sum(logits * a), list(theta.values()))
        product = sum(F.sum(q[k] * g) for k, g in zip(theta, gradients, strict=True))
        logits.persistent = True
        return _JacobianGraph(x, a, q, logits, product)


def _sum_of(a: Arrays, b: Arrays) -> Arrays:
    return {name: a[name] + b[name] for name in a}


VARIANTS: dict[str, type[StepAdjoint]] = {
    "published": Published,
    "damped": DampedAdjoint,
    "no_hessian": WithoutHessian,
    "exact": StepAdjoint,
    "gauss_newton": GaussNewton,
}


def scores_of(trial: Trial, variant: str, states: str) -> tuple[np.ndarray, np.ndarray]:
    """The influences (n_train,), and |u| after each step, last step first, over the first (T,).

    The sweep covers the last epoch. With the states of `MEAN` it is repeated for the epochs before,
    each with the validation loss at its own end, and the influences are averaged.
    """
    adjoint_of, final = VARIANTS[variant](trial.network, trial.optimiser), trial.final_state()
    state_before = (lambda _: final) if states == FINAL else states_of(trial)
    epochs = list(by_epoch(trial.steps))[::-1][: N_MEAN if states == MEAN else 1]
    influence, growth = np.zeros(trial.n_train), []
    adjoint = trial.final_gradient  # which variants share
    for before, (_, numbers) in enumerate(epochs):
        if before:  # the sweep has left the network at the end of this epoch
            adjoint = loss_gradient(trial.network, trial.data.validation)
        norms = []
        for t in numbers[::-1]:
            trial.network.load(state_before(t))
            step = trial.steps[t]
            x, y = step_batch(trial.data.training, step, augmented=trial.optimiser.augmented)
            by_weight, adjoint = adjoint_of(x, y, step.learning_rate, adjoint)
            influence[step.indices] -= by_weight / len(epochs)
            norms.append(adjoint.length)
        growth += [norm / norms[0] for norm in norms]
    return influence, np.array(growth)


@dataclass(frozen=True)
class Work:
    """The folder that processes of this benchmark share."""

    folder: Path

    @contextmanager
    def claimed(self, name: str) -> Iterator[bool]:
        """Whether this process is the one to compute `name`."""
        mark = self.folder / f"{name}.claim"
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            yield False
            return
        try:
            yield True
        finally:
            mark.unlink()


# ---------------------------------------------------------------- figures


def figures_of(work: Path) -> pd.DataFrame:
    """A row per data set, trial, variant and n.

    Returns:
        Columns dataset, seed, variant, n, the four scores after the removal, gain (points of test
        accuracy over n = 0 of the trial), growth (max |u_t| / |u_T|), lowest (the most negative
        influence, nats) and seats (share of the n worst that sat in the last 10 steps).
    """
    rows = []
    for path in sorted(work.glob("*.csv")):
        dataset, seed, variant, n = parts_of(path)
        row = {"dataset": dataset, "seed": int(seed), "variant": variant, "n": int(n)}
        row |= read_csv(path).iloc[-1].to_dict()
        scores = work / f"{dataset}_{seed}_{variant}.npz"
        rows.append(row | (_of_scores(scores, work, int(n)) if int(n) else {}))
    table = pd.DataFrame(rows)
    trial = ["dataset", "seed"]
    unchanged = table[table["n"] == 0].set_index(trial)["test_accuracy"]
    before = table.set_index(trial).index.map(unchanged)
    return table.assign(gain=100 * (table["test_accuracy"] - before))


def parts_of(path: Path) -> tuple[str, str, str, str]:
    """Data set, seed, variant and n of a file of --work; n is empty for scores."""
    named = re.fullmatch(r"([a-z0-9]+)_(\d+)_(.+?)(?:_(\d+))?", path.stem)
    if named is None:
        raise ValueError(f"{path}: no file of this benchmark")
    dataset, seed, variant, n = named.groups(default="")
    return dataset, seed, variant, n


def _of_scores(scores: Path, work: Path, n: int) -> dict[str, float]:
    found = np.load(scores)
    dataset, seed, *_ = parts_of(scores)
    last = np.load(work / f"{dataset}_{seed}_last.npy")
    worst = np.argsort(found["influence"], kind="stable")[:n]
    return {
        "growth": float(found["growth"].max()),
        "lowest": float(found["influence"].min()),
        "seats": float(last[worst].mean()),
    }


def table_of(figures: pd.DataFrame) -> str:
    """Gain in points of test accuracy against n, by data set and variant, over the trials.

    That of validation accuracy stands next to it, at n = `SEATED`.
    """
    parts = []
    for dataset, rows in figures.groupby("dataset", sort=False):
        counts = sorted(n for n in rows["n"].unique() if n)
        unchanged = 100 * rows.loc[rows["n"] == 0, "test_accuracy"]
        before = rows[rows["n"] == 0].set_index("seed")["val_accuracy"]
        head = ("the sweep, the states", "trials", *(f"n = {n:,}" for n in counts))
        head = (*head, f"validation, n = {SEATED}")
        table: list[tuple[str, ...]] = [(*head, "growth of u", "lowest influence", "seats")]
        for variant, own in rows[rows["n"] > 0].groupby("variant", sort=False):
            by_count, trials = dict(iter(own.groupby("n")["gain"])), own["seed"].nunique()
            gains = (cell(by_count[n], trials, "+") if n in by_count else "" for n in counts)
            first = own[own["n"] == SEATED]
            on_validation = 100 * (first["val_accuracy"] - first["seed"].map(before))
            table.append((
                NAMES[str(variant)], str(trials), *gains, cell(on_validation, trials, "+"),
                f"{own['growth'].max():.3g}", f"{own['lowest'].min():.3g}",
                f"{first['seats'].mean():.0%}",
            ))  # fmt: skip
        parts.append(f"**{dataset}**, No Removal {mean_and_deviation(unchanged)} %")
        parts.append(markdown(table))
    return "\n\n".join(parts)


def correlations_of(work: Path, dataset: str, variant: str) -> list[float]:
    """Spearman's correlation of a variant's scores between trials, over the images they share."""
    scores = {}
    for path in sorted(work.glob(f"{dataset}_*_{variant}.npz")):
        seed = parts_of(path)[1]
        images = np.load(work / f"{dataset}_{seed}_images.npy")
        scores[seed] = pd.Series(np.load(path)["influence"], index=images)
    pairs = combinations(scores.values(), 2)
    return [float(pd.concat(pair, axis=1).dropna().corr("spearman").iloc[0, 1]) for pair in pairs]


def main() -> None:
    """Score and retrain whatever is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", type=Path, help="output folder of the training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--counts", type=int, nargs="+", default=[40, 200, 1000, 3000])
    parser.add_argument(
        "--variants", nargs="+", metavar="VARIANT/STATES",
        choices=[name.replace("-", "/") for name in NAMES],
        default=["damped/true", "published/true", "exact/true", "damped/final",
                 "published/final", "exact/final", "no_hessian/true", "gauss_newton/true"],
        help=f"of {', '.join(VARIANTS)}, at the {TRUE} or the {FINAL} states, or {MEAN}: true "
        f"states, averaged over the last {N_MEAN} epochs; needs a run with --cover_epochs {N_MEAN}",
    )  # fmt: skip
    parser.add_argument("--work", type=Path, required=True, help="folder of scores and rows")
    chosen, rest = parser.parse_known_args()
    for seed in chosen.seeds:
        options = parse_options(COMMAND, [*rest, "-o", str(chosen.run_dir), "--seed", str(seed)])
        judge(prepared(options).trial(seed, OutputFolder(chosen.run_dir)), options.dataset, chosen)
    figures = beside_stored(figures_of(chosen.work), RESULTS, KEYS)
    save_csv(figures, RESULTS)
    fill_page(ROOT / "docs" / "fidelity.md", {"full_size": table_of(figures)})
    for (dataset, variant), _ in figures[figures["n"] > 0].groupby(["dataset", "variant"]):
        if found := correlations_of(chosen.work, dataset, variant):
            print(dataset, variant, "correlation between trials:", *np.round(found, 2))


def judge(trial: Trial, dataset: str, chosen: argparse.Namespace) -> None:
    """Compute what is missing of one trial."""
    work = Work(chosen.work)
    last = np.zeros(trial.n_train, bool)
    last[np.concatenate([step.indices for step in trial.steps[-LAST:]])] = True
    np.save(work.folder / f"{dataset}_{trial.seed}_last.npy", last)
    images = [Path(path).name for path in trial.data.training.paths]
    np.save(work.folder / f"{dataset}_{trial.seed}_images.npy", images)
    nothing = np.zeros(trial.n_train, bool)
    _retrain(work, trial, f"{dataset}_{trial.seed}_none_0", nothing)
    for name in chosen.variants:
        variant, states = name.split("/")
        stem = f"{dataset}_{trial.seed}_{variant}-{states}"
        scores = work.folder / f"{stem}.npz"
        if not scores.exists():
            with work.claimed(stem) as mine:
                if not mine:
                    continue
                influence, growth = scores_of(trial, variant, states)
                np.savez(scores, influence=influence, growth=growth)
        order = np.argsort(np.load(scores)["influence"], kind="stable")
        for n in chosen.counts:
            removed = np.isin(np.arange(trial.n_train), order[:n])
            _retrain(work, trial, f"{stem}_{n}", removed)


def _retrain(work: Work, trial: Trial, stem: str, removed: np.ndarray) -> None:
    path = work.folder / f"{stem}.csv"
    if path.exists():
        return
    with work.claimed(stem) as mine:
        if mine:
            row, _ = evaluate_without(trial, removed, stem)
            save_csv(pd.DataFrame(row), path)
            print(stem, row.iloc[-1].to_dict(), flush=True)


if __name__ == "__main__":
    main()
