"""What the checks of images find and take on CIFAR-10: distances, altered copies, time, memory.

    python benchmarks/image_checks.py --data PATH --sheets FOLDER

Writes contact sheets of 50 pairs for each distance of the perceptual hash, to be looked at, and
prints how many pairs there are at each distance and how many of them count as nearly the same; how
many of 1,000 altered copies are found; and what 50,000 images take.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from tempfile import TemporaryDirectory
from zipfile import ZipFile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageEnhance

from benchmarks.real_images import cifar10_images
from utils.data.copies import ALIKE, RADIUS, bit_count, correlation, find_pairs, near_hashes
from utils.data.decode import Form, decode_chunk
from utils.data.image_facts import facts_of
from utils.data.looks import look_at, table_of

SHOWN, FARTHEST, SIDE = 50, 12, 32
Images = npt.NDArray[np.uint8]


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of cifar10-*-jpg.zip")
    parser.add_argument("--sheets", type=Path, default=Path("sheets"), help="for contact sheets")
    parser.add_argument("--time_only", action="store_true", help="measure time and memory only")
    options = parser.parse_args()
    time_checks(options.data)
    if options.time_only:
        return
    options.sheets.mkdir(parents=True, exist_ok=True)
    parts = [cifar10_images(options.data, part) for part in ("train", "test")]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    looks = looks_of(images)
    by_distance(images, labels, looks, options.sheets)
    altered_copies(images[::60], looks[::60])


def looks_of(images: Images) -> npt.NDArray[np.void]:
    """The looks of images (N, 32, 32, 3)."""
    pictures = map(Image.fromarray, images)
    return table_of([look_at(picture, picture.size, SIDE) for picture in pictures])


# ---------------------------------------------------------------- pairs


def by_distance(
    images: Images, labels: npt.NDArray[np.int64], looks: npt.NDArray[np.void], folder: Path
) -> None:
    """Print counts of pairs at each distance, and draw some of them."""
    edges = np.concatenate(list(near_hashes(looks["hash"], FARTHEST)))
    alike = correlation(looks["thumb"], edges) >= ALIKE
    two_labels = labels[edges[:, 0]] != labels[edges[:, 1]]
    rng = np.random.default_rng(0)
    print("distance, pairs, of two labels, nearly the same, of two labels")
    for distance in range(FARTHEST + 1):
        at = edges[:, 2] == distance
        if at.any():
            print(distance, at.sum(), (at & two_labels).sum(), (at & alike).sum(),
                  (at & alike & two_labels).sum())  # fmt: skip
            chosen = edges[at][np.sort(rng.permutation(at.sum())[:SHOWN])]
            contact_sheet(images, chosen).save(folder / f"distance_{distance:02}.png")


def contact_sheet(images: Images, edges: npt.NDArray[np.int64], columns: int = 10) -> Image.Image:
    """Pairs next to each other, numbered from 1."""
    side, across = 72, 2 * 72 + 10
    sheet = Image.new("RGB", (columns * across, -(-len(edges) // columns) * (side + 14)), "white")
    for number, pair in enumerate(edges[:, :2]):
        left, top = number % columns * across, number // columns * (side + 14)
        ImageDraw.Draw(sheet).text((left + 2, top), str(number + 1), fill="black")
        for place, row in enumerate(pair):
            picture = Image.fromarray(images[row]).resize((side, side))
            sheet.paste(picture, (left + place * (side + 1), top + 12))
    return sheet


# ---------------------------------------------------------------- altered copies


def again(picture: Image.Image, quality: int) -> Image.Image:
    """The picture saved as JPEG and read again."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def cropped(picture: Image.Image, px: int) -> Image.Image:
    """The picture without its border, brought to its size again."""
    box = (px, px, picture.width - px, picture.height - px)
    return picture.crop(box).resize(picture.size, Image.Resampling.BILINEAR)


ALTERED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG of quality 50": lambda picture: again(picture, 50),
    "JPEG of quality 20": lambda picture: again(picture, 20),
    "twice the size": lambda picture: picture.resize((64, 64)),
    "half the size": lambda picture: picture.resize((16, 16)),
    "gray": lambda picture: picture.convert("L"),
    "contrast x 0.7": lambda picture: ImageEnhance.Contrast(picture).enhance(0.7),
    "brightness x 1.3": lambda picture: ImageEnhance.Brightness(picture).enhance(1.3),
    "3 % cut off each side": lambda picture: cropped(picture, 1),
    "6 % cut off each side": lambda picture: cropped(picture, 2),
}


def altered_copies(images: Images, looks: npt.NDArray[np.void]) -> None:
    """Print the share of altered copies that count as nearly the same."""
    for name, alter in ALTERED.items():
        pictures = [alter(Image.fromarray(image)) for image in images]
        other = table_of([look_at(picture, picture.size, SIDE) for picture in pictures])
        both = np.concatenate([looks, other])
        rows = np.arange(len(looks))
        near = bit_count(looks["hash"] ^ other["hash"]) <= RADIUS
        alike = correlation(both["thumb"], np.stack([rows, rows + len(looks)], axis=1)) >= ALIKE
        print(f"{name}: {(near & alike).mean():.1%}")


# ---------------------------------------------------------------- time and memory


def time_checks(data: Path) -> None:
    """Print CPU seconds of one process for 50,000 images, and the memory that the checks add."""
    with TemporaryDirectory() as folder, ZipFile(data / "cifar10-train-jpg.zip") as archive:
        archive.extractall(folder)
        paths = sorted(map(str, Path(folder).rglob("*.jpg")))
        decode_chunk(paths[:2], Form(SIDE, 3), (SIDE, SIDE, 3), True)  # imports
        decoding = decoded(paths, looking=False)[1]
        before = getrusage(RUSAGE_SELF).ru_maxrss
        looks, both = decoded(paths, looking=True)
    labels = np.unique([path.split("/")[-2] for path in paths], return_inverse=True)[1]
    started = time.process_time()
    pairs = find_pairs(looks, labels, np.zeros_like(labels))
    facts = facts_of(looks)
    rest = time.process_time() - started
    added = (getrusage(RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{len(paths)} images: decoding {decoding:.1f} s, looks {both - decoding:.1f} s, pairs "
          f"and facts {rest:.1f} s, together {both + rest:.1f} s; {added:.0f} MiB more; "
          f"{len(pairs)} pairs, {sum(int(fact.holds.sum()) for fact in facts)} facts")  # fmt: skip


def decoded(paths: list[str], looking: bool) -> tuple[npt.NDArray[np.void], float]:
    """The looks of images and the CPU seconds that decoding them took; pixels are not kept."""
    started, looks = time.process_time(), []
    for start in range(0, len(paths), 100):
        chunk = paths[start : start + 100]
        looks.append(decode_chunk(chunk, Form(SIDE, 3), (SIDE, SIDE, 3), looking)[3])
    return np.concatenate(looks), time.process_time() - started


if __name__ == "__main__":
    main()
