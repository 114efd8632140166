"""What a training records for the label check."""

from __future__ import annotations

from pathlib import Path

import nnabla as nn
import nnabla.functions as F
import numpy as np
import pytest

from benchmarks.recorded import recorded_trial
from sgd_influence.label_record import LabelRecord, load_record, record_bytes, sizes_of
from sgd_influence.train import record_steps, remove_passed_records, train_epoch
from tests.helpers.tiny import digit_images, smooth_net
from utils.errors import UserError
from utils.output.folder import OutputFolder
from utils.training.network import Network
from utils.training.sgd import Optimiser, margins_of, step_batch
from utils.training.steps import plan_steps
from utils.training.trial import Trial

N_EPOCHS = 3


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trial, list[np.ndarray]]:
    """A trained trial of the product, and the softmax of its validation images after each epoch."""
    training, validation = digit_images(0, 48), digit_images(100, 120)
    steps = plan_steps(0, 48, N_EPOCHS, 16, 0.1)
    network = Network(smooth_net, training.shape, 10)
    recorded = recorded_trial(0, network, training, validation, steps, Optimiser(), 1)
    fields = {name: getattr(recorded, name) for name in Trial.__dataclass_fields__}
    folder = tmp_path_factory.mktemp("trial")
    trial = Trial(**fields | {"folder": OutputFolder(folder), "cache": "steps", "cover_epochs": 3})
    record_steps(trial)
    after = []
    for epoch in range(N_EPOCHS):
        train_epoch(trial, epoch)
        after.append(trial.evaluator.probabilities(validation.images))
    return trial, after


def test_the_record_is_that_of_a_loop_over_the_steps(
    trained: tuple[Trial, list[np.ndarray]],
) -> None:
    trial, after = trained
    record = load_record(trial.folder.label_record(0, N_EPOCHS), sizes_of(trial))
    expected = np.zeros((48, 10))
    for t, step in enumerate(trial.steps):
        trial.network.load(trial.state_before(t))
        x, _ = step_batch(trial.data.training, step)
        softmax = F.softmax(trial.network.logits(nn.Variable.from_numpy_array(x), test=False))
        softmax.forward()
        expected[step.indices] += softmax.d * (step.epoch + 1) / 6
    np.testing.assert_allclose(record.training, expected, atol=1e-3)
    np.testing.assert_allclose(
        record.validation, np.average(after, axis=0, weights=[1, 2, 3]), atol=1e-3
    )
    labels = trial.data.validation.labels
    margins = [margins_of(np.log(softmax), labels) for softmax in after]
    np.testing.assert_allclose(record.validation_margins, margins, atol=1e-4)
    assert not list(trial.folder.training(0).glob("label_record_*[12].npz"))  # they are passed


def test_an_epoch_that_is_repeated_gives_the_same_record(
    trained: tuple[Trial, list[np.ndarray]],
) -> None:
    trial, _ = trained
    path = trial.folder.label_record(0, N_EPOCHS)
    whole = path.read_bytes()
    train_epoch(trial, 0)
    train_epoch(trial, 1)
    train_epoch(trial, 1)  # the record of the epoch before is still there
    train_epoch(trial, 2)
    assert path.read_bytes() == whole


def test_a_record_that_a_killed_run_left_goes(trained: tuple[Trial, list[np.ndarray]]) -> None:
    trial, _ = trained
    left = trial.folder.label_record(0, N_EPOCHS - 1)
    left.write_bytes(b"")
    remove_passed_records(trial, trial.n_epochs)
    assert not left.exists()
    assert trial.folder.label_record(0, N_EPOCHS).exists()


def test_a_training_that_an_earlier_version_began_goes_on_without(
    trained: tuple[Trial, list[np.ndarray]],
) -> None:
    trial, _ = trained
    train_epoch(trial, 0)
    trial.folder.label_record(0, 1).unlink()
    trial.folder.label_record(0, N_EPOCHS).unlink()
    train_epoch(trial, 1)
    train_epoch(trial, 2)
    assert not list(trial.folder.training(0).glob("label_record_*"))


def test_a_record_of_other_sizes_or_cut_short_is_refused(tmp_path: Path) -> None:
    record = LabelRecord(
        training=np.zeros((5, 3), np.float16),
        validation=np.zeros((4, 3), np.float16),
        test=np.zeros((2, 3), np.float16),
        validation_margins=np.zeros((6, 4), np.float32),
        test_margins=np.zeros((6, 2), np.float32),
    )
    path = tmp_path / "record.npz"
    path.write_bytes(record_bytes(record))
    load_record(path, (6, 5, 4, 2, 3))
    with pytest.raises(UserError, match="is incomplete"):
        load_record(path, (6, 5, 4, 3, 3))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="is not a readable label record"):
        load_record(path, (6, 5, 4, 2, 3))
