"""The reviewed data set on disk: reviewed/csv, reviewed/folder or reviewed/filelist.

What is there is never changed: a data set from other decisions is written to csv_2, csv_3, ...
A folder is filled under a temporary name and renamed when it is complete.
"""

from __future__ import annotations

import filecmp
import logging
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from utils.columns import CLASS, IMAGE, LABEL, ROW
from utils.data.folder_tree import IGNORED, is_image
from utils.data.label_table import GIVEN
from utils.data.source import TEST, TRAINING, VALIDATION, are_labels
from utils.errors import UserError
from utils.output.paths import numbered
from utils.output.storage import TEMPORARY, csv_bytes
from utils.review.reviewed import Reviewed
from utils.signals import stop_if_asked
from utils.units import abridged

log = logging.getLogger("data_cleansing")

STEMS = {TRAINING: "train", VALIDATION: VALIDATION, TEST: TEST}
FOLDERS = {TRAINING: "train", VALIDATION: "val", TEST: "test"}
"""What `-ds` calls the sets, in names of CSV files and of folders."""
SUFFIX_OF = {"JPEG": ".jpg", "MPO": ".jpg", "TIFF": ".tif", "JPEG2000": ".jp2"}
"""The suffix of an image by Pillow's name of its format, where that is another word."""
LONGEST_NAME = 200
"""Bytes of the name of a class folder at most."""
Plan = dict[str, bytes | Path]
"""By path in the folder: the content of a file, or the image that a link points to."""


def export(data: Reviewed, root: Path, how: str) -> Path:
    """Write the reviewed data set below `root`; returns its folder.

    Args:
        data: the data set.
        root: the folder `reviewed` of the output folder.
        how: csv, folder or filelist.

    Raises:
        UserError: a name is not UTF-8, or has a line break in a list of lines.
        OSError: it cannot be written, or an image cannot be read.
    """
    plan = {"csv": _csv_files, "folder": _class_folders, "filelist": _lists}[how](data, root)
    _remove_temporaries(root)
    folder = next(f for f in numbered(root, how) if not os.path.lexists(f) or _holds(f, plan))
    if not os.path.lexists(folder):
        _write(plan, folder)
    return folder


# ---------------------------------------------------------------- what is written


def csv_name(part: str) -> str:
    """The name of the CSV file of a set."""
    return f"{STEMS[part]}_reviewed.csv"


def _csv_files(data: Reviewed, root: Path) -> Plan:
    """An NNC CSV file per set; `-ds` of the training list finds the others.

    A further column that has values in other sets only is one of theirs.
    """
    names = [data.class_names[label] for label in sorted(data.class_names)]
    filled = {part: set(t.columns[(t != "").any()]) for part, t in data.after.items()}
    known = set().union(*filled.values())
    plan: Plan = {}
    for part, table in data.after.items():
        given = [c for c in table if c.startswith(GIVEN) and (c in filled[part] or c not in known)]
        rows = table[[IMAGE, LABEL, *given]].rename(columns=lambda name: name.removeprefix(GIVEN))
        if not are_labels(names):
            rows = rows.assign(**{CLASS: rows[LABEL].map(data.class_names)})
        if len(rows):
            place = csv_name(part)
            plan[place] = csv_bytes(rows, root / place)
    return plan


def _lists(data: Reviewed, root: Path) -> Plan:
    """A text file per set with the path of an image in each line, without labels."""
    plan: Plan = {}
    for part, table in data.after.items():
        if len(table):
            if broken := next((path for path in table[IMAGE] if {*"\r\n"} & {*path}), ""):
                what = "its name has a line break, which a list of lines cannot hold"
                raise UserError(f"{broken!r}: {what}; choose --export csv")
            text = "".join(f"{path}\n" for path in table[IMAGE])
            plan[f"{STEMS[part]}_reviewed.txt"] = text.encode("utf-8")
    return plan


def _class_folders(data: Reviewed, root: Path) -> Plan:
    """A folder per set and class with links to the images."""
    plan: Plan = {}
    taken: set[str] = set()  # without case: some file systems have none
    folders = _folder_names(data.class_names)
    renamed = [(name, folders[k]) for k, name in data.class_names.items() if folders[k] != name]
    if renamed:
        what = abridged([f"{name!r} is {folder!r}" for name, folder in renamed])
        log.warning("Classes whose names cannot be folders: %s (--export csv keeps them)", what)
    for part, table in data.after.items():
        for path, label, row in table[[IMAGE, LABEL, ROW]].itertuples(index=False):
            place = f"{FOLDERS[part]}/{folders[label]}/{_image_name(path)}"
            while place.lower() in taken:
                stem, suffix = os.path.splitext(place)
                place = f"{stem}_row_{row}{suffix}"
            taken.add(place.lower())
            plan[place] = Path(path)
    return plan


def _image_name(path: str) -> str:
    """A name by which a class folder shows the image: not hidden, with the suffix of an image."""
    name = os.path.basename(path).lstrip(".")
    if is_image(Path(name)):
        return name
    with Image.open(path) as image:
        kind = str(image.format)
    return name + SUFFIX_OF.get(kind, f".{kind.lower()}")


def _folder_names(class_names: Mapping[int, str]) -> dict[int, str]:
    """The folder name of each label: its class's name, if that is a valid and unique name."""
    names = [name.lower() for name in class_names.values()]
    folders = {}
    for label, name in class_names.items():
        own = _is_folder_name(name) and names.count(name.lower()) == 1
        folders[label] = name if own else _unlike(f"class {label}", names)
    return folders


def _unlike(name: str, others: Sequence[str]) -> str:
    return _unlike(f"{name}_", others) if name.lower() in others else name


def _is_folder_name(name: str) -> bool:
    return (
        name == name.strip() != ""
        and not name.startswith(".")
        and not is_image(Path(name))
        and "/" not in name
        and name.isprintable()
        and name.lower() not in IGNORED
        and len(name.encode()) <= LONGEST_NAME
    )


# ---------------------------------------------------------------- whole or not at all


def _write(plan: Plan, folder: Path) -> None:
    """Fill a folder and give it its name at the end."""
    folder.parent.mkdir(exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        for place, content in plan.items():
            stop_if_asked()
            path = temporary / place
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                _link(path, content)
        os.rename(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _link(path: Path, image: Path) -> None:
    """A link to an image; a copy where the file system has no links."""
    try:
        path.symlink_to(image)
    except FileExistsError:
        raise
    except OSError:
        shutil.copyfile(image, path)


def _holds(folder: Path, plan: Plan) -> bool:
    """Whether a folder holds exactly what is planned."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    there = {
        os.path.relpath(os.path.join(where, name), folder)
        for where, folders, names in os.walk(folder)
        for name in (*names, *(f for f in folders if os.path.islink(os.path.join(where, f))))
    }
    return there == set(plan) and all(_is(folder / place, plan[place]) for place in plan)


def _is(path: Path, content: bytes | Path) -> bool:
    if isinstance(content, bytes):
        return not path.is_symlink() and path.is_file() and path.read_bytes() == content
    if path.is_symlink():
        return os.readlink(path) == str(content)
    return path.is_file() and filecmp.cmp(path, content, shallow=False)


def _remove_temporaries(root: Path) -> None:
    """Remove unfinished folders of killed commands."""
    for path in root.glob(".*.tmp"):
        if TEMPORARY.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
