"""The verdict on labels and the classes of the suspects, as text for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from utils.columns import IMAGE, LABEL
from utils.data.label_table import IS_ISSUE, PREDICTED, SCORE, LabelVerdict
from utils.page.facts import Facts, LabelCheck
from utils.page.view import MOST_CLASSES, percent

MOST_PAIRS = 12
"""Pairs of given and suggested label that are listed, at most."""
N_CELLS, N_OF_CELL = 6, 6
"""Pairs that are shown with pictures, and pictures of each."""


@dataclass(frozen=True)
class ClassRow:
    """A class: its labels, how many of them are suspects, and their share, as text and 0 to 1."""

    name: str
    n: int
    n_issues: int
    percent: str
    share: float
    suspicious: bool


@dataclass(frozen=True)
class Cell:
    """Suspects with one given and one suggested label; files: the most suspicious ones."""

    given: str
    suggested: str
    n: int
    files: tuple[str, ...]


@dataclass(frozen=True)
class LabelsView:
    """The verdict on labels as the page shows it.

    Attributes:
        headline: how many labels look wrong, in a sentence; notes: further sentences.
        warnings: reasons to doubt the number, or a class as a whole.
        classes: with the most suspects first; more_classes: a phrase that counts the others.
        cells: the largest pairs, with pictures; pairs: given label, suggested label, number.
        n_pairs: how many pairs there are.
    """

    headline: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    classes: tuple[ClassRow, ...]
    more_classes: str
    cells: tuple[Cell, ...]
    pairs: tuple[tuple[str, str, int], ...]
    n_pairs: int


def labels_view(facts: Facts) -> LabelsView | None:
    """The view of the label check; None where the folder has none."""
    check = facts.labels
    if check is None:
        return None
    rows, more = _classes(facts, check)
    return LabelsView(
        headline=_headline(check.verdict),
        notes=tuple(f"{text}." for text in check.verdict.remarks),
        warnings=tuple(f"{text}." for text in check.verdict.warnings(facts.name_of)),
        classes=rows,
        more_classes=more,
        cells=_cells(facts, check),
        pairs=tuple(
            (facts.name_of(given), facts.name_of(suggested), n)
            for given, suggested, n in check.verdict.given_to_suggested[:MOST_PAIRS]
        ),
        n_pairs=len(check.verdict.given_to_suggested),
    )


def _headline(found: LabelVerdict) -> str:
    asks = found.n_issues and not found.at_least
    return f"{found.headline}{'; review these' if asks else ''}."


def _classes(facts: Facts, check: LabelCheck) -> tuple[tuple[ClassRow, ...], str]:
    found = check.verdict
    by_number = sorted(found.per_class, key=lambda row: -row[2])
    rest = by_number[MOST_CLASSES:]
    rows = tuple(
        ClassRow(
            facts.name_of(label), n, n_issues, percent(n_issues / n) if n else "",
            n_issues / n if n else 0.0, label in found.suspicious_classes,
        )
        for label, n, n_issues in by_number[:MOST_CLASSES]
    )  # fmt: skip
    n_rest = sum(n_issues for _, _, n_issues in rest)
    return rows, f"{n_rest:,} more suspects in {len(rest)} other classes" if rest else ""


def _cells(facts: Facts, check: LabelCheck) -> tuple[Cell, ...]:
    suspects = check.issues[check.issues[IS_ISSUE] == 1].sort_values(SCORE, kind="stable")
    files = {
        pair: tuple(rows[IMAGE].head(N_OF_CELL))
        for pair, rows in suspects.groupby([LABEL, PREDICTED])
    }
    return tuple(
        Cell(facts.name_of(given), facts.name_of(other), n, files.get((given, other), ()))
        for given, other, n in check.verdict.given_to_suggested[:N_CELLS]
    )


def files_of(view: LabelsView | None) -> Sequence[str]:
    """The files of the pictures that a view shows."""
    return [file for cell in view.cells for file in cell.files] if view else []
