"""Which net and which training make scores over all epochs predict training from scratch?

    python benchmarks/smooth_nets.py [--data PATH] [--seeds S ...] [--settings NAME ...]
                                     [--page PAGE]

600 MNIST images of 8 px, a tenth of the labels wrong, are trained for 10 epochs by each of
`SETTINGS`. Random groups of 2 % and of 10 % are left out of all epochs; reported is Spearman's
correlation of their changes of validation loss with the summed scores of Hara_exact, the
smoothness that `--verify` reports, and the accuracy on 600 validation images. The images come from
--data (see benchmarks/real_images.py).
Rows go to --out next to those of other settings and seeds; with --page the table between its
comments `smooth_nets` is replaced, and an empty --seeds does that alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the repository, when run as a script

from benchmarks.fidelity import true_changes
from benchmarks.recorded import RecordedTrial
from benchmarks.reproduction_tables import fill_page, markdown, mean_and_deviation
from benchmarks.stored import beside_stored
from benchmarks.tasks import SMOOTH_LR, Build, from_scratch, gelu, mnist_cnn
from utils.errors import UserError
from utils.output.storage import read_csv, save_csv
from utils.training.models import Model, six_convolutions, smooth_convolutions, smooth_resnet
from utils.training.smoothness import SIGNS, retrain_moved, smoothness_of

RESULTS = ROOT / "benchmarks" / "results" / "smooth_nets.csv"
KEYS = ["setting", "seed"]
WIDTHS = (32, 64, 128)


def smooth_net(
    activation: Callable[[nn.Variable], nn.Variable] = F.swish,
    pooling: Callable[..., nn.Variable] = F.average_pooling,
    widths: Sequence[int] = WIDTHS,
    second_bn: bool = True,
    scale: float = 1.0,
) -> Model:
    """`smooth_convolutions` with other parts.

    Args:
        activation: after each convolution.
        pooling: over 2 x 2, after each block.
        widths: maps of the three blocks.
        second_bn: BatchNorm after the second convolution of a block too.
        scale: of the logits.
    """

    def model(x: nn.Variable, n_classes: int, test: bool) -> nn.Variable:
        h = x
        for block, maps in enumerate(widths):
            for number in range(2):
                with nn.parameter_scope(f"block{block}_{number}"):
                    bn = second_bn or number == 0
                    h = PF.convolution(h, maps, (3, 3), (1, 1), with_bias=not bn)
                    h = activation(PF.batch_normalization(h, batch_stat=not test) if bn else h)
            h = pooling(h, (2, 2))
        return scale * PF.affine(h, n_classes)

    return model


USUAL: dict[str, Any] = {
    "side": 8, "n_train": 600, "n_epochs": 10, "retrain_all": True,
    "model": smooth_convolutions, "lr": SMOOTH_LR,
}  # fmt: skip
"""Arguments of `mnist_cnn`."""


@dataclass(frozen=True)
class Setting:
    """A training.

    Attributes:
        words: what the table calls it.
        options: what differs from `USUAL`.
        unscored: epochs at the start from which no image is left out, and which no score covers.
    """

    words: str
    options: dict[str, Any]
    unscored: int = 0


class LateTrial(RecordedTrial):
    """Images are left out of the covered epochs alone."""

    @property
    def retrain_start(self) -> int:
        """The first covered step."""
        return self.covered_start


HALF = [maps // 2 for maps in WIDTHS]
HIGH = {"lr": 0.1}
"""A rate at which the smooth net is no longer predicted well, so that a remedy can show."""

SETTINGS = {
    "stock": Setting("`six_convolutions`, lr .05", {"model": six_convolutions, "lr": 0.05}),
    "smooth": Setting("`smooth_convolutions`, lr .02", {}),
    "relu": Setting("the same, ReLU in the place of Swish", {"model": smooth_net(F.relu)}),
    "gelu": Setting("the same, GELU in the place of Swish", {"model": smooth_net(gelu)}),
    "max_pooling": Setting("the same, max pooling", {"model": smooth_net(pooling=F.max_pooling)}),
    "first_bn": Setting(
        "the same, BatchNorm after the first convolution of a block only",
        {"model": smooth_net(second_bn=False)},
    ),
    "half": Setting("the same, half the maps", {"model": smooth_net(widths=HALF)}),
    "augmented": Setting("the same, augmented", {"augmented": True}),
    "resnet": Setting("`smooth_resnet`, lr .02", {"model": smooth_resnet}),
    "lr_0.005": Setting("`smooth_convolutions`, lr .005", {"lr": 0.005}),
    "lr_0.05": Setting("the same, lr .05", {"lr": 0.05}),
    "quarter": Setting(
        "the same, lr .05, logits times .25", {"model": smooth_net(scale=0.25), "lr": 0.05}
    ),
    "quarter_0.02": Setting(
        "the same, lr .02, logits times .25", {"model": smooth_net(scale=0.25)}
    ),
    "momentum": Setting("the same, lr .002, momentum .9", {"momentum": 0.9, "lr": 0.002}),
    "momentum_0.01": Setting("the same, lr .01, momentum .9", {"momentum": 0.9, "lr": 0.01}),
    "lr_0.1": Setting("the same, lr .1", HIGH),
    "warm_up": Setting("the same, lr .1, reached over 30 steps", HIGH | {"warm_up": 30}),
    "cosine": Setting("the same, lr .1, cosine schedule", HIGH | {"schedule": "cosine"}),
    "step": Setting("the same, lr .1, step schedule", HIGH | {"schedule": "step"}),
    "step_0.04": Setting("the same, lr .04, step schedule", {"lr": 0.04, "schedule": "step"}),
    "cosine_0.04": Setting("the same, lr .04, cosine schedule", {"lr": 0.04, "schedule": "cosine"}),
    "unscored": Setting("the same, lr .1, the first 3 epochs unscored", HIGH, unscored=3),
    "batch_128": Setting("the same, lr .1, batches of 128", HIGH | {"batch_size": 128}),
}


def rows_of(setting: str, seed: int, data: Path | None, n_groups: int) -> pd.DataFrame:
    """The row of one training.

    Returns:
        Columns setting, seed, groups, small and large (Spearman's correlation for groups of 2 % and
        of 10 %), smoothness and accuracy (on the validation images).
    """
    threadpool_limits(1, "blas")
    build: Build = partial(mnist_cnn, **USUAL | SETTINGS[setting].options)
    trial = build(seed, data)
    covered = replace(trial, cover_epochs=trial.n_epochs - SETTINGS[setting].unscored)
    trial = LateTrial(**vars(covered))
    validation, start = trial.data.validation, trial.retrain_start
    influence = trial.recorded.influence(validation, start)
    trial.network.load(trial.final_state())
    row = {"setting": setting, "seed": seed, "groups": n_groups}
    whole = trial.evaluator(validation)
    removals = [task.removals(trial) for task in from_scratch("", build, n_groups)]
    true = np.split(
        true_changes(trial, np.concatenate(removals), trial.state_before(start)), len(removals)
    )
    for name, masks, changes in zip(("small", "large"), removals, true, strict=True):
        row[name] = float(spearmanr(masks @ influence, changes).statistic)
    moved = (retrain_moved(trial, sign) for sign in SIGNS)
    row["smoothness"] = smoothness_of(whole.losses, *moved)
    return pd.DataFrame([row | {"accuracy": whole.accuracy}])


def table_of(rows: pd.DataFrame) -> str:
    """Mean and standard deviation over the seeds, a line per setting."""
    table: list[tuple[str, ...]] = [
        (
            *("training", "seeds", "smoothness", "groups of 2 %", "groups of 10 %"),
            "validation accuracy, %",
        )
    ]
    for name, setting in SETTINGS.items():
        own = rows[rows["setting"] == name]
        if own.empty:
            continue
        cells = (
            mean_and_deviation(own[name].dropna()) for name in ("smoothness", "small", "large")
        )
        accuracy = mean_and_deviation(100 * own["accuracy"], digits=1)
        table.append((setting.words, str(len(own)), *cells, accuracy))
    return markdown(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and retrain what is asked for, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with the real images")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS),
                        metavar="NAME", help=f"of {', '.join(SETTINGS)}; default: all")  # fmt: skip
    parser.add_argument("--groups", type=int, default=100, help="of each size; default: 100")
    parser.add_argument("--jobs", type=int, default=2, help="processes; default: 2")
    parser.add_argument("--out", type=Path, default=RESULTS, help=f"default: {RESULTS}")
    parser.add_argument("--page", type=Path, help="whose table is replaced")
    options = parser.parse_args(arguments)
    trainings = [(name, seed) for seed in options.seeds for name in options.settings]
    parallel = Parallel(options.jobs, return_as="generator_unordered")
    for row in parallel(delayed(rows_of)(*one, options.data, options.groups) for one in trainings):
        save_csv(beside_stored(row, options.out, KEYS), options.out)
    table = table_of(read_csv(options.out))
    print(table)
    if options.page:
        fill_page(options.page, {"smooth_nets": table})


if __name__ == "__main__":
    try:
        main()
    except (OSError, UserError) as problem:  # images that are not there
        sys.exit(f"smooth_nets.py: error: {problem}")
