"""A run survives: changed files, two runs at once, kills, full disks, folders that go, signals."""

from __future__ import annotations

import errno
import json
import os
import pty
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import nnabla as nn
import nnabla.functions as F
import nnabla.parametric_functions as PF
import numpy as np
import pytest
from nnabla.initializer import UniformInitializer

import utils.run.tasks
from benchmarks.kill_test import differing, files_of
from tests.helpers import users_models
from tests.helpers.own_images import picture
from tests.helpers.runs import (
    ROOT,
    children,
    command,
    contents,
    heed_signals,
    last_line,
    read_state,
    record,
    save_manifest,
    sgd_influence,
    start,
    wait_for,
)
from tests.helpers.users_models import good as users_good
from utils.data import decode
from utils.data.source import CACHE_VARIABLE
from utils.errors import UserError
from utils.output.folder import OutputFolder
from utils.output.lock import FolderLock
from utils.output.manifest import Manifest
from utils.output.paths import OutputPaths
from utils.training.model_check import check_once
from utils.training.models import find_model
from utils.training.network import hdf5_of

QUICK = "--model mlp --context cpu"
TRAINING = "infl_results_sgd/seed_00"
JOBS = pytest.mark.parametrize("jobs", ["1", "2"])
LONG = ["-r", *map(str, range(1, 50))]


def complete(output: Path, unbroken: Path) -> None:
    """The same command goes on, and all files but the log are those of the unbroken run."""
    assert sgd_influence(output, QUICK) == 0
    assert differing(output, files_of(unbroken)) == []


# ---------------------------------------------------------------- the manifest


def test_manifest_names_what_the_results_were_made_from(unbroken: Path) -> None:
    manifest = json.loads((unbroken / "manifest.json").read_text())
    assert manifest["options"]["lr"] == 0.05
    assert manifest["options"]["command"] == "eval_sgd_influence.py"
    assert {"nnabla", "numpy", "data cleansing"} <= manifest["versions"].keys()
    training = manifest["inputs"]["digits_training_0.csv"]
    assert training["images"] == 60
    assert training["bytes"] > 0
    results = {name for name in files_of(unbroken) if name != "manifest.json"}
    assert manifest["outputs"].keys() == results
    assert manifest["coming"] == {}
    for name, known in manifest["outputs"].items():
        assert known["bytes"] == (unbroken / name).stat().st_size


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def change(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"0")


DAMAGES = {cut: "cut short", change: "changed", lengthen: "changed", Path.unlink: "missing"}
DAMAGED = (
    "influence/Hara/influence_hara_0.csv",
    "score/Ours/score_delete_worst_5_seed_0.csv",
    "score/Ours/outcomes_delete_worst_5_seed_0.npz",
    "summary/summary.csv",
    "summary/recommendation.json",
    "fig/result.png",
    f"{TRAINING}/steps.npz",
    f"{TRAINING}/learning_curve.csv",
    f"{TRAINING}/margins.npy",
    f"{TRAINING}/label_record_0002.npz",
    f"{TRAINING}/final_model.h5",
    f"{TRAINING}/epoch01/weights/model_step0000.h5",
    f"{TRAINING}/epoch01/weights/model_step0002.h5",
)
OF_EACH_KIND = (
    DAMAGED[0],
    f"{TRAINING}/steps.npz",
    f"{TRAINING}/epoch01/weights/model_step0002.h5",
)
"""A result, a record of the training and a state."""


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        *((change, name) for name in DAMAGED),
        *((damage, name) for damage in (cut, lengthen, Path.unlink) for name in OF_EACH_KIND),
    ],
)
@pytest.mark.usefixtures("learnt")
def test_damaged_file_is_named_and_made_anew(
    damage: Callable[[Path], None],
    name: str,
    finished: Path,
    unbroken: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(finished / name)
    kept = finished / f"{name}.changed"
    there = kept.with_name(Path(name).name)
    content = there.read_bytes() if there.exists() else None
    assert sgd_influence(finished, QUICK) == 0
    what = f"{DAMAGES[damage]}; " + (f"moved to {kept.name} and " if content else "")
    assert capsys.readouterr().err == f"{finished / name}: {what}recomputed\n"
    assert f"{finished / name}: {DAMAGES[damage]}" in (finished / "run.log").read_text()
    assert content == (kept.read_bytes() if kept.exists() else None)
    kept.unlink(missing_ok=True)
    assert differing(finished, files_of(unbroken)) == []


def test_changed_files_of_one_training_are_all_kept(
    finished: Path, unbroken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What belongs to a changed file is given up, but not what a person changed."""
    names = [f"{TRAINING}/{end}" for end in ("epoch01/weights/model_step0000.h5", "final_model.h5",
                                             "margins.npy")]  # fmt: skip
    for name in names:
        lengthen(finished / name)
    theirs = {name: (finished / name).read_bytes() for name in names}
    assert sgd_influence(finished, QUICK) == 0
    for name, content in theirs.items():
        kept = finished / f"{name}.changed"
        assert kept.read_bytes() == content
        kept.unlink()
    assert "moved to" in capsys.readouterr().err
    assert differing(finished, files_of(unbroken)) == []


@pytest.mark.usefixtures("learnt")
def test_many_missing_files_are_one_line(
    finished: Path, unbroken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(finished / TRAINING)
    shutil.rmtree(finished / "influence")
    complete(finished, unbroken)
    assert capsys.readouterr().err.endswith("and 8 more: missing; recomputed\n")


def test_undamaged_files_are_not_computed_again(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the sweep of the damaged influence is run."""
    change(finished / "influence/Hara/influence_hara_0.csv")
    monkeypatch.setattr(utils.run.tasks, "train_epoch", None)
    monkeypatch.setattr(utils.run.tasks, "evaluate_without", None)
    assert sgd_influence(finished, QUICK) == 0


def test_extended_run_knows_its_new_files(finished: Path, unbroken: Path, tmp_path: Path) -> None:
    """Summary and picture are rewritten by a command with more n, methods and trials."""
    more = f"{QUICK} -nt 2 -r 5 7 --methods Hara Random Influence_functions"
    assert sgd_influence(finished, more) == 0
    assert (finished / "summary/summary.csv").read_bytes() != (
        unbroken / "summary/summary.csv"
    ).read_bytes()
    before = files_of(finished)
    assert sgd_influence(finished, more) == 0
    assert files_of(finished) == before


def test_csv_of_another_run_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = finished / "score/Hara/score_delete_worst_5_seed_0.csv"
    foreign = there.with_name("score_delete_worst_6_seed_0.csv")
    shutil.copy(there, foreign)
    assert sgd_influence(finished, QUICK) == 2
    line = last_line(capsys.readouterr().err)
    assert f"{foreign}: was not written by a run into this folder" in line
    assert foreign.exists()
    foreign.unlink()
    assert sgd_influence(finished, QUICK) == 0


def test_changed_images_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A label in the index of prepared images is no archive's; the split names it."""
    data = tmp_path / "data"
    monkeypatch.setenv(CACHE_VARIABLE, str(data))
    more = f"{QUICK} -r 0 --methods Random"
    assert sgd_influence(tmp_path / "out", more) == 0
    index = data / "digits/prepared_images.csv"
    rows = index.read_text().splitlines()
    rows = [row.replace(",3,", ",4,") if ",training" in row else row for row in rows]
    index.write_text("\n".join([*rows, ""]))
    before = contents(tmp_path / "out")
    assert sgd_influence(tmp_path / "out", more) == 2
    line = last_line(capsys.readouterr().err)
    assert "digits_training_0.csv: " in line
    assert contents(tmp_path / "out") == before


def test_own_model_that_was_edited_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = "--model tests.helpers.users_models:good --context cpu -r 0 --methods Random"
    assert sgd_influence(tmp_path, more) == 0
    for edited in (find_model("mlp"), other_initial_values, other_training_graph):
        monkeypatch.setattr(users_models, "good", edited)
        check_once.cache_clear()
        assert sgd_influence(tmp_path, more) == 2
        assert "the model's graph was " in last_line(capsys.readouterr().err)
    check_once.cache_clear()


def other_initial_values(x: nn.Variable, n_classes: int, test: bool) -> nn.Variable:
    h = PF.convolution(x, 4, (3, 3), pad=(1, 1), w_init=UniformInitializer((-0.01, 0.01)))
    h = PF.fused_batch_normalization(h, batch_stat=not test)
    return PF.affine(F.max_pooling(h, (2, 2)), n_classes)


def other_training_graph(x: nn.Variable, n_classes: int, test: bool) -> nn.Variable:
    logits = users_good(x, n_classes, test)
    return logits if test else 2 * logits


def test_other_versions_are_said(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = Manifest.read(OutputPaths(finished))
    manifest.versions["nnabla"] = "1.38.0"
    save_manifest(manifest)
    assert sgd_influence(finished, QUICK) == 0
    assert "begun with nnabla 1.38.0, now 1.39.0; new results" in capsys.readouterr().err


def test_training_that_repeats_with_other_numbers_is_said(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on another machine: the account holds other hashes than the states now have."""
    path = finished / TRAINING / "epoch01/weights/model_step0002.h5"
    other = {name: value * 1.001 for name, value in read_state(path).items()}
    path.write_bytes(hdf5_of(other))
    record(finished, path)
    (finished / TRAINING / "final_model.h5").unlink()
    assert sgd_influence(finished, QUICK) == 0
    printed = capsys.readouterr().err
    assert printed.count("the repeated training gives other numbers than before") == 1


# ---------------------------------------------------------------- the lock


def test_second_run_says_who_holds_the_folder(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FolderLock(finished / "run.lock"):
        assert sgd_influence(finished, QUICK) == 2
    line = last_line(capsys.readouterr().err)
    held = f"{finished}: process {os.getpid()} on {socket.gethostname()}, since "
    assert held in line
    assert "is writing to it; wait until it ends, or use another folder" in line
    assert sgd_influence(finished, QUICK) == 0
    assert not (finished / "run.lock").exists()


def test_second_process_is_refused_and_the_lock_of_a_killed_one_taken_over(
    tmp_path: Path, data_cache: Path, unbroken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    process = start(output, data_cache, *LONG)
    wait_for(process, lambda: list(output.glob("score/**/*.csv")))
    assert sgd_influence(output, QUICK) == 2
    assert f"process {process.pid} on " in last_line(capsys.readouterr().err)
    process.kill()
    process.communicate()
    assert sgd_influence(output, QUICK) == 0
    printed = capsys.readouterr().err.splitlines()
    [warning] = [line for line in printed if f"process {process.pid} on " in line]
    assert warning in (output / "run.log").read_text()
    assert not (output / "run.lock").exists()
    assert contents(unbroken, "**/*.h5") == contents(output, "**/*.h5")


def test_lock_of_another_host_is_believed(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holder = {"pid": 1, "host": "elsewhere", "since": "yesterday"}
    (finished / "run.lock").write_text(json.dumps(holder))
    assert sgd_influence(finished, QUICK) == 2
    line = last_line(capsys.readouterr().err)
    assert f"if it has ended, delete {finished / 'run.lock'}" in line
    (finished / "run.lock").unlink()
    assert sgd_influence(finished, QUICK) == 0


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"pid": 1}'])
def test_lock_file_that_says_nothing_is_taken_over(content: str, tmp_path: Path) -> None:
    (tmp_path / "run.lock").write_text(content)
    with FolderLock(tmp_path / "run.lock") as lock:
        assert lock.held()
        with pytest.raises(UserError, match=f"process {os.getpid()} "):
            FolderLock(tmp_path / "run.lock").__enter__()
    assert not lock.held()


# ---------------------------------------------------------------- kills


FORKS = """
import os, signal, sys
from itertools import count
from pathlib import Path
from tests.helpers.runs import sgd_influence

os.fsync = lambda descriptor: None

def run_and_die(output, at):
    renames, rename = count(1), os.replace

    def replace(*names):
        if next(renames) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(*names)

    os.replace = replace
    sgd_influence(output, sys.argv[2])
    os._exit(0)

for at in count(1, 9):
    child = os.fork()
    if child == 0:
        run_and_die(Path(sys.argv[1]) / str(at), at)
    if not os.WIFSIGNALED(os.waitpid(child, 0)[1]):
        sys.exit()
"""
"""Runs that kill themselves before the rename number 1, 10, 19, ..., until one is not killed."""


def test_killed_between_any_two_renames(unbroken: Path, tmp_path: Path, data_cache: Path) -> None:
    """Every file is announced, written and renamed: a kill at any of these loses nothing."""
    environment = os.environ | {CACHE_VARIABLE: str(data_cache)}
    arguments = [sys.executable, "-c", FORKS, str(tmp_path), f"{QUICK} -q"]
    subprocess.run(arguments, env=environment, cwd=ROOT, check=True)
    *killed, last = sorted(tmp_path.iterdir(), key=lambda output: int(output.name))
    assert differing(last, files_of(unbroken)) == []
    assert len(killed) >= 10
    for output in killed:
        # the page alone is written after the lock is gone
        before_the_page = (output / "runs.json").exists() and output == killed[-1]
        assert (output / "run.lock").exists() or before_the_page
        complete(output, unbroken)


def test_killed_training_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With momentum and BatchNorm; epochs that are done are not trained again."""
    more = "-e 4 --momentum 0.9 -r 0 --methods Random --model resnet --context cpu"
    assert sgd_influence(tmp_path / "unbroken", more) == 0

    class Killed(BaseException):
        pass

    from utils.training.sgd import SGD

    taken: list[int] = []
    step = SGD.step

    def dies_in_epoch_3(sgd: SGD, data, recorded, removed=None) -> float:
        if taken.count(2) == 2:
            raise Killed
        taken.append(recorded.epoch)
        return step(sgd, data, recorded, removed)

    monkeypatch.setattr(SGD, "step", dies_in_epoch_3)
    with pytest.raises(Killed):
        sgd_influence(tmp_path / "out", more)
    states = list(contents(tmp_path / "out", "**/*.h5"))
    assert states == [f"{TRAINING}/epoch02/weights/model_step0000.h5"]
    taken.clear()
    monkeypatch.setattr(SGD, "step", step)
    capsys.readouterr()
    assert sgd_influence(tmp_path / "out", more) == 0
    assert "Trial 0: training resumes with epoch 3" in capsys.readouterr().out
    assert differing(tmp_path / "out", files_of(tmp_path / "unbroken")) == []


def test_kill_test_counts_files_that_differ(unbroken: Path, finished: Path) -> None:
    expected = files_of(unbroken)
    assert differing(finished, expected) == []
    change(finished / "influence/Hara/influence_hara_0.csv")
    (finished / "summary/summary.csv").unlink()
    (finished / ".left.0123abcd.tmp.h5").touch()
    names = [".left.0123abcd.tmp.h5", "influence/Hara/influence_hara_0.csv", "summary/summary.csv"]
    assert differing(finished, expected) == names


# ---------------------------------------------------------------- the disk and the folder


ALLOWED = "(run the tests as root; in Docker with --privileged)"
NEEDS = {
    "mount": f"needs a user who may mount a file system {ALLOWED}",
    "chattr": f"needs a user who may chattr +i, and TMPDIR on ext4, XFS or Btrfs {ALLOWED}",
}


def privileged(*arguments: str) -> None:
    """Run a command that only root may run; skip the test where it is not allowed."""
    try:
        outcome = subprocess.run(arguments, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip(NEEDS[arguments[0]])
    if outcome.returncode:
        pytest.skip(NEEDS[arguments[0]])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 700 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    privileged("mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(disk))
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@JOBS
def test_full_disk(jobs: str, small_disk: Path, data_cache: Path, unbroken: Path) -> None:
    privileged("mount", "-o", "remount,size=30m", str(small_disk))
    output = small_disk / "out"
    process = start(output, data_cache, *LONG, "-j", jobs)
    wait_for(process, lambda: list(output.glob("score/**/*.csv")))
    with suppress(OSError):
        (small_disk / "of others").write_bytes(bytes(30 << 20))
    _, printed = process.communicate()
    assert process.returncode == 2
    full = "No space left on device; free some space; finished work is kept in"
    assert full in last_line(printed)
    assert f"error: {output}/" in last_line(printed)
    assert not list(output.rglob("*.tmp*"))
    (small_disk / "of others").unlink()
    assert sgd_influence(output, QUICK) == 0
    assert contents(unbroken, "**/*.h5") == contents(output, "**/*.h5")


def test_state_that_a_full_disk_cannot_take(small_disk: Path) -> None:
    """HDF5 itself would end the process, at some sizes, when it closes the file."""
    for n_numbers in range(5_000, 300_000, 1_000):
        path = small_disk / f"{n_numbers}.h5"
        state = {"a/W": np.ones(n_numbers, np.float32), "b/W": np.ones(2000, np.float32)}
        try:
            OutputFolder(small_disk).save_bytes(hdf5_of(state), path, durable=False)
        except OSError as error:
            assert (error.errno, error.filename) == (errno.ENOSPC, str(path))
            assert not list(small_disk.glob(".*"))
            assert not path.exists()
            return
    raise AssertionError("the disk was never full")


def test_read_only_file_system(
    small_disk: Path, unbroken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    privileged("mount", "-o", "remount,ro,size=100m", str(small_disk))
    output = small_disk / "out"
    assert sgd_influence(output, QUICK) == 2
    remedy = "Read-only file system; make it writable, or choose another --output_dir"
    assert f"error: {output}: {remedy}" in last_line(capsys.readouterr().err)
    privileged("mount", "-o", "remount,rw", str(small_disk))
    complete(output, unbroken)


def test_limit_on_the_size_of_files(tmp_path: Path, data_cache: Path, unbroken: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = start(tmp_path / "out", data_cache, preexec_fn=limit)
    _, printed = process.communicate()
    assert process.returncode == 2
    large = "model_step0000.h5: File too large; raise the limit on the size of files (ulimit -f)"
    assert large in last_line(printed)
    assert not list(tmp_path.rglob("*.h5"))
    complete(tmp_path / "out", unbroken)


@pytest.fixture
def immutable(tmp_path: Path) -> Iterator[Path]:
    """An output folder that even root cannot write."""
    output = tmp_path / "out"
    output.mkdir()
    privileged("chattr", "+i", str(output))
    yield output
    subprocess.run(["chattr", "-i", str(output)], check=True)


def test_folder_that_cannot_be_written(
    immutable: Path, unbroken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sgd_influence(immutable, QUICK) == 2
    remedy = "Operation not permitted; make it writable, or choose another --output_dir"
    line = last_line(capsys.readouterr().err)
    assert f"error: {immutable / 'run.lock'}: {remedy}" in line
    assert list(immutable.iterdir()) == []
    subprocess.run(["chattr", "-i", str(immutable)], check=True)
    complete(immutable, unbroken)


def test_results_that_become_unwritable_while_the_run_goes_on(
    tmp_path: Path, data_cache: Path, unbroken: Path
) -> None:
    output = tmp_path / "out"
    process = start(output, data_cache, *LONG)
    scores = output / "score/Random"  # the method that comes last
    wait_for(process, lambda: list(scores.glob("score_delete_worst_0_*.csv")))
    try:
        privileged("chattr", "+i", str(scores))
        _, printed = process.communicate()
    finally:
        process.kill()
        subprocess.run(["chattr", "-i", str(scores)], check=False, capture_output=True)
    assert process.returncode == 2
    line = last_line(printed)
    assert f"error: {scores}/outcomes_delete_worst_" in line
    assert "Operation not permitted; make it writable" in line
    assert sgd_influence(output, QUICK) == 0
    assert contents(unbroken, "**/*.h5") == contents(output, "**/*.h5")


@JOBS
def test_folder_removed_while_the_run_goes_on(
    jobs: str, tmp_path: Path, data_cache: Path, unbroken: Path
) -> None:
    output = tmp_path / "out"
    process = start(output, data_cache, *LONG, "-j", jobs)
    wait_for(process, lambda: list(output.glob("score/**/*.csv")))
    output.rename(tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone", ignore_errors=True)
    _, printed = process.communicate()
    assert process.returncode == 2
    line = last_line(printed)
    assert f"error: {output}" in line
    assert "removed" in line
    assert "while the run went on; the same command" in line
    assert not output.exists()
    complete(output, unbroken)


def test_full_disk_of_the_data_folder(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that memory is mapped to takes its space before it is used."""
    monkeypatch.setattr(decode, "free_memory", lambda: 0)
    assert decode.room_for((100, 8, 8, 1), small_disk).sum() == 0
    with pytest.raises(OSError, match="No space left on device") as raised:
        decode.room_for((1000, 32, 32, 1), small_disk)
    assert raised.value.filename == str(small_disk)


# ---------------------------------------------------------------- signals


@pytest.mark.parametrize(
    ("name", "jobs"), [("SIGINT", "1"), ("SIGINT", "2"), ("SIGTERM", "2"), ("SIGHUP", "1")]
)
@pytest.mark.usefixtures("learnt")
def test_signal_ends_in_one_line(
    name: str, jobs: str, tmp_path: Path, data_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, number = tmp_path / "out", signal.Signals[name]
    process = start(output, data_cache, *LONG, "-j", jobs)
    wait_for(process, lambda: list(output.glob("score/**/*.csv")))
    workers = children(process.pid)
    assert len(workers) == (int(jobs) if jobs != "1" else 0)
    process.send_signal(number)
    _, printed = process.communicate()
    assert process.returncode == 128 + number
    how = "interrupted" if name == "SIGINT" else f"ended by {name}"
    line = f"eval_sgd_influence.py: {how}; finished work is kept in {output}; "
    assert last_line(printed).startswith(line)
    assert line in (output / "run.log").read_text().splitlines()[-1]
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert not list(output.rglob(".*"))
    kept = contents(output)
    assert sgd_influence(output, QUICK) == 0
    assert kept.items() <= contents(output).items()
    assert capsys.readouterr().err == ""


def test_signal_while_training_and_evaluating(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbroken: Path
) -> None:
    """Without any bar to come: the evaluation looks for signals too."""
    from utils.training.evaluation import Evaluator

    evaluate = Evaluator.__call__

    def signalled(evaluator: Evaluator, data):
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(evaluator, data)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "__call__", signalled)
        assert sgd_influence(tmp_path, QUICK) == 143
    assert not (tmp_path / TRAINING / "learning_curve.csv").exists()
    complete(tmp_path, unbroken)


def test_terminal_that_hangs_up(tmp_path: Path, data_cache: Path) -> None:
    """The terminal goes, the kernel sends SIGHUP, nothing can be printed there any more."""
    output = tmp_path / "out"
    environment = os.environ | {CACHE_VARIABLE: str(data_cache)}
    child, terminal = pty.fork()
    if child == 0:
        heed_signals()
        os.chdir(ROOT)
        os.execve(sys.executable, command(output, *LONG), environment)
    while not list(output.glob("score/**/*.csv")):
        if select.select([terminal], [], [], 0.02)[0]:
            os.read(terminal, 1000)
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert "ended by SIGHUP; finished work" in (output / "run.log").read_text().splitlines()[-1]
    assert sgd_influence(output, QUICK) == 0


def test_ignored_hangup_stays_ignored(tmp_path: Path, data_cache: Path) -> None:
    """As under nohup."""

    def ignore() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = start(tmp_path / "out", data_cache, preexec_fn=ignore)
    wait_for(process, lambda: list(tmp_path.rglob("*.h5")))
    process.send_signal(signal.SIGHUP)
    process.communicate()
    assert process.returncode == 0


# ---------------------------------------------------------------- worker processes


def test_worker_that_is_killed(tmp_path: Path, data_cache: Path) -> None:
    """One of the processes that read a user's images."""
    images = tmp_path / "images"
    noise = np.random.default_rng(0).integers(0, 256, (decode.SERIAL_BELOW, 4), dtype=np.uint8)
    for number, pixel in enumerate(noise):
        path = images / "ab"[number % 2] / f"{number}.bmp"
        if number < 2:
            picture(path, mode="L")
        else:
            header = (images / "a/0.bmp").read_bytes()[:-4]
            path.write_bytes(header + pixel.tobytes())
    output = tmp_path / "out"
    own = ["-ds", str(images), "--image_size", "8", "-e", "1", "-r", "0", "--methods", "Random"]
    process = start(output, data_cache, *own)
    wait_for(process, lambda: children(process.pid))
    os.kill(children(process.pid)[0], signal.SIGKILL)
    _, printed = process.communicate()
    assert process.returncode == 2
    line = last_line(printed)
    assert "and other images died, perhaps for lack of memory; free some memory and" in line
    again = start(output, data_cache, *own)
    _, printed = again.communicate()
    assert again.returncode == 0, printed
