"""The real images that benchmarks work on."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from utils.data.datasets import DATASETS
from utils.data.downloads import find_or_download
from utils.data.source import cache_folder

UInt8 = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]
Labelled = tuple[UInt8, Int64]  # images (N, 28, 28) or (N, 32, 32, 3), labels (N,)


def mnist_images(data: Path | None, part: str = "test") -> Labelled:
    """The 10,000 MNIST test images or the 60,000 for training: (N, 28, 28) and labels (N,).

    Args:
        data: a folder with MNIST's four files, or those of the part; without it the official
            archives are taken, downloaded where they are not there.
        part: test or train.
    """
    if data is None:
        images, labels = _official_part("mnist", part)
        return images[..., 0], labels
    prefix = {"test": "t10k", "train": "train"}[part]
    pixels = gzip.decompress((data / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
    classes = gzip.decompress((data / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
    images = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28)
    return images, np.frombuffer(classes, np.uint8, offset=8).astype(np.int64)


def cifar10_images(data: Path | None, part: str = "test") -> Labelled:
    """The 10,000 CIFAR-10 test images or the 50,000 for training: (N, 32, 32, 3), labels (N,).

    Args:
        data: a folder with cifar10-<part>-jpg.zip, the images as JPEG files
            <part>/<class>/<number>.jpg; without it the official archive is taken, lossless.
        part: test or train.
    """
    if data is None:
        return _official_part("cifar10", part)
    with zipfile.ZipFile(data / f"cifar10-{part}-jpg.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        images = [np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in names]
    classes = DATASETS["cifar10"].class_names
    labels = [classes.index(name.split("/")[-2]) for name in names]
    return np.stack(images), np.array(labels, np.int64)


def _official_part(name: str, part: str) -> Labelled:
    row, folder = DATASETS[name], cache_folder()
    parts = row.read(find_or_download(row.archives, folder, folder, False))
    return parts[("train", "test").index(part)]
