"""Small sets of images as users have them, for several tests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

CLASSES = ("cat", "dog")


def picture(path: Path, seed: int = 0, mode: str = "RGB", size: Any = (8, 8), **more: Any) -> Path:
    """Write an image of random pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **more)
    return path


def class_folders(root: Path, per_class: int = 6, first: int = 0, mode: str = "RGB") -> Path:
    """Folders cat and dog with different images each."""
    for number, name in enumerate(CLASSES):
        for image in range(per_class):
            picture(root / name / f"{image}.png", first + 100 * number + image, mode)
    return root


def rows_of(n: int = 12) -> list[str]:
    """Rows for the images of `class_folders`, labels 0 and 1 in turn."""
    return [f"{CLASSES[i % 2]}/{i // 2}.png,{i % 2}" for i in range(n)]


def csv_of(root: Path, rows: Iterable[str], header: str = "x:image,y:label") -> Path:
    """The images of `class_folders` in `root/images`, and a CSV file that names some."""
    folder = class_folders(root / "images")
    csv = folder / "images.csv"
    csv.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    return csv


FURTHER = {
    "z:weight": "1.50", "x2:depth": "007", "note": 'a, "b"\nsecond line', "empty": "", "no": "NA",
    "set": "mine", "row": "r", "influence": " 1 ", "datasource_index": "5", "label": "q",
}  # fmt: skip
"""Columns whose texts or names a reader may change."""


def csv_with_further_columns(csv: Path, n: int) -> pd.DataFrame:
    """Write n images and a CSV file with `FURTHER` among our columns; returns its table."""
    table = pd.DataFrame([{**FURTHER, "note": f"{FURTHER['note']} {k}"} for k in range(n)])
    table.insert(1, "x:image", [picture(csv.parent / f"{k}.png", k).name for k in range(n)])
    table.insert(4, "y:label", [str(k % 2) for k in range(n)])
    table.to_csv(csv, index=False)
    return table
