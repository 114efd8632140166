"""decisions.csv: what a person decided on labels, checked against the table of all images."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import pandas as pd

from utils.columns import IMAGE, LABEL, ROW, SET
from utils.data.label_table import SETS
from utils.data.nnc_csv import read_users_csv
from utils.errors import UserError
from utils.units import counted

KEEP, RELABEL, REMOVE = "keep", "relabel", "remove"
UNDO = "undo"
"""Takes an earlier decision on the image back."""
DECISIONS = (KEEP, RELABEL, REMOVE, UNDO)
DECISION, NEW_LABEL = "decision", "new_label"
COLUMNS = (IMAGE, LABEL, SET, ROW, DECISION, NEW_LABEL)
NEW_CLASS = "new_class"
"""Optional column: the class that the new label was when the decision was made."""
_NUMBERS = dict.fromkeys((LABEL, ROW, NEW_LABEL), "int64")
Place = tuple[str, int]
"""Set and row of an image."""
Fields = Mapping[str, str]
"""A row of the file: text by column."""
log = logging.getLogger("data_cleansing")


def read_decisions(
    csv: Path, issues: pd.DataFrame, class_names: Mapping[int, str], applied: bool = False
) -> pd.DataFrame:
    """The decisions of a file, a row per image, with the columns `COLUMNS`.

    `new_label` is the label after the review: the given one unless the image is relabelled. Rows
    with `UNDO` are among them; `merged` leaves them out. Rows without a decision are skipped. An
    image that is gone from its path was moved if the table has its place, label and name. One that
    is in another row now, because others came or went, is known by its path. All this is logged.

    Args:
        csv: the file, as the page writes it.
        issues: of `read_label_issues`.
        class_names: by label, of all classes.
        applied: an earlier review applied them, so that a row that is not there is no mistake;
            decisions that are `_Outdated` are skipped and counted.

    Raises:
        UserError: a row has an unknown image, label, place or decision, a new label that is not
            the class named next to it, or an image that another row decides on; the line names the
            row.
    """
    table, known = _table(csv), _Known(issues, applied)
    numbers: dict[Place, int] = {}
    rows = []
    for number, fields in zip(table.index, table.to_dict("records"), strict=True):
        if not fields[DECISION] and not fields[NEW_LABEL]:
            continue
        try:
            place = known.place(fields)
            if place in numbers:
                raise ValueError(f"row {numbers[place]} decides on this image too; leave out one")
            image, label = known.at[place]
            new = _new_label(fields, label, class_names)
        except ValueError as error:
            if applied and isinstance(error, _Outdated):
                known.n_outdated += 1
                continue
            raise UserError(f"{csv}: row {number}: {error}") from error
        numbers[place] = number
        rows.append((image, label, *place, fields[DECISION], new))
    _log_oddities(csv, known, len(table) - len(rows) - known.n_outdated)
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(_NUMBERS)


def _log_oddities(csv: Path, known: _Known, n_without: int) -> None:
    if known.moved:
        what = "its images were moved, and are known by set, row and name"
        log.warning("%s: %s: %s", csv, what, known.moved)
    if known.n_shifted:
        what = "in other rows than when they were decided on, and known by their paths"
        log.warning("%s: %s are %s", csv, counted(known.n_shifted, "image"), what)
    if known.n_outdated:
        what = "skipped: the image, or its new class, is gone, or the image has another label now"
        log.warning("%s: %s", csv, f"{counted(known.n_outdated, 'decision')} {what}")
    if n_without:
        log.info("%s: %d rows have no decision and are skipped", csv, n_without)


def merged(earlier: pd.DataFrame, later: pd.DataFrame) -> pd.DataFrame:
    """The decisions that hold when `later` ones follow `earlier` ones, by set and row.

    The later decision on an image counts; `UNDO` leaves the image without one.
    """
    both = pd.concat([earlier, later], ignore_index=True)
    last = both.drop_duplicates([SET, ROW], keep="last")
    order = {name: number for number, name in enumerate(SETS)}
    held = last[last[DECISION] != UNDO]
    return held.sort_values([SET, ROW], key=lambda c: c.map(order) if c.name == SET else c)


def no_decisions() -> pd.DataFrame:
    """A table of decisions without rows."""
    return pd.DataFrame(columns=list(COLUMNS)).astype(_NUMBERS)


def as_written(decided: pd.DataFrame, class_names: Mapping[int, str]) -> pd.DataFrame:
    """The content of decisions.csv; a new label and its class only where an image is relabelled."""
    relabelled = decided[DECISION] == RELABEL
    new = decided[NEW_LABEL].astype(str).where(relabelled, "")
    named = decided[NEW_LABEL].map(class_names).where(relabelled, "")
    return decided.assign(**{NEW_LABEL: new, NEW_CLASS: named})[[*COLUMNS, NEW_CLASS]]


def _table(csv: Path) -> pd.DataFrame:
    """The file as text, values without blanks around them; image paths are absolute."""
    _check_content(csv)
    if _is_header_only(csv):
        return pd.DataFrame(columns=[*COLUMNS, NEW_CLASS], dtype=str)
    table, _ = read_users_csv(csv)
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        header = ",".join(COLUMNS)
        raise UserError(f"{csv}: no column {missing[0]}; the header must be {header}")
    if NEW_CLASS not in table:
        table = table.assign(**{NEW_CLASS: ""})
    texts = {name: table[name].str.strip() for name in (*COLUMNS[1:], NEW_CLASS)}
    return table[[*COLUMNS, NEW_CLASS]].assign(**texts)


def _check_content(csv: Path) -> None:
    """Refuse a folder or an empty file, with what helps for decisions and not for a data set."""
    if os.path.isdir(csv):
        raise UserError(f"{csv}: a folder, not a file; give decisions.csv, as the page saves it")
    if os.path.isfile(csv) and not os.path.getsize(csv):
        header = ",".join(COLUMNS)
        raise UserError(f"{csv}: is empty; save it from the page again, or give it {header}")


def _is_header_only(csv: Path) -> bool:
    if not os.path.isfile(csv):
        return False
    with open(csv, encoding="utf-8-sig", errors="replace") as stream:
        lines = list(islice(filter(str.strip, stream), 2))
    return len(lines) == 1 and {*COLUMNS} <= {name.strip(' "\n') for name in lines[0].split(",")}


class _Outdated(ValueError):
    """A decision on an image that is gone, or had another label, or for a class that is gone."""


class _Known:
    """The images on which a person may decide.

    Attributes:
        at: image and label by place.
        moved: of an image that was moved, both paths; empty if none was.
        n_shifted: how many images are in another row now.
        n_outdated: how many decisions were skipped as `_Outdated`.
    """

    def __init__(self, issues: pd.DataFrame, applied: bool) -> None:
        self._applied = applied
        columns = issues[[SET, ROW, IMAGE, LABEL]].itertuples(index=False)
        self.at = {(part, row): (image, label) for part, row, image, label in columns}
        self.moved, self.n_shifted, self.n_outdated = "", 0, 0
        self._places: dict[str, list[Place]] = {}
        for place, (image, _) in self.at.items():
            self._places.setdefault(image, []).append(place)

    def place(self, fields: Fields) -> Place:
        """Set and row of an image; ValueError unless this image and label are there."""
        place = fields[SET], _whole(fields, ROW)
        if place[0] not in SETS:
            raise ValueError(f"set {place[0]!r}; it must be one of {', '.join(SETS)}")
        place = self._present_place(fields[IMAGE], place)
        label = self.at[place][1]
        if _whole(fields, LABEL) != label:
            what = f"{LABEL} is {fields[LABEL]}, in labels/label_issues.csv it is {label}"
            raise _Outdated(f"{what}; remove the row, or decide on this label")
        return place

    def _present_place(self, image: str, place: Place) -> Place:
        """Where an image is that was at `place`; ValueError if that is not certain."""
        here = f"row {place[1]} of {place[0]}"
        if image in self._places:
            if place in self._places[image]:
                return place
            if len(self._places[image]) == 1 and (self._applied or place in self.at):
                self.n_shifted += 1
                return self._places[image][0]
            there = " and ".join(f"row {row} of {part}" for part, row in self._places[image])
            what = f"image {image!r} is {there} in labels/label_issues.csv, not {here}"
            raise ValueError(f"{what}; correct set and row")
        there = self.at[place][0] if place in self.at else ""
        if _end(there) != _end(image) or os.path.lexists(image):
            remedy = f"copy {IMAGE} from there, or remove the row"
            raise _Outdated(f"image {image!r} is not in labels/label_issues.csv; {remedy}")
        self.moved = self.moved or f"{image} is {there}"
        return place


def _end(image: str) -> str:
    """What stays of a path if a data set is moved: the name of the file and of its folder."""
    return "/".join(image.split("/")[-2:])


def _new_label(fields: Fields, label: int, class_names: Mapping[int, str]) -> int:
    """The label of an image after a row's decision; ValueError if there is no such label."""
    decision = fields[DECISION]
    if decision not in DECISIONS:
        raise ValueError(f"decision {decision!r}; it must be one of {', '.join(DECISIONS)}")
    if decision != RELABEL:
        if fields[NEW_LABEL]:
            what = f"decision {decision} with {NEW_LABEL} {fields[NEW_LABEL]!r}"
            raise ValueError(f"{what}; leave {NEW_LABEL} empty, or make the decision {RELABEL}")
        return label
    new = _label_of(fields[NEW_LABEL], class_names)
    if new not in class_names:
        raise _Outdated(f"{NEW_LABEL} {new}: no such class; summary/classes.csv has the labels")
    if new == label:
        raise ValueError(f"{NEW_LABEL} {new} is the label it has; make the decision {KEEP}")
    named, name = fields[NEW_CLASS], class_names[new]
    if named and named != name.strip():
        what = f"{NEW_LABEL} {new} is the class {name!r}, but {NEW_CLASS} is {named!r}"
        raise _Outdated(f"{what}; correct {NEW_LABEL}, and leave {NEW_CLASS} empty")
    return new


def _label_of(text: str, class_names: Mapping[int, str]) -> int:
    """A label; ValueError for other text, which gives the label if it is the name of a class."""
    named = {name: label for label, name in class_names.items()}
    if text in named and not text.isdigit():
        what = f"{NEW_LABEL} {text!r} is the name of a class"
        raise ValueError(f"{what}; give the label of that class, {named[text]}")
    return _whole({NEW_LABEL: text}, NEW_LABEL)


def _whole(fields: Fields, name: str) -> int:
    """A whole number from 0 on, as spreadsheets may write it (5 or 5.0)."""
    text = fields[name].removesuffix(".0")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(f"{name} {fields[name]!r}; it must be a whole number from 0 on")
    return int(text)
