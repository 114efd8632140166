"""The owner of an output folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from utils.errors import UserError
from utils.output.folder import ClaimedFolder, DeferredFolder, OutputFolder
from utils.output.lock import FolderLock
from utils.output.manifest import FileDigest, Manifest
from utils.output.paths import OutputPaths

REMOVED = "was removed or replaced while the run went on"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "out"
    root.mkdir()
    return root


@pytest.fixture
def claimed(root: Path) -> Iterator[ClaimedFolder]:
    with FolderLock(root / "run.lock") as lock:
        yield ClaimedFolder(root, lock, Manifest(OutputPaths(root), {}))


def on_disk(folder: OutputFolder) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(folder.manifest.read_text())
    return value


def test_a_result_is_announced_on_the_disk_before_it_has_its_name(
    claimed: ClaimedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, seen = os.replace, []

    def look(source: Path, target: Path) -> None:
        if target == claimed.summary:
            assert not target.exists()
            seen.append(on_disk(claimed)["coming"])
        rename(source, target)

    monkeypatch.setattr(os, "replace", look)
    claimed.save_bytes(b"1", claimed.summary)
    known = FileDigest.of(claimed.summary)
    assert seen == [{"summary/summary.csv": {"bytes": 1, "sha256": known.sha256}}]
    assert claimed.account.outputs == {"summary/summary.csv": known}


def test_a_result_is_on_the_disk_before_and_after_it_has_its_name(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, done = OutputFolder(root), []
    rename = os.replace

    def replace(source: Path, target: Path) -> None:
        done.append(("rename", source.stat().st_ino))
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(os, "fsync", lambda number: done.append(("disk", os.fstat(number).st_ino)))
    folder.save_bytes(b"1", folder.summary)
    of_file, of_folder = folder.summary.stat().st_ino, folder.summary.parent.stat().st_ino
    assert done == [("disk", of_file), ("rename", of_file), ("disk", of_folder)]


def test_a_result_leaves_the_account_before_it_is_removed(claimed: ClaimedFolder) -> None:
    claimed.save_bytes(b"1", claimed.summary)
    claimed.save_account()
    claimed.summary.unlink()
    claimed.summary.mkdir()  # so that the removal fails
    with pytest.raises(UserError, match="is a folder where a run has a file"):
        claimed.remove(claimed.summary)
    assert on_disk(claimed)["outputs"] == {}
    assert on_disk(claimed)["begun"] == ["summary/summary.csv"]


def test_files_that_are_no_results_are_not_of_the_account(claimed: ClaimedFolder) -> None:
    claimed.save_json([], claimed.runs)
    assert claimed.account.outputs == {}
    claimed.remove(claimed.runs)
    assert not claimed.runs.exists()


@pytest.mark.parametrize("fails", [False, True])
def test_the_account_is_on_the_disk_however_the_run_ends(
    fails: bool, claimed: ClaimedFolder
) -> None:
    """While it goes on the states of an epoch are not: their folder is announced, once."""
    end = pytest.raises(KeyError) if fails else nullcontext()
    with end, claimed.recording():
        for step in (0, 1):
            claimed.save_bytes(b"1", claimed.model_step(0, 0, step), durable=False)
        assert on_disk(claimed)["outputs"] == {}
        if fails:
            raise KeyError
    assert len(on_disk(claimed)["outputs"]) == 2
    assert ("begun" in on_disk(claimed)) == fails


def test_a_file_that_is_not_whole_leaves_nothing(claimed: ClaimedFolder) -> None:
    claimed.save_bytes(b"old", claimed.summary)

    def write_half() -> None:
        with claimed.written(claimed.summary) as temporary:
            temporary.write_bytes(b"ne")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()
    assert claimed.summary.read_bytes() == b"old"
    assert [path.name for path in claimed.summary.parent.iterdir()] == ["summary.csv"]


def test_the_file_is_named_that_cannot_be_written(root: Path) -> None:
    folder = OutputFolder(root)
    folder.summary.mkdir(parents=True)
    with pytest.raises(IsADirectoryError) as caught:
        folder.save_bytes(b"1", folder.summary)
    assert caught.value.filename == str(folder.summary)
    assert not list(folder.summary.parent.glob(".*"))


def test_nothing_is_written_through_a_link(root: Path, tmp_path: Path) -> None:
    (root / "summary").symlink_to(tmp_path)
    folder = OutputFolder(root)
    for path in (folder.summary, root / "summary" / "a" / "b"):
        with pytest.raises(UserError, match="summary: is a symbolic link where a run has a folder"):
            folder.save_bytes(b"1", path)
    (tmp_path / "summary.csv").write_text("mine")
    with pytest.raises(UserError, match="is a symbolic link"):
        folder.remove(folder.summary)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "summary.csv"]


def test_the_folder_is_not_made_again(claimed: ClaimedFolder) -> None:
    shutil.rmtree(claimed.root)
    with pytest.raises(UserError, match=REMOVED):
        claimed.save_bytes(b"1", claimed.summary)
    with pytest.raises(FileNotFoundError):
        OutputFolder(claimed.root).save_bytes(b"1", claimed.summary)
    assert not claimed.root.exists()


# ---------------------------------------------------------------- of a worker


def test_deferred_files_get_their_names_in_order(tmp_path: Path) -> None:
    path, old = tmp_path / "a" / "b.csv", tmp_path / "old.csv"
    old.write_text("old")
    worker = DeferredFolder(tmp_path)
    worker.save_bytes(b"1", path)
    worker.save_bytes(b"2", path)
    worker.remove(old)
    assert not path.exists()
    assert old.exists()
    pending = worker.take_pending()
    assert [p.path for p in pending] == [Path("a/b.csv"), Path("a/b.csv"), Path("old.csv")]
    assert worker.take_pending() == ()
    for file in pending:
        OutputFolder(tmp_path).carry_out(file)
    assert path.read_bytes() == b"2"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_what_a_worker_left_comes_into_the_account(claimed: ClaimedFolder) -> None:
    worker = DeferredFolder(claimed.root, claimed.lock.read_bytes())
    worker.save_bytes(b"1", worker.summary)
    assert not worker.summary.parent.exists()
    for file in worker.take_pending():
        claimed.carry_out(file)
    assert claimed.account.outputs == {"summary/summary.csv": FileDigest.of(claimed.summary)}
    assert not list(claimed.root.glob(".*"))


def test_worker_does_not_write_into_the_folder_of_another_run(root: Path) -> None:
    (root / "run.lock").write_bytes(b"one run")
    DeferredFolder(root, b"one run").check_there()
    with pytest.raises(UserError, match=REMOVED):
        DeferredFolder(root, b"another").save_bytes(b"1", root / "score" / "a.csv")
    assert [path.name for path in root.iterdir()] == ["run.lock"]


@pytest.mark.parametrize("kind", [ClaimedFolder, DeferredFolder])
def test_folder_removed_right_after_it_was_looked_at_is_not_made_again(
    kind: type[OutputFolder], claimed: ClaimedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = claimed, DeferredFolder(claimed.root, claimed.lock.read_bytes())
    folder = next(folder for folder in folders if isinstance(folder, kind))
    look = kind.check_there

    def removed_after_looking(folder: OutputFolder) -> None:
        look(folder)
        shutil.rmtree(folder.root)

    monkeypatch.setattr(kind, "check_there", removed_after_looking)
    with pytest.raises(UserError, match=REMOVED):
        folder.save_bytes(b"1", folder.root / "score" / "Hara" / "a.csv")
    assert not folder.root.exists()
