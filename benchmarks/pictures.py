"""The pictures of docs/how_it_works.md, from scikit-learn's digits.

    python benchmarks/pictures.py [--out docs/pictures]

single_images.png: predicted against true change for each image left out of the last epoch, in a
smooth net and in one with kinks. worst_digits.png: the most harmful images of a training set of
which a tenth has a wrong label.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the repository, when run as a script

from benchmarks.deviations import changes, digits_trial
from benchmarks.recorded import RecordedTrial
from utils.data.datasets import read_digits
from utils.output.storage import written_beside

N_IMAGES = 64
"""Of the training images are left out one by one."""
N_WORST = 24


def small_net(x: nn.Variable, n_classes: int, test: bool, smooth: bool) -> nn.Variable:
    """A convolution, BatchNorm, pooling and an affine layer; with kinks or without."""
    h = PF.batch_normalization(PF.convolution(x, 8, (3, 3), pad=(1, 1)), batch_stat=not test)
    h = F.average_pooling(F.tanh(h), (2, 2)) if smooth else F.max_pooling(F.relu(h), (2, 2))
    return PF.affine(h, n_classes)


def draw_single_images(path: Path) -> None:
    """Draw the changes that images left out one by one make, and their scores."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, smooth in zip(figure.subplots(1, 2), (True, False), strict=True):
        trial = digits_trial(0, partial(small_net, smooth=smooth))
        score = hara_scores(trial)[:N_IMAGES]
        true = changes(trial, np.eye(trial.n_train, dtype=bool)[:N_IMAGES])
        axes.scatter(score, true, s=12)
        axes.axline((0, 0), slope=1, color="0.6", linewidth=0.8)
        kind = "tanh, average pooling" if smooth else "ReLU, max pooling"
        axes.set_title(f"{kind}\nSpearman {spearmanr(score, true).statistic:.3f}", fontsize=10)
        axes.ticklabel_format(scilimits=(0, 0))
    figure.suptitle("images left out one by one; the line: predicted = true", fontsize=11)
    figure.supxlabel("score: predicted change of the validation loss (nats)", fontsize=9)
    figure.supylabel("true change (nats)", fontsize=9)
    _save(figure, path)


def hara_scores(trial: RecordedTrial) -> np.ndarray:
    """The influences (n_train,) by Hara_exact over the last epoch."""
    return trial.recorded.influence(trial.data.validation, trial.covered_start)


def draw_worst_digits(path: Path) -> None:
    """Draw the worst images with the label given, and the right one where that is wrong."""
    trial = digits_trial(0)
    score, training = hara_scores(trial), trial.data.training
    right = right_labels(training.images)
    n_wrong = int((right != training.labels).sum())
    worst = np.argsort(score, kind="stable")[:N_WORST]
    found = int((right != training.labels)[worst].sum())
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    for axes, i in zip(figure.subplots(3, N_WORST // 3).ravel(), worst, strict=True):
        axes.imshow(training.images[i, ..., 0], cmap="gray_r", interpolation="nearest")
        axes.set_axis_off()
        wrong = right[i] != training.labels[i]
        printed = f"{training.labels[i]}, is {right[i]}" if wrong else f"{training.labels[i]}"
        axes.set_title(printed, fontsize=9, color="C3" if wrong else "black")
    figure.suptitle(
        f"the {N_WORST} most harmful of {trial.n_train} digits by Hara, with the label given: "
        f"{found} of the {n_wrong} wrong ones (red)",
        fontsize=10,
    )
    _save(figure, path)


def right_labels(images: np.ndarray) -> np.ndarray:
    """The labels (n,) that scikit-learn has for digits (n, 8, 8, 1)."""
    (known, labels), _ = read_digits(())
    by_pixels = {image.tobytes(): label for image, label in zip(known, labels, strict=True)}
    return np.array([by_pixels[image.tobytes()] for image in images])


def _save(figure: Figure, path: Path) -> None:
    with written_beside(path) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw both pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs" / "pictures",
        help="folder of the pictures; default: docs/pictures",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    threadpool_limits(1, "blas")
    draw_single_images(options.out / "single_images.png")
    draw_worst_digits(options.out / "worst_digits.png")


if __name__ == "__main__":
    main()
