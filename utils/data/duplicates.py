"""Image files that are there more than once: with two labels, or in training and in testing."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from utils.data.decode import Finding
from utils.data.source import TRAINING
from utils.data.user_paths import Rows

LOG = logging.getLogger("data_cleansing")
NAMED = 10  # pairs of a kind that are named; the others are counted


def warn_of_copies(rows: Rows, findings: Sequence[Finding]) -> None:
    """Warn of rows with the same image, byte by byte: two labels, two sets, or just twice.

    findings: one for each row.
    """
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row, finding in enumerate(findings):
        groups[finding.digest].append(row)
    pairs = [pair for group in groups.values() for pair in _pairs(group)]
    labels, parts = rows.labels, rows.part_names
    mislabelled = [(a, b) for a, b in pairs if labels[a] != labels[b]]
    leaked = [(a, b) for a, b in pairs if parts[a] != parts[b] and TRAINING in (parts[a], parts[b])]
    rest = set(pairs) - set(mislabelled) - set(leaked)
    _warn_of_labels(rows, mislabelled)
    _warn_of_sets(rows, leaked)
    if rest:
        what = "images are copies, with the same label; they may fall into several sets"
        count = len({later for _, later in rest})
        LOG.warning("%d %s; the first: %s", count, what, _both(rows, min(rest)))


def _pairs(group: list[int]) -> list[tuple[int, int]]:
    """The first with each of the others, and every pair of neighbours."""
    return sorted({*((group[0], b) for b in group[1:]), *pairwise(group)})


def _warn_of_labels(rows: Rows, pairs: Sequence[tuple[int, int]]) -> None:
    for a, b in pairs[:NAMED]:
        labels = f"{rows.labels[a]!r} and {rows.labels[b]!r}"
        LOG.warning("The same image has two labels, %s: %s", labels, _both(rows, (a, b)))
    _count_others(pairs, "images have two labels")


def _warn_of_sets(rows: Rows, pairs: Sequence[tuple[int, int]]) -> None:
    for a, b in pairs[:NAMED]:
        sets = f"in {rows.part_names[a]} and in {rows.part_names[b]}"
        LOG.warning("The same image is %s: %s", sets, _both(rows, (a, b)))
    _count_others(pairs, "images are in two sets")


def _both(rows: Rows, pair: tuple[int, int]) -> str:
    return f"{rows.where(pair[0])} and {rows.where(pair[1])}"


def _count_others(pairs: Sequence[tuple[int, int]], what: str) -> None:
    if len(pairs) > NAMED:
        LOG.warning("%d more %s", len(pairs) - NAMED, what)
