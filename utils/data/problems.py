"""All images that cannot be used, listed in `data_problems.csv`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from utils.columns import IMAGE
from utils.data.decode import Finding
from utils.data.user_paths import Rows
from utils.errors import UserError
from utils.output.storage import save_csv
from utils.units import counted

log = logging.getLogger("data_cleansing")
PROBLEMS = "data_problems.csv"
REMEDY = "restore or remove it"


class Problem(NamedTuple):
    """A row that cannot be used; `where` names it to the user, `row` in a list of `PROBLEMS`."""

    position: int
    where: str
    file: str
    row: str
    problem: str
    remedy: str


def problems_of(
    rows: Rows, findings: Sequence[Finding], failed: Mapping[str, str]
) -> list[Problem]:
    """The rows that cannot be used.

    Args:
        rows: of all sets (N,).
        findings: (N,), by a look at each file.
        failed: what decoding found, by path.
    """
    texts = (f.problem or failed.get(p, "") for p, f in zip(rows.paths, findings, strict=True))
    return [_problem(rows, position, text) for position, text in enumerate(texts) if text]


def _problem(rows: Rows, position: int, text: str) -> Problem:
    part, inside = rows.at(position)
    problem, _, remedy = (part.what_it_is(inside) or text).partition("; ")
    file = part.table[IMAGE].iloc[inside]
    return Problem(
        position, part.where(inside), file, rows.row_name(position), problem, remedy or REMEDY
    )


def record_problems(problems: Sequence[Problem], folder: Path, skip: bool) -> None:
    """List the problems in `folder`, or remove the list of an earlier run if there are none.

    Raises:
        UserError: naming the first and their number, unless `skip`.
    """
    path = folder / PROBLEMS
    if not problems:
        path.unlink(missing_ok=True)
        return
    columns = ["file", "row", "problem", "remedy"]
    save_csv(pd.DataFrame([problem[2:] for problem in problems], columns=columns), path)
    first, count = problems[0], counted(len(problems), "broken image")
    if skip:
        log.warning("%s left out, listed in %s", count, path)
        return
    raise UserError(
        f"{first.where}: {first.problem}; {first.remedy}; {count}, listed in {path}; "
        "--skip_broken leaves such images out"
    )
