"""What a person edits in an output folder is not lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.helpers.runs import sgd_influence
from utils.output.folder import ClaimedFolder
from utils.output.manifest import Manifest
from utils.output.paths import OutputPaths
from utils.output.settings import OF_METHODS, claimed
from utils.page.__main__ import main as page_of

SETTINGS = {"dataset": "x", "resize": "crop", **dict.fromkeys(OF_METHODS)}
LIST, OTHER = "cleansed/Hara_removed_5.csv", "summary/summary.csv"
OTHERS = ("summary/classes.csv", "fig/result.png", "influence/Hara/influence_hara_0.csv")
QUICK = "--model mlp --context cpu --methods Hara"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with some files of a run."""
    write(tmp_path / "out", **dict.fromkeys((LIST, OTHER, *OTHERS), b"first\n"))
    return tmp_path / "out"


def write(root: Path, **files: bytes) -> ClaimedFolder:
    """A run that checks what is there and writes some files."""
    with claimed(OutputPaths(root), SETTINGS, False) as output:
        output.check_outputs()
        for name, content in files.items():
            output.save_bytes(content, root / name)
    return output


def there(root: Path, folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((root / folder).iterdir())}


def test_an_edited_list_stays_and_the_new_one_gets_another_name(folder: Path) -> None:
    (folder / LIST).write_bytes(b"mine\n")
    write(folder, **{LIST: b"second\n"})
    assert there(folder, "cleansed") == {
        "Hara_removed_5.csv": b"mine\n", "Hara_removed_5.new.csv": b"second\n",
    }  # fmt: skip
    write(folder, **{LIST: b"third\n"})  # the new one is ours, and is replaced
    assert there(folder, "cleansed")["Hara_removed_5.new.csv"] == b"third\n"
    (folder / "cleansed/Hara_removed_5.new.csv").write_bytes(b"mine too\n")
    write(folder, **{LIST: b"fourth\n"})
    assert there(folder, "cleansed") == {
        "Hara_removed_5.csv": b"mine\n", "Hara_removed_5.new.csv": b"mine too\n",
        "Hara_removed_5.new_2.csv": b"fourth\n",
    }  # fmt: skip
    paths = OutputPaths(folder)
    assert paths.latest(folder / LIST).name == "Hara_removed_5.new_2.csv"
    assert paths.latest(folder / OTHER) == folder / OTHER
    for name in ("Hara_removed_5.csv", "Hara_removed_5.new_2.csv"):
        (folder / "cleansed" / name).unlink()
    write(folder, **{LIST: b"fifth\n"})  # at its own name, next to an edited one
    assert paths.latest(folder / LIST) == folder / LIST
    assert there(folder, "cleansed")["Hara_removed_5.new.csv"] == b"mine too\n"


def test_when_the_edited_list_is_gone_the_new_name_is_too(folder: Path) -> None:
    (folder / LIST).write_bytes(b"mine\n")
    write(folder, **{LIST: b"second\n"})
    (folder / LIST).unlink()
    write(folder, **{LIST: b"third\n"})
    assert there(folder, "cleansed") == {"Hara_removed_5.csv": b"third\n"}


def test_a_list_that_is_put_back_is_ours_again(folder: Path) -> None:
    (folder / LIST).write_bytes(b"mine\n")
    write(folder)
    (folder / LIST).write_bytes(b"first\n")
    write(folder, **{LIST: b"first\n"})
    assert there(folder, "cleansed") == {"Hara_removed_5.csv": b"first\n"}
    assert LIST in Manifest.read(OutputPaths(folder)).outputs


def test_a_list_that_is_edited_while_the_run_goes_on_stays(folder: Path) -> None:
    with claimed(OutputPaths(folder), SETTINGS, False) as output:
        (folder / LIST).write_bytes(b"mine\n")
        output.save_bytes(b"second\n", folder / LIST)
    assert there(folder, "cleansed")["Hara_removed_5.csv"] == b"mine\n"


def test_a_persons_own_list_under_a_name_of_ours_stays(folder: Path) -> None:
    name = "cleansed/Hara_removed_7.csv"
    (folder / name).write_bytes(b"mine\n")
    write(folder, **{name: b"ours\n"})
    assert (folder / name).read_bytes() == b"mine\n"
    assert (folder / "cleansed/Hara_removed_7.new.csv").read_bytes() == b"ours\n"


def test_a_changed_file_elsewhere_is_moved(folder: Path) -> None:
    for mine in (b"mine\n", b"mine again\n"):
        (folder / OTHER).write_bytes(mine)
        write(folder, **{OTHER: b"first\n"})
    found = there(folder, "summary")
    assert found["summary.csv"] == b"first\n"
    assert found["summary.csv.changed"] == b"mine\n"
    assert found["summary.csv.changed_2"] == b"mine again\n"


def test_messages_name_the_files_that_are_written(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (LIST, OTHER):
        (folder / name).write_bytes(b"mine\n")
    write(folder, **{LIST: b"second\n", OTHER: b"first\n"})
    assert "it stays, the new one is written as Hara_removed_5.new.csv" in caplog.text
    assert "summary.csv: cut short; moved to summary.csv.changed and recomputed" in caplog.text
    caplog.clear()
    (folder / "cleansed/Hara_removed_5.new.csv").write_bytes(b"mine too\n")
    for name in (OTHER, OTHERS[0]):
        (folder / name).write_bytes(b"mine again\n")
    write(folder, **{LIST: b"third\n"})
    assert "Hara_removed_5.new.csv: changed; it stays, the new one is" in caplog.text
    assert "written as Hara_removed_5.new_2.csv" in caplog.text
    assert "moved to classes.csv.changed (the others likewise) and recomputed" in caplog.text
    assert (folder / "summary/summary.csv.changed_2").read_bytes() == b"mine again\n"


def test_a_file_emptied_by_a_power_failure_is_replaced(folder: Path) -> None:
    for name in (LIST, OTHER):
        (folder / name).write_bytes(b"")
    write(folder, **{LIST: b"first\n", OTHER: b"first\n"})
    assert there(folder, "cleansed") == {"Hara_removed_5.csv": b"first\n"}
    assert "summary.csv.changed" not in there(folder, "summary")


def test_overwrite_keeps_what_was_edited(folder: Path) -> None:
    for name in (LIST, OTHER):
        (folder / name).write_bytes(b"mine\n")
    with claimed(OutputPaths(folder), SETTINGS | {"dataset": "y"}, True):
        pass
    left = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert left - {"run.lock"} == {"manifest.json", LIST, f"{OTHER}.changed"}
    assert (folder / LIST).read_bytes() == (folder / f"{OTHER}.changed").read_bytes() == b"mine\n"


def test_more_edited_lists_than_other_files_are_no_other_folder(tmp_path: Path) -> None:
    names = [f"cleansed/Hara_removed_{n}.csv" for n in range(5)]
    write(tmp_path / "out", **dict.fromkeys((OTHER, *names), b"first\n"))
    for name in names:
        (tmp_path / "out" / name).write_bytes(b"mine\n")
    write(tmp_path / "out", **dict.fromkeys(names, b"first\n"))
    assert len(there(tmp_path / "out", "cleansed")) == 10


def test_lists_of_commands_with_other_n_and_edits_live_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A whole run: lists of n = 5 and of the recommended n, one of them edited; the page follows.

    A list of an earlier version, without n, is left alone.
    """
    output = tmp_path / "out"
    small = "-ds digits -e 1 -nt 1 -r 0 5 --n_train 40 --n_val 20 --n_test 20 --batch_size 16"
    assert sgd_influence(output, f"{QUICK} --cleanse_n 5", small) == 0
    five = output / LIST
    shutil.copyfile(five, output / "cleansed/Hara_removed.csv")
    edited = five.read_text().replace("\n", "\n\n", 1)
    five.write_text(edited)
    assert sgd_influence(output, QUICK, small) == 0
    assert f"{five}: changed; it stays" in capsys.readouterr().err
    assert (output / "cleansed/Hara_removed_0.csv").exists()
    assert not (output / "cleansed/Hara_removed_5.new.csv").exists()  # this command has none of 5
    assert sgd_influence(output, f"{QUICK} --cleanse_n 5", small) == 0
    assert five.read_text() == edited
    assert len((output / "cleansed/Hara_removed_5.new.csv").read_text().splitlines()) == 6
    assert page_of([str(output)]) == 0
    page = (output / "report/index.html").read_text()
    assert "cleansed/Hara_removed_5.new.csv</code>" in page
    outputs = json.loads((output / "manifest.json").read_text())["outputs"]
    assert "cleansed/Hara_removed_0.csv" in outputs and LIST not in outputs
