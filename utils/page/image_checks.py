"""What the page shows of the checks of a user's images: copies side by side, and facts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from utils.columns import IMAGE
from utils.data.checks import DUPLICATES, IMAGES, QUALITY
from utils.data.copies import COPIES, TWO_LABELS, TWO_SETS
from utils.output.paths import OutputPaths
from utils.output.storage import read_texts, unreadable

MOST_PAIRS = {TWO_LABELS: 12, TWO_SETS: 6, COPIES: 6}
MOST_PICTURES, MOST_CLASSES = 12, 20
"""Pairs shown of each kind, pictures of each fact, and rows of the table of classes, at most."""
SAME = {
    TWO_LABELS: ("The same picture under two labels", "One of the two labels is wrong."),
    TWO_SETS: ("The same picture in two sets",
               "Test images that are also trained on inflate the test accuracy."),
    COPIES: ("The same picture twice in a set",
             "It counts twice in training, and a trial may draw one of the two for validation."),
}  # fmt: skip
"""Titles and explanations of pairs with the same pixels."""
SIMILAR = {
    TWO_LABELS: ("Similar pictures under two labels",
                 "If both show the same object, one of the two labels is wrong."),
    TWO_SETS: ("Similar pictures in two sets",
               "If both show the same object, it inflates the test accuracy."),
    COPIES: ("Similar pictures in one set", "If both show the same object, it counts twice."),
}  # fmt: skip
"""The same of pairs whose pixels differ."""
MEASURED = {
    "blank": "standard deviation of the gray levels",
    "very dark": "gray level that 99 % of the pixels do not exceed, of 255",
    "very bright": "gray level that 95 % of the pixels exceed, of 255",
    "blurred": "largest differences between neighbouring pixels, as a fraction of the range of "
    "gray levels, in the size of the run",
    "odd size": "square root of width times height, in px",
    "odd aspect ratio": "longer by shorter side",
}


@dataclass(frozen=True)
class Picture:
    """An image: its path, label, set and row in the user's list, and what was measured of it."""

    file: str
    label: str
    part: str
    row: str
    value: str = ""

    @property
    def name(self) -> str:
        """The name of the file."""
        return os.path.basename(self.file)


@dataclass(frozen=True)
class Pairs:
    """Pairs of one kind: title, explanation, number, and the pairs shown, each with a text.

    Pairs with the same pixels are other kinds than pairs of similar pictures.
    """

    title: str
    text: str
    n: int
    shown: tuple[tuple[str, Picture, Picture], ...]


@dataclass(frozen=True)
class Fact:
    """Images that a fact holds for: title, what was measured, limit, their number, images shown."""

    title: str
    measured: str
    limit: str
    n: int
    shown: tuple[Picture, ...]


@dataclass(frozen=True)
class ImageChecks:
    """The checks of a user's images.

    Attributes:
        pairs: by kind; facts: the ones that hold for some image.
        sets: columns of the table of classes; classes: its rows, the smallest classes first;
            n_classes: how many there are.
    """

    pairs: tuple[Pairs, ...]
    facts: tuple[Fact, ...]
    sets: tuple[str, ...]
    classes: tuple[tuple[str, tuple[int, ...]], ...]
    n_classes: int

    @classmethod
    def read(cls, paths: OutputPaths) -> ImageChecks | None:
        """Read the two tables of a folder; None where they are not there.

        Raises:
            UserError: one of them cannot be read.
        """
        duplicates = read_texts(paths.duplicates, DUPLICATES)
        quality = read_texts(paths.image_quality, QUALITY)
        if duplicates is None or quality is None:
            return None
        counts = quality[quality["fact"] == IMAGES]
        try:
            table = counts.assign(value=counts["value"].astype(int))
        except ValueError as error:
            raise unreadable(paths.image_quality, "is incomplete", error) from error
        sets = tuple(table["set"].unique())
        return cls(_pairs(duplicates), _facts(quality), sets, *_classes(table, sets))

    @property
    def files(self) -> Iterator[str]:
        """The images shown."""
        for pairs in self.pairs:
            for _, first, second in pairs.shown:
                yield from (first.file, second.file)
        for fact in self.facts:
            yield from (picture.file for picture in fact.shown)


def _pairs(table: pd.DataFrame) -> tuple[Pairs, ...]:
    same = table["distance"] == "0"
    found = (
        (titles[kind], kind, table[chosen & (table["kind"] == kind)])
        for titles, chosen in ((SAME, same), (SIMILAR, ~same))
        for kind in titles
    )
    return tuple(
        Pairs(*words, len(rows), tuple(_pair(row) for row in _first(rows, MOST_PAIRS[kind])))
        for words, kind, rows in found
        if len(rows)
    )


def _first(rows: pd.DataFrame, n: int) -> list[dict[str, str]]:
    return rows.head(n).to_dict("records")


def _pair(row: dict[str, str]) -> tuple[str, Picture, Picture]:
    distances = {"0": "the same pixels", "1": "similar, the hashes are equal"}
    text = distances.get(row["distance"], f"similar, {row['distance']} of 64 bits differ")
    first, second = (
        Picture(*(row[name + ending] for name in (IMAGE, "label", "set", "row")))
        for ending in ("", "_2")
    )
    return text, first, second


def _facts(table: pd.DataFrame) -> tuple[Fact, ...]:
    found = ((name, table[table["fact"] == name]) for name in MEASURED)
    return tuple(_fact(name, rows) for name, rows in found if len(rows))


def _fact(name: str, rows: pd.DataFrame) -> Fact:
    shown = tuple(
        Picture(row[IMAGE], row["label"], row["set"], row["row"], row["value"])
        for row in _first(rows, MOST_PICTURES)
    )
    limit = rows["limit"].iloc[0].replace("<=", "≤").replace(">=", "≥")
    return Fact(name.capitalize(), MEASURED[name], limit, len(rows), shown)


def _classes(
    table: pd.DataFrame, sets: tuple[str, ...]
) -> tuple[tuple[tuple[str, tuple[int, ...]], ...], int]:
    """The smallest classes with their counts in each set, and how many classes there are."""
    counts = table.pivot_table("value", "label", "set", "sum", fill_value=0, sort=False)
    smallest = counts.sort_values(list(sets), kind="stable").head(MOST_CLASSES)
    rows = tuple((str(label), tuple(map(int, row))) for label, row in zip(
        smallest.index, smallest[list(sets)].to_numpy(), strict=True
    ))  # fmt: skip
    return rows, len(counts)
