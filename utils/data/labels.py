"""Labels as CSV files give them: numbers only where all are plain ones, else texts."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Sequence
from itertools import chain
from pathlib import Path

import pandas as pd

from utils.errors import UserError
from utils.units import abridged

log = logging.getLogger("data_cleansing")
LONGEST_NAME = 1000
"""Characters of a label or of a class's name."""
PLAIN = re.compile(r"(0|[1-9][0-9]*)(\.0)?")
"""A whole number as people and programs write labels: 7 or 7.0, but not 007, +7, 7e0 or 7_0."""
NONE = ("", "nan", "#n/a")
NAMED = 5  # labels that a line names
FEW_NAMES = 0.1
"""The share of labels that are no numbers up to which they may be misspelt."""


def class_labels(lists: Sequence[tuple[Path, pd.Series]]) -> list[list[str]]:
    """The label of each row of each CSV file, without blanks around it.

    Each file comes with its labels, whose index is the rows of the file.

    If all labels are plain whole numbers, they are given without decimals; otherwise all are texts,
    in composed form (NFC), 7.0 being 7 where both occur. Texts that become one label are reported.

    Raises:
        UserError: naming file and row, if a label is blank or too long or, where all are numbers,
            negative or with decimals.
    """
    given = [(csv, labels.str.strip()) for csv, labels in lists]
    for csv, labels in given:
        _check_each(csv, labels)
    every = [label for _, labels in given for label in labels]
    if all(map(PLAIN.fullmatch, every)):
        found = [[label.removesuffix(".0") for label in labels] for _, labels in given]
    else:
        _check_numbers(given)
        _warn_of_few_names(given)
        texts = set(every)
        found = [[_as_text(label, texts) for label in labels] for _, labels in given]
    _log_merged([label for _, labels in lists for label in labels], list(chain(*found)))
    return found


def _as_text(label: str, texts: Collection[str]) -> str:
    whole = label.removesuffix(".0")
    same = whole in texts and PLAIN.fullmatch(label)
    return whole if same else unicodedata.normalize("NFC", label)


def _warn_of_few_names(given: Sequence[tuple[Path, pd.Series]]) -> None:
    """Report labels that are no numbers where most are: they may be misspelt."""
    rows = [(csv, row, label) for csv, labels in given for row, label in labels.items()]
    names = [one for one in rows if _number(one[2]) is None]
    if names and len(names) <= FEW_NAMES * len(rows):
        csv, row, label = names[0]
        log.warning(
            "%s: row %s: label %r is no number, though %d of %d labels are: all are read as names",
            csv, row, label, len(rows) - len(names), len(rows),
        )  # fmt: skip


def check_lengths(csv: Path, names: pd.Series) -> None:
    """Raise UserError, naming file and row, for a name of more than `LONGEST_NAME` characters."""
    for row, name in names.items():
        if len(name) > LONGEST_NAME:
            remedy = f"names of classes have {LONGEST_NAME:,} characters at most; shorten it"
            raise bad_label(csv, row, name, remedy)


def bad_label(csv: Path, row: int, label: str, remedy: str) -> UserError:
    """The error for a label in a row of the file, counted from 1."""
    return UserError(f"{csv}: row {row}: label {label!r}; {remedy}")


def _check_each(csv: Path, labels: pd.Series) -> None:
    for row, label in labels.items():
        if label.lower() in NONE:
            raise bad_label(csv, row, label, "give the class or remove the row")
        if "\n" in label or "\r" in label:
            remedy = "a name has one line; is a quotation mark missing or one too many?"
            raise bad_label(csv, row, label, remedy)
        if len(label) > 1 and label[0] == label[-1] == '"':
            remedy = "remove the quotation marks, and any blank before them"
            raise bad_label(csv, row, label, remedy)
    check_lengths(csv, labels)


def _check_numbers(given: Sequence[tuple[Path, pd.Series]]) -> None:
    """Raise UserError if all labels are numbers and one is negative or has decimals.

    Whole numbers that are not written plainly make all labels texts, which is logged.
    """
    numbers = {label: _number(label) for _, labels in given for label in labels}
    if None in numbers.values():
        return
    for csv, labels in given:
        for row, label in labels.items():
            number = numbers[label]
            if not (number is not None and number >= 0 and number.is_integer()):
                raise bad_label(
                    csv, row, label, "classes must be whole numbers from 0 on, or names"
                )
    odd = [label for label in numbers if not PLAIN.fullmatch(label)]
    examples = abridged([*map(repr, odd)])
    what = "are not written as plain whole numbers"
    log.warning("Labels are read as texts, not as numbers: those such as %s %s", examples, what)


def _number(label: str) -> float | None:
    try:
        return float(label)
    except ValueError:
        return None


def _log_merged(given: Sequence[str], found: Sequence[str]) -> None:
    spellings: dict[str, dict[str, int]] = defaultdict(dict)
    for text, label in zip(given, found, strict=True):
        spellings[label][text] = spellings[label].get(text, 0) + 1
    merged = {label: texts for label, texts in spellings.items() if len(texts) > 1}
    for label, texts in list(merged.items())[:NAMED]:
        counts = ", ".join(f"{text!r} ({count} rows)" for text, count in texts.items())
        log.info("One class %r has several spellings: %s", label, counts)
    if len(merged) > NAMED:
        log.info("%d more classes have several spellings", len(merged) - NAMED)
