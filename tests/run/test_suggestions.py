"""Mistyped names get a suggestion; an output folder is no data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval_sgd_influence import COMMAND
from utils.data.datasets import prepare
from utils.errors import UserError, did_you_mean
from utils.options import build_parser
from utils.output.paths import TRAININGS
from utils.page.__main__ import main as page
from utils.review.__main__ import main as review
from utils.training.models import find_model


def test_only_a_near_name_is_suggested() -> None:
    assert did_you_mean("hara", ("Hara", "Ours")) == "; did you mean Hara?"
    assert did_you_mean("HarraExact", ("Hara_exact", "Ours")) == "; did you mean Hara_exact?"
    assert did_you_mean("captum", ("Hara", "Ours")) == ""
    assert did_you_mean("x", ()) == ""


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--methods Harra Ours", "did you mean Hara?"),
        ("--lr_schedule cosin", "did you mean cosine?"),
        ("--n_epoch 5", "did you mean --n_epochs?"),
        ("--nepochs=5", "did you mean --n_epochs?"),
        ("--context quantum", None),
        ("--zzz", None),
        ("more", None),
    ],
)
def test_unknown_options_and_values(
    given: str, meant: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser(COMMAND).parse_args(given.split())
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert (meant in line) if meant else ("did you mean" not in line)


@pytest.mark.parametrize("main", [review, page])
def test_the_other_programs_have_one_line_too(main, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["out", "mine.csv", "--export", "folders"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m utils.")


def test_unknown_models_and_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    for name, meant in (
        ("digit", "did you mean digits?"),
        ("CIFAR-10", "did you mean cifar10?"),
        ("photo", "did you mean photos?"),
        (f"{tmp_path}/fotos", f"did you mean {tmp_path}/photos?"),
    ):
        with pytest.raises(UserError) as error:
            prepare(name, None, False)
        assert str(error.value).endswith(meant)
    with pytest.raises(UserError) as error:
        prepare(f"{tmp_path}/none/photos", None, False)
    assert "did you mean" not in str(error.value)
    with pytest.raises(UserError) as error:  # near only by the folder that both are in
        prepare(f"{tmp_path}/x.zip", None, False)
    assert "did you mean" not in str(error.value)
    with pytest.raises(UserError, match=r"did you mean resnet\?"):
        find_model("resnets")


def test_an_output_folder_is_no_data_set(tmp_path: Path) -> None:
    output = tmp_path / "out"
    (output / TRAININGS).mkdir(parents=True)
    (output / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="is the output folder of a run, not a data set") as error:
        prepare(str(output), tmp_path, False)
    assert str(error.value).endswith("give the data set of that run")
    (output / "cleansed").mkdir()
    for name in ("Hara_train_cleansed_5.csv", "Hara_removed_5.csv"):
        (output / "cleansed" / name).write_text("x:image,y:label\n")
    with pytest.raises(UserError, match="cleansed/Hara_train_cleansed_5"):
        prepare(str(output), tmp_path, False)
