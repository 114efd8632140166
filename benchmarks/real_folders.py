"""How folders and lists as people have them are read: as meant, refused, or wrongly.

    python benchmarks/real_folders.py [--write]

Builds each case of `tests/helpers/real_folders.py` in a temporary folder and reads it in this
process, as a run does up to its split. If a case is read, its classes, sets or pixels are compared
with the intended ones. Words of the table:

- works: read as it was meant, and what is odd about it was reported;
- one clear line: refused by a line that says what, where and what to do;
- silent: read, but not as it was meant or without a word about it;
- traceback: neither, or a line that does not say what is wrong.

With --write the table goes to docs/real_folders.md. The last line is JSON: word to number of cases.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the repository, when run as a script

from benchmarks.reproduction_tables import fill_page, markdown
from tests.helpers.real_folders import (
    CASES,
    LINE,
    LIST_CASES,
    PIXEL_CASES,
    SET_CASES,
    SILENT,
    TRACEBACK,
    WORKS,
    Case,
    Outcome,
    outcome_of,
)
from utils.data.source import CACHE_VARIABLE

PAGE = ROOT / "docs" / "real_folders.md"
TABLES = {"folders": SET_CASES, "lists": LIST_CASES, "pixels": PIXEL_CASES}


def main() -> None:
    """Print what becomes of each case, and how many of each kind there are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write the table of the page")
    write = parser.parse_args().write
    outcomes = {name: _outcome(case) for name, case in CASES.items()}
    for name, outcome in outcomes.items():
        print(f"{outcome.word:<16}{name}: {outcome.line}")
    counts = Counter(outcome.word for outcome in outcomes.values())
    if write:
        tables = {name: _table(cases, outcomes) for name, cases in TABLES.items()}
        fill_page(PAGE, {**tables, "counts": _counted(counts)})
    print(json.dumps({word: counts[word] for word in (WORKS, LINE, SILENT, TRACEBACK)}))


def _outcome(case: Case) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        os.environ[CACHE_VARIABLE] = f"{folder}/cache"
        outcome = outcome_of(case, Path(folder))
        line = outcome.line.replace(f"{folder}/", "")
        return Outcome(outcome.word, re.sub(r"(cache/\w+_)[0-9a-f]{8}\b", r"\1ID", line))


def _table(cases: dict[str, Case], outcomes: dict[str, Outcome]) -> str:
    rows: list[tuple[str, ...]] = [("case", "from", "becomes", "what is reported")]
    for name, case in cases.items():
        cells = (name, case.origin, outcomes[name].word, outcomes[name].line)
        rows.append(tuple(cell.replace("|", "\\|").replace("\n", " ") for cell in cells))
    return markdown(rows)


def _counted(counts: Counter[str]) -> str:
    return markdown(
        [("becomes", "cases"), *((w, str(counts[w])) for w in (WORKS, LINE, SILENT, TRACEBACK))]
    )


if __name__ == "__main__":
    main()
