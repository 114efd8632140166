"""Runs with a .nnp file, and the .nnp file that each run writes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.kill_test import differing, files_of
from tests.helpers.nnp import console_project, save_model, write_nnp
from tests.helpers.runs import contents, last_line, sgd_influence
from utils.errors import UserError
from utils.options import Options
from utils.output.folder import DeferredFolder
from utils.run.worker_process import Setup, _trial
from utils.training.models import MODELS
from utils.training.network import Network
from utils.training.nnp_file import read_nnp

QUICK = "--model mlp --context cpu --methods Hara --no_report"
NNP = "infl_results_sgd/seed_00/final_model.nnp"


def test_saved_net_has_the_scores_of_the_built_in_one(unbroken: Path, tmp_path: Path) -> None:
    """Byte for byte, the files of the training too."""
    save_model(tmp_path / "mlp.nnp", MODELS["mlp"], loss=True)
    given = QUICK.replace("mlp", str(tmp_path / "mlp.nnp"))
    assert sgd_influence(tmp_path / "out", given) == 0
    assert differing(tmp_path / "out", files_of(unbroken)) == ["manifest.json"]


def test_trained_net_is_written_again_without_training(finished: Path, unbroken: Path) -> None:
    os.utime(finished / "infl_results_sgd/seed_00/final_model.h5", (1, 1))
    (finished / NNP).unlink()
    assert sgd_influence(finished, QUICK) == 0
    assert (finished / "infl_results_sgd/seed_00/final_model.h5").stat().st_mtime == 1
    assert (finished / NNP).read_bytes() == (unbroken / NNP).read_bytes()


def test_edited_file_is_another_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_nnp(tmp_path / "net.nnp", console_project())
    given = f"--model {path} --context cpu --methods Random -r 0 --no_report"
    assert sgd_influence(tmp_path / "out", given) == 0
    write_nnp(path, console_project().replace("NormalAffineGlorot", "NormalAffineHe"))
    before = contents(tmp_path / "out")
    assert sgd_influence(tmp_path / "out", given) == 2
    assert "the model's graph was " in last_line(capsys.readouterr().err)
    assert contents(tmp_path / "out") == before


def test_truncated_file_ends_with_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_nnp(tmp_path / "net.nnp", console_project())
    path.write_bytes(path.read_bytes()[:-50])
    assert sgd_influence(tmp_path / "out", f"--model {path}") == 2
    line = last_line(capsys.readouterr().err)
    assert f"error: --model {path}: is damaged, cut short or no .nnp file" in line
    assert not (tmp_path / "out").exists()


def test_worker_needs_no_file(tmp_path: Path) -> None:
    """It may be on a machine where the file is not."""
    path = write_nnp(tmp_path / "net.nnp", console_project())
    net = read_nnp(str(path))
    path.unlink()
    options = Options("test", tmp_path, ("Random",), model=str(path))
    graph = Network(net, (1, 8, 8), 10).graph
    setup = Setup(options, 0, "cpu", 10, None, tmp_path, tmp_path, b"", graph, net)
    taken: Any = SimpleNamespace(
        data=SimpleNamespace(training=SimpleNamespace(shape=(1, 8, 8))), steps=[]
    )
    assert _trial(setup, taken, DeferredFolder(tmp_path)).network.model is net
    with pytest.raises(UserError, match="a worker has another version of the net"):
        _trial(replace(setup, graph="another"), taken, DeferredFolder(tmp_path))
