"""What a run's label check leaves, for tests of what reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from tests.helpers.runs import record
from utils.columns import IMAGE, LABEL, ROW, SET
from utils.data.label_table import CONFIDENCE, IS_ISSUE, PREDICTED, SCORE
from utils.output.paths import OutputPaths

LAST = {"aum": 0.0, "n_trials": 1}


def issue(image: str, label: int, row: int, part: str = "training", **more: Any) -> dict[str, Any]:
    """A row of label_issues.csv: a label that looks right, unless `predicted` is another."""
    predicted = more.get("predicted", label)
    wrong = predicted != label
    score = more.get("score", 0.1 if wrong else 0.9)
    found = {IS_ISSUE: int(wrong), SCORE: score, PREDICTED: predicted, CONFIDENCE: 0.8}
    return {IMAGE: image, LABEL: label, SET: part, ROW: row, **found, **LAST}


def verdict_of(table: pd.DataFrame, **changed: Any) -> dict[str, Any]:
    """The verdict.json of a table, with some of its values changed."""
    suspects = table[table[IS_ISSUE] == 1]
    classes = [
        {"label": int(label), "n": len(rows), "n_issues": int(rows[IS_ISSUE].sum())}
        for label, rows in table.groupby(LABEL)
    ]
    pairs = suspects.groupby([LABEL, PREDICTED]).size().sort_values(ascending=False, kind="stable")
    n = len(suspects)
    return {
        "version": 1, "n_images": len(table), "n_issues": n, "low": 0.8 * n, "high": 1.2 * n,
        "n_issues_test": int((suspects[SET] == "test").sum()), "at_least": False,
        "reason": None, "harmful_options": None, "per_class": classes,
        "given_to_suggested": [
            {"given": int(given), "suggested": int(other), "n": int(count)}
            for (given, other), count in pairs.items()
        ],
        "suspicious_classes": [c["label"] for c in classes if 2 * c["n_issues"] > c["n"]],
        "validation_from_suspects": True,
    } | changed  # fmt: skip


def write_label_check(output: Path, rows: list[dict[str, Any]], **changed: Any) -> pd.DataFrame:
    """Write both files into an output folder, the table as if by its run; returns the table."""
    paths = OutputPaths(output)
    table = pd.DataFrame(rows).sort_values(SCORE, kind="stable").reset_index(drop=True)
    paths.label_issues.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(paths.label_issues, index=False)
    record(output, paths.label_issues)
    paths.label_verdict.write_text(json.dumps(verdict_of(table, **changed)))
    return table
