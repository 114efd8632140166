"""The options that results depend on, kept beside the results.

A rerun with other values into the same folder is refused, so that no result of one setting is
taken for one of another.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from utils.errors import UserError
from utils.lock import FolderLock
from utils.manifest import Manifest, Settings, remove_temporaries
from utils.options import Options, result_options
from utils.paths import RESULT_FOLDERS, OutputPaths

DAMPED = "Influence_functions"
"""The method that the option `--damping` is of."""


def settings_of(options: Options, data_fingerprint: str, graph: str, damping: float) -> Settings:
    """What the results depend on. More trials, more n and more methods only extend them.

    Args:
        options: as parsed.
        data_fingerprint: what the images came from.
        graph: what the graph of the model is known by.
        damping: alpha of the influence functions, given or by the data set; it counts where
            they are among the methods.
    """
    chosen = {name: getattr(options, name) for name in result_options()}
    others = {"command": options.program, "data": data_fingerprint, "model's graph": graph}
    damped = {"damping": damping if DAMPED in options.methods else None}
    return chosen | {"cover_epochs": options.n_covered_epochs} | damped | others


@contextmanager
def claimed(paths: OutputPaths, settings: Settings, overwrite: bool) -> Iterator[Manifest]:
    """Make the output folder this run's own, or take up an earlier run of the same settings.

    While the block runs no other run gets the folder, and account is kept of what is written.

    Raises:
        UserError: another run has the folder, or results of other settings are there and
            `overwrite` is False; the line names each option that differs with both values.
    """
    _check_is_folder(paths)
    try:
        paths.root.mkdir(parents=True, exist_ok=True)
    except (FileNotFoundError, NotADirectoryError, FileExistsError) as error:
        raise UserError(
            f"--output_dir {paths.root}: cannot be made ({error.strerror}); choose another"
        ) from error
    with FolderLock(paths.lock) as lock:
        manifest = _account(paths, settings, overwrite)
        with manifest.recording(lock):
            yield manifest


def check_output_folder(paths: OutputPaths, settings: Settings) -> None:
    """Raise the UserError of results of other settings that `claimed` would; write nothing."""
    _check_is_folder(paths)
    if _result_folders(paths):
        problem = _problem(_manifest(paths), settings)
        if problem:
            raise UserError(problem)


def _check_is_folder(paths: OutputPaths) -> None:
    if paths.root.exists() and not paths.root.is_dir():
        raise UserError(f"--output_dir {paths.root}: is a file; name a folder")


def _result_folders(paths: OutputPaths) -> list[Path]:
    return [paths.root / name for name in RESULT_FOLDERS if (paths.root / name).exists()]


def _manifest(paths: OutputPaths) -> Manifest:
    manifest = Manifest.read(paths)
    manifest.settle_all()
    return manifest


def _account(paths: OutputPaths, settings: Settings, overwrite: bool) -> Manifest:
    """That of the results that are there, else a new one."""
    remove_temporaries(paths)
    there = _result_folders(paths)
    if there:
        manifest = _manifest(paths)
        problem = _problem(manifest, settings)
        if not problem:
            manifest.options = _with_damping_of(manifest, settings)
            return manifest
        if not overwrite:
            raise UserError(problem)
    for folder in there:
        shutil.rmtree(folder)
    shutil.rmtree(paths.page.parent, ignore_errors=True)
    paths.runs.unlink(missing_ok=True)
    manifest = Manifest(paths, settings)
    manifest.save()
    return manifest


def _problem(manifest: Manifest, settings: Settings) -> str:
    """Why the results that are there are not this run's; empty if they are."""
    root, remedy = manifest.paths.root, "or delete the results with --overwrite"
    if not manifest.intact:
        what = "was edited by hand (its checksum does not fit)"
        return f"{manifest.paths.manifest}: {what}; put it back as it was, {remedy}"
    there, wanted = manifest.options, _with_damping_of(manifest, settings)
    if not (root / "influence" / DAMPED).exists():  # nothing there depends on it yet
        there = there | {"damping": wanted["damping"]}
    differences = "; ".join(_differences(there, wanted))
    if differences:
        what = f"holds results of other options: {differences}"
        return f"{root}: {what}; choose another --output_dir, {remedy}"
    foreign = manifest.foreign()
    if foreign:
        what = f"was not written by a run into this folder ({len(foreign)} such files)"
        return f"{root / foreign[0]}: {what}; move it elsewhere, {remedy}"
    return ""


def _with_damping_of(manifest: Manifest, settings: Settings) -> Settings:
    """The settings, with the damping that the results there have if this run needs none."""
    if settings["damping"] is None:
        return settings | {"damping": manifest.options.get("damping")}
    return settings


def _differences(there: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    names = sorted(there.keys() | wanted.keys())
    return [
        f"{_shown(name)} was {there.get(name)}, now {wanted.get(name)}"
        for name in names
        if there.get(name) != wanted.get(name)
    ]


def _shown(name: str) -> str:
    return f"the {name}" if name in ("command", "data", "model's graph") else f"--{name}"
