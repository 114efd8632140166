"""The options that results depend on, kept with the results.

A rerun with other values into the same folder is refused, so that no result of one setting is
taken for one of another.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from utils.errors import UserError
from utils.link_free import remove_file
from utils.methods import METHODS
from utils.options import SGD_SOLVER, Options, result_options
from utils.output.folder import ClaimedFolder
from utils.output.lock import FolderLock
from utils.output.manifest import Manifest, Settings, remove_temporaries
from utils.output.own_files import check_own, check_own_files
from utils.output.paths import OutputPaths
from utils.output.storage import TEMPORARY

OF_METHODS = ("damping", "if_solver", "sweep")
"""Settings that count only with the methods whose row of `METHODS` names them."""
EARLIER = {"if_solver": SGD_SOLVER, "sweep": "exact", "resize": "crop"}
"""Values that apply where a folder of an earlier version records none."""
DIGEST = re.compile(r" [0-9a-f]{16,}$")
"""Ends what data are known by."""
BY_SOLVER = "chosen by the solver"
"""Recorded as the damping if none is given."""


def settings_of(
    options: Options, data_fingerprint: str, graph: str, damping: float | None
) -> Settings:
    """What the results depend on. More trials, more n and more methods only extend them.

    Args:
        options: as parsed.
        data_fingerprint: what the images came from.
        graph: what the graph of the model is known by.
        damping: alpha of the influence functions, None where their solver chooses it; it counts
            where they are among the methods.
    """
    chosen = {name: getattr(options, name) for name in result_options()}
    others = {"command": options.program, "data": data_fingerprint, "model's graph": graph}
    of_methods: dict[str, object] = {
        "damping": BY_SOLVER if damping is None else damping,
        "if_solver": options.if_solver,
        "sweep": "damped",
    }
    for name in OF_METHODS:
        if not _methods_of(name) & set(options.methods):
            of_methods[name] = None
    return chosen | {"cover_epochs": options.n_covered_epochs} | of_methods | others


def _methods_of(setting: str) -> set[str]:
    return {name for name, method in METHODS.items() if setting in method.settings}


@contextmanager
def claimed(paths: OutputPaths, settings: Settings, overwrite: bool) -> Iterator[ClaimedFolder]:
    """Make the output folder this run's own, or resume an earlier run of the same settings.

    While the block runs no other run gets the folder, and account is kept of what is written.

    Raises:
        UserError: another run has the folder, it holds files that no run wrote where a run
            writes or no account of a run at all, or results of other settings are there and
            `overwrite` is False; the line names each option that differs with both values.
    """
    _check_is_of_a_run(paths)
    try:
        paths.root.mkdir(parents=True, exist_ok=True)
    except (FileNotFoundError, NotADirectoryError, FileExistsError) as error:
        raise UserError(
            f"--output_dir {paths.root}: cannot be created ({error.strerror}); choose another"
        ) from error
    with FolderLock(paths.lock) as lock:
        _check_is_of_a_run(paths)
        folder = ClaimedFolder(paths.root, lock, _account(paths, settings, overwrite))
        folder.save_account()
        with folder.recording():
            yield folder


def check_output_folder(paths: OutputPaths, settings: Settings) -> None:
    """Raise the UserError that `claimed` would of what is in the folder; write nothing."""
    _check_is_of_a_run(paths)
    before = _manifest(paths)
    if before:
        _has_results_of(before, settings, overwrite=False)


def check_apart(paths: OutputPaths, folders: Iterable[Path]) -> None:
    """Raise a UserError if the output folder lies in one of `folders`, or one of them in it."""
    output = Path(os.path.realpath(paths.root))
    for folder in folders:
        real = Path(os.path.realpath(folder))
        if output.is_relative_to(real):
            raise UserError(
                f"--output_dir {paths.root}: lies in {folder}, where data are read and kept; "
                "choose a folder elsewhere"
            )
        if real.is_relative_to(output):
            raise UserError(
                f"--output_dir {paths.root}: holds {folder}, where data are read and kept; "
                "choose a folder elsewhere"
            )


def _check_is_of_a_run(paths: OutputPaths) -> None:
    """Raise a UserError unless a folder is empty, was left by a run, or is not there yet."""
    if not paths.root.exists():
        return
    if not paths.root.is_dir():
        raise UserError(f"--output_dir {paths.root}: is a file; name a folder")
    check_own_files(paths)
    others = [name for name in sorted(os.listdir(paths.root)) if not _is_first(name, paths)]
    if os.path.lexists(paths.manifest):
        Manifest.read(paths)
    elif others:
        what = f"holds files of something else ({others[0]})"
        raise UserError(
            f"{paths.root}: {what}, or of a run whose {paths.manifest.name} is missing; choose "
            "another --output_dir"
        )


def _is_first(name: str, paths: OutputPaths) -> bool:
    """Whether a run that was killed before its account was there left a file of this name."""
    of_account = f".{paths.manifest.stem}."
    return name == paths.lock.name or (
        name.startswith(of_account) and TEMPORARY.fullmatch(name) is not None
    )


def _manifest(paths: OutputPaths) -> Manifest | None:
    """The account that is there, if one is; a UserError where links stand at its places."""
    if not os.path.lexists(paths.manifest):
        return None
    manifest = Manifest.read(paths)
    manifest.check_places()
    manifest.confirm_all()
    return manifest


def _has_results_of(before: Manifest, settings: Settings, overwrite: bool) -> bool:
    """Whether the results of an account are this run's.

    Raises:
        UserError: they are not, and may not be deleted; or files that no run wrote are where
            results have to be written.
    """
    problem = _problem(before, settings) if before.outputs else ""
    if problem and not overwrite:
        raise UserError(problem)
    foreign = before.foreign()
    if foreign:
        raise before.not_written_here(foreign)
    return bool(before.outputs) and not problem


def _account(paths: OutputPaths, settings: Settings, overwrite: bool) -> Manifest:
    """That of the results that are there, else a new one."""
    before = _manifest(paths)
    goes_on = before is not None and _has_results_of(before, settings, overwrite)
    remove_temporaries(paths)
    if before and goes_on:
        before.options = _with_those_of_methods(before, settings)
        return before
    if before:
        before.remove_outputs()
        for path in (paths.page, paths.runs):
            check_own(path, paths)
            remove_file(paths.root, path.relative_to(paths.root).as_posix())
    return Manifest(paths, settings)


def _problem(manifest: Manifest, settings: Settings) -> str:
    """Why the results that are there are not this run's; empty if they are."""
    root, remedy = manifest.paths.root, "or delete the results with --overwrite"
    if not manifest.intact:
        what = "was edited by hand (its checksum does not match)"
        return f"{manifest.paths.manifest}: {what}; restore it, {remedy}"
    there, wanted = EARLIER | manifest.options, _with_those_of_methods(manifest, settings)
    for name in OF_METHODS:
        if not any(_has_results(root, method) for method in _methods_of(name)):
            there = there | {name: wanted[name]}  # nothing there depends on it yet
    differences = "; ".join(_differences(there, wanted))
    if differences:
        what = f"holds results of other options: {differences}"
        return f"{root}: {what}; choose another --output_dir, {remedy}"
    return ""


def _has_results(root: Path, method: str) -> bool:
    """Whether scores of a method are there, or what was computed from its ranking."""
    if any((root / kind / method).exists() for kind in ("influence", "score")):
        return True
    changes = (root / "verification").glob("true_changes_seed_*.csv")
    return any(f"{method} part" in path.read_text("utf-8", "replace") for path in changes)


def _with_those_of_methods(manifest: Manifest, settings: Settings) -> Settings:
    """The settings, with those of the results there for methods that this run does not have."""
    there = EARLIER | manifest.options
    return settings | {name: there.get(name) for name in OF_METHODS if settings[name] is None}


def _differences(there: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    return [
        f"{_shown(name)} was {_changed(there.get(name), wanted.get(name))}"
        for name in sorted(there.keys() | wanted.keys())
        if not _is_same(name, there.get(name), wanted.get(name))
    ]


def _is_same(name: str, before: object, after: object) -> bool:
    """Whether a setting has not changed; a folder of images may be written in several ways."""
    if name == "dataset" and before is not None:
        return os.path.realpath(str(before)) == os.path.realpath(str(after))
    return before == after


def _changed(before: object, after: object) -> str:
    """The value before and after; the digest of data is left out where something else tells."""
    short = [DIGEST.sub("", str(value)) for value in (before, after)]
    first, second = (before, after) if short[0] == short[1] else short
    return f"{first}, now {second}"


def _shown(name: str) -> str:
    own = ("command", "data", "model's graph", "sweep")
    return f"the {name}" if name in own else f"--{name}"
