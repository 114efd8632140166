"""Small data sets that benchmarks run the commands on, written as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.label_records import human_labels
from benchmarks.make_archives import shuffled_parts, write_mnist
from benchmarks.real_images import cifar10_images, mnist_images
from utils.columns import IMAGE, LABEL
from utils.data.datasets import prepare
from utils.data.splits import draw_split
from utils.errors import UserError
from utils.output.storage import save_csv

FLIPPED_SHARE = 0.1
"""Of the labels."""
N_CLASSES = 10
N_ANNOTATORS = 3
"""Drawn for each image from those of CIFAR-10H."""


def flipped_digits(folder: Path, seed: int, validation: bool = True) -> Path:
    """NNC CSV files of 300 training digits, a tenth flipped, 200 to validate, 400 to test.

    Without `validation` the 200 are among the training images, and a tenth of all 500 is flipped.
    """
    source, rng = prepare("digits", None, False), np.random.default_rng([seed, 1])
    split, images = draw_split(source, seed, 300, 200, None), source.images[[IMAGE, LABEL]]
    rows = split.training if validation else np.union1d(split.training, split.validation)
    training = images.iloc[rows]
    labels = training[LABEL].to_numpy(copy=True)
    flipped = rng.choice(len(labels), round(FLIPPED_SHARE * len(labels)), replace=False)
    labels[flipped] = (labels[flipped] + rng.integers(1, N_CLASSES, len(flipped))) % N_CLASSES
    save_csv(training.assign(**{LABEL: labels}), folder / "train.csv")
    if validation:
        save_csv(images.iloc[split.validation], folder / "validation.csv")
    save_csv(images.iloc[split.test], folder / "test.csv")
    return folder


def cifar10_csv(
    folder: Path, seed: int, data: Path | None, n: int, n_asked: int = N_ANNOTATORS
) -> dict[str, int]:
    """NNC CSV files of n CIFAR-10 images, labelled by people or rightly, and 2,000 to test.

    Args:
        folder: of the files.
        seed: which images are drawn, and which annotators are asked.
        data: a folder with the images and cifar10h-counts.csv.
        n: how many images.
        n_asked: annotators, of whom the first wrong one counts; 0 for the right labels.

    Returns:
        The right label of each image by its path.

    Raises:
        UserError: labels by people without `data`.
    """
    if data is None and n_asked:
        raise UserError("labels by people need --data, a folder with cifar10h-counts.csv")
    images, labels = cifar10_images(data)
    rows = np.random.default_rng([seed, 7]).permutation(len(labels))[: n + 2000]
    paths = [folder.resolve() / "images" / f"{row:05d}.png" for row in rows]
    if not (folder / "test.csv").exists():
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        for path, row in zip(paths, rows, strict=True):
            Image.fromarray(images[row]).save(path)
        table = pd.DataFrame({IMAGE: list(map(str, paths)), LABEL: labels[rows]})
        right = labels[rows[:n]].astype(np.int32)
        given = human_labels(data, rows[:n], right, n_asked, seed) if data and n_asked else right
        save_csv(table[:n].assign(**{LABEL: given}), folder / "train.csv")
        save_csv(table[n:], folder / "test.csv")
    return dict(zip(map(str, paths), labels[rows].tolist(), strict=True))


def mnist_archives(data: Path, folder: Path) -> Path:
    """Official-format archives of 8,000 and 2,000 of MNIST's test images, made once in `folder`."""
    if not folder.exists():
        folder.mkdir(parents=True)
        write_mnist(*shuffled_parts(*mnist_images(data), 8000, 2000, 0), folder)
    return folder
