"""A run deletes and replaces only what a run wrote, and follows no link inside its folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.helpers.own_images import class_folders, csv_of
from tests.helpers.runs import SMALL, last_line, sgd_influence
from utils.console import open_log_file
from utils.data.datasets import prepare
from utils.data.source import CACHE_VARIABLE
from utils.errors import UserError
from utils.link_free import open_file, remove_file
from utils.output.lock import FolderLock, Holder
from utils.output.manifest import FileDigest, Manifest, _checksum
from utils.output.paths import OutputPaths
from utils.output.settings import claimed
from utils.page.__main__ import main as page_of
from utils.run.command import main as command
from utils.training.network import hdf5_of, load_state

QUICK = "--model mlp --context cpu --methods Hara Random"
OTHER = "-e 1 -r 0 3"
HARA = "influence/Hara/influence_hara_0.csv"
SCORE = "score/Hara/score_delete_worst_5_seed_0.csv"
WEIGHTS = "infl_results_sgd/seed_00/epoch01/weights"
MINE = "mine, and nobody else's\n"
WAYS = pytest.mark.parametrize("more", ["", "--overwrite", "--dry_run"])
Change = Callable[[Path], object]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder of somebody, with a file."""
    write(tmp_path / "elsewhere" / "x", MINE)
    return tmp_path / "elsewhere"


def write(path: Path, text: str = MINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def tree(root: Path) -> dict[str, object]:
    """All that is under `root`: kinds, contents and targets."""
    found: dict[str, object] = {}
    for where, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(where, name)
            mode = path.lstat().st_mode
            content: object = stat.S_IFMT(mode)
            if stat.S_ISLNK(mode):
                content = os.readlink(path)
            elif stat.S_ISREG(mode):
                content = path.read_bytes()
            found[str(path)] = content
    return found


def refused(output: Path, more: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line in which a run is refused that leaves everything as it was."""
    before = tree(output.parent)
    capsys.readouterr()
    assert sgd_influence(output, f"{QUICK} {more}") == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1, printed
    assert tree(output.parent) == before
    return last_line(printed)


def edit(output: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Edit the manifest, and give it the checksum that fits."""
    path = output / "manifest.json"
    value = json.loads(path.read_text())
    change(value)
    del value["checksum"]
    path.write_text(json.dumps(value | {"checksum": _checksum(value)}))


# ---------------------------------------------------------------- folders of something else


def linked(name: str) -> Change:
    return lambda output: (output / name).symlink_to(output.parent / "elsewhere" / "x")


def hard_linked(name: str) -> Change:
    return lambda output: os.link(output.parent / "elsewhere" / "x", output / name)


def file(*names: str, text: str = MINE) -> Change:
    return lambda output: [write(output / name, text) for name in names]


OTHERS: dict[str, Change] = {
    "a project": file("src/main.py", ".git/config", "report/report.tex"),
    "a page": file("report/index.html", text="<!DOCTYPE html><title>Mine</title>"),
    "a list": file("runs.json", text="[]"),
    "a manifest": file("manifest.json", text='{"format": 1}'),
    "a manifest that is a list": file("manifest.json", text="[]"),
    "a lock": file("run.lock"),
    "a lock of another program": file("run.lock", text='{"pid": "a", "host": 1, "since": []}'),
    "a deep lock": file("run.lock", text="[" * 4000),
    "a log": file("run.log"),
    "notes": file("summary/notes.txt"),
    "a result": file(HARA),
    "a hidden file": file(".hidden"),
    "a temporary file": file(".notes.0123abcd.tmp"),
    "an empty folder": lambda output: (output / "report").mkdir(),
    "a link": linked("link"),
    "a link for a lock": linked("run.lock"),
    "a link for a log": linked("run.log"),
    "a link for a manifest": linked("manifest.json"),
    "a link to nowhere": lambda output: (output / "run.lock").symlink_to(output / "new"),
    "a second name for a lock": hard_linked("run.lock"),
    "a folder for a lock": lambda output: (output / "run.lock").mkdir(),
    "a pipe for a lock": lambda output: os.mkfifo(output / "run.lock"),
    "a pipe for a manifest": lambda output: os.mkfifo(output / "manifest.json"),
    "a pipe for a log": lambda output: os.mkfifo(output / "run.log"),
}


@WAYS
@pytest.mark.parametrize("put", OTHERS.values(), ids=OTHERS)
@pytest.mark.usefixtures("elsewhere")
def test_folder_of_something_else_is_refused(
    put: Change, more: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    put(output)
    assert f"error: {output}" in refused(output, more, capsys)


def test_run_killed_in_its_first_moments_goes_on(tmp_path: Path) -> None:
    output = tmp_path / "out"
    holder = Holder(dead_process(), Holder.here().host, "yesterday")
    write(output / "run.lock", json.dumps(holder.__dict__))
    write(output / ".manifest.0123abcd.tmp.json", '{"form')
    assert sgd_influence(output, f"{QUICK} -r 0 --methods Random") == 0
    assert not list(output.glob(".*"))


# ---------------------------------------------------------------- a finished folder


def test_files_that_are_not_in_the_way_stay(finished: Path, elsewhere: Path) -> None:
    names = (
        "summary/notes.txt", "influence/Mine/a.csv", "report/notes.txt", ".hidden", "mine/a",
        f"{WEIGHTS}/mine.h5", "infl_results_sgd/seed_00/notes.txt", ".x.0123abcd.tmp/a",
    )  # fmt: skip
    file(*names)(finished)
    (finished / "fig" / "link").symlink_to(elsewhere)
    os.mkfifo(finished / "pipe")
    for more in ("", OTHER + " --overwrite", OTHER, "-nt 2 " + OTHER):
        assert sgd_influence(finished, f"{QUICK} {more}") == 0
        assert [name for name in names if (finished / name).read_text() != MINE] == []
        assert (finished / "fig" / "link").is_symlink()
        assert (elsewhere / "x").read_text() == MINE


def test_overwrite_removes_what_the_manifest_lists(finished: Path, unbroken: Path) -> None:
    there = set(json.loads((finished / "manifest.json").read_text())["outputs"])
    assert sgd_influence(finished, f"{QUICK} {OTHER} --overwrite") == 0
    now = set(json.loads((finished / "manifest.json").read_text())["outputs"])
    assert SCORE in there - now
    assert not [name for name in there - now if (finished / name).exists()]
    assert len(json.loads((finished / "runs.json").read_text())) == 1


def replaced(name: str, put: Change) -> Change:
    """Something else in the place of a file or folder of the run."""

    def change(output: Path) -> None:
        path = output / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        put(output)

    return change


def moved(name: str) -> Change:
    """A link to where the file or folder of the run is now."""

    def change(output: Path) -> None:
        shutil.move(output / name, output.parent / "elsewhere" / "moved")
        (output / name).symlink_to(output.parent / "elsewhere" / "moved")

    return change


IN_THE_WAY: dict[str, tuple[str, Change]] = {
    "score": (
        "score/Hara/score_delete_worst_6_seed_0.csv",
        file("score/Hara/score_delete_worst_6_seed_0.csv"),
    ),
    "figure": ("fig/verification.png", file("fig/verification.png")),
    "state": (f"{WEIGHTS}/model_step0001.h5", file(f"{WEIGHTS}/model_step0001.h5")),
    "list of runs": ("runs.json", replaced("runs.json", file("runs.json", text='[{"a": 1}]'))),
    "page": ("report/index.html", replaced("report", file("report/index.html"))),
    "log": ("run.log", replaced("run.log", file("run.log"))),
    "lock": ("run.lock", file("run.lock")),
    **{
        f"link for {name}": (name, moved(name))
        for name in (
            "influence", "influence/Hara", HARA, "fig/result.png", "infl_results_sgd", WEIGHTS,
            "run.log", "runs.json", "report", "report/index.html", "manifest.json",
        )
    },
    "link for the lock": ("run.lock", linked("run.lock")),
    "second name of the log": ("run.log", replaced("run.log", hard_linked("run.log"))),
    "pipe": (
        "summary/summary.csv",
        replaced("summary/summary.csv", lambda out: os.mkfifo(out / "summary/summary.csv")),
    ),
    "folder": ("fig/result.png", replaced("fig/result.png", file("fig/result.png/a"))),
    "file for a folder": ("verification", file("verification")),
}  # fmt: skip


@pytest.mark.parametrize("more", ["", f"{OTHER} --overwrite"])
@pytest.mark.parametrize(("name", "put"), IN_THE_WAY.values(), ids=IN_THE_WAY)
@pytest.mark.usefixtures("elsewhere")
def test_what_is_in_the_way_is_refused(
    name: str, put: Change, more: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(finished)
    assert f"error: {finished / name}: " in refused(finished, more, capsys)


def test_dry_run_says_what_is_in_the_way(
    finished: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved("influence")(finished)
    line = refused(finished, "--dry_run", capsys)
    assert f"{finished / 'influence'}: is a symbolic link where a run has a folder; move" in line


def test_what_comes_in_the_way_while_the_run_goes_on(
    tmp_path: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, settings = tmp_path / "out", {"dataset": "x", "damping": None}
    with claimed(OutputPaths(output), settings, False) as folder:
        write(output / "fig" / "result.png")
        (output / "score").symlink_to(elsewhere)
        with pytest.raises(UserError, match=r"fig/result\.png: was not written by a run into"):
            folder.save_bytes(b"ours", output / "fig" / "result.png")
        with pytest.raises(UserError, match="score: is a symbolic link where a run has a folder"):
            folder.save_bytes(b"ours", output / "score" / "a.csv")
        folder.remove(output / "fig" / "result.png")
        assert folder.account.outputs == {}
    assert (output / "fig" / "result.png").read_text() == MINE
    assert list(tree(elsewhere)) == [str(elsewhere / "x")]


def test_output_folder_that_is_a_link_is_followed(tmp_path: Path) -> None:
    output = tmp_path / "out"
    (tmp_path / "real").mkdir()
    output.symlink_to("real")
    for more in ("", f"{OTHER} --overwrite"):
        assert sgd_influence(output, f"{QUICK} {more}") == 0
    assert (tmp_path / "real/report/index.html").is_file()
    assert output.is_symlink()
    assert page_of([str(output)]) == 0


def test_killed_between_a_state_and_its_epoch(finished: Path) -> None:
    """States are announced together: one of which there is no account yet is of the killed run."""
    state = write(finished / WEIGHTS / "model_step0001.h5")
    edit(finished, lambda value: value.update(begun=[WEIGHTS]))
    assert sgd_influence(finished, QUICK) == 0
    assert not state.exists()
    assert "begun" not in json.loads((finished / "manifest.json").read_text())


def test_temporary_files_of_a_killed_run_go(finished: Path) -> None:
    """One next to each file that a run writes."""
    names = [*json.loads((finished / "manifest.json").read_text())["outputs"], "report/index.html"]
    paths = [Path(name) for name in (*names, "verification/true_changes_seed_0.csv")]
    left = [finished / p.parent / f".{p.stem}.0123abcd.tmp{p.suffix}" for p in paths]
    for path in (*left, finished / ".trial_0.0123abcd.tmp" / "training.npy"):
        write(path)
    for more in ("--dry_run", ""):
        assert sgd_influence(finished, f"{QUICK} {more}") == 0
    assert not list(finished.rglob(".*"))
    assert sgd_influence(finished, f"{QUICK} {OTHER} --overwrite") == 0


def test_states_are_announced_before_they_are_there(tmp_path: Path) -> None:
    output, settings = tmp_path / "out", {"dataset": "x", "damping": None}
    with claimed(OutputPaths(output), settings, False) as folder:
        for number in (0, 1):
            folder.save_bytes(b"1", output / WEIGHTS / f"model_step000{number}.h5", durable=False)
        manifest = Manifest.read(OutputPaths(output))
        assert manifest.begun == {WEIGHTS}
        assert f"{WEIGHTS}/model_step0001.h5" not in manifest.outputs
    assert Manifest.read(OutputPaths(output)).begun == set()


# ---------------------------------------------------------------- manifests that were edited


def listing(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda value: value["outputs"].update({name: {"bytes": len(MINE), "sha256": "0" * 64}})


def with_output(**known: object) -> Callable[[dict[str, Any]], object]:
    return lambda value: value["outputs"][HARA].update(known)


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    **{
        f"lists {name!r}": listing(name)
        for name in (
            "../elsewhere/x", "/tmp/x", "fig", "fig/", "fig/../../elsewhere/x", "fig/./a",
            "fig//a", "run.lock", "manifest.json", "report/index.html", "runs.json", ".", "",
            "fig/a\0b", "fig/\ud800", "fig/\x1b[31m",
        )
    },
    "bytes as text": with_output(bytes="a"),
    "bytes below 0": with_output(bytes=-1),
    "bytes that are true": with_output(bytes=True),
    "bytes beyond measure": with_output(bytes=10**400),
    "hash as number": with_output(sha256=5),
    "hash as list": with_output(sha256=["a"]),
    "an entry more": with_output(more=1),
    "outputs as list": lambda value: value.update(outputs=[HARA]),
    "coming as number": lambda value: value.update(coming=5),
    "begun as number": lambda value: value.update(begun=5),
    "begun elsewhere": lambda value: value.update(begun=["../elsewhere/x"]),
    "begun as text": lambda value: value.update(begun="fig"),
    "inputs as numbers": lambda value: value.update(inputs={"csv": 5}),
    "inputs without counts": lambda value: value.update(inputs={"csv": {"images": 5}}),
    "inputs as text": lambda value: value["inputs"]["digits_test.csv"].update(images="5"),
    "options as list": lambda value: value.update(options=["dataset"]),
    "options without the data set": lambda value: value["options"].pop("dataset"),
    "an option as a tree": lambda value: value["options"].update(lr=[[[0.05]]]),
    "versions as numbers": lambda value: value.update(versions={"nnabla": 5}),
    "format as list": lambda value: value.update(format=[1]),
}  # fmt: skip
RAW = {
    "100,000 brackets": "[" * 100_000,
    "100,000 objects": '{"a":' * 100_000,
    "a number of 10,000 digits": '{"format": ' + "1" * 10_000 + "}",
    "no UTF-8": "\udcff",
    "nested options": '{"format": 1, "options": ' + "[" * 900 + "]" * 900 + "}",
}


@pytest.mark.parametrize("case", [*EDITS, *RAW])
@pytest.mark.usefixtures("elsewhere")
def test_manifest_that_no_run_wrote(
    case: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if case in EDITS:
        edit(finished, EDITS[case])
    else:
        content = RAW[case].encode(errors="surrogateescape")
        (finished / "manifest.json").write_bytes(content)
    for more in ("", "--overwrite"):
        assert "manifest.json: " in refused(finished, more, capsys)
    before = tree(finished)
    assert page_of([str(finished)]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "manifest.json: " in last_line(printed)
    assert tree(finished) == before


def test_manifest_that_leads_through_a_link(
    finished: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (finished / "fig" / "ln").symlink_to(elsewhere)
    edit(finished, listing("fig/ln/x"))
    for more in ("", "--overwrite", f"{OTHER} --overwrite"):
        assert f"{finished / 'fig' / 'ln'}: is a symbolic link" in refused(finished, more, capsys)
    assert page_of([str(finished)]) == 2


@pytest.mark.parametrize("more", ["", f"{OTHER} --overwrite"])
def test_manifest_of_another_folder(
    more: str, unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    file(HARA, SCORE, "summary/summary.csv")(output)
    shutil.copy(unbroken / "manifest.json", output)
    line = refused(output, more, capsys)
    assert f"{output / 'manifest.json'}: seems to belong to another folder (3 of the" in line


def test_edited_manifest_does_not_say_whose_a_file_is(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the checksum that fits only files of the hash that is listed are known to be ours."""
    write(finished / "summary" / "notes.txt")
    path = finished / "manifest.json"
    content = path.read_text()
    value = json.loads(content)
    listing("summary/notes.txt")(value)
    path.write_text(json.dumps(value))
    line = refused(finished, f"{OTHER} --overwrite", capsys)
    assert f"{finished / 'summary/notes.txt'}: is not what manifest.json says, which was" in line
    path.write_text(json.dumps(json.loads(content) | {"begun": ["summary/notes.txt"]}))
    assert sgd_influence(finished, f"{QUICK} {OTHER} --overwrite") == 0
    assert (finished / "summary" / "notes.txt").read_text() == MINE


def test_number_that_is_too_large_is_one_line(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = finished / "summary/recommendation.json"
    path.write_text(path.read_text().replace('"n": 0', '"n": 1e999'))
    assert page_of([str(finished)]) == 2
    assert f"{path}: cannot be read" in last_line(capsys.readouterr().err)


def test_deep_list_of_runs_is_none(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(finished / "runs.json", "[" * 100_000)
    assert page_of([str(finished)]) == 0
    write(finished / "runs.json", json.dumps([{"command": 5}]))
    assert page_of([str(finished)]) == 0
    assert capsys.readouterr().err == ""


# ---------------------------------------------------------------- the page of a folder


@pytest.mark.parametrize("name", ["page", "link for report", "link for report/index.html", "pipe"])
def test_page_replaces_only_a_page(
    name: str, finished: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    IN_THE_WAY[name][1](finished)
    before = tree(finished.parent)
    assert page_of([str(finished)]) == 2
    assert f"error: {finished / IN_THE_WAY[name][0]}: " in last_line(capsys.readouterr().err)
    assert tree(finished.parent) == before


# ---------------------------------------------------------------- images and results apart


@pytest.mark.parametrize("where", ["cat", "out", ".out", ".", "cat/../deep/er", "link/out"])
@WAYS
def test_output_folder_among_the_images(
    where: str, more: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = class_folders(tmp_path / "images")
    (images / "link").symlink_to(class_folders(tmp_path / "linked", first=1000) / "cat")
    before = tree(tmp_path)
    arguments = f"-ds {images} --image_size 8 {QUICK} {more}"
    assert sgd_influence(images / where, arguments, "-e 1 -nt 1 -r 0") == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "where data are read and kept; choose a folder elsewhere" in last_line(printed)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("data", ["images", "images/cat/..", "images/images.csv"])
def test_images_in_the_output_folder(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = csv_of(tmp_path, ["cat/0.png,0"]).parent
    (images / "report").mkdir()
    before = tree(tmp_path)
    if data.endswith(".csv"):
        assert sgd_influence(images, f"-ds {tmp_path / data} {QUICK} --overwrite") == 2
    else:
        assert sgd_influence(tmp_path, f"-ds {tmp_path / data} {QUICK} --overwrite") == 2
    assert "where data are read and kept" in last_line(capsys.readouterr().err)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(("data", "output"), [("data", "data/out"), ("out/data", "out")])
def test_output_folder_and_the_data_folder(
    data: str,
    output: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert sgd_influence(tmp_path / output, f"--data_dir {tmp_path / data} {QUICK}") == 2
    assert "where data are read and kept" in last_line(capsys.readouterr().err)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / data))
    assert sgd_influence(tmp_path / output, QUICK) == 2
    assert "where data are read and kept" in last_line(capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- files and links


def test_no_link_is_followed_on_the_way_to_a_file(tmp_path: Path, elsewhere: Path) -> None:
    root = tmp_path / "root"
    write(root / "a" / "b" / "c")
    (root / "link").symlink_to(elsewhere)
    (root / "file").symlink_to(elsewhere / "x")
    for name in ("link/x", "file"):
        with pytest.raises(UserError, match="is a symbolic link"):
            remove_file(root, name)
    with pytest.raises(UserError, match="is a symbolic link"):
        open_file(root / "file")
    with pytest.raises(UserError, match="file: is a symbolic link"):
        open_log_file(root / "file")
    remove_file(root, "a/b/c")
    remove_file(root, "a/b/c")
    assert not (root / "a").exists()
    assert (elsewhere / "x").read_text() == MINE


def test_parameters_in_another_file_are_not_read(tmp_path: Path, elsewhere: Path) -> None:
    path, secret = tmp_path / "a.h5", elsewhere / "x"
    shapes = {"a/W": (4,)}
    path.write_bytes(hdf5_of({"a/W": np.arange(4, dtype=np.float32)}))
    assert load_state(path, shapes)["a/W"].tolist() == [0, 1, 2, 3]
    with h5py.File(path, "w") as opened:
        opened.create_dataset("a/W", (4,), np.float32, external=[(str(secret), 0, 16)])
    with pytest.raises(UserError, match="the values of a/W are in another file"):
        load_state(path, shapes)
    layout = h5py.VirtualLayout((4,), np.float32)
    layout[:] = h5py.VirtualSource(tmp_path / "b.h5", "W", (4,))
    with h5py.File(path, "w") as opened:
        opened.create_virtual_dataset("a/W", layout)
    with pytest.raises(UserError, match="the values of a/W are in another file"):
        load_state(path, shapes)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="is a named pipe"):
        load_state(path, shapes)


def test_large_arrays_are_not_read(tmp_path: Path) -> None:
    """A file of some KB may hold an array of many GB."""
    with h5py.File(tmp_path / "a.h5", "w") as opened:
        opened.create_dataset("a/W", (10**12,), np.float32, chunks=(1024,), compression="gzip")
    with pytest.raises(UserError, match="holds the parameters of another net"):
        load_state(tmp_path / "a.h5", {"a/W": (4,)})


# ---------------------------------------------------------------- the lock where there is none


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_living_holder_is_believed_where_files_cannot_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", missing)
    lock, here = tmp_path / "run.lock", Holder.here()
    write(lock, json.dumps(here.__dict__ | {"pid": os.getppid()}))
    content = lock.read_text()
    holder = f"process {os.getppid()} on .*, seems to be writing to it"
    with pytest.raises(UserError, match=holder):
        FolderLock(lock).__enter__()
    assert lock.read_text() == content
    write(lock, json.dumps(here.__dict__ | {"pid": dead_process()}))
    with FolderLock(lock) as held:
        assert held.held()


# ---------------------------------------------------------------- names


def test_names_are_no_commands_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "a\x1b[31m\nb\udcff"
    arguments = ["-o", str(output), *SMALL.split(), *QUICK.split(), "-j", "1"]
    run = "eval_sgd_influence"
    module = __import__(run)
    assert command(module.COMMAND, arguments) == 0
    printed = capsys.readouterr()
    log = (output / "run.log").read_bytes()
    assert r"a\x1b[31m\nb\udcff" in printed.out
    assert page_of([str(output)]) == 0
    shown = capsys.readouterr().out
    assert shown == f"{tmp_path}/a\\x1b[31m\\nb\\udcff/report/index.html\n"
    assert command(module.COMMAND, [*arguments, "--lr", "1"]) == 2
    refusal = capsys.readouterr().err
    assert command(module.COMMAND, [*arguments, "-ds", "a\x1bb"]) == 2
    unknown = capsys.readouterr().err
    assert "data set 'a\\x1bb' is not known" in unknown
    assert page_of([str(tmp_path / "\x1b")]) == 2
    for text in (printed.out, printed.err, log.decode(), refusal, unknown, capsys.readouterr().err):
        assert "\x1b" not in text
    with pytest.raises(SystemExit):
        command(module.COMMAND, [*arguments, "--color", "\x1b"])
    assert "\x1b" not in capsys.readouterr().err


def test_name_that_is_too_long(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = tmp_path / ("x" * 300)
    assert sgd_influence(long, QUICK) == 2
    line = last_line(capsys.readouterr().err)
    assert f"error: {long}: File name too long; choose a shorter name; nothing is fin" in line
    assert sgd_influence(tmp_path / "out", f"{QUICK} -ds {long}") == 2
    line = last_line(capsys.readouterr().err)
    assert f"--dataset {long}: File name too long; make the folders on its way" in line


def test_path_that_may_not_be_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = os.stat

    def denied(path: Any, *more: Any, **options: Any) -> os.stat_result:
        if str(path).startswith("closed/"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return look(path, *more, **options)

    monkeypatch.setattr(os, "stat", denied)
    with pytest.raises(UserError, match="--dataset closed/images: Permission denied; make the fol"):
        prepare("closed/images", None, False)


def test_print_is_of_a_file_only(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is a named pipe where a run has a file"):
        FileDigest.of(tmp_path / "pipe")
