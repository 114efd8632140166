"""Whatever is wrong with options and folders: one line that says what, where, and what to do.

The status is 2, and nothing is left under a final name that was not there before.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.kill_test import files_of
from tests.helpers.runs import influence_functions, read_state, save_manifest, sgd_influence
from utils.output.lock import FolderLock
from utils.output.manifest import FORMAT, Manifest
from utils.output.paths import OutputPaths
from utils.training.network import hdf5_of

RUN = "--model mlp --context cpu"
TRAINING = "infl_results_sgd/seed_00"
HARA = "influence/Hara/influence_hara_0.csv"
SCORE = "score/Hara/score_delete_worst_5_seed_0.csv"
OUTCOMES = "score/Hara/outcomes_delete_worst_5_seed_0.npz"
STATE = f"{TRAINING}/epoch01/weights/model_step0002.h5"

Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a finished run."""
    output = tmp_path_factory.mktemp("finished")
    assert sgd_influence(output, RUN) == 0
    return output


def one_line(printed: str) -> str:
    """The only line that was printed, which is an error."""
    lines = printed.splitlines()
    assert len(lines) == 1, printed
    assert lines[0].startswith("eval_sgd_influence.py: error: ")
    return lines[0].removeprefix("eval_sgd_influence.py: error: ")


# ---------------------------------------------------------------- options

OPTIONS = {
    "-e 0": "--n_epochs 0: must be a whole number of at least 1",
    "-e 1.5": "argument -e/--n_epochs: '1.5': must be a whole number",
    "-e many": "argument -e/--n_epochs: 'many': must be a whole number",
    "-nt 0": "--n_trials 0: must be a whole number of at least 1",
    "-nt 10001": "--n_trials 10001: must be at most 10,000; more can follow with another --seed",
    "-nt x": "argument -nt/--n_trials: 'x': must be a whole number",
    "-r -1": "--remove_n_list -1: must be a whole number of at least 0",
    "-r x": "argument -r/--remove_n_list: 'x': must be a whole number",
    "-r 1,000": "argument -r/--remove_n_list: '1,000': must be a whole number; write 1000",
    "-r 1,2": "argument -r/--remove_n_list: '1,2': must be a whole number; separate values by "
    "spaces: 1 2",
    "-r": "argument -r/--remove_n_list: expected at least one argument",
    "-r 60 1000": "--remove_n_list 60 1000: there are only 60 training images; give a smaller n",
    "--lr 0": "--lr 0.0: must be a number above 0",
    "--lr -0.1": "--lr -0.1: must be a number above 0",
    "--lr nan": "--lr nan: must be a number above 0",
    "--lr 0,05": "argument --lr: '0,05': must be a number; write 0.05",
    "--lr fast": "argument --lr: 'fast': must be a number",
    "--lr_schedule linear": "argument --lr_schedule: invalid choice: 'linear' (choose from",
    "--momentum 1": "--momentum 1.0: must be from 0 to below 1",
    "--momentum nan": "--momentum nan: must be from 0 to below 1",
    "--momentum x": "argument --momentum: 'x': must be a number",
    "--weight_decay -1": "--weight_decay -1.0: must be a number of at least 0",
    "--weight_decay inf": "--weight_decay inf: must be a number of at least 0",
    "--weight_decay x": "argument --weight_decay: 'x': must be a number",
    "--batch_size 0": "--batch_size 0: must be a whole number of at least 1",
    "--batch_size x": "argument --batch_size: 'x': must be a whole number",
    "--seed -1": "--seed -1: must be a whole number of at least 0",
    "--seed x": "argument --seed: 'x': must be a whole number",
    "--split_seed -1": "--split_seed -1: must be a whole number of at least 0",
    "--split_seed x": "argument --split_seed: 'x': must be a whole number",
    "--cover_epochs 0": "--cover_epochs 0: must be a whole number of at least 1",
    "--cover_epochs 3": "--cover_epochs 3: there are 2 epochs (--n_epochs)",
    "--cover_epochs some": "argument --cover_epochs: 'some': must be a whole number, or all",
    "--verify 3": "--verify 3: needs 6 groups or more",
    "--verify x": "argument --verify: 'x': must be a whole number",
    "-di gpu0": "--device-id gpu0: expected a GPU number, or several separated by commas",
    "-di 0,": "--device-id 0,: expected a GPU number, or several separated by commas",
    "--methods Hare": "argument --methods: invalid choice: 'Hare' (choose from 'Hara',",
    "--model deep": "--model deep: not known; known are six_convolutions, smooth_convolutions,",
    "--context gpu": "argument --context: invalid choice: 'gpu' (choose from 'auto', 'cpu'",
    "--conv slow": "argument --conv: invalid choice: 'slow' (choose from 'fast', 'nnabla')",
    "-ds digitz": "data set 'digitz' is not known and no such path exists; known are digits",
    "--image_size 0": "--image_size 0: must be a whole number of at least 1",
    "--image_size x": "argument --image_size: 'x': must be a whole number",
    "--color blue": "argument --color: invalid choice: 'blue' (choose from 'auto', 'gray', 'rgb')",
    "--n_train 0": "--n_train 0: must be a whole number of at least 1",
    "--n_train 5": "--n_train 5: must be from 10 (one per class) to",
    "--n_train 5000": "--n_train 5000: must be from 10 (one per class) to",
    "--n_train x": "argument --n_train: 'x': must be a whole number",
    "--n_val 2000": "--n_val 2000: must be from 10 (one per class) to",
    "--n_test 401": "--n_test 401: must be from 10 (one per class) to",
    "-q -v": "--quiet and --verbose: give one of the two",
    "cifar10": "unrecognized arguments: cifar10; it belongs to no option; a data set is given as "
    "-ds cifar10",
    "--methods Hara,Ours": "argument --methods: invalid choice: 'Hara,Ours' (choose from 'Hara', "
    "'Hara_exact', 'Hara_smoothed', 'Ours', 'Ours_exact', 'Ours_mean', 'Influence_functions', "
    "'AUM', 'Random'); separate values by spaces: Hara Ours",
    "--epochs 3": "unrecognized arguments: --epochs 3",
}


def nothing(output: Path) -> None:
    """Nothing is wrong with the folder."""


# ---------------------------------------------------------------- folders


def edited(change: Callable[[dict], object]) -> Damage:
    """The manifest changed by hand."""

    def damage(output: Path) -> None:
        path = output / "manifest.json"
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value, indent=2))

    return damage


def with_text(text: str | None) -> Damage:
    """The manifest replaced; None: removed."""

    def damage(output: Path) -> None:
        (output / "manifest.json").unlink()
        if text is not None:
            (output / "manifest.json").write_text(text)

    return damage


def of_influence_functions(output: Path) -> None:
    shutil.rmtree(output)
    assert influence_functions(output, f"{RUN} -r 0 --methods Random -q") == 0


def of_mnist(output: Path) -> None:
    manifest = Manifest.read(OutputPaths(output))
    manifest.options |= {"dataset": "mnist", "data": "f68b3c2d"}
    save_manifest(manifest)


def a_file(output: Path) -> None:
    shutil.rmtree(output)
    output.write_text("mine")


def foreign_score(output: Path) -> None:
    shutil.copy(output / SCORE, output / "score/Hara/score_delete_worst_6_seed_0.csv")


def other_labels(output: Path) -> None:
    manifest = Manifest.read(OutputPaths(output))
    manifest.inputs["digits_training_0.csv"]["sha256"] = "0" * 64
    save_manifest(manifest)


def being_run(output: Path) -> None:
    FolderLock(output / "run.lock").__enter__()


def held_elsewhere(output: Path) -> None:
    holder = {"pid": 7, "host": "elsewhere", "since": "2026-01-01 00:00:00+00:00"}
    (output / "run.lock").write_text(json.dumps(holder))


RESTORE = "restore it or choose another --output_dir"
EDITED = "manifest.json: was edited by hand (its checksum does not match); restore it, or"
FOLDERS: dict[str, tuple[Damage, str, str]] = {
    "manifest: option edited": (edited(lambda m: m["options"].update(lr=0.1)), "", EDITED),
    "manifest: option edited to what is asked": (
        edited(lambda m: m["options"].update(lr=0.1)), "--lr 0.1", EDITED,
    ),
    "manifest: hash edited": (edited(lambda m: m["outputs"][HARA].update(sha256="0")), "", EDITED),
    "manifest: an output taken out": (edited(lambda m: m["outputs"].pop(HARA)), "", EDITED),
    "manifest: no checksum": (edited(lambda m: m.pop("checksum")), "", EDITED),
    "manifest: a part taken out": (edited(lambda m: m.pop("outputs")), "", RESTORE),
    "manifest: an output of another form": (
        edited(lambda m: m["outputs"].update(x=3)), "", RESTORE,
    ),
    "manifest: an output outside of the folder": (
        edited(lambda m: m["outputs"].update({"score/../../mine": {"bytes": 1, "sha256": ""}})),
        "", RESTORE,
    ),
    "manifest: empty": (with_text(""), "", RESTORE),
    "manifest: cut short": (with_text('{"format": 1, "opt'), "", RESTORE),
    "manifest: no JSON": (with_text("lr = 0.05\n"), "", RESTORE),
    "manifest: a list": (with_text("[1, 2]"), "", RESTORE),
    "manifest: a number": (with_text("17"), "", RESTORE),
    "manifest: missing": (
        with_text(None), "", "of a run whose manifest.json is missing; choose another --output_dir",
    ),
    "of a newer version": (
        edited(lambda m: m.update(format=FORMAT + 1)), "",
        f"was written by a newer version (format {FORMAT + 1}, this one reads {FORMAT}); update",
    ),
    "of another data set": (
        of_mnist, "",
        "holds results of other options: the data was f68b3c2d, now scikit-learn digits; --dataset "
        "was mnist, now digits; choose another --output_dir, or delete the results with",
    ),
    "of other options": (
        nothing, "--lr 0.02 -e 1",
        "holds results of other options: --lr was 0.05, now 0.02; --n_epochs was 2, now 1; choose "
        "another --output_dir, or delete the results with --overwrite",
    ),
    "of another model": (nothing, "--model resnet", "--model was mlp, now resnet; the model's"),
    "of the other command": (
        of_influence_functions, "",
        "the command was eval_influence_functions.py, now eval_sgd_influence.py; choose another",
    ),
    "a file": (a_file, "", "out: is a file; name a folder"),
    "inside a file": (
        a_file, "-o {output}/inside",
        "/inside: cannot be created (Not a directory); choose another",
    ),
    "cannot be created": (
        nothing, "-o /proc/nowhere",
        "--output_dir /proc/nowhere: cannot be created (No such file or directory); choose another",
    ),
    "with the score of another run": (
        foreign_score, "", "score_delete_worst_6_seed_0.csv: was not written by a run into this",
    ),
    "of other images": (
        other_labels, "",
        "digits_training_0.csv: names other images, labels or sizes (60 images of",
    ),
    "being run into": (being_run, "", "is writing to it; wait until it ends, or use another"),
    "being run into elsewhere": (held_elsewhere, "", "if it has ended, delete "),
}  # fmt: skip


# ---------------------------------------------------------------- files while the run goes on


def cut(name: str) -> Damage:
    """A file cut short."""

    def damage(output: Path) -> None:
        content = (output / name).read_bytes()
        (output / name).write_bytes(content[: len(content) // 2])

    return damage


def emptied(name: str) -> Damage:
    """A file without content."""

    def damage(output: Path) -> None:
        (output / name).write_bytes(b"")

    return damage


def states(change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> Damage:
    """Other parameters in a state of the covered epoch."""

    def damage(output: Path) -> None:
        (output / STATE).write_bytes(hdf5_of(change(read_state(output / STATE))))

    return damage


def with_nan(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    next(iter(state.values()))[0] = np.nan
    return state


def influence(change: Callable[[list[str]], list[str]]) -> Damage:
    """Other rows in an influence CSV; [0] is the header."""

    def damage(output: Path) -> None:
        rows = (output / HARA).read_text().splitlines()
        (output / HARA).write_text("\n".join([*change(rows), ""]))

    return damage


def removed(name: str) -> Damage:
    """A file removed."""

    def damage(output: Path) -> None:
        (output / name).unlink()

    return damage


ANEW = "the same command recomputes it"
ONCE = "influence_hara_0.csv: does not hold each of the 60 training images once ("
MEANWHILE: dict[str, tuple[str, Damage, str]] = {
    "HDF5 cut short": (HARA, cut(STATE), "model_step0002.h5: is not a readable parameter file ("),
    "HDF5 empty": (
        HARA, emptied(STATE),
        "model_step0002.h5: is not a readable parameter file (",
    ),
    "HDF5 of another net": (
        HARA, states(lambda state: {f"deep/{name}": value for name, value in state.items()}),
        "model_step0002.h5: cannot be used (it holds the parameters of another net: ",
    ),
    "HDF5 of another size": (
        HARA, states(lambda state: {name: value[..., :-1] for name, value in state.items()}),
        "model_step0002.h5: cannot be used (it holds the parameters of another net: ",
    ),
    "HDF5 with NaN": (
        HARA, states(with_nan),
        "model_step0002.h5: cannot be used (hidden1/affine/W holds values that are not finite)",
    ),
    "step record cut short": (
        HARA, cut(f"{TRAINING}/steps.npz"), "steps.npz: is not a readable step record (",
    ),
    "influence CSV: a row missing": (
        SCORE, influence(lambda rows: rows[:-1]), ONCE + "59 rows, 59 images)",
    ),
    "influence CSV: an index twice": (
        SCORE, influence(lambda rows: [*rows[:-1], rows[1]]), ONCE + "60 rows, 59 images)",
    ),
    "influence CSV: no index": (
        SCORE, influence(lambda rows: [row.rsplit(",", 1)[0] for row in rows]),
        "influence_hara_0.csv: is incomplete (no column datasource_index)",
    ),
    "influence CSV: empty": (
        SCORE, influence(lambda rows: []),
        "influence_hara_0.csv: cannot be read (the file is empty",
    ),
    "influence CSV: header only": (
        SCORE, influence(lambda rows: rows[:1]), "influence_hara_0.csv: is incomplete (no rows)",
    ),
    "score CSV cut short": (
        "summary/summary.csv", cut(SCORE),
        "score_delete_worst_5_seed_0.csv: is incomplete (a value is missing)",
    ),
    "outcomes cut short": (
        "summary/recommendation.json", cut(OUTCOMES),
        "outcomes_delete_worst_5_seed_0.npz: is not a readable archive of outcomes (",
    ),
}  # fmt: skip


# ---------------------------------------------------------------- the test

CASES = (
    [pytest.param(nothing, options, None, line, id=options) for options, line in OPTIONS.items()]
    + [
        pytest.param(damage, options, None, line, id=f"folder {name}")
        for name, (damage, options, line) in FOLDERS.items()
    ]
    + [
        pytest.param(removed(missing), "", damage, line, id=f"meanwhile {name}")
        for name, (missing, damage, line) in MEANWHILE.items()
    ]
)


@pytest.mark.usefixtures("learnt")
@pytest.mark.parametrize(("before", "options", "meanwhile", "expected"), CASES)
def test_mistake_is_one_line_and_status_2(
    before: Damage,
    options: str,
    meanwhile: Damage | None,
    expected: str,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    """Damage the folder of a finished run before or during the next one."""
    output = shutil.copytree(finished, tmp_path / "out")
    before(output)
    capsys.readouterr()
    checked = Manifest.check_outputs
    if meanwhile:
        after_check = meanwhile

        def check_and_damage(manifest: Manifest) -> None:
            checked(manifest)
            after_check(output)
            capsys.readouterr()

        monkeypatch.setattr(Manifest, "check_outputs", check_and_damage)
    there = files_of(output) if output.is_dir() else {}
    try:
        status: object = sgd_influence(output, f"{RUN} {options.format(output=output)}")
    except SystemExit as end:  # argparse's own
        status = end.code
    line = one_line(capsys.readouterr().err)
    print(line)
    assert status == 2
    assert expected in line
    if meanwhile is None:
        assert (files_of(output) if output.is_dir() else {}) == there
        return
    assert ANEW in line
    assert files_of(output).keys() <= there.keys()
    monkeypatch.setattr(Manifest, "check_outputs", checked)
    assert sgd_influence(output, RUN) == 0
    damaged = {name for name in files_of(output) if name.endswith(".changed")}
    assert len(damaged) == ("empty" not in request.node.name)  # a person may have changed it
    assert {n: c for n, c in files_of(output).items() if n not in damaged} == files_of(finished)


@pytest.mark.parametrize("damage", ["option edited", "an output taken out", "hash edited"])
def test_overwrite_of_an_edited_manifest(
    damage: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it lists with the hash that fits is deleted; another file may be somebody's."""
    output = shutil.copytree(finished, tmp_path / "out")
    FOLDERS[f"manifest: {damage}"][0](output)
    if damage != "option edited":
        before = files_of(output)
        assert sgd_influence(output, f"{RUN} --overwrite") == 2
        assert f"{output / HARA}: " in one_line(capsys.readouterr().err)
        assert files_of(output) == before
        (output / HARA).rename(tmp_path / "moved elsewhere")
    assert sgd_influence(output, f"{RUN} --overwrite") == 0
    assert files_of(output) == files_of(finished)


def test_overwrite_leaves_what_no_run_wrote(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = shutil.copytree(finished, tmp_path / "out")
    foreign_score(output)
    before = files_of(output)
    assert sgd_influence(output, f"{RUN} --overwrite") == 2
    line = one_line(capsys.readouterr().err)
    assert "score_delete_worst_6_seed_0.csv: was not written by a run into this folder" in line
    assert files_of(output) == before


def test_folder_of_something_else_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fig").mkdir()
    (tmp_path / "fig" / "mine.png").write_text("mine")
    for more in ("", "--overwrite"):
        assert sgd_influence(tmp_path, f"{RUN} {more}") == 2
        assert "of a run whose manifest.json is missing" in one_line(capsys.readouterr().err)
    assert (tmp_path / "fig" / "mine.png").read_text() == "mine"


def test_repeated_n_are_merged_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sgd_influence(tmp_path, f"{RUN} -e 1 -r 3 5 3 3 5 0 --methods Random") == 0
    assert "Removing n     0 3 5 (given more than once: 3 5)\n" in capsys.readouterr().out
    scores = sorted(path.name for path in tmp_path.glob("score/Random/*.csv"))
    assert scores == [f"score_delete_worst_{n}_seed_0.csv" for n in (0, 3, 5)]


def test_memory_that_does_not_suffice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def asks_for_much(*_: object) -> None:
        np.zeros(2**60, np.uint8)

    monkeypatch.setattr("utils.run.pipeline.load_data", asks_for_much)
    assert sgd_influence(tmp_path, RUN) == 2
    line = one_line(capsys.readouterr().err)
    assert line.startswith("not enough memory (Unable to allocate 1.00 EiB")
    assert "choose a smaller --n_train, --image_size or --batch_size" in line
