"""NNC CSV files: a row per image, with its path, its label and maybe further columns."""

from __future__ import annotations

import codecs
import csv as csv_module
import errno
import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

import numpy as np
import pandas as pd

from utils.columns import CLASS, IMAGE, LABEL
from utils.data.labels import check_lengths
from utils.data.listed_paths import found_on_disk
from utils.errors import UserError
from utils.files import check_regular
from utils.units import counted

log = logging.getLogger("data_cleansing")
MOST_COLUMNS = 5000
"""Columns of a user's CSV file at most."""
ANY_COLUMN = rb'(^|[,;\t|"])\s*%c(__\d+)?(:[^,;\t|"]*)?\s*($|[,;\t|"])'
"""A column for images or labels, between any separators."""
NUMBERS = re.compile(rb'[-+.\deE \t,;|"]+')
"""A row without a path."""
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_users_csv(csv: Path) -> tuple[pd.DataFrame, list[str]]:
    """Read a CSV file of a user: labels are texts as they are given, further columns stay.

    Returns the table, its index being the rows of the file, and the image paths as they were given,
    from the folder of `csv` on; `found_on_disk` says which files they mean. The columns may have
    other names after `x` and `y`, as NNC writes them (`y:label;cat`). Raises UserError, naming the
    file (and the row, counted from 1, empty lines too), for a file that is missing, is no such CSV
    or has no rows.
    """
    table = _read_table(csv)
    given = list(table[IMAGE])
    paths, turned = found_on_disk(os.path.abspath(csv.parent), given)
    _check_rows(csv, table[IMAGE], paths)
    table[IMAGE] = paths
    if turned:
        log.info("%s: %d paths are written with \\ and read with /", csv, turned)
    if CLASS in table:
        check_lengths(csv, table[CLASS])
    return table, given


def _check_rows(csv: Path, given: pd.Series, found: Sequence[str]) -> None:
    for (row, path), image in zip(given.items(), found, strict=True):
        if not path.strip():
            what = f"no image is named; fill in {IMAGE}, or remove the row"
            raise UserError(f"{csv}: row {row}: {what}")
        if path.lstrip().startswith("#") and not os.path.lexists(image):
            raise UserError(f"{csv}: row {row}: a comment line; remove it")


def means_nnc_csv(csv: Path) -> bool:
    """Whether the header of `csv` names columns for images and labels, well or badly.

    Columns that are just x and y, among others or with numbers only, are those of points or boxes.

    Raises:
        UserError: it is a file that cannot be read.
    """
    try:
        check_regular(csv)
    except OSError:  # a folder, a pipe, a broken link or an empty file
        return False
    try:
        with open(csv, "rb") as stream:
            start = stream.read(1 << 16)
    except OSError as error:
        what = f"cannot be read ({error.strerror}); make it readable, or remove it"
        raise UserError(f"{csv}: {what}") from error
    text = start.removeprefix(codecs.BOM_UTF8).lstrip(b"\xff\xfe").replace(b"\0", b"")  # UTF-16
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    above = takewhile(lambda line: line.lower().startswith((b"#", b"sep=")), lines)
    n_above = len(list(above))
    points = all(map(NUMBERS.fullmatch, lines[n_above + 1 :]))
    return any(_is_header(line, points) for line in lines[: n_above + 1])


def _is_header(line: bytes, points: bool) -> bool:
    """Whether a line names the columns; `points`: the rows below it hold numbers only."""
    found = [re.search(ANY_COLUMN % letter, line) for letter in b"xy"]
    named = [match[0] for match in found if match]
    columns = (column.strip(b' "') for column in re.split(rb"[,;\t|]", line))
    just_two = not points and sum(column[:1] not in (b"", b"#") for column in columns) == 2
    return len(named) == 2 and (just_two or any(b":" in n or b"__" in n for n in named))


def paths_that_climb(paths: Sequence[str]) -> int:
    """How many paths have a `..` in them."""
    return sum(".." in path.split("/") for path in paths)


def _read_table(csv: Path) -> pd.DataFrame:
    """All fields as text, the columns of images and labels first called IMAGE and LABEL."""
    try:
        check_regular(csv)
        header_row, header, rows = _rows_of(csv)
        table = pd.read_csv(csv, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{csv}: does not exist; correct the path") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{csv}: its text is not UTF-8; save it as CSV UTF-8") from error
    except (OSError, ValueError, csv_module.Error) as error:
        raise UserError(f"{csv}: cannot be read as CSV ({_reason(error)})") from error
    if not isinstance(table.index, pd.RangeIndex):  # pandas' way with one field too many
        raise UserError(f"{csv}: rows have more fields than the header; quote names with commas")
    if len(rows) == len(table):
        table.index = pd.Index(rows)
    else:  # a field that pandas takes and `csv` does not
        table.index += 2
    table = _with_nameless(table, header)
    table.columns = pd.Index([str(name).strip() for name in table.columns])
    image, label = (_column(csv, header_row, table, letter) for letter in "xy")
    table = table.rename(columns={image: IMAGE, label: LABEL})
    table = _without_blank_end(table.fillna(""))  # for fields that a row lacks
    if table.empty:
        raise UserError(f"{csv}: no row follows its header; add a row per image")
    _warn_of_line_breaks(csv, table)
    return table


def _with_nameless(table: pd.DataFrame, header: Sequence[str]) -> pd.DataFrame:
    """The table without nameless columns that are empty; another one stays without a name."""
    if len(header) != table.shape[1]:
        return table
    nameless = [name for name, given in zip(table.columns, header, strict=True) if not given]
    filled = [name for name in nameless if table[name].fillna("").ne("").any()]
    table = table.drop(columns=[name for name in nameless if name not in filled])
    return table.rename(columns={filled[0]: ""}) if len(filled) == 1 else table


def _warn_of_line_breaks(csv: Path, table: pd.DataFrame) -> None:
    """Warn of a further column that may have swallowed rows."""
    for name in table.columns.difference([IMAGE, LABEL, CLASS], sort=False):
        broken = ["\n" in value for value in table[name]]
        if any(broken):
            first, values = table.index[broken.index(True)], counted(sum(broken), "value")
            what = "with line breaks: is a quotation mark missing, or one too many?"
            log.warning("%s: row %d: %s of the column %r %s", csv, first, values, name, what)


def _without_blank_end(table: pd.DataFrame) -> pd.DataFrame:
    """The table without blank rows at its end, which spreadsheets write for cells once filled."""
    filled = np.flatnonzero((table != "").any(axis=1))
    return table.iloc[: filled[-1] + 1 if len(filled) else 0]


def _rows_of(csv: Path) -> tuple[int, list[str], list[int]]:
    """The row of the header, the header, and the rows below it that are not empty, from 1 on.

    The latter are none if `csv_module` cannot read them.

    Raises:
        UserError: of `_check_columns`.
    """
    with open(csv, encoding="utf-8-sig", newline="") as stream:
        records = enumerate(csv_module.reader(stream), start=1)
        filled = (one for one in records if len(one[1]) > 1 or "".join(one[1]).strip())
        row, header = next(filled, (1, []))
        header = [name.strip() for name in header]
        _check_columns(csv, row, header)
        with suppress(csv_module.Error):  # pandas raises the error that is shown
            return row, header, [number for number, _ in filled]
    return row, header, []


def _check_columns(csv: Path, row: int, header: Sequence[str]) -> None:
    """Refuse what cannot be read as it is meant, or has so many columns that it takes minutes."""
    if len(header) > MOST_COLUMNS:
        raise UserError(
            f"{csv}: row {row}: {len(header):,} columns, {MOST_COLUMNS:,} at most are read; remove "
            f"those other than {IMAGE}, {LABEL} and {CLASS}"
        )
    for name, times in Counter(header).items():
        if name and times > 1:
            raise UserError(f"{csv}: row {row}: two columns are called {name!r}; rename one")
    if all(_named(header, letter) for letter in "xy"):
        return
    if header and (header[0].startswith("#") or header[0].lower().startswith("sep=")):
        what = "a comment line" if header[0].startswith("#") else "a line for Excel"
        raise UserError(
            f"{csv}: row {row}: {what}; remove it, the header {IMAGE},{LABEL} must come first"
        )
    for separator, name in SEPARATORS.items():
        fields = [field.strip() for field in ",".join(header).split(separator)]
        if all(_named(fields, letter) for letter in "xy"):
            what = f"fields are separated by {name}; save it with commas"
            raise UserError(f"{csv}: row {row}: {what}")
    _refuse_vectors(csv, row, header)


def _refuse_vectors(csv: Path, row: int, header: Sequence[str]) -> None:
    for letter, what in (("y", "the label is a vector"), ("x", "the input is a vector")):
        vector = [name for name in header if re.fullmatch(rf"{letter}__\d+(:.*)?", name)]
        if vector and not _named(header, letter):
            wanted = f"one column {LABEL} with the class" if letter == "y" else f"a column {IMAGE}"
            columns = f"{vector[0]} to {vector[-1]}" if len(vector) > 1 else vector[0]
            raise UserError(f"{csv}: row {row}: {what} (columns {columns}); give {wanted} instead")


def _named(header: Sequence[str], letter: str) -> list[str]:
    """Columns for images (`x`) or labels (`y`): x:image, x, x:photo, x:image;kind, ..."""
    pattern = f"{letter}(:[^;\t|]*)?(;(?!\\s*[xy](:|$)).*)?"
    return [name for name in header if re.fullmatch(pattern, name)]


def _reason(error: Exception) -> str:
    if isinstance(error, pd.errors.EmptyDataError) or getattr(error, "errno", 0) == errno.ENODATA:
        return f"it is empty; give it the header {IMAGE},{LABEL} and a row per image"
    text = getattr(error, "strerror", None) or str(error).splitlines()[0].strip()
    return f"{text}; give an NNC CSV file, names with commas or quotes in quotes"


def _column(csv: Path, row: int, table: pd.DataFrame, letter: str) -> str:
    """The name of the column for images (`x`) or labels (`y`)."""
    wanted = {"x": IMAGE, "y": LABEL}[letter]
    names = _named(list(table.columns), letter)
    if wanted in names:
        return wanted
    if len(names) == 1:
        return names[0]
    header = ",".join(table.columns)
    start = " ".join(header[:60].split())
    raise UserError(
        f"{csv}: row {row}: a column {wanted} is needed, the header is {start!r}; add it"
    )
