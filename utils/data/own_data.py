"""A user's own images: from a folder or a CSV file to a source that can be split.

Nothing is written where the images lie. What the class of each label is called is kept as
`classes.csv`, next to the CSV files of the splits.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from utils.columns import CLASS, LABEL
from utils.console import progress
from utils.data.checks import Listed, Looks, checked
from utils.data.decode import (
    CROP,
    PAD,
    Finding,
    Form,
    common_side,
    over_chunks,
    size_text,
    survey_chunk,
)
from utils.data.depth import common_scales, scales_text
from utils.data.images import Pool, decode_all
from utils.data.listed_paths import joined_path
from utils.data.missing_sets import Sets, complete_sets
from utils.data.problems import PROBLEMS, problems_of, record_problems
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
from utils.units import abridged, counted

log = logging.getLogger("data_cleansing")
NAMED = 10  # classes that a line names
MOST_CROPPED = 1 / 3  # of an image; a warning above


@dataclass(frozen=True)
class Wanted:
    """What a user's images are to become.

    Attributes:
        image_size: side in px; None for the median of the shorter sides (with `pad` of the longer
            ones), within 32 to 128.
        color: "gray", "rgb", or "auto": RGB if one image is in colour.
        resize: "crop", "pad" or "stretch", as `Form` describes.
        skip_broken: leave images out that cannot be used, instead of refusing them.
    """

    image_size: int | None = None
    color: str = "auto"
    resize: str = CROP
    skip_broken: bool = False


class _Classes(NamedTuple):
    """The name of each label, and the label of each text that the user gives."""

    names: tuple[str, ...]
    labels: dict[str, int]


class _Images(NamedTuple):
    """All images, each decoded once.

    Attributes:
        pool: their pixels by path, 0 where an image is broken.
        conversions: how many images were converted in which way.
        problems: by path, what is wrong with an image.
        looks: what the checks of images need.
    """

    pool: Pool
    conversions: Counter[str]
    problems: dict[str, str]
    looks: Looks


class _Usable(NamedTuple):
    """The rows without broken images, a finding for each, and how many rows were left out."""

    rows: Rows
    findings: list[Finding]
    n_left_out: int


def own_source(path: Path, data_dir: Path | None, wanted: Wanted) -> Source:
    """The images that a folder or a CSV file of a user names, looked at and decoded.

    What is converted, doubtful or drawn is logged. Broken images are listed in
    `data_problems.csv`, in the folder for our CSV files.

    Args:
        path: what `read_parts` takes.
        data_dir: where that folder is made; None: in the cache folder.
        wanted: what the images are to become.

    Raises:
        UserError: for what `read_parts` and `complete_sets` refuse, for fewer than two classes,
            and for a broken image unless `wanted.skip_broken`.
    """
    if ".." in path.parts:
        path = Path(joined_path(os.getcwd(), str(path)))
    every = Rows(read_parts(path))
    folder = _own_folder(path, data_dir)
    _check_classes(every, path)
    findings = _survey(every)
    form = _form(findings, wanted)
    images = _decoded(every, findings, form, folder)
    problems = problems_of(every, findings, images.problems)
    record_problems(problems, folder, wanted.skip_broken)
    usable = _without(every, findings, {problem.position for problem in problems})
    _check_what_is_left(every, usable.rows, path)
    return _source(path, folder, usable, images, form)


def _source(path: Path, folder: Path, usable: _Usable, images: _Images, form: Form) -> Source:
    """Number the classes, draw the sets that are missing, and check the images."""
    rows, pool = usable.rows, images.pool
    classes = _classes(rows)
    sets = complete_sets(_tables(rows, classes.labels), classes.names, shown(path))
    _log_conversions(images)
    _warn_of_crops(usable.findings, form)
    save_csv(_class_table(classes.names), folder / CLASSES)
    numbers = [pool.rows[file] for file in rows.paths]
    checks = checked(_listed(rows, classes, sets), images.looks, numbers, folder)
    fingerprint = _fingerprint(path, rows, usable.findings) + _changes(form, usable.n_left_out)
    given = sets.as_given({part.name: len(part.table) for part in rows.parts})
    sets = sets.renumbered()
    return Source(
        name=_file_name(path),
        folder=folder,
        training=sets.training,
        validation=sets.validation,
        test=sets.test,
        n_classes=len(classes.names),
        class_names=classes.names,
        fingerprint=fingerprint,
        form=form,
        damping=DAMPING,
        n_validation=sets.n_validation,
        pool=pool,
        checks=checks,
        problems=folder / PROBLEMS if usable.n_left_out else None,
        n_problems=usable.n_left_out,
        given=given,
    )


def _without(rows: Rows, findings: Sequence[Finding], broken: Collection[int]) -> _Usable:
    left = [finding for at, finding in enumerate(findings) if at not in broken]
    return _Usable(rows.without(broken), left, len(broken))


def form_of(rows: Rows, wanted: Wanted) -> Form:
    """What the images of these rows become, by the rule of `own_source`."""
    return _form(_survey(rows), wanted)


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


def _check_classes(rows: Rows, path: Path) -> None:
    """Raise UserError unless there are two classes, in the training set too."""
    classes = list(dict.fromkeys(rows.labels))
    in_training = list(dict.fromkeys(rows.parts[0].table[LABEL]))
    remedy = "at least two classes are needed to train on"
    if len(classes) == 1:
        raise UserError(f"{shown(path)}: all images are of one class, {classes[0]!r}; {remedy}")
    if len(in_training) == 1:
        others = abridged([repr(c) for c in classes if c not in in_training], NAMED)
        what = f"all training images are of one class, {in_training[0]!r}, others have {others}"
        raise UserError(f"{shown(path)}: {what}; {remedy}")


def _check_what_is_left(every: Rows, rows: Rows, path: Path) -> None:
    """Raise UserError if a set has no image left, or too few classes; log classes that are lost."""
    for name in dict.fromkeys(part.name for part in every.parts):
        if name not in {part.name for part in rows.parts}:
            remedy = "replace them, or remove that set"
            raise UserError(f"{shown(path)}: all images of the {name} set are broken; {remedy}")
    _check_classes(rows, path)
    lost = sorted(set(every.labels) - set(rows.labels))
    if lost:
        log.warning("Classes of which no image is left: %s", abridged([*map(shown, lost)], NAMED))


def _classes(rows: Rows) -> _Classes:
    given = _sorted_labels(rows)
    return _Classes(_class_names(rows, given), {text: label for label, text in enumerate(given)})


def _class_table(names: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame({"label": range(len(names)), "name": names})


def _sorted_labels(rows: Rows) -> tuple[str, ...]:
    """The labels in sorted order, numbers by value; logged unless they are 0, 1, ... already."""
    classes = _sorted(set(rows.labels))
    if not are_labels(classes):
        pairs = [f"{label} = {shown(given)}" for label, given in enumerate(classes)]
        log.info("%d classes become labels: %s", len(classes), abridged(pairs, NAMED))
    _warn_of_capitals(classes)
    return tuple(classes)


def _warn_of_capitals(classes: Sequence[str]) -> None:
    spellings: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        letters = "".join(filter(str.isprintable, name))
        spellings[letters.strip().casefold()].append(name)
    for alike in [names for names in spellings.values() if len(names) > 1][:NAMED]:
        log.warning(
            "Classes that differ in capitals or blanks only: %s", ", ".join(map(repr, alike))
        )


def _class_names(rows: Rows, classes: tuple[str, ...]) -> tuple[str, ...]:
    """The name in the column `CLASS` of more than half of each class's rows; else the labels."""
    given: dict[str, Counter[str]] = {label: Counter() for label in classes}
    for label, name in zip(rows.labels, rows.class_names, strict=True):
        given[label][name] += 1
    names = tuple(_name_of_most(counts) for counts in given.values())
    if len(set(names) - {""}) < len(classes):
        if any(rows.class_names):
            log.info("%s does not name each label; the classes are called by their labels", CLASS)
        return classes
    others = len(rows.labels) - sum(given[k][name] for k, name in zip(classes, names, strict=True))
    if others:
        log.info("%d rows have another %s than most of their label, which counts", others, CLASS)
    return names


def _name_of_most(counts: Counter[str]) -> str:
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


def _listed(rows: Rows, classes: _Classes, sets: Sets) -> Listed:
    """The rows as the tables of checks name them."""
    set_of = dict.fromkeys(sets.training.index, TRAINING) | dict.fromkeys(sets.test.index, TEST)
    if sets.validation is not None:
        set_of |= dict.fromkeys(sets.validation.index, VALIDATION)
    return Listed(
        files=rows.paths,
        rows=[rows.row_name(position) for position in range(len(rows.paths))],
        labels=[classes.names[classes.labels[text]] for text in rows.labels],
        sets=[set_of[position] for position in range(len(rows.paths))],
    )


# ---------------------------------------------------------------- images


def _survey(rows: Rows) -> list[Finding]:
    """One finding for each row."""
    unique = list(dict.fromkeys(rows.paths))
    found: list[Finding] = []
    for _, findings in progress(over_chunks(survey_chunk, unique), "looking at images"):
        found += findings
    by_path = dict(zip(unique, found, strict=True))
    return [by_path[path] for path in rows.paths]


def _form(findings: Sequence[Finding], wanted: Wanted) -> Form:
    """One size, one colour and one scale for all; of those that can be looked at."""
    good = [finding for finding in findings if not finding.problem]
    sides = [f.longer if wanted.resize == PAD else f.shorter for f in good]
    side = wanted.image_size or common_side(float(np.median(sides or [0])))
    channels = {"gray": 1, "rgb": 3, "auto": 3 if any(f.colour for f in good) else 1}
    scales = common_scales(finding.range for finding in good if finding.range)
    return Form(side, channels[wanted.color], wanted.resize, scales)


def _decoded(rows: Rows, findings: Sequence[Finding], form: Form, folder: Path) -> _Images:
    digests = {path: f.digest for path, f in zip(rows.paths, findings, strict=True)}
    paths, memory = list(digests), max((finding.memory for finding in findings), default=0)
    looks = Looks.of(folder, digests.values(), form)
    pixels, conversions, problems = decode_all(
        paths, form, "reading images", folder, memory, looks.wanted
    )
    pool = Pool(pixels, {path: number for number, path in enumerate(paths)})
    return _Images(pool, conversions, {paths[n]: problem for n, problem in problems}, looks)


def _log_conversions(images: _Images) -> None:
    counts = images.conversions
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kinds = [f"{count} {kind}" for kind, count in ordered if kind]
    if kinds:
        what = (
            f"{counted(counts[''], 'image')} converted to {size_text(images.pool.images.shape[1:])}"
        )
        log.info("%s: %s", what, ", ".join(kinds))


def _warn_of_crops(findings: Sequence[Finding], form: Form) -> None:
    """Warn if the central square leaves out more than `MOST_CROPPED` of half of the images."""
    lost = float(np.median([1 - f.shorter / f.longer for f in findings]))
    if form.resize == CROP and lost > MOST_CROPPED:
        log.warning(
            "The central squares leave out %.0f %% of the median image; --resize pad keeps all of "
            "it and adds black borders, --resize stretch changes the aspect ratio", 100 * lost,
        )  # fmt: skip


def _changes(form: Form, n_left_out: int) -> str:
    """What the manifest says of the images next to their hash; empty where nothing was changed."""
    scales = f"; {scales_text(form.scales)}" if form.scales else ""
    return scales + (f"; {n_left_out} left out" if n_left_out else "")


def _fingerprint(path: Path, rows: Rows, findings: Sequence[Finding]) -> str:
    """A hash of the names, the labels and the contents of all images, set by set."""
    base, digest = os.path.abspath(path), hashlib.blake2b(digest_size=16)
    for name, label, part, f in zip(
        rows.paths, rows.labels, rows.part_names, findings, strict=True
    ):
        line = "\0".join((part, os.path.relpath(name, base), label))
        digest.update(line.encode(errors="surrogateescape") + f.digest)
    return f"{len(findings)} images {digest.hexdigest()}"
