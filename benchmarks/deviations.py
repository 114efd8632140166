"""What each term of the scores is worth: the sweep without it, held against true retraining.

    python benchmarks/deviations.py [--seeds 0 1 2]

scikit-learn's digits, 8x8: 256 training images with a tenth of the labels wrong, 400 for
validation, the product's default net, 20 epochs of batches of 64. Random groups of a tenth of the
images are left out of the last epoch. Also the arithmetic of nnabla's example, as
docs/differences.md describes it. Writes deviations.csv and deviations.png into --out and the table
of --page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the repository, when run as a script

from benchmarks.recorded import RecordedTrial, recorded_trial
from benchmarks.reproduction_tables import fill_page, markdown
from benchmarks.tasks import FLIPPED
from sgd_influence.infl import sweep
from utils.data.datasets import read_digits
from utils.data.flips import flipped
from utils.data.images import ImageSet
from utils.data.splits import stratified
from utils.output.storage import read_csv, save_csv, written_beside
from utils.training.adjoint import Arrays, DampedAdjoint, StepAdjoint, loss_gradient
from utils.training.models import Model, six_convolutions
from utils.training.network import Network
from utils.training.sgd import Optimiser
from utils.training.steps import plan_steps

N_TRAIN, N_VALIDATION, N_GROUPS, SHARE = 256, 400, 60, 0.1

Derivatives = tuple[np.ndarray, Arrays, Arrays]


class WithoutHessian(StepAdjoint):
    """u_t := u_{t+1}: only the batch's own gradient counts."""

    def derivatives(self, *given: Any) -> Derivatives:
        """As the full one, with no derivative by theta."""
        by_weight, by_theta, by_statistics = super().derivatives(*given)
        return by_weight, {name: 0 * g for name, g in by_theta.items()}, by_statistics


class WithoutStatistics(StepAdjoint):
    """The running statistics that validation uses are taken for constants."""

    def derivatives(self, x: np.ndarray, y: np.ndarray, d: Arrays, v: Arrays) -> Derivatives:
        """As the full one at v = 0."""
        return super().derivatives(x, y, d, {name: 0 * array for name, array in v.items()})


class SingleExamples(WithoutStatistics):
    """Each image's gradient is that of a batch of one: BatchNorm sees this image alone."""

    def derivatives(self, x: np.ndarray, y: np.ndarray, d: Arrays, v: Arrays) -> Derivatives:
        """As without statistics, with the derivative by the weights from batches of one."""
        return _by_single(super().derivatives, x, y, d, v)


class ReferenceArithmetic(DampedAdjoint):
    """Both of the above, as nnabla's example has it."""

    def derivatives(self, x: np.ndarray, y: np.ndarray, d: Arrays, v: Arrays) -> Derivatives:
        """As with the Hessian divided, with the derivative by the weights from batches of one."""
        return _by_single(super().derivatives, x, y, d, v)


def _by_single(
    derivatives: Callable[..., Derivatives], x: np.ndarray, y: np.ndarray, d: Arrays, v: Arrays
) -> Derivatives:
    single = [derivatives(x[i : i + 1], y[i : i + 1], d, v)[0] for i in range(len(x))]
    _, by_theta, by_statistics = derivatives(x, y, d, v)
    return np.concatenate(single) / len(x), by_theta, by_statistics


FULL, NO_STATISTICS = "everything (Hara_exact)", "no running statistics"
VARIANTS: dict[str, type[StepAdjoint]] = {
    FULL: StepAdjoint,
    NO_STATISTICS: WithoutStatistics,
    "no Hessian term": WithoutHessian,
    "no running statistics, Hessian term by the batch size (Hara)": DampedAdjoint,
    "no running statistics, gradients of batches of one": SingleExamples,
    "all three: the reference's arithmetic": ReferenceArithmetic,
}
FINAL = "final parameters in every step (Ours_exact)"


def digits_trial(seed: int, model: Model = six_convolutions) -> RecordedTrial:
    """A recorded training on digits of which a tenth has a wrong label."""
    (images, labels), _ = read_digits(())
    rows = stratified(labels, N_TRAIN + N_VALIDATION, np.random.default_rng([seed, 3]))
    rows = np.random.default_rng([seed, 4]).permutation(rows)
    first, second = rows[:N_TRAIN], rows[N_TRAIN:]
    wrong = flipped(labels[first].astype(np.int32), 10, FLIPPED, seed)
    training = ImageSet(images[first], wrong, ())
    validation = ImageSet(images[second], labels[second].astype(np.int32), ())
    steps = plan_steps(seed, N_TRAIN, 20, 64, 0.05)
    network = Network(model, training.shape, 10, seed)
    return recorded_trial(
        seed, network, training, validation, steps, Optimiser(augmented=False), cover_epochs=1
    )


def scores_of(trial: RecordedTrial) -> dict[str, np.ndarray]:
    """The influences (n_train,) by each variant of the sweep."""
    scores = {name: _swept(trial, kind(trial.network, trial.optimiser), trial.state_before)
              for name, kind in VARIANTS.items()}  # fmt: skip
    final = trial.final_state()
    adjoint_of = StepAdjoint(trial.network, trial.optimiser)
    return scores | {FINAL: _swept(trial, adjoint_of, lambda t: final)}


def _swept(
    trial: RecordedTrial, adjoint_of: StepAdjoint, state_before: Callable[[int], Any]
) -> np.ndarray:
    trial.network.load(trial.final_state())
    final = loss_gradient(trial.network, trial.data.validation)
    numbers = trial.covered[::-1]
    data, steps = trial.data.training, trial.steps
    return sweep(adjoint_of, data, steps, state_before, final, numbers).influence


def judge(seed: int) -> pd.DataFrame:
    """Columns seed, variant, group, predicted, true (nats): random groups, then the worst tenth."""
    trial = digits_trial(seed)
    size = round(SHARE * N_TRAIN)
    rng = np.random.default_rng([seed, 5])
    groups = np.stack([rng.permutation(N_TRAIN) < size for _ in range(N_GROUPS)])
    true = changes(trial, groups)
    parts = []
    for variant, score in scores_of(trial).items():
        worst = np.isin(np.arange(N_TRAIN), np.argsort(score)[:size])[None]
        columns = {
            "group": [*range(N_GROUPS), "worst"],
            "predicted": np.concatenate([groups, worst]) @ score,
            "true": np.concatenate([true, changes(trial, worst)]),
        }
        parts.append(pd.DataFrame({"seed": seed, "variant": variant} | columns))
    return pd.concat(parts, ignore_index=True)


def changes(trial: RecordedTrial, groups: np.ndarray) -> np.ndarray:
    """True changes of the validation loss (R,) when the masks (R, n_train) are left out."""
    validation, start = trial.data.validation, trial.retrain_start
    nothing = np.zeros(N_TRAIN, bool)
    losses = [trial.recorded.loss_without(mask, validation, start) for mask in (nothing, *groups)]
    return np.array(losses[1:]) - losses[0]


# ---------------------------------------------------------------- table and picture


def table_of(raw: pd.DataFrame) -> str:
    """Spearman over the random groups and the change when the worst tenth goes, over the seeds."""
    head = (
        "the sweep with",
        "Spearman over random groups",
        "change when its worst tenth goes (nats)",
    )
    rows: list[tuple[str, ...]] = [head]
    for variant, of_variant in raw.groupby("variant", sort=False):
        random = of_variant[of_variant["group"] != "worst"]
        agreement = random.groupby("seed").apply(_spearman, include_groups=False)
        worst = of_variant.loc[of_variant["group"] == "worst", "true"]
        change = f"{worst.mean():+.4f} ± {worst.std():.4f}"
        rows.append((str(variant), f"{agreement.mean():.2f} ± {agreement.std():.2f}", change))
    return markdown(rows)


def _spearman(rows: pd.DataFrame) -> float:
    return float(spearmanr(rows["predicted"], rows["true"]).statistic)


def draw(raw: pd.DataFrame, path: Path) -> None:
    """Draw predicted against true changes of the first seed, a panel per variant."""
    shown = raw[(raw["seed"] == raw["seed"].min()) & (raw["group"] != "worst")]
    figure = Figure(figsize=(13, 6), layout="constrained")
    panels = figure.subplots(2, 4, sharey=True).ravel()
    for axes, (variant, rows) in zip(panels, shown.groupby("variant", sort=False), strict=False):
        axes.scatter(rows["predicted"], rows["true"], s=12)
        axes.axline((0, 0), slope=1, color="0.6", linewidth=0.8)
        axes.set_title(f"{variant}\nSpearman {_spearman(rows):.2f}", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.locator_params(axis="x", nbins=5)
    for axes in panels[shown["variant"].nunique() :]:
        axes.set_axis_off()
    figure.suptitle("digits, groups of a tenth of the images; the line: predicted = true")
    figure.supxlabel("predicted change of the validation loss (nats)", fontsize=9)
    figure.supylabel("true change (nats)", fontsize=9)
    with written_beside(path) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})


def main(arguments: Sequence[str] | None = None) -> None:
    """Judge each seed, write rows, picture and table."""
    options = _parse(arguments)
    threadpool_limits(1, "blas")
    raw = pd.concat([judge(seed) for seed in options.seeds], ignore_index=True)
    save_csv(raw, options.out / "deviations.csv")
    raw = read_csv(options.out / "deviations.csv")
    draw(raw, options.out / "deviations.png")
    if options.page.exists():
        fill_page(options.page, {"deviations": table_of(raw)})
    print(table_of(raw))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results",
        help="folder of CSV file and picture; default: benchmarks/results",
    )  # fmt: skip
    parser.add_argument(
        "--page", type=Path, default=ROOT / "docs" / "differences.md",
        help="whose table is rewritten; default: docs/differences.md",
    )  # fmt: skip
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
