"""How the agreement of influence functions with true retraining depends on their damping.

    python benchmarks/damping.py --data PATH --seeds 0 1 2

On trainings of benchmarks/tasks.py. One Krylov basis of the Gauss-Newton matrix G and the gradient
of the validation loss gives the iterates of conjugate gradients for every damping alpha, because
G + alpha I has the same basis. For each alpha, in largest eigenvalues of G, the table has the
products with G to a relative residual of .01, and Spearman's correlation of summed scores and true
changes, over groups of 10 % of the images that are left out of the last epoch or of the whole
training; on `mnist_cnn` also the AUC of its wrong labels. Rows of other tasks and seeds in --out
stay.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata, spearmanr
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parents[1]))  # the repository, when run as a script

from benchmarks.fidelity import true_changes
from benchmarks.peers.ours import clean_labels
from benchmarks.recorded import RecordedTrial
from benchmarks.stored import beside_stored
from benchmarks.tasks import TASKS
from influence_functions.gauss_newton import GaussNewton
from influence_functions.infl import TOLERANCE, score
from influence_functions.solvers import Product
from utils.options import SGD_SOLVER
from utils.output.storage import save_csv
from utils.training.adjoint import by_name, flattened, loss_gradient

SHARES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 10.0)
"""Alpha in largest eigenvalues of G."""
BY_SGD = "sgd"
"""The row of the reference's solver."""


@dataclass(frozen=True)
class Krylov:
    """An orthonormal basis of g, G g, G^2 g, ..., in which G is tridiagonal (Lanczos).

    Attributes:
        diagonal: (m,), of G in the basis.
        off_diagonal: (m,), the entries next to it; the last one leads out of the basis.
        length: |g|.
        scores: (m, n), the influences that each vector of the basis gives.
    """

    diagonal: np.ndarray
    off_diagonal: np.ndarray
    length: float
    scores: np.ndarray

    @property
    def matrix(self) -> np.ndarray:
        """G in the basis (m, m)."""
        inner = self.off_diagonal[:-1]
        return np.diag(self.diagonal) + np.diag(inner, 1) + np.diag(inner, -1)

    @property
    def largest(self) -> float:
        """The largest eigenvalue of G."""
        return float(np.linalg.eigvalsh(self.matrix)[-1])

    def solved(self, damping: float, tolerance: float) -> tuple[np.ndarray, float, int]:
        """Influences (n,) by conjugate gradients, their relative residual, and products with G."""
        first = np.eye(len(self.diagonal))[0] * self.length
        found = []
        for k in range(1, len(first) + 1):
            part = self.matrix[:k, :k] + damping * np.eye(k)
            y = np.linalg.solve(part, first[:k])
            found.append((y, abs(self.off_diagonal[k - 1] * y[-1]) / self.length, k))
            if found[-1][1] <= tolerance:
                break
        y, residual, k = min(found, key=lambda one: one[1])
        return y @ self.scores[:k], float(residual), k


def lanczos(product: Product, g: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`diagonal` and `off_diagonal` (m,) of `Krylov`, and the basis (m, P), kept orthogonal."""
    basis, diagonal, off_diagonal = [g / np.linalg.norm(g)], [], []
    for _ in range(m):
        w = product(basis[-1])
        diagonal.append(basis[-1] @ w)
        for _ in range(2):
            for v in basis:
                w = w - (v @ w) * v
        off_diagonal.append(np.linalg.norm(w))
        basis.append(w / off_diagonal[-1])
    return np.array(diagonal), np.array(off_diagonal), np.stack(basis[:-1])


def krylov_of(trial: RecordedTrial, m: int) -> Krylov:
    """The basis at the final state of a training, over all training images."""
    trial.network.load(trial.final_state())
    target, data = loss_gradient(trial.network, trial.data.validation).u, trial.data.training
    matrix = GaussNewton(trial.network, trial.optimiser.weight_decay)

    def product(v: np.ndarray) -> np.ndarray:
        return flattened(matrix.product(data, by_name(v, target)))

    g = flattened(target)
    diagonal, off_diagonal, basis = lanczos(product, g, m)
    scores = np.stack([matrix.influence(data, by_name(v, target)) for v in basis])
    return Krylov(diagonal, off_diagonal, float(np.linalg.norm(g)), scores)


@dataclass(frozen=True)
class Truth:
    """What scores are compared with.

    Attributes:
        removals: (R, n) masks.
        last: (R,) true changes when they are left out of the last epoch.
        whole: true changes of the first removals when they are left out of the whole training.
        wrong: (n,) mask of the wrong labels; None without wrong labels.
    """

    removals: np.ndarray
    last: np.ndarray
    whole: np.ndarray
    wrong: np.ndarray | None

    def figures(self, influence: np.ndarray) -> dict[str, float]:
        """Columns last, whole and auc."""
        predicted = self.removals @ influence
        few = predicted[: len(self.whole)]
        return {
            "last": float(spearmanr(predicted, self.last).statistic),
            "whole": float(spearmanr(few, self.whole).statistic) if len(few) else np.nan,
            "auc": np.nan if self.wrong is None else auc(influence, self.wrong),
        }


def auc(influence: np.ndarray, wrong: np.ndarray) -> float:
    """The probability that an image of the mask `wrong` scores lower than another one."""
    n = int(wrong.sum())
    ranks = rankdata(-influence)[wrong].sum() - n * (n + 1) / 2
    return float(ranks / (n * (len(wrong) - n)))


def rows_of(krylov: Krylov, truth: Truth, by_sgd: np.ndarray) -> Iterator[dict[str, object]]:
    """A row for the reference's solver, whose scores are (n,), and one for each alpha."""
    yield {"share": BY_SGD, **truth.figures(by_sgd)}
    for share in SHARES:
        influence, residual, k = krylov.solved(share * krylov.largest, TOLERANCE)
        known = {"alpha": share * krylov.largest, "products": k, "residual": residual}
        yield {"share": f"{share:g}", **known, **truth.figures(influence)}


def judge(name: str, seed: int, options: argparse.Namespace) -> pd.DataFrame:
    """Train, leave groups out, and score with each alpha."""
    task = TASKS[name]
    trial = task.build(seed, options.data)
    removals = task.removals(trial)[: options.groups]
    whole, few = replace(trial, retrain_all=True), removals[: options.groups_whole]
    truth = Truth(
        removals,
        true_changes(trial, removals, trial.state_before(trial.retrain_start)),
        true_changes(whole, few, whole.state_before(0)) if len(few) else np.empty(0),
        _wrong(trial, seed, options.data) if name == "mnist_cnn" else None,
    )
    trial.network.load(trial.final_state())
    by_sgd = score(replace(trial, if_solver=SGD_SOLVER, damping=task.sgd_damping)).influence
    krylov = krylov_of(trial, options.products)
    return pd.DataFrame(rows_of(krylov, truth, by_sgd)).assign(task=name, seed=seed)


def _wrong(trial: RecordedTrial, seed: int, data: Path | None) -> np.ndarray:
    return trial.data.training.labels != clean_labels(seed, data, trial.n_train)


def main(arguments: Sequence[str] | None = None) -> None:
    """Judge the trainings and print the means over the seeds."""
    threadpool_limits(1, "blas")
    options = _parse(arguments)
    for name in options.tasks:
        for seed in options.seeds:
            rows = judge(name, seed, options)
            save_csv(beside_stored(rows, options.out, ["task", "seed"]), options.out)
    table = pd.read_csv(options.out).drop(columns="seed")
    print(table.groupby(["task", "share"], sort=False).mean().round(3).to_string())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with the real images")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=["mnist_cnn"], metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--groups", type=int, default=100, help="default: 100")
    parser.add_argument("--groups_whole", type=int, default=20, help="default: 20")
    parser.add_argument("--products", type=int, default=50, help="with G, at most; default: 50")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "damping.csv",
        help="default: benchmarks/results/damping.csv",
    )  # fmt: skip
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
