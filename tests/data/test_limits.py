"""What a user's data and machine may be: memory, kinds of files, lengths, encodings."""

from __future__ import annotations

import io
import logging
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import utils.run.pipeline
from tests.helpers.own_images import class_folders, csv_of, picture, rows_of
from tests.helpers.runs import ROOT, sgd_influence
from utils.columns import CLASS
from utils.console import open_console
from utils.data import decode
from utils.data.datasets import prepare
from utils.data.decode import Form, decode_file, picture_of, survey_file
from utils.data.formats import read_idx, read_members
from utils.data.nnc_csv import MOST_COLUMNS, read_users_csv
from utils.data.source import CACHE_VARIABLE
from utils.errors import LONGEST, UserError
from utils.files import check_regular
from utils.output import usage
from utils.output.storage import load_array, read_csv, save_csv
from utils.output.usage import Limit, Watch, free_memory, machine_memory, memory_limit, taken_now
from utils.run.preflight import Estimate, Work, check_memory
from utils.training.network import load_state
from utils.training.steps import load_steps

GB = 10**9


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


# ---------------------------------------------------------------- memory that is there


def system(
    root: Path, version: int, group: str = "/a/b", mounted: str = "/", **limits: tuple[int, int]
) -> Path:
    """A /proc whose process is in control groups; limit and usage by `_`-joined path."""
    proc, tree = root / "proc", root / "cg roup"
    (proc / "self").mkdir(parents=True)
    kind = ("cgroup", "5:cpu,memory:", "rw,memory") if version == 1 else ("cgroup2", "0::", "rw")
    (proc / "self/cgroup").write_text(f"9:pids:/x\n{kind[1]}{group}\n")
    where = str(tree).replace(" ", "\\040")
    line = f"31 23 0:28 {mounted} {where} rw shared:1 - {kind[0]} cgroup {kind[2]}\n"
    (proc / "self/mountinfo").write_text("1 2 0:3 / / rw - ext4 /dev/root rw\n" + line)
    names = ("memory.max", "memory.current", "inactive_file")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    for path, (limit, used) in limits.items():
        folder = tree / path.strip("_").replace("_", "/")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / names[0]).write_text(f"{limit}\n" if limit else "max\n")
        (folder / names[1]).write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 5\n{names[2]} 1000\n")
    (proc / "meminfo").write_text("MemTotal: 99 kB\nMemAvailable: 20000000 kB\n")
    return proc


@pytest.mark.parametrize("version", [1, 2])
def test_the_smallest_limit_of_the_control_groups_counts(tmp_path: Path, version: int) -> None:
    proc = system(tmp_path, version, _=(0, 0), a=(3 * 10**8, 10**8), a_b=(4 * 10**8, 10**7))
    assert memory_limit(proc) == Limit(3 * 10**8, "limit of this container or control group")
    assert free_memory(proc) == 2 * 10**8 + 1000


def test_the_limit_of_a_container_that_sees_itself_as_root(tmp_path: Path) -> None:
    proc = system(tmp_path, 1, "/docker/x", "/docker/x", _=(2 * 10**8, 0))
    assert memory_limit(proc).size == 2 * 10**8


def test_a_limit_above_the_memory_of_the_machine_does_not_count(tmp_path: Path) -> None:
    proc = system(tmp_path, 1, "/", _=(9223372036854771712, 0))
    assert memory_limit(proc) == Limit(machine_memory(), "of this machine")


def test_without_proc_the_machine_counts(tmp_path: Path) -> None:
    assert memory_limit(tmp_path / "none").size == machine_memory()
    assert free_memory(tmp_path / "none") > 0


def estimate_of(memory: float, waiting: float, each: float) -> Estimate:
    stages = {"eval": Work.of(5, [30.0] * 10)}
    return Estimate(stages, memory, waiting=waiting, each=each)


def test_what_is_common_counts_once() -> None:
    assert estimate_of(300, 200, 150).by(3).memory == 650
    assert estimate_of(300, 100, 50).by(2).memory == 300


def test_default_workers_have_room_in_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.run.preflight.memory_limit", lambda: Limit(700, "here"))
    assert estimate_of(300, 200, 150).workers_that_pay(8) == 3


def test_what_does_not_fit_is_refused() -> None:
    alone, limit = estimate_of(3 * GB, 2 * GB, 1 * GB), Limit(5 * GB, "of this machine")
    check_memory(alone, alone.by(3), 3, limit)
    told = r"--jobs 4: .* 6 GB .* 5 GB are available .* give --jobs 3"
    with pytest.raises(UserError, match=told):
        check_memory(alone, alone.by(4), 4, limit)
    with pytest.raises(UserError, match=r"about 3 GB of memory, but only 2 GB .*--batch_size"):
        check_memory(alone, alone, None, Limit(2 * GB, "limit of this container"))


def test_a_limit_of_address_space_counts_for_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (2 * GB, 2 * GB))
    alone = estimate_of(3 * GB, 2 * GB, 1 * GB)
    with pytest.raises(UserError, match=r"only 2 GB are available \(limit of a process, ulimit -v"):
        check_memory(alone, alone, None, Limit(50 * GB, "of this machine"))


@pytest.mark.parametrize("more", ["-j 1", "-j 2", ""])
def test_a_run_without_room_is_one_line(
    more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limit = Limit(20_000_000, "limit of this container or control group")
    monkeypatch.setattr(utils.run.pipeline, "memory_limit", lambda: limit)
    assert sgd_influence(tmp_path / "out", f"--model mlp {more}") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "but only 20 MB are available (limit of this container or control group); free" in line


# ---------------------------------------------------------------- memory that is taken


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux' PSS")
def test_the_watch_adds_what_children_take_at_the_same_time() -> None:
    hold = "import sys; a = b'x' * 300_000_000; print(1, flush=True); sys.stdin.read()"
    with Watch().running() as watch:
        before = watch.peak()
        for _ in range(2):  # one after the other, not both at once
            command = [sys.executable, "-c", hold]
            with subprocess.Popen(command, stdin=-1, stdout=-1) as child:
                assert child.stdout and child.stdout.readline()
                watch._look()
                child.communicate()
        assert 300e6 < watch.peak() - taken_now().share < 450e6
    assert before < watch.peak()
    assert not any(thread is watch._thread for thread in threading.enumerate())


def test_where_the_system_does_not_say_the_peak_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "PROC", tmp_path)
    with Watch().running() as watch:
        assert watch.peak() > 10e6


# ---------------------------------------------------------------- large images


def photo(path: Path, size: tuple[int, int], **more: Any) -> Path:
    small = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path, **more)
    return path


def test_a_large_jpeg_is_decoded_at_a_smaller_size_and_looks_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(photo(tmp_path / "a.jpg", (2400, 1800), quality=95))
    whole = decode_file(path, Form(64, 3))
    monkeypatch.setattr(decode, "LARGE", 1_000_000)
    assert min(picture_of(path, 64).size) == 450
    reduced = decode_file(path, Form(64, 3))
    assert reduced.conversions == whole.conversions
    difference = np.abs(reduced.pixels.astype(int) - whole.pixels)
    assert 0 < difference.mean() < 1 and difference.max() <= 4


def test_other_images_are_decoded_as_they_are(tmp_path: Path) -> None:
    path = str(photo(tmp_path / "a.jpg", (1200, 900)))
    assert picture_of(path, 64).size == (1200, 900)
    assert (np.asarray(picture_of(path, 64)) == np.asarray(Image.open(path))).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "CMYK"])
def test_strips_give_what_the_whole_image_gives(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = "tif" if mode == "CMYK" else "png"
    path = str(picture(tmp_path / f"a.{kind}", 3, mode, size=(50, 37)))
    whole = decode_file(path, Form())
    monkeypatch.setattr(decode, "STRIP", 120)
    np.testing.assert_array_equal(decode_file(path, Form()).pixels, whole.pixels)


def test_an_image_that_does_not_fit_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = class_folders(tmp_path / "images")
    Image.new("RGB", (4000, 3000)).save(folder / "cat" / "huge.png")
    monkeypatch.setattr(decode, "free_memory", lambda: 40_000_000)
    assert sgd_influence(tmp_path / "out", small=f"-ds {folder} --image_size 8") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "cat/huge.png: 4000x3000 px take 48 MB of memory to decode, 40 MB are free; " in line
    assert "make the image smaller" in line


@pytest.mark.parametrize("dataset", ["digits", "pictures"])
def test_a_size_that_does_not_fit_is_one_line(
    dataset: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = str(class_folders(tmp_path / dataset)) if dataset == "pictures" else dataset
    monkeypatch.setattr(decode, "free_memory", lambda: 2 * GB)
    for taking in ("decode_file", "room_for"):  # nothing is tried without the check either
        monkeypatch.setattr(f"utils.data.images.{taking}", lambda *_: pytest.fail("tried"))
    assert sgd_influence(tmp_path / "out", small=f"-ds {name} --image_size 100000") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "error: --image_size 100000: " in line
    assert "of memory, 2 GB are free; give a smaller size" in line


def test_processes_that_decode_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    monkeypatch.setattr(decode, "free_memory", lambda: 2 * GB)
    assert decode._processes_for(0) == 8
    assert decode._processes_for(900_000_000) == 2
    assert decode._processes_for(5 * GB) == 1


# ---------------------------------------------------------------- files that are none


def special(root: Path, kind: str) -> Path:
    path = root / "special"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "made up by the system":
        path.symlink_to("/proc/self/status" if Path("/proc/self/status").exists() else os.devnull)
    else:
        path.symlink_to({"device": os.devnull, "folder": str(root)}[kind])
    return path


READERS: dict[str, Callable[[Path], object]] = {
    "CSV of a user": read_users_csv,
    "CSV of a run": read_csv,
    "array": lambda path: load_array(path, (1,)),
    "parameters": lambda path: load_state(path, {}),
    "steps": load_steps,
    "archive": lambda path: read_members(path, [], 1),
    "IDX file": read_idx,
}


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "made up by the system"])
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_regular_file_is_never_opened(reader: str, kind: str, tmp_path: Path) -> None:
    path = special(tmp_path, kind)
    with pytest.raises(OSError) as raised:
        check_regular(path)
    with pytest.raises(UserError) as refused:
        READERS[reader](path)
    assert "\n" not in str(refused.value)
    reason = raised.value.strerror or ""
    texts = reason, "it is empty", "where a run has a file"  # as the readers report it
    assert any(text in str(refused.value) for text in texts)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "made up by the system"])
def test_an_image_that_is_no_regular_file_is_never_opened(kind: str, tmp_path: Path) -> None:
    words = ("not a plain file", "a folder, not a file", "the file is empty")
    assert survey_file(str(special(tmp_path, kind))).problem in words


# ---------------------------------------------------------------- lengths


def test_a_line_of_an_error_is_bounded_and_keeps_place_and_remedy() -> None:
    line = str(UserError("a.csv: row 2: " + "x" * 10**6 + "; mend it"))
    assert line.startswith("a.csv: row 2: xxx") and line.endswith("xxx; mend it")
    assert len(line) < LONGEST and "characters left out" in line
    assert str(UserError("short; mend it")) == "short; mend it"


def test_a_line_that_is_logged_is_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    open_console(quiet=False, verbose=False)
    log = logging.getLogger("data_cleansing")
    try:
        log.warning("classes: %s", "y" * 10**6)
    finally:
        log.handlers = []
    assert len(capsys.readouterr().err) < LONGEST + 10


@pytest.mark.parametrize("column", ["label", "class", "path"])
def test_a_huge_field_is_a_short_line(
    column: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    huge = "z" * 3_000_000
    row = {"label": f"cat/0.png,{huge},a", "class": f"cat/0.png,0,{huge}", "path": f"{huge},0,a"}
    rows = [row[column], *(f"{row},a" for row in rows_of()[1:])]
    csv = csv_of(tmp_path, rows, f"x:image,y:label,{CLASS}")
    assert sgd_influence(tmp_path / "out", small=f"-ds {csv}") == 2
    printed = capsys.readouterr()
    assert len(printed.err + printed.out) < 2 * LONGEST
    assert "row 2" in printed.err


def test_too_many_columns_are_refused(tmp_path: Path) -> None:
    header = ",".join(["x:image", "y:label", *(f"c{i}" for i in range(MOST_COLUMNS))])
    csv = csv_of(tmp_path, rows_of(), header)
    with pytest.raises(UserError, match="row 1: 5,002 columns, 5,000 at most are read; remove"):
        read_users_csv(csv)


# ---------------------------------------------------------------- names

NAMES = [" cat", "cat", "cat ", " ", 'a "b"', "a, b", "a\nb", "a\rb", "#c", "=1+1", "NA", "0", "ü"]


def test_names_of_classes_come_back_exactly(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for number, name in enumerate(NAMES):
        for image in range(3):
            picture(folder / name / f"{image}.png", 10 * number + image)
    source = prepare(str(folder), None, False, 8, "auto")
    names = source.class_names
    assert sorted(names) == sorted(NAMES)
    listed = source.training.assign(**{CLASS: [names[y] for y in source.training["y:label"]]})
    save_csv(listed, tmp_path / "list" / "cleansed.csv")
    again = prepare(str(tmp_path / "list" / "cleansed.csv"), None, False, 8, "auto")
    assert again.class_names == names


def test_a_name_that_is_not_utf8_is_one_line(tmp_path: Path) -> None:
    table = pd.DataFrame({"x:image": ["/a/caf\udce9.png"]})
    with pytest.raises(UserError, match=r"is to hold a name that is not UTF-8 .*rename"):
        save_csv(table, tmp_path / "a.csv")


def test_a_locale_without_utf8_is_left_for_utf8(tmp_path: Path) -> None:
    """In C, with Python's ways out turned off, names of files would not be UTF-8."""
    program = tmp_path / "pro grämm.py"
    program.write_text(
        "import sys\nsys.path.insert(0, sys.argv[2])\n"
        "from utils.utf8 import require_utf8\nrequire_utf8()\n"
        "print(ascii(sys.argv[1]), sys.getfilesystemencoding())",
        encoding="utf-8",
    )
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, str(program), "Käse", str(ROOT)]
    done = subprocess.run(command, env=os.environ | plain, capture_output=True, check=True)
    assert done.stdout.split() == [b"'K\\xe4se'", b"utf-8"]


def test_loops_are_compiled_where_numba_cannot_keep_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from utils.kernels import compiled

    monkeypatch.setattr(compiled, "KEPT", tmp_path / "kept")
    source = tmp_path / os.fsdecode(b"caf\xe9") / "loop.py"
    source.parent.mkdir()
    source.write_text("def more(x):\n    return x + 1\n")
    module = ModuleType("loop")
    exec(compile(source.read_text(), source, "exec"), module.__dict__)
    assert compiled.compiled(module.more)(1) == 2


def test_standard_output_takes_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    open_console(quiet=False, verbose=False)
    log = logging.getLogger("data_cleansing")
    try:
        log.info("K\xe4se \udce9")
    finally:
        log.handlers = []
    assert written.getvalue() == b"K\\xe4se \\udce9\n"
