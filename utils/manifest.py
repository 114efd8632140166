"""The account of an output folder: what its results were made from, and the hash of each.

`manifest.json` is written before a file gets its final name, with the hash of what is coming, so
that a run that is killed at any moment leaves no file that the account does not know.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import utils
from utils.blas import kernels_here
from utils.console import progress
from utils.errors import UserError
from utils.lock import FolderLock
from utils.paths import RESULT_FOLDERS, OutputPaths
from utils.storage import TEMPORARY, kept_by, save_json

log = logging.getLogger("data_cleansing")

FORMAT = 1
NAMED = 5
"""Files that a line names."""
LIBRARIES = (
    "nnabla", "numpy", "numba", "llvmlite", "pandas", "pillow", "scipy", "scikit-learn", "h5py",
)  # fmt: skip
Settings = dict[str, Any]


@dataclass(frozen=True)
class Print:
    """What a file is known by: its size in bytes and the SHA-256 of its content."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Print:
        """That of a file."""
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        return cls(path.stat().st_size, digest.hexdigest())


@dataclass
class Manifest:
    """The account of one output folder.

    Attributes:
        paths: of the folder.
        options: what the results depend on.
        versions: of this program and its libraries when the folder was begun.
        inputs: per CSV file of a split what its images and labels are known by.
        outputs: per file under the folder what it is known by.
        coming: files that are being renamed to their final names.
        intact: the file was as this program had written it.
    """

    paths: OutputPaths
    options: Settings
    versions: dict[str, str] = field(default_factory=lambda: versions_here())
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    outputs: dict[str, Print] = field(default_factory=dict)
    coming: dict[str, Print] = field(default_factory=dict)
    intact: bool = True
    _lock: FolderLock | None = field(default=None, init=False)
    _repeats: bool = field(default=True, init=False)

    # ------------------------------------------------------------ the file

    @classmethod
    def read(cls, paths: OutputPaths) -> Manifest:
        """Read the account of a folder.

        Raises:
            UserError: there is none, it is no JSON, no account, or of a newer version.
        """
        value = _json_of(paths)
        _check_format(paths, value)
        checksum = value.pop("checksum", None)
        try:
            return cls(
                paths,
                dict(value["options"]),
                dict(value["versions"]),
                dict(value["inputs"]),
                _prints(value["outputs"]),
                _prints(value["coming"]),
                intact=checksum == _checksum(value),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _no_account(paths) from error

    def save(self) -> None:
        """Write the account, whole or not at all."""
        value = {
            "format": FORMAT,
            "options": self.options,
            "versions": self.versions,
            "inputs": self.inputs,
            "outputs": {name: asdict(known) for name, known in self.outputs.items()},
            "coming": {name: asdict(known) for name, known in self.coming.items()},
        }
        save_json(value | {"checksum": _checksum(value)}, self.paths.manifest)

    # ------------------------------------------------------------ what was there before

    def settle_all(self) -> None:
        """Take up what a killed run had announced, if it came to be."""
        for name, known in self.coming.items():
            path = self.paths.root / name
            if path.is_file() and Print.of(path) == known:
                self.outputs[name] = known
        self.coming = {}

    def foreign(self) -> list[str]:
        """Files that would be taken up although no run of this folder wrote them."""
        return [name for name in map(self._name, self.paths.taken_up()) if name not in self.outputs]

    def check_outputs(self) -> None:
        """Remove every file that is not as it was written, and name it: it is made anew."""
        names = progress(sorted(self.outputs), "checking what is there")
        problems = {name: problem for name in names if (problem := self._problem(name))}
        for name in problems:
            path = self.paths.root / name
            self._drop(path)
            if mark := self.paths.mark_of_training(path):
                self._drop(mark)  # so that the training goes on where something is lost
        for path in self.paths.states():  # of an epoch that was not finished
            if self._name(path) not in self.outputs:
                path.unlink()
        for problem in sorted(set(problems.values())):
            lost = [name for name, found in problems.items() if found == problem]
            log.warning("%s: %s; made anew", _listed(self.paths.root, lost), problem)
        self.save()

    def _drop(self, path: Path) -> None:
        self.outputs.pop(self._name(path), None)
        path.unlink(missing_ok=True)

    def _problem(self, name: str) -> str:
        path, known = self.paths.root / name, self.outputs[name]
        if not path.is_file():
            return "missing"
        size = path.stat().st_size
        if size < known.bytes:
            return "cut short"
        return "changed" if size > known.bytes or Print.of(path) != known else ""

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
                "%s: begun with %s; what is added may differ in the last bits",
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
                f"in {self.paths.root} were made from ({_counts(known)}); put the data back as "
                "they were, choose another --output_dir, or delete the results with --overwrite"
            )

    # ------------------------------------------------------------ while the run goes on

    @contextmanager
    def recording(self, lock: FolderLock) -> Iterator[None]:
        """Keep account of every file that the block writes into the folder."""
        self._lock = lock
        try:
            with kept_by(self):
                yield
        except BaseException:
            with suppress(OSError, UserError):
                self._save_in_folder()
            raise
        self._save_in_folder()

    @property
    def root(self) -> Path:
        """The output folder."""
        return self.paths.root

    def keeps(self, path: Path) -> bool:
        """Whether `path` is under one of the folders of results."""
        return any(path.is_relative_to(self.paths.root / folder) for folder in RESULT_FOLDERS)

    def check_folder(self) -> None:
        """Raise a UserError if the folder was removed while the run went on."""
        if self._lock is not None and not self._lock.held():
            raise UserError(
                f"{self.paths.root}: was removed or replaced while the run went on; the same "
                "command starts anew"
            )

    def expect(self, path: Path, temporary: Path, durable: bool) -> None:
        """Announce a file; on disk if it is durable or takes the place of another."""
        name, known = self._name(path), Print.of(temporary)
        replaces = self.outputs.get(name, known) != known
        self.coming[name] = known
        if durable or replaces:
            self._save_in_folder()
        if replaces and path.suffix == ".h5" and self._repeats:
            self._repeats = False
            log.warning(
                "%s: the training repeats with other numbers than before (another machine or "
                "library?); what was computed from the earlier ones stays", path,
            )  # fmt: skip

    def settle(self, path: Path) -> None:
        """The announced file is there."""
        name = self._name(path)
        self.outputs[name] = self.coming.pop(name)

    def forget(self, path: Path) -> None:
        """A file goes; the account first, since without it the file is of no use."""
        if self.outputs.pop(self._name(path), None):
            self._save_in_folder()

    def _save_in_folder(self) -> None:
        self.check_folder()
        self.save()

    def _name(self, path: Path) -> str:
        return path.relative_to(self.paths.root).as_posix()


def versions_here() -> dict[str, str]:
    """What the last bits of results may depend on: program, Python, libraries, processor."""
    own = {"data cleansing": utils.__version__, "python": platform.python_version()}
    machine = {"machine": platform.machine(), "BLAS kernels": kernels_here()}
    return own | {name: version(name) for name in LIBRARIES} | machine


def remove_temporaries(paths: OutputPaths) -> None:
    """Remove the files that a killed run was writing, and what it had laid out for its workers."""
    folders = [*(paths.root / name for name in RESULT_FOLDERS), paths.page.parent]
    listed = [paths.root.glob(".*"), *(folder.rglob(".*") for folder in folders)]
    for path in [path for found in listed for path in found if TEMPORARY.fullmatch(path.name)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _prints(value: Mapping[str, Any]) -> dict[str, Print]:
    """Raises ValueError for a file elsewhere: what is not as it was written is removed."""
    for name in value:
        inside = any(Path(name).is_relative_to(folder) for folder in RESULT_FOLDERS)
        if not inside or ".." in Path(name).parts:
            raise ValueError(name)
    return {name: Print(**known) for name, known in value.items()}


def _json_of(paths: OutputPaths) -> Any:
    try:
        return json.loads(paths.manifest.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{paths.root}: holds folders of a run ({', '.join(RESULT_FOLDERS)}) without the "
            f"{paths.manifest.name} of one; choose another --output_dir"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"{paths.manifest}: cannot be read ({error}), so that nothing says what the results "
            "beside it were made from; put it back or choose another --output_dir"
        ) from error


def _no_account(paths: OutputPaths) -> UserError:
    return UserError(
        f"{paths.manifest}: is not the account of a run; put it back or choose another --output_dir"
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
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(str(root / name) for name in names[:NAMED]) + more


def _counts(known: Mapping[str, Any]) -> str:
    return f"{known['images']} images of {known['bytes']} bytes, {str(known['sha256'])[:8]}"
