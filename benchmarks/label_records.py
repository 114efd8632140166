"""Trainings on wrong labels, recorded so that rules can be tried on them without training again.

    python benchmarks/label_records.py --data PATH --out DIR CELL/SEED[/TRIAL] ...

A record is one stock training (`Options`' defaults) of 3,000 images, 450 of which it holds out. The
labels of all of them are wrong in the way of the cell. Even seeds draw from one half of the test
images, odd seeds from the other: rules are chosen on the one and reported on the other. The trials
of a seed have the same images and labels, and splits and trainings of their own.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the repository, when run as a script

from benchmarks.label_noise import N_CLASSES, SETTINGS, flipped_labels, resized
from utils.data.images import ImageSet
from utils.data.splits import stratified
from utils.training.evaluation import Evaluator
from utils.training.models import six_convolutions
from utils.training.network import Network
from utils.training.sgd import SGD, Optimiser
from utils.training.steps import by_epoch, plan_steps

N_IMAGES, N_HELD_OUT = 3000, 450


@dataclass(frozen=True)
class Cell:
    """Which images, and what is wrong with their labels.

    Attributes:
        data: a row of `SETTINGS`.
        kind: uniform, similar or human.
        amount: share of wrong labels; of human ones the number of annotators asked.
    """

    data: str
    kind: str
    amount: float


def cell_of(name: str) -> Cell:
    """Of a name such as cifar10-uniform-0.1, or cifar10-human-3."""
    data, kind, amount = name.split("-")
    return Cell(data, kind, float(amount))


def drawn(cell: Cell, seed: int, data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8 (N, side, side, C), their right labels (N,) and those given (N,)."""
    setting = SETTINGS[cell.data]
    images, labels = setting.images(data)
    half = np.random.default_rng(1).permutation(len(labels))[seed % 2 :: 2]
    rows = np.random.default_rng([seed, 7]).permutation(half)[:N_IMAGES]
    right = labels[rows].astype(np.int32)
    if cell.kind == "human":
        given = human_labels(data, rows, right, int(cell.amount), seed)
    else:
        given = flipped_labels(right, cell.kind, setting.similar, cell.amount, seed)
    pixels = np.stack([resized(images[row], setting.side) for row in rows])
    return pixels, right, given


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
    """One training: what each step saw of its images, and each epoch of those held out."""
    pixels, right, given = drawn(cell, seed, data)
    held = stratified(given.astype(np.int64), N_HELD_OUT, np.random.default_rng(trial))
    trained = np.setdiff1d(np.arange(len(given)), held)
    training = ImageSet(pixels[trained], given[trained], ())
    network = Network(six_convolutions, training.shape, N_CLASSES, trial)
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


def _logits(network: Network) -> Callable[[np.ndarray], np.ndarray]:
    """log softmax: logits but for a constant of each image, which no margin depends on."""
    evaluator = Evaluator(network)
    return lambda images: np.log(np.maximum(evaluator.probabilities(images), 1e-7))


def main() -> None:
    """Record what is asked for and not there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", nargs="+", metavar="CELL/SEED[/TRIAL]")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--momentum", type=float, default=0.0)
    parser.add_argument("--schedule", default="constant")
    parser.add_argument("--tag", default="", help="added to the name of the file")
    options = parser.parse_args()
    threadpool_limits(1, "blas")
    for name in options.work:
        cell, seed, trial = (*name.split("/"), "0")[:3]
        path = options.out / f"{cell}_{seed}_{trial}{options.tag}.npz"
        if path.exists():
            continue
        started = time.process_time()
        found = record(cell_of(cell), int(seed), int(trial), options.data, options)
        np.savez_compressed(path, **found)
        seconds = time.process_time() - started
        wrong = (found["right"] != found["given"]).mean()
        print(f"{path.name}: {seconds:.0f} s, {wrong:.1%} wrong", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
