"""labels/label_issues.csv and labels/verdict.json: what the label check found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from utils.columns import IMAGE, LABEL, ROW, SET
from utils.data.source import TEST, TRAINING, VALIDATION
from utils.output.paths import OutputPaths
from utils.output.results import Results
from utils.output.storage import read_if_there, read_texts, read_versioned_json, unreadable

SETS = (TRAINING, VALIDATION, TEST)
IS_ISSUE, SCORE = "is_label_issue", "label_score"
PREDICTED, CONFIDENCE = "predicted_label", "predicted_score"
COLUMNS = (IMAGE, LABEL, SET, ROW, IS_ISSUE, SCORE)
"""Columns of label_issues.csv that have a value in each row."""
GIVEN = "given:"
"""Stands before the names of the further columns that a user's CSV files have."""
VERSION = 1
"""Of the content of verdict.json."""
WIDE = 0.1
"""An interval of more of the images than this is called wide."""


@dataclass(frozen=True)
class LabelVerdict:
    """The content of verdict.json.

    Attributes:
        n_images: images of the data set; n_issues: how many of their labels look wrong.
        low, high: ends of the 95 % interval of that number.
        n_issues_test: how many of them are of test images.
        at_least: the net is too poor for an estimate; only the ends of the interval are sure.
        reason: why it is only a lower bound; harmful: which options make the check worse; empty for
            none.
        per_class: (label, number of labels, number of suspects).
        given_to_suggested: (label, suggested label, images), the most frequent first.
        suspicious_classes: labels of classes with more than half suspects.
        untrained_classes: labels of classes that no trial trained on, which are not judged.
        test_drawn: the run drew the test images from those for training or validation, or does not
            say.
        n_undrawn: further images of the data set, which no trial used.
        image_shape: (C, H, W) of the images that the net got; empty if the run does not say.
    """

    n_images: int
    n_issues: int
    low: float
    high: float
    n_issues_test: int
    at_least: bool
    reason: str
    harmful: str
    per_class: tuple[tuple[int, int, int], ...]
    given_to_suggested: tuple[tuple[int, int, int], ...]
    suspicious_classes: tuple[int, ...]
    untrained_classes: tuple[int, ...] = ()
    test_drawn: bool = True
    n_undrawn: int = 0
    image_shape: tuple[int, ...] = ()

    @property
    def not_judged(self) -> bool:
        """Whether the net had learnt too little: no label is marked, and each may be wrong."""
        return self.at_least and not self.n_issues and self.high == self.n_images

    @property
    def headline(self) -> str:
        """How many labels look wrong, without a full stop."""
        if self.not_judged:
            return "Not judged"
        n, low = self.n_issues, round(self.low)
        if self.at_least:
            high = f"{self.high:,.0f}"
            sure = f"At least {self._of_all(low)}, and up to {high} may be"
            unsure = f"Up to {high} of {self.n_images:,} labels may be wrong"
            marked = f"; {n:,} {'is' if n == 1 else 'are'} marked" if low < n else ""
            return (sure if low else unsure) + marked
        if n:
            return f"About {self._of_all(n)}{self._interval}"
        return f"None of {self.n_images:,} labels looks wrong{self._interval}"

    def _of_all(self, n: int) -> str:
        return f"{n:,} of {self.n_images:,} labels {'looks' if n == 1 else 'look'} wrong"

    @property
    def _interval(self) -> str:
        low, high = f"{self.low:,.0f}", f"{self.high:,.0f}"
        return f" (95 % interval {low} to {high})" if low != high else ""

    @property
    def remarks(self) -> list[str]:
        """Further sentences, without full stops."""
        remarks = []
        if self.n_issues_test:
            many = f"{self.n_issues_test:,} of those marked are test images"
            remarks.append("1 of those marked is a test image" if self.n_issues_test == 1 else many)
        if not self.at_least and self.high - self.low > WIDE * self.n_images:
            remarks.append(
                "The interval is wide, because few images are held out: more trials (-nt), or more "
                "validation images of your own, hold out more"
            )
        return remarks + ([_capital(self.reason)] if self.reason else [])

    def warnings(self, name_of: Callable[[int], str]) -> list[str]:
        """Reasons to doubt the number, or a class as a whole: sentences without full stops.

        Args:
            name_of: gives the name of a class by its label.
        """
        warnings = [_capital(self.harmful)] if self.harmful else []
        names = [name_of(label) for label in self.suspicious_classes]
        if names and (self.low >= 0.5 or not self.at_least):
            of_them = names[0] if len(names) == 1 else "each of " + ", ".join(names)
            remedy = "look at the class as a whole (swapped or merged folders?) first"
            warnings.append(f"More than half of the labels of {of_them} look wrong: {remedy}")
        if self.untrained_classes:
            names = [name_of(label) for label in self.untrained_classes]
            of_them = (
                f"class {names[0]} has" if len(names) == 1 else f"classes {', '.join(names)} have"
            )
            reason = f"{of_them} no training image, so these labels are not judged"
            warnings.append(_capital(reason))
        return warnings


def _capital(text: str) -> str:
    return text[0].upper() + text[1:].rstrip(".")


def read_label_issues(paths: OutputPaths, results: Results | None = None) -> pd.DataFrame:
    """The table of all images, the most suspicious first.

    Args:
        paths: of the folder.
        results: its tables, where they are in memory.

    Raises:
        UserError: the file is missing or incomplete, or has a value that the check never writes.
    """
    path = paths.latest(paths.label_issues)
    table = (results or Results(paths)).table(path, COLUMNS)
    table = table.drop(columns=[name for name in table if name.startswith(GIVEN)])
    for name in (PREDICTED, CONFIDENCE):
        if name not in table:
            raise unreadable(path, "is incomplete", f"no column {name}")
    try:
        table = table.astype({LABEL: "int64", ROW: "int64", IS_ISSUE: "int64", SCORE: "float64"})
        table = table.astype({PREDICTED: "float64", CONFIDENCE: "float64", SET: "str"})
    except (TypeError, ValueError) as error:
        raise unreadable(path, "cannot be used", error) from error
    others = table[~table[SET].isin(SETS)]
    if len(others):
        raise unreadable(path, "cannot be used", f"no set is called {others[SET].iloc[0]!r}")
    return table.sort_values(SCORE, kind="stable").reset_index(drop=True)


def read_given(paths: OutputPaths) -> pd.DataFrame:
    """The columns `GIVEN` of the table of all images, as text, by set and row.

    Raises:
        UserError: the file is missing or cannot be read.
    """
    path = paths.latest(paths.label_issues)

    def wanted(name: str) -> bool:
        return name in (SET, ROW) or name.startswith(GIVEN)

    table = read_if_there(path, (SET, ROW), dtype=str, keep_default_na=False, usecols=wanted)
    if table is None:
        raise unreadable(path, "cannot be read", "it is gone")
    return table.astype({ROW: "int64"}).set_index([SET, ROW])


def read_label_verdict(paths: OutputPaths) -> LabelVerdict | None:
    """What the check found; None without a file, or for one of another version.

    Raises:
        UserError: the file cannot be read, or is incomplete.
    """
    return read_versioned_json(paths.latest(paths.label_verdict), VERSION, verdict_in)


def verdict_in(value: Mapping[str, Any]) -> LabelVerdict:
    """The content of verdict.json; raises KeyError, TypeError or ValueError if it is incomplete."""
    per_class = [(row["label"], row["n"], row["n_issues"]) for row in value["per_class"]]
    pairs = [(row["given"], row["suggested"], row["n"]) for row in value["given_to_suggested"]]
    return LabelVerdict(
        n_images=int(value["n_images"]),
        n_issues=int(value["n_issues"]),
        low=float(value["low"]),
        high=float(value["high"]),
        n_issues_test=int(value["n_issues_test"]),
        at_least=bool(value["at_least"]),
        reason=str(value["reason"] or ""),
        harmful=str(value["harmful_options"] or ""),
        per_class=_triples(per_class),
        given_to_suggested=_triples(pairs),
        suspicious_classes=tuple(int(label) for label in value["suspicious_classes"]),
        untrained_classes=tuple(int(label) for label in value.get("untrained_classes", ())),
        test_drawn=bool(value.get("test_drawn", True)),
        n_undrawn=int(value.get("n_undrawn", 0)),
        image_shape=tuple(int(size) for size in value.get("image_shape", ())),
    )


def _triples(rows: list[tuple[Any, Any, Any]]) -> tuple[tuple[int, int, int], ...]:
    return tuple((int(a), int(b), int(c)) for a, b, c in rows)


def read_class_names(path: Path) -> dict[int, str]:
    """The name of each label; empty without a file.

    Raises:
        UserError: the file cannot be read, or a label is not a number.
    """
    table = read_texts(path, ("label", "name"))
    if table is None:
        return {}
    try:
        labels = table["label"].astype(float).astype(int)
    except ValueError as error:
        raise unreadable(path, "is incomplete", error) from error
    return dict(zip(labels, table["name"], strict=True))
