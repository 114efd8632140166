"""The images that the page lets a person review, as data for templates/review.js."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from utils.columns import IMAGE, LABEL, ROW, SET
from utils.data.decisions import DECISION, NEW_LABEL
from utils.data.label_table import CONFIDENCE, IS_ISSUE, PREDICTED, SCORE, SETS
from utils.page.facts import Facts, LabelCheck
from utils.page.images import thumbnail_uri
from utils.page.labels import files_of, labels_view
from utils.signals import stop_if_asked

MOST, MOST_OTHERS = 5000, 2500
"""Images of the review at most, and images in it that are no suspects, at most."""
KNOWN = 1_000_000
"""Bytes of the decisions that the page knows, at most."""
PER_IMAGE, PER_KNOWN = 150, 60
"""Bytes of an image in the page without its picture and its name, and of a decision, at most."""


@dataclass(frozen=True)
class Review:
    """The images that a page shows for review.

    Attributes:
        all: the images of the data set in the order of the review.
        rows: the images shown, the first ones of `all`.
        uris: pictures by file.
    """

    all: pd.DataFrame
    rows: pd.DataFrame
    uris: dict[str, str]

    @classmethod
    def of(cls, facts: Facts, room: int) -> Review | None:
        """The review of a folder in `room` bytes; None where labels were not checked."""
        if facts.labels is None:
            return None
        uris: dict[str, str] = {}
        images = to_review(facts.labels)
        for file in files_of(labels_view(facts)):
            uris[file] = thumbnail_uri(file)
        return cls(images, fitting(images, uris, room), uris)

    def extended(self, room: int) -> Review | None:
        """The same review with more images, in `room` more bytes; None if no image fits."""
        used = sum(_bytes_of(file, self.uris) for file in self.rows[IMAGE])
        rows = fitting(self.all, self.uris, used + room)
        return replace(self, rows=rows) if len(rows) > len(self.rows) else None

    @property
    def n_left(self) -> int:
        """Suspects without a decision that are not shown."""
        left = self.all.iloc[len(self.rows) :]
        return int(((left[IS_ISSUE] == 1) & ~left["decided"]).sum())

    @property
    def n_decided(self) -> int:
        """Images with a decision in the folder."""
        return int(self.all["decided"].sum())


def to_review(check: LabelCheck) -> pd.DataFrame:
    """The images in the order of the review: suspects, then others.

    Images with a decision in the folder come last, so that a page shows the remaining ones.
    """
    decided = pd.MultiIndex.from_frame(check.decided[[SET, ROW]])
    is_decided = pd.MultiIndex.from_frame(check.issues[[SET, ROW]]).isin(decided)
    suspect = check.issues[IS_ISSUE] == 1
    order = np.lexsort((check.issues[SCORE], ~suspect, is_decided))
    return check.issues.assign(decided=is_decided).iloc[order]


def fitting(rows: pd.DataFrame, uris: dict[str, str], room: int) -> pd.DataFrame:
    """The first of `rows` that fit into `room` bytes of the page, at most `MOST` of them.

    Args:
        rows: of `to_review`.
        uris: pictures made already, by file; new ones are added.
        room: bytes.
    """
    n_suspects = int((rows[IS_ISSUE] == 1).sum())
    n, used = 0, 0
    for file in rows[IMAGE].head(min(MOST, n_suspects + MOST_OTHERS)):
        stop_if_asked()
        if file not in uris:
            uris[file] = thumbnail_uri(file)
        used += _bytes_of(file, uris)
        if used > room:
            break
        n += 1
    return rows.head(n)


def _bytes_of(file: str, uris: Mapping[str, str]) -> int:
    return len(uris[file]) + len(os.path.basename(file).encode()) + PER_IMAGE


def review_data(
    facts: Facts, rows: pd.DataFrame, pictures: Mapping[str, str], uris: Mapping[str, str]
) -> str:
    """The data of the script, as JSON that may stand in HTML.

    Args:
        facts: of the run.
        rows: the images of the review, as `to_review` gives them.
        pictures: by file, the CSS class that shows it.
        uris: by file, its picture; empty if the file cannot be read.
    """
    check = facts.labels
    assert check is not None
    rows = rows.sort_values(SCORE, kind="stable")
    if check.verdict.not_judged:
        rows = rows.assign(**{PREDICTED: np.nan})
    folders = {name: n for n, name in enumerate(dict.fromkeys(map(os.path.dirname, rows[IMAGE])))}
    value = {
        "key": data_key(facts),
        "classes": [[label, name] for label, name in _classes(facts, check)],
        "sets": SETS,
        "folders": [folder.rstrip("/") + "/" for folder in folders],
        "images": [_image(row, folders, pictures, uris) for row in rows.to_dict("records")],
        "known": [_known(row) for row in _fitting_known(check.decided).to_dict("records")],
    }
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def data_key(facts: Facts) -> str:
    """Identifies the data set in a browser's storage."""
    options = facts.manifest.options
    known = f"{options.get('data')} {options.get('flip_labels')}"
    return hashlib.sha256(known.encode(errors="surrogateescape")).hexdigest()[:16]


def _classes(facts: Facts, check: LabelCheck) -> list[tuple[int, str]]:
    labels = {*check.issues[LABEL], *check.issues[PREDICTED].dropna().astype(int)}
    names = facts.class_names or {int(label): str(label) for label in labels}
    return sorted(names.items())


def _image(
    row: Mapping[Any, Any],
    folders: Mapping[str, int],
    pictures: Mapping[str, str],
    uris: Mapping[str, str],
) -> list:
    folder, name = os.path.split(row[IMAGE])
    judged = not pd.isna(row[PREDICTED])
    return [
        folders[folder], name, row[LABEL], SETS.index(row[SET]), row[ROW], row[IS_ISSUE],
        round(row[SCORE], 4), int(row[PREDICTED]) if judged else None,
        round(row[CONFIDENCE], 4) if judged and not pd.isna(row[CONFIDENCE]) else None,
        pictures[row[IMAGE]] if uris[row[IMAGE]] else "",
    ]  # fmt: skip


def _fitting_known(decided: pd.DataFrame) -> pd.DataFrame:
    sizes = [len(file.encode()) + PER_KNOWN for file in decided[IMAGE]]
    return decided[np.cumsum(sizes) <= KNOWN]


def _known(row: Mapping[Any, Any]) -> list:
    return [row[name] for name in (IMAGE, LABEL, SET, ROW, DECISION, NEW_LABEL)]
