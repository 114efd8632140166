"""Which net and which training make scores over all epochs predict training from scratch?

    python benchmarks/smooth_nets.py [--data PATH] [--seeds S ...] [--settings NAME ...]
                                     [--page PAGE]

600 MNIST images of 8 px, a tenth of the labels wrong, are trained for 10 epochs by each of
`SETTINGS`. Random groups of 2 % and of 10 % are left out of all epochs; reported is Spearman's
correlation of their changes of validation loss with the summed scores of Hara_exact, and the
accuracy on 600 validation images. The images come from --data (see benchmarks/real_images.py).
Rows go to --out next to those of other settings and seeds; with --page the table between its
comments `smooth_nets` is replaced, and an empty --seeds does that alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from benchmarks.reproduction_tables import fill_page, markdown, mean_and_deviation
from benchmarks.stored import beside_stored
from benchmarks.tasks import SMOOTH_LR, Build, from_scratch, gelu, mnist_cnn
from utils.errors import UserError
from utils.output.storage import read_csv, save_csv
from utils.training.models import Model, six_convolutions, smooth_convolutions, smooth_resnet

RESULTS = ROOT / "benchmarks" / "results" / "smooth_nets.csv"
KEYS = ["setting", "seed"]
WIDTHS = (32, 64, 128)


def smooth_net(
    activation: Callable[[nn.Variable], nn.Variable] = F.swish,
    widths: Sequence[int] = WIDTHS,
    second_bn: bool = True,
    scale: float = 1.0,
) -> Model:
    """`smooth_convolutions` with other parts.

    Args:
        activation: after each convolution.
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
            h = F.average_pooling(h, (2, 2))
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
    """

    words: str
    options: dict[str, Any]


SETTINGS = {
    "stock": Setting("`six_convolutions`, lr .05", {"model": six_convolutions, "lr": 0.05}),
    "smooth": Setting("`smooth_convolutions`, lr .02", {}),
    "lr_0.005": Setting("the same, lr .005", {"lr": 0.005}),
    "lr_0.01": Setting("the same, lr .01", {"lr": 0.01}),
    "lr_0.05": Setting("the same, lr .05", {"lr": 0.05}),
    "cosine": Setting("the same, cosine schedule from .04", {"schedule": "cosine", "lr": 0.04}),
    "momentum": Setting("the same, momentum .9, lr .002", {"momentum": 0.9, "lr": 0.002}),
    "momentum_0.01": Setting("the same, momentum .9, lr .01", {"momentum": 0.9, "lr": 0.01}),
    "batch_32": Setting("the same, batches of 32, lr .01", {"batch_size": 32, "lr": 0.01}),
    "augmented": Setting("the same, augmented", {"augmented": True}),
    "half": Setting(
        "the same, half the maps", {"model": smooth_net(widths=[w // 2 for w in WIDTHS])}
    ),
    "gelu": Setting("the same, GELU in the place of Swish", {"model": smooth_net(gelu)}),
    "first_bn": Setting(
        "the same, BatchNorm after the first convolution of a block only",
        {"model": smooth_net(second_bn=False)},
    ),
    "quarter": Setting(
        "the same, logits times .25, lr .05", {"model": smooth_net(scale=0.25), "lr": 0.05}
    ),
    "resnet": Setting("`smooth_resnet`, lr .02", {"model": smooth_resnet}),
}


def rows_of(setting: str, seed: int, data: Path | None, n_groups: int) -> pd.DataFrame:
    """The row of one training.

    Returns:
        Columns setting, seed, groups, small and large (Spearman's correlation for groups of 2 % and
        of 10 %) and accuracy (on the validation images).
    """
    threadpool_limits(1, "blas")
    build: Build = partial(mnist_cnn, **USUAL | SETTINGS[setting].options)
    trial = build(seed, data)
    validation = trial.data.validation
    influence, start = trial.recorded.influence(validation), trial.state_before(0)
    trial.network.load(trial.final_state())
    row = {"setting": setting, "seed": seed, "groups": n_groups}
    accuracy = trial.recorded.evaluator(validation).accuracy
    removals = [task.removals(trial) for task in from_scratch("", build, n_groups)]
    true = np.split(true_changes(trial, np.concatenate(removals), start), len(removals))
    for name, masks, changes in zip(("small", "large"), removals, true, strict=True):
        row[name] = float(spearmanr(masks @ influence, changes).statistic)
    return pd.DataFrame([row | {"accuracy": accuracy}])


def table_of(rows: pd.DataFrame) -> str:
    """Mean and standard deviation over the seeds, a line per setting."""
    table: list[tuple[str, ...]] = [
        ("training", "seeds", "groups of 2 %", "groups of 10 %", "validation accuracy, %")
    ]
    for name, setting in SETTINGS.items():
        own = rows[rows["setting"] == name]
        if own.empty:
            continue
        cells = (mean_and_deviation(own[name]) for name in ("small", "large"))
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
