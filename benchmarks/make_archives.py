"""Write MNIST, CIFAR-10 and STL-10 archives in the official formats from real images.

    python benchmarks/make_archives.py --data PATH --out DIR [--n_train N] [--n_test N]
    python benchmarks/make_archives.py --data PATH --out DIR --full

PATH holds t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz and cifar10-test-jpg.zip (with
test/<class>/<number>.jpg). The images are shuffled by seed; the first N_TRAIN become training
images, the next N_TEST test images. With --full, PATH also holds train-images-idx3-ubyte.gz,
train-labels-idx1-ubyte.gz and cifar10-train-jpg.zip, and all images of MNIST and CIFAR-10 go to
the parts that they are of, training images shuffled by seed. STL-10's are CIFAR-10 images enlarged
from 32 to 96 px, in CIFAR-10's classes, the first 5,000 and 8,000 at most of both parts. The MD5
sums are not the published ones, so the commands read these archives with --allow_unverified_data
only.
"""

from __future__ import annotations

import argparse
import gzip
import io
import pickle
import struct
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))  # the repository, when run as a script

from benchmarks.real_images import (
    Int64,
    Labelled,
    UInt8,
    cifar10_images,
    mnist_images,
)
from utils.data.datasets import DATASETS

N_BATCHES = 5


class Python2Pickler(pickle._Pickler):  # Python's own C pickler can't be taught this
    """Pickle bytes and text as Python 2's str, as the published batches have them."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)
    write: Callable[[bytes], Any]
    memoize: Callable[[Any], None]

    def save_python2_str(self, value: bytes | str) -> None:
        """Write the opcodes SHORT_BINSTRING or BINSTRING of protocol 2."""
        content = value.encode("ascii") if isinstance(value, str) else value
        if len(content) < 256:
            self.write(pickle.SHORT_BINSTRING + struct.pack("<B", len(content)) + content)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_python2_str


def python2_pickle(value: Any) -> bytes:
    """The bytes that Python 2's cPickle writes for `value` in protocol 2 (but for its memo)."""
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(value)
    return stream.getvalue()


def write_idx(array: UInt8, path: Path) -> None:
    """Write unsigned bytes of any shape as gzip-compressed IDX file, always the same bytes."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 0x08, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes(), mtime=0))


def write_mnist(training: Labelled, test: Labelled, folder: Path) -> None:
    """Write MNIST's four files from images (N, 28, 28) and labels (N,)."""
    for prefix, (images, labels) in (("train", training), ("t10k", test)):
        write_idx(images, folder / f"{prefix}-images-idx3-ubyte.gz")
        write_idx(labels.astype(np.uint8), folder / f"{prefix}-labels-idx1-ubyte.gz")


def write_tar(members: Sequence[tuple[str, bytes]], path: Path) -> None:
    """Write a .tar.gz file of plain files, always the same bytes."""
    with (
        open(path, "wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w") as tar,
    ):
        for name, content in members:
            information = tarfile.TarInfo(name)
            information.size = len(content)
            tar.addfile(information, io.BytesIO(content))


def cifar_batch(images: UInt8, labels: Int64, title: str) -> dict[bytes, Any]:
    """The dict of one batch of CIFAR-10: a row of `data` is red, green, blue, each row-wise."""
    return {
        b"batch_label": title.encode(),
        b"labels": labels.tolist(),
        b"data": images.transpose(0, 3, 1, 2).reshape(len(images), 3072),
        b"filenames": [f"image_{number:05d}.png".encode() for number in range(len(images))],
    }


def write_cifar10(training: Labelled, test: Labelled, folder: Path) -> None:
    """Write cifar-10-python.tar.gz from images (N, 32, 32, 3) and labels (N,)."""
    names = list(DATASETS["cifar10"].class_names)
    meta = {b"num_cases_per_batch": 10000, b"label_names": names, b"num_vis": 3072}
    contents = {"batches.meta": meta}
    parts = zip(*(np.array_split(array, N_BATCHES) for array in training), strict=True)
    for number, (images, labels) in enumerate(parts, 1):
        title = f"training batch {number} of {N_BATCHES}"
        contents[f"data_batch_{number}"] = cifar_batch(images, labels, title)
    contents["test_batch"] = cifar_batch(*test, "testing batch 1 of 1")
    members = [
        (f"cifar-10-batches-py/{name}", python2_pickle(value)) for name, value in contents.items()
    ]
    write_tar(members, folder / "cifar-10-python.tar.gz")


def write_stl10(training: Labelled, test: Labelled, folder: Path) -> None:
    """Write stl10_binary.tar.gz from images (N, 96, 96, 3) and labels (N,) in 0..9."""
    members = []
    for part, (images, labels) in (("train", training), ("test", test)):
        columns = images.transpose(0, 3, 2, 1)  # of each channel, one after the other
        members.append((f"stl10_binary/{part}_X.bin", columns.tobytes()))
        members.append((f"stl10_binary/{part}_y.bin", (labels + 1).astype(np.uint8).tobytes()))
    write_tar(members, folder / "stl10_binary.tar.gz")


def enlarged(images: UInt8) -> UInt8:
    """Images (N, 32, 32, 3) as (N, 96, 96, 3), bilinear."""
    large = [Image.fromarray(image).resize((96, 96), Image.Resampling.BILINEAR) for image in images]
    return np.stack([np.asarray(image) for image in large])


def write_enlarged_stl10(training: Labelled, test: Labelled, folder: Path) -> None:
    """Write stl10_binary.tar.gz from CIFAR-10 images, no more than STL-10 has."""
    parts = ((training, 5000), (test, 8000))
    large = [(enlarged(images[:most]), labels[:most]) for (images, labels), most in parts]
    write_stl10(large[0], large[1], folder)


FULL: Mapping[str, tuple[Callable[..., Labelled], Callable[..., None]]] = {
    "mnist": (mnist_images, write_mnist),
    "cifar10": (cifar10_images, write_cifar10),
}
"""How the images of a data set are read, and how its archives are written."""


def shuffled_parts(
    images: UInt8, labels: Int64, n_train: int, n_test: int, seed: int
) -> tuple[Labelled, Labelled]:
    """Training and test images, drawn by seed. Raises ValueError if there are too few."""
    if n_train < N_BATCHES or n_test < 1 or n_train + n_test > len(labels):
        raise ValueError(f"{n_train} + {n_test} images asked, {len(labels)} are there")
    order = np.random.default_rng(seed).permutation(len(labels))
    first, second = order[:n_train], order[n_train : n_train + n_test]
    return (images[first], labels[first]), (images[second], labels[second])


def full_parts(
    read: Callable[[Path, str], Labelled], data: Path, seed: int
) -> tuple[Labelled, Labelled]:
    """All training images, shuffled by seed, and all test images."""
    images, labels = read(data, "train")
    order = np.random.default_rng(seed).permutation(len(labels))
    return (images[order], labels[order]), read(data, "test")


def write_full(data: Path, folder: Path, seed: int = 0, names: Iterable[str] = FULL) -> None:
    """Write the archives of MNIST and CIFAR-10 with all images, each file whole or not at all."""
    for name in names:
        read, write = FULL[name]
        with tempfile.TemporaryDirectory(dir=folder) as made:
            write(*full_parts(read, data, seed), Path(made))
            for path in Path(made).iterdir():
                path.rename(folder / path.name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and write the archives."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the real images")
    parser.add_argument("--out", type=Path, required=True, help="folder for the archives")
    parser.add_argument("--n_train", type=int, default=8000, help="default: 8000")
    parser.add_argument("--n_test", type=int, default=2000, help="default: 2000")
    parser.add_argument("--full", action="store_true", help="all images of MNIST and CIFAR-10")
    parser.add_argument("--seed", type=int, default=0, help="of the shuffle; default: 0")
    options = parser.parse_args(arguments)
    try:
        _write_all(options)
    except (OSError, ValueError) as error:
        parser.error(str(error))


def _write_all(options: argparse.Namespace) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    if options.full:
        write_full(options.data, options.out, options.seed)
        return
    for read, write in (
        (mnist_images, write_mnist),
        (cifar10_images, write_cifar10),
        (cifar10_images, write_enlarged_stl10),
    ):
        sizes = options.n_train, options.n_test, options.seed
        write(*shuffled_parts(*read(options.data), *sizes), options.out)


if __name__ == "__main__":
    main()
