"""Checks of a user's images: copies, and facts, as the tables that a run writes and its page shows.

The looks and the pairs are computed once and kept in the data set's folder.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from utils.columns import IMAGE
from utils.data.copies import ALIKE, COPIES, KINDS, RADIUS, TWO_LABELS, TWO_SETS, find_pairs
from utils.data.decode import Form
from utils.data.image_facts import facts_of, short
from utils.data.looks import LOOK, VERSION
from utils.files import check_regular
from utils.output.storage import written_beside
from utils.units import counted

log = logging.getLogger("data_cleansing")
LOOKS, PAIRS = "image_looks.npz", "image_pairs.npz"
IMAGES = "images"
"""The fact of `summary/image_quality.csv` that counts the images of a class in a set."""
DUPLICATES = (
    "group", "kind", "distance", IMAGE, "row", "label", "set",
    f"{IMAGE}_2", "row_2", "label_2", "set_2",
)  # fmt: skip
QUALITY = ("fact", "value", "limit", "label", "set", IMAGE, "row", "width", "height")
"""The columns of the two tables."""


@dataclass(frozen=True)
class Listed:
    """A user's rows, all sets one after the other.

    Attributes:
        files: absolute paths.
        rows: the row of the CSV file that names each image; empty without one.
        labels: names of the classes.
        sets: names of the sets that the rows are in when missing ones are drawn.
    """

    files: Sequence[str]
    rows: Sequence[str]
    labels: Sequence[str]
    sets: Sequence[str]


@dataclass(frozen=True)
class Checks:
    """What was found: tables with the columns `DUPLICATES` and `QUALITY`."""

    duplicates: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=DUPLICATES))
    quality: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=QUALITY))

    def report(self, duplicates: Path, quality: Path, words: str) -> None:
        """Log a line on copies and one on facts, if there are any, with the files of the lists.

        words: stand before the path of a list.
        """
        counts = self.duplicates["kind"].value_counts()
        if len(counts):
            contradict = counts.get(TWO_LABELS, 0) + counts.get(TWO_SETS, 0)
            level = logging.WARNING if contradict else logging.INFO
            log.log(level, "%s; %s %s", self._about_copies(), words, duplicates)
        facts = self.quality[self.quality["fact"] != IMAGES]["fact"].value_counts(sort=False)
        if len(facts):
            found = ", ".join(f"{n} {fact}" for fact, n in facts.items())
            log.info("Images to look at: %s; %s %s", found, words, quality)

    def _about_copies(self) -> str:
        words = {
            TWO_LABELS: "with two labels", TWO_SETS: "in two sets",
            COPIES: "of the same label and set",
        }  # fmt: skip
        same = self.duplicates["distance"] == 0
        parts = []
        for what, rows in (("of the same picture", same), ("of similar pictures", ~same)):
            counts = self.duplicates[rows]["kind"].value_counts()
            kinds = ", ".join(f"{counts[kind]} {words[kind]}" for kind in KINDS if kind in counts)
            if kinds:
                parts.append(f"{counted(int(rows.sum()), 'pair')} {what} ({kinds})")
        return f"Copies: {', '.join(parts)}"


@dataclass(frozen=True)
class Looks:
    """The looks at all files of a data set.

    Attributes:
        key: identifies them: the content of the files and the form.
        records: `looks.LOOK` (N,).
        known: whether an earlier run kept them; else decoding fills them in.
    """

    key: str
    records: npt.NDArray[np.void]
    known: bool

    @classmethod
    def of(cls, folder: Path, digests: Collection[bytes], form: Form) -> Looks:
        """The looks kept in `folder`, or zeros.

        Args:
            folder: of the data set.
            digests: of the content of each file.
            form: what the images become.
        """
        content = hashlib.blake2b(b"".join(digests), digest_size=16).hexdigest()
        key = f"{VERSION} {len(digests)} {content} {form}"
        records = kept(folder / LOOKS, key)
        if records is not None:
            return cls(key, records, known=True)
        return cls(key, np.zeros(len(digests), LOOK), known=False)

    @property
    def wanted(self) -> npt.NDArray[np.void] | None:
        """The records for decoding to fill in; None if they are known."""
        return None if self.known else self.records


def checked(listed: Listed, looks: Looks, numbers: Sequence[int], folder: Path) -> Checks:
    """Check a user's images, and keep looks and pairs in `folder`.

    Args:
        listed: the rows (N,).
        looks: at the files of the data set.
        numbers: (N,), the look of each row.
        folder: of the data set.
    """
    if not looks.known:
        keep(folder / LOOKS, looks.key, looks.records)
    seen = looks.records[list(numbers)]
    labels, sets = (pd.factorize(pd.Series(names))[0] for names in (listed.labels, listed.sets))
    key = _pairs_key(seen, labels, sets)
    pairs = kept(folder / PAIRS, key)
    if pairs is None:
        pairs = find_pairs(seen, labels, sets)
        keep(folder / PAIRS, key, pairs)
    return Checks(_duplicates(listed, pairs), _quality(listed, seen))


def _pairs_key(seen: npt.NDArray[np.void], *numbers: npt.NDArray[np.int64]) -> str:
    """Identifies pairs: a hash of looks, labels and sets, and the limits."""
    digest = hashlib.blake2b(seen.tobytes(), digest_size=16)
    for array in numbers:
        digest.update(np.asarray(array, np.int64).tobytes())
    return f"{RADIUS} {ALIKE} {digest.hexdigest()}"


# ---------------------------------------------------------------- what is kept


def kept(path: Path, key: str) -> npt.NDArray[np.void] | None:
    """The records that `keep` wrote with this key; None if there are none."""
    try:
        check_regular(path)
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            return file["records"] if file["key"].item() == key else None
    except Exception:  # none there, or whatever damaged files raise: they are computed again
        return None


def keep(path: Path, key: str, records: npt.NDArray[np.void]) -> None:
    """Write records with their key."""
    with written_beside(path) as temporary:
        np.savez(temporary, key=np.array(key), records=records)


# ---------------------------------------------------------------- tables


def _duplicates(listed: Listed, pairs: npt.NDArray[np.void]) -> pd.DataFrame:
    table = {
        "group": pairs["group"],
        "kind": [KINDS[kind] for kind in pairs["kind"]],
        "distance": pairs["distance"],
    }
    for ending, rows in (("", pairs["a"]), ("_2", pairs["b"])):
        table |= {name + ending: values for name, values in _named(listed, rows).items()}
    return pd.DataFrame(table, columns=DUPLICATES)


def _quality(listed: Listed, seen: npt.NDArray[np.void]) -> pd.DataFrame:
    """Counts of images first, then the images that each fact holds for."""
    counts = pd.DataFrame({"label": listed.labels, "set": listed.sets})
    sizes = counts.groupby(["set", "label"], sort=False).size().reset_index(name="value")
    tables = [sizes.assign(fact=IMAGES, value=sizes["value"].astype(str))]
    for fact in facts_of(seen):
        rows = np.flatnonzero(fact.holds)
        measured = [short(value) for value in fact.values[rows]]
        values = {"fact": fact.name, "value": measured, "limit": fact.limit}
        sizes = {side: seen[side][rows].astype(str) for side in ("width", "height")}
        if len(rows):
            tables.append(pd.DataFrame(values | _named(listed, rows) | sizes))
    return pd.concat(tables, ignore_index=True).reindex(columns=list(QUALITY)).fillna("")


def _named(listed: Listed, rows: npt.NDArray[np.int64]) -> dict[str, list[str]]:
    columns = {
        IMAGE: listed.files, "row": listed.rows, "label": listed.labels, "set": listed.sets
    }  # fmt: skip
    return {name: [values[row] for row in rows] for name, values in columns.items()}
