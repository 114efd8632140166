"""NNC CSV files: a row per image, with its path, its label and maybe further columns."""

from __future__ import annotations

import csv as csv_module
import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from utils.columns import CLASS, IMAGE, LABEL
from utils.errors import UserError
from utils.files import check_regular

MOST_COLUMNS, LONGEST_NAME = 5000, 1000
"""Columns of a user's CSV file at most, and characters of a label or of a class's name."""


def read_users_csv(csv: Path) -> tuple[pd.DataFrame, list[str]]:
    """Read a CSV file of a user: `x:image` becomes absolute, `y:label` is text, others stay.

    Returns the table, and the image paths as they were given. Relative ones count from the folder
    of `csv`.

    Labels that all are numbers must be whole and from 0 on, and come out without leading
    zeros and decimals. The columns may have other names after `x` and `y`, as NNC writes them
    (`y:label;cat`). Raises UserError, naming the file (and the row, the header being row 1), for a
    file that is missing, is no such CSV or has no rows, and for a label that is blank.
    """
    table = _read_table(csv)
    given = list(table[IMAGE])
    table = _with_absolute_paths(table, csv)
    table[LABEL] = _label_texts(csv, [label.strip() for label in table[LABEL]])
    if CLASS in table:
        _check_lengths(csv, list(table[CLASS]))
    return table, given


def is_nnc_csv(csv: Path) -> bool:
    """Whether the header of `csv` has the columns of an NNC CSV file."""
    try:
        _read_table(csv)
    except UserError:
        return False
    return True


def paths_that_climb(paths: Sequence[str]) -> int:
    """How many paths have a `..` in them."""
    return sum(".." in path.split("/") for path in paths)


def _read_table(csv: Path) -> pd.DataFrame:
    """All fields as text, the columns of images and labels first called IMAGE and LABEL."""
    try:
        check_regular(csv)
        _check_width(csv)
        table = pd.read_csv(csv, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{csv}: its text is not UTF-8; save it as CSV UTF-8") from error
    except (OSError, ValueError, csv_module.Error) as error:
        raise UserError(f"{csv}: cannot be read as CSV ({_reason(error)})") from error
    if not isinstance(table.index, pd.RangeIndex):  # pandas' way with one field too many
        raise UserError(f"{csv}: rows have more fields than the header; quote names with commas")
    table = table.rename(columns={_column(csv, table, "x"): IMAGE, _column(csv, table, "y"): LABEL})
    if table.empty:
        raise UserError(f"{csv}: no row follows its header; add a row per image")
    return table


def _check_width(csv: Path) -> None:
    """Refuse what has so many columns that reading it takes minutes.

    Raises:
        UserError: there are more than `MOST_COLUMNS`.
    """
    with open(csv, encoding="utf-8-sig", newline="") as stream:
        width = len(next(csv_module.reader(stream), ()))
    if width > MOST_COLUMNS:
        raise UserError(
            f"{csv}: row 1: {width:,} columns, {MOST_COLUMNS:,} at most are read; take out those "
            f"beside {IMAGE}, {LABEL} and {CLASS}"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, pd.errors.EmptyDataError) or getattr(error, "errno", 0) == errno.ENODATA:
        return f"it is empty; give it the header {IMAGE},{LABEL} and a row per image"
    text = getattr(error, "strerror", None) or str(error).splitlines()[0].strip()
    return f"{text}; give an NNC CSV file, names with commas or quotes in quotes"


def _column(csv: Path, table: pd.DataFrame, letter: str) -> str:
    """The name of the column for images (`x`) or labels (`y`): x:image, x, x:photo, ..."""
    wanted = {"x": IMAGE, "y": LABEL}[letter]
    names = [name for name in map(str, table.columns) if re.fullmatch(f"{letter}([:;].*)?", name)]
    if wanted in names:
        return wanted
    if len(names) == 1:
        return names[0]
    header = ",".join(map(str, table.columns))
    if re.match(r"x(:[^,;]*)?;y", header):
        raise UserError(f"{csv}: row 1: fields are separated by semicolons; save it with commas")
    start = " ".join(header[:60].split())
    raise UserError(f"{csv}: row 1: a column {wanted} is needed, the header is {start!r}; add it")


def _with_absolute_paths(table: pd.DataFrame, csv: Path) -> pd.DataFrame:
    folder = os.path.abspath(csv.parent)
    blank = [row for row, path in enumerate(table[IMAGE]) if not path.strip()]
    if blank:
        raise UserError(f"{csv}: row {blank[0] + 2}: no image is named; fill in {IMAGE}")
    table[IMAGE] = [os.path.normpath(os.path.join(folder, path)) for path in table[IMAGE]]
    return table


def _label_texts(csv: Path, labels: list[str]) -> list[str]:
    for row, label in enumerate(labels):
        if label.lower() in ("", "nan"):
            raise _bad_label(csv, row, label, "give the class or take the row out")
    _check_lengths(csv, labels)
    numbers = [_number(label) for label in labels]
    if None in numbers:
        return labels
    for row, number in enumerate(numbers):
        if not (number is not None and number >= 0 and number.is_integer()):
            raise _bad_label(csv, row, labels[row], "classes must be whole numbers from 0 on")
    return [str(int(label)) if label.isdecimal() else f"{float(label):.0f}" for label in labels]


def _check_lengths(csv: Path, names: Sequence[str]) -> None:
    for row, name in enumerate(names):
        if len(name) > LONGEST_NAME:
            remedy = f"names of classes have {LONGEST_NAME:,} characters at most; shorten it"
            raise _bad_label(csv, row, name, remedy)


def _number(label: str) -> float | None:
    try:
        return float(label)
    except ValueError:
        return None


def _bad_label(csv: Path, row: int, label: str, remedy: str) -> UserError:
    return UserError(f"{csv}: row {row + 2}: label {label!r}; {remedy}")
