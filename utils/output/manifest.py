"""The account of an output folder: what its results were made from, and the hash of each.

`manifest.json` is written before a file gets its final name, with the hash of what is coming, so
that a run that is killed at any moment leaves no file that the account does not know.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import utils
from utils.console import progress
from utils.errors import UserError
from utils.kernels.blas import kernels_here
from utils.link_free import REMEDY, check_place, open_file, read_file, remove_file
from utils.output.paths import (
    EDITABLE,
    RESULT_FOLDERS,
    OutputPaths,
    free_name,
    newer,
    unrenamed,
)
from utils.output.storage import TEMPORARY, TRIAL
from utils.units import abridged

log = logging.getLogger("data_cleansing")

FORMAT = 1
MISSING = "missing"
_MOST = 2**63
"""Above all sizes of files."""
LIBRARIES = (
    "nnabla", "numpy", "numba", "llvmlite", "pandas", "pillow", "scipy", "scikit-learn", "h5py",
)  # fmt: skip
Settings = dict[str, Any]


@dataclass(frozen=True)
class FileDigest:
    """The size of a file in bytes and the SHA-256 of its content, which identify it."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileDigest:
        """The digest of a regular file."""
        digest, size = hashlib.sha256(), 0
        with open(open_file(path), "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
                size += len(block)
        return cls(size, digest.hexdigest())


@dataclass
class Manifest:
    """The account of one output folder.

    Attributes:
        paths: of the folder.
        options: what the results depend on.
        versions: of this program and its libraries when the folder was begun.
        inputs: by CSV file of a split, the digest of its images and labels.
        outputs: by file under the folder, its digest.
        announced: files that are being renamed to their final names.
        begun: folders in which states are being written, and files that are being removed: what
            is there and is not among the outputs was left by a run that was killed.
        warnings: per method and seed of the trial, why its scores should not be followed.
        solves: per method and seed of the trial, how far its solver came.
        remarks: why the scores of the latest run with a method that predicts say little about its
            retrainings.
        intact: the file was as this program had written it.
    """

    paths: OutputPaths
    options: Settings
    versions: dict[str, str] = field(default_factory=lambda: versions_here())
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    outputs: dict[str, FileDigest] = field(default_factory=dict)
    announced: dict[str, FileDigest] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    warnings: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    solves: dict[str, dict[str, Any]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    intact: bool = True
    _repeats: bool = field(default=True, init=False)

    # ------------------------------------------------------------ the file

    @classmethod
    def read(cls, paths: OutputPaths) -> Manifest:
        """Read the account of a folder.

        Raises:
            UserError: the file is missing, not JSON, not an account, or of a newer version.
        """
        value = _json_of(paths)
        _check_format(paths, value)
        checksum = value.pop("checksum", None)
        try:
            return cls(
                paths,
                _options(value["options"]),
                _versions(value["versions"]),
                _inputs(value["inputs"]),
                _digests(value["outputs"]),
                _digests(value["coming"]),
                set(map(_place, value.get("begun", []))),
                dict(value.get("warnings", {})),
                dict(value.get("solves", {})),
                list(map(str, value.get("remarks", []))),
                intact=checksum == _checksum(value),
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise _no_account(paths) from error

    def as_json(self) -> dict[str, Any]:
        """What `manifest.json` holds."""
        value: dict[str, Any] = {
            "format": FORMAT,
            "options": self.options,
            "versions": self.versions,
            "inputs": self.inputs,
            "outputs": {name: asdict(known) for name, known in self.outputs.items()},
            "coming": {name: asdict(known) for name, known in self.announced.items()},
        }
        if self.begun:
            value["begun"] = sorted(self.begun)
        if self.warnings:
            value["warnings"] = self.warnings
        if self.solves:
            value["solves"] = self.solves
        if self.remarks:
            value["remarks"] = self.remarks
        return value | {"checksum": _checksum(value)}

    # ------------------------------------------------------------ what was there before

    def confirm_all(self) -> None:
        """Record the files that a killed run had announced, if they are complete."""
        for name, known in self.announced.items():
            if self._is_there(name) and FileDigest.of(self.paths.root / name) == known:
                self.outputs[name] = known
        self.announced = {}

    def foreign(self) -> list[str]:
        """Files under the names of results that no run of this folder wrote.

        Under `EDITABLE` such files are a person's; nothing is written over them.
        """
        found = [*self.paths.results(), *filter(self._is_trained, self.paths.states())]
        killed = set(self._killed())
        unknown = [name for name in map(self._name, found) if name not in self.outputs]
        return [name for name in unknown if name not in killed and not is_editable(name)]

    def _is_trained(self, state: Path) -> bool:
        """Whether the training of a state is finished.

        Before that, an earlier version that was killed may have left states of which it kept no
        account; they are replaced where the training repeats them, and only there.
        """
        mark = self.paths.mark_of_training(state)
        return mark is not None and self._name(mark) in self.outputs

    def _killed(self) -> list[str]:
        """The files in `begun` that a run was writing or removing when it was killed."""
        if not self.intact:
            return []
        written = [self._name(path) for path in self.paths.states()]
        inside = [name for name in written if name.rpartition("/")[0] in self.begun]
        removed = [name for name in sorted(self.begun) if (self.root / name).is_file()]
        return [name for name in (*inside, *removed) if name not in self.outputs]

    def check_places(self) -> None:
        """Check that files and folders are what a run writes, and no links, pipes or devices.

        Raises:
            UserError: something else stands at the place of one.
        """
        for folder in (*RESULT_FOLDERS, self.paths.page.parent.name):
            check_place(self.root, folder, folder=True)
        found = map(self._name, (*self.paths.results(), *self.paths.states()))
        for name in sorted({*self.outputs, *self.announced, *found}):
            check_place(self.root, name)

    def check_outputs(self) -> None:
        """Log every file that is not as it was written; it is computed again.

        Changes by a person are not lost: under `EDITABLE` the file stays, and the new
        one gets another name; elsewhere it is moved to <name>.changed.

        Raises:
            UserError: most files are other files: the account belongs to another folder.
        """
        problems = self._problems()
        self._check_is_of_here(problems)
        moved = {name: self._set_aside(name, problem) for name, problem in problems.items()}
        for name in problems:  # what a person changed is out of the way now
            for needless in self.paths.lost_with(self.root / name):
                self._drop(needless)
        self._remove_killed()
        self._log_problems(problems, moved)

    def remove_outputs(self) -> None:
        """Remove the files of the account, and folders that are empty then, and nothing else.

        What was changed since it was written is not removed, as in `check_outputs`.

        Raises:
            UserError: the account was edited by hand or belongs to another folder, so that it does
                not tell whose the files are; all are left as they are.
        """
        problems = self._problems()
        self._check_is_of_here(problems)
        changed = [name for name, problem in problems.items() if problem != MISSING]
        if changed and not self.intact:
            what = f"is not what {self.paths.manifest.name} says, which was edited by hand"
            raise UserError(f"{self.root / changed[0]}: {what}; {REMEDY}")
        for name in problems:
            self._set_aside(name, problems[name])
        for name in list(self.outputs):
            self._drop(self.root / name)
        self._remove_killed()

    def _problems(self) -> dict[str, str]:
        """By name, the problem of each file that is not as it was written."""
        names = progress(sorted(self.outputs), "checking what is there")
        return {name: problem for name in names if (problem := self._problem(name))}

    def _set_aside(self, name: str, problem: str) -> Path | None:
        """Take a file out of the account; one with content stays, maybe under another name.

        Returns:
            The other name; None for a file that is not moved.
        """
        path = self.root / name
        if problem == MISSING or not path.stat().st_size:
            self._drop(path)
            return None
        del self.outputs[name]
        if is_editable(name):
            return None
        other = free_name(path.parent, f"{path.name}.changed")
        os.rename(path, other)
        return other

    def _log_problems(self, problems: Mapping[str, str], moved: Mapping[str, Path | None]) -> None:
        """A line for each kind of problem; of several files it names the new name of the first."""
        lines: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for name, problem in problems.items():
            what, other = "recomputed", moved[name]
            if os.path.lexists(self.root / name):
                what, other = "it stays, the new one is written as {}", self._next_name(name)
            elif other:
                what = "moved to {} and recomputed"
            lines.setdefault((problem, what), []).append((name, other.name if other else ""))
        for (problem, what), found in sorted(lines.items()):
            names, others = zip(*found, strict=True)
            others_too = f"{others[0]}{' (the others likewise)' if len(found) > 1 else ''}"
            done = what.format(others_too)
            log.warning("%s: %s; %s", _listed(self.root, list(names)), problem, done)

    def _next_name(self, name: str) -> Path:
        """Where a run writes the file whose place under `EDITABLE` a person's file has taken."""
        path = unrenamed(self.root / name)
        places = itertools.chain((path,), newer(path))
        return next(
            place
            for place in places
            if not os.path.lexists(place) or self._name(place) in self.outputs
        )

    def _check_is_of_here(self, problems: Mapping[str, str]) -> None:
        """Raise a UserError if more files are other files than are as they were written.

        Files without content do not count: a power failure may leave many of them.

        Args:
            problems: of the outputs, by name.
        """
        there = [n for n, problem in problems.items() if problem != MISSING and not is_editable(n)]
        others = [name for name in there if (self.root / name).stat().st_size]
        if len(others) > len(self.outputs) - len(problems):
            what = f"{len(others)} of the files that it names are other files"
            raise UserError(
                f"{self.paths.manifest}: seems to belong to another folder ({what}, such as "
                f"{others[0]}); restore the right one, or choose another --output_dir"
            )

    def _remove_killed(self) -> None:
        for name in self._killed():
            remove_file(self.root, name)
        self.begun = set()

    def _drop(self, path: Path) -> None:
        self.outputs.pop(self._name(path), None)
        remove_file(self.root, self._name(path))

    def _problem(self, name: str) -> str:
        path, known = self.paths.root / name, self.outputs[name]
        if not self._is_there(name):
            return MISSING
        size = path.stat().st_size
        if size < known.bytes:
            return "cut short"
        return "changed" if size > known.bytes or FileDigest.of(path) != known else ""

    def _is_there(self, name: str) -> bool:
        check_place(self.root, name)
        return os.path.lexists(self.root / name)

    def check_versions(self) -> None:
        """Warn if other versions made what is there: the last bits may differ."""
        now = versions_here()
        differing = [
            f"{name} {self.versions.get(name)}, now {now.get(name)}"
            for name in sorted(now.keys() | self.versions.keys())
            if self.versions.get(name) != now.get(name)
        ]
        if differing:
            log.warning(
                "%s: begun with %s; new results may differ in the last bits",
                self.paths.root, ", ".join(differing),
            )  # fmt: skip

    def check_input(self, csv: Path, found: Mapping[str, Any]) -> None:
        """Note what a CSV file of a split names, or compare it with what was noted before.

        Raises:
            UserError: names, labels or sizes of the images are not what they were.
        """
        known = self.inputs.setdefault(csv.name, dict(found))
        if known != found:
            raise UserError(
                f"{csv}: names other images, labels or sizes ({_counts(found)}) than the results "
                f"in {self.paths.root} were made from ({_counts(known)}); restore the data, choose "
                "another --output_dir, or delete the results with --overwrite"
            )

    # ------------------------------------------------------------ while the run goes on

    @property
    def root(self) -> Path:
        """The output folder."""
        return self.paths.root

    def keeps(self, path: Path) -> bool:
        """Whether `path` is under one of the folders of results."""
        return any(path.is_relative_to(self.paths.root / folder) for folder in RESULT_FOLDERS)

    def place_for(self, path: Path, known: FileDigest) -> Path:
        """The name for a file: `path`, or a new one where a person's file stands there."""
        if not is_editable(self._name(path)):
            return path
        places = itertools.chain((path,), newer(path))
        return next(place for place in places if not self._is_somebodys(place, known))

    def _is_somebodys(self, path: Path, known: FileDigest) -> bool:
        """Whether a file is there that is neither as a run wrote it nor what is to be written."""
        name = self._name(path)
        if not self._is_there(name):
            return False
        return FileDigest.of(path) not in (known, self.outputs.get(name))

    def superseded(self, path: Path) -> list[Path]:
        """Files that runs wrote under new names while a person's stood at `path`."""
        there = itertools.takewhile(os.path.lexists, newer(path))
        return [other for other in there if self.outputs.get(self._name(other)) is not None]

    def announce(self, path: Path, known: FileDigest, durable: bool) -> bool:
        """Announce a file that is about to get the name `path`.

        Returns:
            Whether the account has to be on the disk first: the file is durable or takes the place
            of another, or the account on the disk does not tell of it yet.

        Raises:
            UserError: a file stands there that no run wrote.
        """
        name = self._name(path)
        self._check_is_own(name, known)
        replaces = self.outputs.get(name, known) != known
        self.announced[name] = known
        if replaces and path.suffix == ".h5":
            self._warn_of_other_numbers(path)
        return durable or replaces or not self._begin(path)

    def _warn_of_other_numbers(self, path: Path) -> None:
        if self._repeats:
            self._repeats = False
            log.warning(
                "%s: the repeated training gives other numbers than before (another machine or "
                "library?); results computed from the earlier ones stay", path,
            )  # fmt: skip

    def _check_is_own(self, name: str, known: FileDigest) -> None:
        """Raise a UserError if a file stands at `name` that no run wrote, and holds other bytes."""
        there = self._is_there(name)
        if there and name not in self.outputs and FileDigest.of(self.root / name) != known:
            raise self.not_written_here([name])

    def not_written_here(self, names: list[str]) -> UserError:
        """What to raise for files that `foreign` names."""
        what = f"was not written by a run into this folder ({len(names)} such files)"
        return UserError(f"{self.root / names[0]}: {what}; {REMEDY}")

    def _begin(self, path: Path) -> bool:
        """Whether the account on disk already records that such files are being written.

        The states of an epoch are announced together: one by one takes as long as a small step.
        """
        folder = self._name(path.parent)
        begun = folder in self.begun
        if path.suffix == ".h5":
            self.begun.add(folder)
        return begun

    def confirm(self, path: Path) -> None:
        """The announced file is there."""
        name = self._name(path)
        self.outputs[name] = self.announced.pop(name)

    def begin_removal(self, path: Path) -> bool:
        """Take a file out of the account, if it is in there; returns whether it was."""
        name = self._name(path)
        known = self.outputs.pop(name, None)
        if known:
            self.begun.add(name)
        return known is not None

    def end_removal(self, path: Path) -> None:
        """The file is gone."""
        self.begun.discard(self._name(path))

    def end(self) -> None:
        """The run is over: what was begun is in the account, or gone."""
        self.begun = set()

    def _name(self, path: Path) -> str:
        return path.relative_to(self.paths.root).as_posix()


def is_editable(name: str) -> bool:
    """Whether people work on a file of this name."""
    return PurePosixPath(name).parts[0] in EDITABLE


def manifest_of_run(paths: OutputPaths) -> Manifest:
    """The manifest of an output folder that was given as one.

    Raises:
        UserError: there is no such folder, it holds no run, or its manifest cannot be used.
    """
    if not paths.root.is_dir():
        raise UserError(f"{paths.root}: no such folder; give the --output_dir of a finished run")
    if not os.path.lexists(paths.manifest):
        raise UserError(f"{paths.root}: holds no run; give the --output_dir of a finished one")
    manifest = Manifest.read(paths)
    manifest.check_places()
    return manifest


def versions_here() -> dict[str, str]:
    """What the last bits of results may depend on: program, Python, libraries, processor, GPU."""
    own = {"data cleansing": utils.__version__, "python": platform.python_version()}
    machine = {"machine": platform.machine(), "BLAS kernels": kernels_here()}
    import nnabla as nn  # only where something is computed: it takes a second

    on_gpu = nn.get_current_context().backend[0].startswith("cud")
    machine |= {"GPU": "cudnn"} if on_gpu else {}
    return own | {name: version(name) for name in LIBRARIES} | machine


def remove_temporaries(paths: OutputPaths) -> None:
    """Remove the files that a killed run was writing, and what it had laid out for its workers."""
    folders = (*RESULT_FOLDERS, paths.page.parent.name)
    walks = [walk for folder in folders for walk in os.walk(paths.root / folder)]
    below = [Path(where, name) for where, _, names in walks for name in names]
    for path in [*paths.root.glob(".*"), *below]:
        if not TEMPORARY.fullmatch(path.name) or path.is_symlink():
            continue
        if path.is_file():
            remove_file(paths.root, path.relative_to(paths.root).as_posix())
        elif path.is_dir() and path.name.startswith(TRIAL):
            shutil.rmtree(path, ignore_errors=True)


def _digests(value: Mapping[str, Any]) -> dict[str, FileDigest]:
    """Raises ValueError for a file elsewhere: what is not as it was written is removed."""
    return {_place(name): _digest(**known) for name, known in value.items()}


def _place(name: str) -> str:
    """The name of a file in a folder of results; raises ValueError for any other."""
    path = PurePosixPath(name)
    inside = len(path.parts) > 1 and path.parts[0] in RESULT_FOLDERS
    if not inside or ".." in path.parts or str(path) != name or not name.isprintable():
        raise ValueError(name)
    return name


def _digest(bytes: int, sha256: str) -> FileDigest:
    if type(bytes) is not int or not 0 <= bytes < _MOST or not isinstance(sha256, str):
        raise ValueError(bytes)
    return FileDigest(bytes, sha256)


def _options(value: Mapping[str, Any]) -> Settings:
    """Raises KeyError or ValueError for options that no run has."""
    if any(isinstance(one, (dict, list)) for one in (value["dataset"], *value.values())):
        raise ValueError(value)
    return dict(value)


def _versions(value: Mapping[str, Any]) -> dict[str, str]:
    if not all(isinstance(one, str) for one in value.values()):
        raise ValueError(value)
    return dict(value)


def _inputs(value: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    for known in value.values():
        numbers = known["images"], _digest(known["bytes"], known["sha256"]).bytes
        if any(type(number) is not int or not 0 <= number < _MOST for number in numbers):
            raise ValueError(known)
    return dict(value)


def _json_of(paths: OutputPaths) -> Any:
    try:
        return json.loads(read_file(paths.manifest).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{paths.manifest}: cannot be read ({error}), so it is not known what the results next "
            "to it were made from; restore it or choose another --output_dir"
        ) from error


def _no_account(paths: OutputPaths) -> UserError:
    return UserError(
        f"{paths.manifest}: is not the manifest of a run; restore it or choose another --output_dir"
    )


def _check_format(paths: OutputPaths, value: Any) -> None:
    number = value.get("format") if isinstance(value, dict) else None
    if not isinstance(number, int):
        raise _no_account(paths)
    if number > FORMAT:
        raise UserError(
            f"{paths.manifest}: was written by a newer version (format {number}, this one reads "
            f"{FORMAT}); update this program or choose another --output_dir"
        )


def _checksum(value: Mapping[str, Any]) -> str:
    """SHA-256 of the account without itself: a hand that edits it is noticed."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("utf-8")).hexdigest()


def _listed(root: Path, names: list[str]) -> str:
    return abridged([str(root / name) for name in names])


def _counts(known: Mapping[str, Any]) -> str:
    return f"{known['images']} images of {known['bytes']} bytes, {str(known['sha256'])[:8]}"
