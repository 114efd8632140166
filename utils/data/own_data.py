"""A user's own images: from a folder or a CSV file to a source that can be split.

Nothing is written where the images lie. What the class of each label is called is kept as
`classes.csv` beside the CSV files of the splits.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from utils.columns import CLASS, LABEL
from utils.console import progress
from utils.data.checks import LOOKS, Listed, checked, keep, kept, looks_key
from utils.data.decode import Finding, Form, common_side, over_chunks, size_text, survey_chunk
from utils.data.images import Pool, broken_images, decode_images
from utils.data.looks import LOOK
from utils.data.missing_sets import Sets, complete_sets
from utils.data.source import (
    DAMPING,
    TEST,
    TRAINING,
    VALIDATION,
    Source,
    are_labels,
    cache_folder,
    first_writable,
)
from utils.data.user_paths import CLASSES, Rows, read_parts, shown
from utils.errors import UserError
from utils.output.storage import save_csv

LOG = logging.getLogger("data_cleansing")
NAMED = 10  # classes that a line names


def own_source(path: Path, data_dir: Path | None, image_size: int | None, color: str) -> Source:
    """The images that a folder or a CSV file of a user names, looked at and decoded.

    path: what `read_parts` takes; data_dir: where a folder for our CSV files is made (None:
    in the cache folder); image_size: side in px, None for the median of the shorter sides,
    within 32 to 128; color: "gray", "rgb", or "auto": RGB if one image is in colour.

    What is converted, doubtful or made up is logged. Raises UserError for whatever is wrong.
    """
    rows = Rows(read_parts(path))
    folder = _own_folder(path, data_dir)
    classes = _classes(rows, path)
    names = _class_names(rows, classes)
    findings = _survey(rows)
    labels = {given: label for label, given in enumerate(classes)}
    sets = complete_sets(_tables(rows, labels), names, shown(path))
    form = _form(findings, image_size, color)
    pool, looks = _decoded(rows, findings, form, folder)
    checks = checked(_listed(rows, names, labels, sets), looks, folder)
    save_csv(pd.DataFrame({"label": range(len(names)), "name": names}), folder / CLASSES)
    return Source(
        name=_file_name(path),
        folder=folder,
        training=sets.training.reset_index(drop=True),
        validation=None if sets.validation is None else sets.validation.reset_index(drop=True),
        test=sets.test.reset_index(drop=True),
        n_classes=len(names),
        class_names=names,
        fingerprint=_fingerprint(path, rows, findings),
        form=form,
        damping=DAMPING,
        n_validation=sets.n_validation,
        pool=pool,
        checks=checks,
    )


def _own_folder(path: Path, data_dir: Path | None) -> Path:
    """Where our CSV files of the data at `path` go: never where we would look for images."""
    real = os.path.realpath(path)
    number = hashlib.md5(real.encode(errors="surrogateescape"), usedforsecurity=False).hexdigest()
    root = first_writable([data_dir or cache_folder(), cache_folder()])
    ours = Path(os.path.realpath(root))
    if ours.is_relative_to(real) and not any(
        part.startswith(".") for part in ours.relative_to(real).parts
    ):
        remedy = "give a folder elsewhere with --data_dir"
        raise UserError(f"{shown(root)}: lies in the folder of the images themselves; {remedy}")
    return Path(os.path.abspath(root)) / f"{_file_name(path)}_{number[:8]}"


def _file_name(path: Path) -> str:
    """The name of a user's data in the names of files."""
    return re.sub(r"[^\w.-]+", "_", Path(os.path.abspath(path)).stem) or "images"


# ---------------------------------------------------------------- classes


def _classes(rows: Rows, path: Path) -> tuple[str, ...]:
    """The labels in sorted order, numbers by value; said if they are not 0, 1, ... already."""
    classes = _sorted(set(rows.labels))
    if len(classes) < 2:
        remedy = "at least two classes are needed to train on"
        raise UserError(f"{shown(path)}: all images are of one class, {classes[0]!r}; {remedy}")
    if not are_labels(classes):
        pairs = [f"{label} = {shown(given)}" for label, given in enumerate(classes[:NAMED])]
        more = ", ..." if len(classes) > NAMED else ""
        LOG.info("%d classes become labels: %s%s", len(classes), ", ".join(pairs), more)
    return tuple(classes)


def _class_names(rows: Rows, classes: tuple[str, ...]) -> tuple[str, ...]:
    """What more than half of each class's rows say in the column `CLASS`; else the labels."""
    said: dict[str, Counter[str]] = {label: Counter() for label in classes}
    for label, name in zip(rows.labels, rows.class_names, strict=True):
        said[label][name] += 1
    names = tuple(_said_by_most(counts) for counts in said.values())
    if len(set(names) - {""}) < len(classes):
        if any(rows.class_names):
            LOG.info("%s does not name each label; the classes are called by their labels", CLASS)
        return classes
    others = len(rows.labels) - sum(said[k][name] for k, name in zip(classes, names, strict=True))
    if others:
        LOG.info("%d rows have another %s than most of their label, which counts", others, CLASS)
    return names


def _said_by_most(counts: Counter[str]) -> str:
    name, n = counts.most_common(1)[0]
    return name if 2 * n > counts.total() else ""


def _sorted(labels: set[str]) -> list[str]:
    if all(label.isascii() and label.isdigit() for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def _tables(rows: Rows, labels: dict[str, int]) -> dict[str, pd.DataFrame]:
    """The sets by name, with numbers as labels; the index counts the rows of all of them."""
    tables, start = {}, 0
    for part in rows.parts:
        numbers = [labels[label] for label in part.table[LABEL]]
        index = range(start, start + len(numbers))
        tables[part.name] = part.table.assign(**{LABEL: numbers}).set_axis(index)
        start += len(numbers)
    return tables


def _listed(rows: Rows, names: Sequence[str], labels: dict[str, int], sets: Sets) -> Listed:
    """The rows as the tables of checks name them."""
    set_of = dict.fromkeys(sets.training.index, TRAINING) | dict.fromkeys(sets.test.index, TEST)
    if sets.validation is not None:
        set_of |= dict.fromkeys(sets.validation.index, VALIDATION)
    return Listed(
        files=rows.paths,
        rows=[rows.row_name(position) for position in range(len(rows.paths))],
        labels=[names[labels[label]] for label in rows.labels],
        sets=[set_of[position] for position in range(len(rows.paths))],
    )


# ---------------------------------------------------------------- images


def _survey(rows: Rows) -> list[Finding]:
    """One finding for each row. Raises UserError, naming the first row, for files of no use."""
    unique = list(dict.fromkeys(rows.paths))
    found: list[Finding] = []
    for _, findings in progress(over_chunks(survey_chunk, unique), "looking at images"):
        found += findings
    by_path = dict(zip(unique, found, strict=True))
    findings = [by_path[path] for path in rows.paths]
    problems = [(row, f.problem) for row, f in enumerate(findings) if f.problem]
    if problems:
        raise broken_images(problems, rows.where)
    return findings


def _form(findings: Sequence[Finding], image_size: int | None, color: str) -> Form:
    """One size and colour for all."""
    side = image_size or common_side(float(np.median([f.shorter for f in findings])))
    channels = {"gray": 1, "rgb": 3, "auto": 3 if any(f.colour for f in findings) else 1}
    return Form(side, channels[color])


def _decoded(
    rows: Rows, findings: Sequence[Finding], form: Form, folder: Path
) -> tuple[Pool, npt.NDArray[np.void]]:
    """Every image once, and the look of each row's; looks are kept in `folder`."""
    first_rows: dict[str, int] = {}
    for row, path in enumerate(rows.paths):
        first_rows.setdefault(path, row)
    paths, positions = list(first_rows), list(first_rows.values())

    def where(number: int) -> str:
        return rows.where(positions[number])

    key = looks_key([findings[row].digest for row in positions], form)
    known = kept(folder / LOOKS, key)
    looks = np.zeros(len(paths), LOOK) if known is None else known
    memory = max(finding.memory for finding in findings)
    images, counts = decode_images(
        paths, form, where, "reading images", folder, memory, looks if known is None else None
    )
    if known is None:
        keep(folder / LOOKS, key, looks)
    _say_conversions(counts, images.shape[1:])
    pool = Pool(images, {path: number for number, path in enumerate(paths)})
    return pool, looks[[pool.rows[path] for path in rows.paths]]


def _say_conversions(counts: Counter[str], shape: Sequence[int]) -> None:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kinds = [f"{count} {kind}" for kind, count in ordered if kind]
    if kinds:
        what = f"{counts['']} images converted to {size_text(shape)}"
        LOG.info("%s: %s", what, ", ".join(kinds))


def _fingerprint(path: Path, rows: Rows, findings: Sequence[Finding]) -> str:
    """A hash of the names, the labels and the contents of all images, set by set."""
    base, digest = os.path.abspath(path), hashlib.blake2b(digest_size=16)
    for name, label, part, f in zip(
        rows.paths, rows.labels, rows.part_names, findings, strict=True
    ):
        line = "\0".join((part, os.path.relpath(name, base), label))
        digest.update(line.encode(errors="surrogateescape") + f.digest)
    return f"{len(findings)} images {digest.hexdigest()}"
