"""Trainings on wrong labels, recorded so that rules can be tried without training again.

    python benchmarks/label_records.py --data PATH --out DIR CELL/SEED[/TRIAL] ...
    python benchmarks/label_records.py --data PATH --out DIR CELL/SEED/foldF ...

A record is one training with the default options on 3,000 images, 450 of them held out, with wrong
labels of the kind that the cell names, such as cifar10-uniform-0.1 or cifar10-human-3. Even seeds
draw from one half of the test images, odd seeds from the other: rules are chosen on the first half
and reported on the second. The trials of a seed have the same images and labels, but other splits
and trainings. cifar10full takes all 50,000 training images, 7,500 of them held out.

The second form makes what cleanlab asks for: of five trainings on the same images, each to predict
a fifth that it was not trained on, number F, from 0.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nnabla as nn
import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the repository, when run as a script

from benchmarks.label_noise import N_CLASSES, SETTINGS, flipped_labels, resized
from utils.data.images import ImageSet, normalise
from utils.data.splits import stratified
from utils.training.evaluation import Evaluator, batches_of, evaluation_batch
from utils.training.models import MODELS
from utils.training.network import Network
from utils.training.sgd import SGD, Optimiser
from utils.training.steps import by_epoch, plan_steps

N_IMAGES, HELD_OUT = 3000, 0.15
FULL = "full"
N_FOLDS, N_NEIGHBOURS = 5, 20
FOLD = "fold"


@dataclass(frozen=True)
class Cell:
    """A set of images and a kind of wrong labels.

    Attributes:
        data: a row of `SETTINGS`.
        kind: uniform, similar or human.
        amount: share of wrong labels; for human labels, the number of annotators asked.
        full: all training images instead of a few test images.
    """

    data: str
    kind: str
    amount: float
    full: bool = False


def cell_of(name: str) -> Cell:
    """The cell of a name such as cifar10-uniform-0.1 or cifar10-human-3."""
    data, kind, amount = name.split("-")
    return Cell(data.removesuffix(FULL), kind, float(amount), data.endswith(FULL))


def drawn(cell: Cell, seed: int, data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8 (N, side, side, C), their right labels (N,) and the given labels (N,)."""
    setting = SETTINGS[cell.data]
    images, labels = setting.images(data, "train" if cell.full else "test")
    rows = np.arange(len(labels))
    if not cell.full:
        rows = np.random.default_rng([seed, 7]).permutation(half_of(len(labels), seed))[:N_IMAGES]
    right = labels[rows].astype(np.int32)
    if cell.kind == "human":
        given = human_labels(data, rows, right, int(cell.amount), seed)
    else:
        given = flipped_labels(right, cell.kind, setting.similar, cell.amount, seed)
    pixels = np.stack([resized(images[row], setting.side) for row in rows])
    return pixels, right, given


def half_of(n_images: int, seed: int) -> np.ndarray:
    """The images that an even or an odd seed draws from (N / 2,)."""
    return np.random.default_rng(1).permutation(n_images)[seed % 2 :: 2]


def human_labels(
    data: Path, rows: np.ndarray, right: np.ndarray, n_asked: int, seed: int
) -> np.ndarray:
    """The first wrong label of n annotators of CIFAR-10H, else the right one (N,)."""
    counts = pd.read_csv(data / "cifar10h-counts.csv").sort_values("file")
    shares = counts.iloc[rows, 1:].to_numpy(float)
    shares /= shares.sum(axis=1, keepdims=True)
    rng = np.random.default_rng([seed, 11])
    given = right.copy()
    for _ in range(n_asked):
        one = (rng.random((len(rows), 1)) > shares.cumsum(axis=1)).sum(axis=1)
        given = np.where(given == right, np.minimum(one, N_CLASSES - 1), given)
    return given.astype(np.int32)


def record(cell: Cell, seed: int, trial: int, data: Path, settings: argparse.Namespace) -> dict:
    """One training: the logits of images before their step, and of held-out images by epoch."""
    pixels, right, given = drawn(cell, seed, data)
    n_held = round(HELD_OUT * len(given))
    held = stratified(given.astype(np.int64), n_held, np.random.default_rng(trial))
    trained = np.setdiff1d(np.arange(len(given)), held)
    training = ImageSet(pixels[trained], given[trained], ())
    network = Network(MODELS[settings.model], training.shape, N_CLASSES, trial)
    sgd, logits_of = SGD(network, Optimiser(settings.momentum)), _logits(network)
    steps = plan_steps(
        trial, len(trained), settings.epochs, settings.batch_size, settings.lr, settings.schedule
    )
    before = np.zeros((settings.epochs, len(trained), N_CLASSES), np.float16)
    after = np.zeros((settings.epochs, len(held), N_CLASSES), np.float16)
    losses = []
    for epoch, numbers in by_epoch(steps):
        loss = 0.0
        for t in numbers:
            loss += sgd.step(training, steps[t])
            before[epoch, steps[t].indices] = sgd.logits
        after[epoch] = logits_of(pixels[held])
        losses.append(loss / len(trained))
    return {
        "right": right, "given": given, "trained": trained, "held": held, "before": before,
        "after": after, "losses": np.array(losses),
        "final": logits_of(pixels[trained]).astype(np.float16),
    }  # fmt: skip


def record_fold(cell: Cell, seed: int, fold: int, data: Path, settings: argparse.Namespace) -> dict:
    """One training on all folds but one: what it predicts for that one.

    Returns:
        right and given (N,); rows (M,) of the fold's images; their probabilities (M, K), and the
        shares of the labels among their nearest training images in the net's last layer but one
        (M, K).
    """
    pixels, right, given = drawn(cell, seed, data)
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed)
    others, held = list(folds.split(given, given))[fold]
    training = ImageSet(pixels[others], given[others], ())
    network = Network(MODELS[settings.model], training.shape, N_CLASSES, seed)
    sgd = SGD(network, Optimiser(settings.momentum))
    for step in plan_steps(
        seed, len(others), settings.epochs, settings.batch_size, settings.lr, settings.schedule
    ):
        sgd.step(training, step)
    known, asked = (features_of(network, pixels[rows]) for rows in (others, held))
    return {
        "right": right, "given": given, "rows": held,
        "probabilities": Evaluator(network).probabilities(pixels[held]),
        "neighbours": neighbours(known, asked, given[others]),
    }  # fmt: skip


def features_of(network: Network, images: np.ndarray) -> np.ndarray:
    """The inputs of the last affine layer (N, D), with the length 1."""
    parts = []
    for rows in batches_of(len(images), evaluation_batch(network.image_shape)):
        logits = network.logits(nn.Variable.from_numpy_array(normalise(images[rows])), test=True)
        logits.forward()
        parts.append(logits.parent.inputs[0].d.reshape(len(logits.d), -1).copy())
    features = np.concatenate(parts)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def neighbours(known: np.ndarray, asked: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The share of each label (N, K) among the nearest known images (M, D) of those asked (N, D).

    Args:
        known: features of length 1.
        asked: the same.
        labels: (M,) of the known images.
    """
    nearest = np.argsort(-(asked @ known.T), axis=1, kind="stable")[:, :N_NEIGHBOURS]
    return np.eye(N_CLASSES, dtype=np.float32)[labels[nearest]].mean(axis=1)


def _logits(network: Network) -> Callable[[np.ndarray], np.ndarray]:
    """log softmax, which is the logits up to a constant per image; margins do not depend on it."""
    evaluator = Evaluator(network)
    return lambda images: np.log(np.maximum(evaluator.probabilities(images), 1e-7))


def main() -> None:
    """Record the cells that are asked for and not recorded yet."""
    options = _parse()
    threadpool_limits(1, "blas")
    for name in options.work:
        cell, seed, trial = (*name.split("/"), "0")[:3]
        path = options.out / f"{cell}_{seed}_{trial}{options.tag}.npz"
        if path.exists():
            continue
        started = time.process_time()
        make = record_fold if trial.startswith(FOLD) else record
        found = make(cell_of(cell), int(seed), int(trial.removeprefix(FOLD)), options.data, options)
        np.savez_compressed(path, **found)
        seconds = time.process_time() - started
        wrong = (found["right"] != found["given"]).mean()
        print(f"{path.name}: {seconds:.0f} s, {wrong:.1%} wrong", file=sys.stderr, flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "work", nargs="+", metavar="CELL/SEED[/TRIAL]", help="TRIAL: 0, 1, ... or fold0 to fold4"
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", choices=MODELS, default="six_convolutions")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--momentum", type=float, default=0.0)
    parser.add_argument("--schedule", default="constant")
    parser.add_argument("--tag", default="", help="added to the name of the file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
