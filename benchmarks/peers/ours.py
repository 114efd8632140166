"""The product's side, in a process per call: build a problem, score it, or retrain for the truth.

python benchmarks/peers/ours.py build  FOLDER PROBLEM SEED [--data PATH]
python benchmarks/peers/ours.py score  FOLDER METHOD
python benchmarks/peers/ours.py truth  FOLDER last|whole --groups N
python benchmarks/peers/ours.py decide FOLDER [--data PATH] METHOD ...
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import nnabla as nn
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parents[2]))  # the repository, when run as a script

from benchmarks.peers.problem import (
    SHARES,
    Problem,
    Result,
    bytes_of,
    decisions_path,
    problem_path,
    record,
    scores_path,
    truth_path,
)
from benchmarks.recorded import Recorded, RecordedTrial
from benchmarks.tasks import (
    MNIST_1000,
    SMALL,
    TASKS,
    cifar_cnn,
    mnist_cnn,
    order_of,
    small_mnist,
    smooth,
)
from utils.data.images import ImageSet, normalise
from utils.data.splits import SplitFiles, TrialData
from utils.methods import METHODS, NO_REMOVAL, Method
from utils.options import GAUSS_NEWTON, RECOMPUTE
from utils.output.folder import OutputFolder
from utils.output.storage import read_csv, save_csv
from utils.training.models import MODELS
from utils.training.network import Network, State, hdf5_of
from utils.training.sgd import Optimiser
from utils.training.steps import Step, archive_of
from utils.training.trial import Trial

PROBLEMS: dict[str, Callable[[int, Path | None], RecordedTrial]] = {
    "mnist_cnn": mnist_cnn,
    "mnist_2000": partial(mnist_cnn, n_train=2000, n_epochs=5),
    "smooth_mnist": smooth(MNIST_1000),
    "smooth_small": smooth(SMALL),
    "cifar_cnn": cifar_cnn,
}
"""What is trained, by name: (seed, data folder) to a recorded training."""

WHOLE = ", all epochs"
"""Ends the name of a method that covers the whole training, not the last epoch."""
METHOD_NAMES = (
    *("Hara_exact", "Hara_smoothed", "Ours_exact", "Influence_functions", "AUM", "Random"),
    f"Hara_exact{WHOLE}",
)

OPTIMISER = Optimiser(augmented=False)

TRUTHS = ("last", "whole")
"""What is repeated without a group: the last epoch, or the whole training."""
TRUTH_COLUMNS = ["training", "group", "loss"]


def build(folder: Path, name: str, seed: int, data: Path | None) -> None:
    """Train a problem, and write it for the others and as a run of the product keeps it.

    Raises:
        ValueError: it is trained by another optimiser than the one that all sides repeat.
    """
    recorded = PROBLEMS[name](seed, data)
    if recorded.optimiser != OPTIMISER:
        raise ValueError(f"{name}: the comparison is of plain SGD, not of {recorded.optimiser}")
    given = recorded.data.training.labels
    clean = given if name == "cifar_cnn" else clean_labels(seed, data, recorded.n_train)
    problem = replace(
        problem_of(recorded, recorded.state_before),
        wrong=given != clean,
        losses=np.array(recorded.recorded.losses),
        removals=TASKS["mnist_cnn"].removals(recorded),
    )
    problem.save(problem_path(folder))
    for cover_epochs in (1, recorded.n_epochs):
        keep_states(recorded, open_trial(folder, cover_epochs))


def keep_states(recorded: RecordedTrial, trial: Trial) -> None:
    """Write the files that a run of the product keeps of its training."""
    output = trial.folder
    output.root.mkdir(parents=True, exist_ok=True)
    output.save_bytes(archive_of(trial.steps), output.steps(trial.seed))
    for t in (*trial.kept_steps, len(trial.steps)):
        output.save_bytes(hdf5_of(recorded.state_before(t)), trial.state_path(t), durable=False)
    output.save_array(recorded.margins(), output.margins(trial.seed))


def clean_labels(seed: int, data: Path | None, n: int) -> np.ndarray:
    """The labels (n,) of the training images of `mnist_cnn` before some were flipped."""
    labels = small_mnist(data, 16)[1]
    return labels[order_of(seed, len(labels))[:n]]


def problem_of(trial: Trial, state_before: Callable[[int], State]) -> Problem:
    """The arrays of a finished training.

    Args:
        trial: the training.
        state_before: its state before a step, asked for from the last step to the first.
    """
    training, validation = trial.data.training, trial.data.validation
    states = [state_before(t) for t in (len(trial.steps), *trial.epoch_starts[::-1])][::-1]
    images, images_val = np.asarray(training.images), np.asarray(validation.images)
    return Problem(
        seed=trial.seed,
        model=trial.network.model.__name__,
        images=images,
        labels=training.labels,
        x=normalise(images),
        images_val=images_val,
        labels_val=validation.labels,
        x_val=normalise(images_val),
        batches=np.concatenate([step.indices for step in trial.steps]),
        sizes=np.array([len(step.indices) for step in trial.steps]),
        epochs=np.array([step.epoch for step in trial.steps]),
        rates=np.array([step.learning_rate for step in trial.steps]),
        states={name: np.stack([state[name] for state in states]) for name in states[0]},
    )


def open_trial(folder: Path, cover_epochs: int) -> Trial:
    """The trial of a problem as a run of the product has it: its states are files."""
    problem = Problem.load(problem_path(folder))
    training = ImageSet(problem.images, problem.labels, ())
    validation = ImageSet(problem.images_val, problem.labels_val, ())
    files = SplitFiles(folder, folder, folder)
    return Trial(
        seed=problem.seed,
        data=TrialData(training, validation, validation, files),
        network=Network(MODELS[problem.model], training.shape, 10, problem.seed),
        optimiser=OPTIMISER,
        steps=steps_of(problem),
        retrain_all=False,
        cover_epochs=cover_epochs,
        if_solver=GAUSS_NEWTON,
        damping=None,
        cache=RECOMPUTE,
        cache_memory=10**9,
        folder=OutputFolder(folder / f"ours_{cover_epochs}"),
    )


def steps_of(problem: Problem) -> list[Step]:
    """The recorded steps; nothing is augmented, so that their seeds do not matter."""
    return [
        Step(int(epoch), rows, np.zeros(len(rows), np.uint64), float(rate))
        for epoch, rows, rate in zip(problem.epochs, problem.steps, problem.rates, strict=True)
    ]


def score(folder: Path, name: str) -> None:
    """Score by a method of the product, from the files that its run keeps."""
    method = METHODS[name.removesuffix(WHOLE)]
    n_epochs = int(Problem.load(problem_path(folder)).epochs[-1]) + 1
    trial = open_trial(folder, n_epochs if name.endswith(WHOLE) else 1)
    settings = f"{method.scorer}, {trial.cover_epochs} of {n_epochs} epochs covered"
    result = Result(name, f"nnabla {nn.__version__}", settings, method.predicts)
    record(folder, result, lambda: method.score(trial), lambda: disk_bytes(trial, method))


def disk_bytes(trial: Trial, method: Method) -> int:
    """Bytes of the files that a method reads of the training."""
    files = [trial.folder.margins(trial.seed)] if method.needs_margins else []
    if method.predicts:
        states = trial.states_there() if method.needs_states else []
        files += [trial.folder.steps(trial.seed)]
        files += [trial.state_path(t) for t in (*states, len(trial.steps))]
    return sum(map(bytes_of, files))


def truth(folder: Path, which: str, n_groups: int) -> None:
    """Validation losses after retraining from the last epoch, or wholly, without each group.

    Row -1 has nothing removed. Rows there of the same training are kept.
    """
    problem, trial = Problem.load(problem_path(folder)), open_trial(folder, 1)
    trial.sgd.load(problem.state(0))
    recorded = Recorded(trial.network, trial.data.training, trial.steps, OPTIMISER)
    start = trial.retrain_start if which == "last" else 0
    path, training = truth_path(folder, which), digest(recorded.final)
    known = known_truth(path, training)
    for group in range(len(known) - 1, n_groups):
        removed = problem.removals[group] if group >= 0 else np.zeros(trial.n_train, bool)
        loss = recorded.loss_without(removed, trial.data.validation, start)
        known.append((training, group, loss))
        save_csv(pd.DataFrame(known, columns=TRUTH_COLUMNS), path)


def decide(folder: Path, names: Sequence[str], data: Path | None) -> None:
    """Test accuracies of whole trainings without the worst images by each of the methods.

    The test images are those of MNIST that are neither trained on nor validated by. Methods whose
    scores are not there are left out. Writes a row per method and share, and one of `NO_REMOVAL`.
    """
    problem, trial = Problem.load(problem_path(folder)), open_trial(folder, 1)
    trial.sgd.load(problem.state(0))
    recorded = Recorded(trial.network, trial.data.training, trial.steps, OPTIMISER)
    test = held_out(problem, data)
    rows = [(NO_REMOVAL, 0.0, accuracy_without(recorded, np.zeros(trial.n_train, bool), test))]
    for name in names:
        if not scores_path(folder, name).exists():
            continue
        order = np.argsort(np.load(scores_path(folder, name)), kind="stable")
        for share in SHARES:
            removed = np.isin(np.arange(trial.n_train), order[: round(share * trial.n_train)])
            rows.append((name, share, accuracy_without(recorded, removed, test)))
    table = pd.DataFrame(rows, columns=["method", "share", "test_accuracy"])
    save_csv(table, decisions_path(folder))


def accuracy_without(recorded: Recorded, removed: np.ndarray, test: ImageSet) -> float:
    """Accuracy on `test` after the whole training is repeated without the images of a mask."""
    recorded.retrain_without(removed)
    return recorded.evaluator(test).accuracy


def held_out(problem: Problem, data: Path | None) -> ImageSet:
    """MNIST's test images that a problem of `mnist_cnn` leaves over, with their right labels."""
    images, labels = small_mnist(data, problem.images.shape[1])
    rest = order_of(problem.seed, len(labels))[len(problem.images) + len(problem.images_val) :]
    return ImageSet(images[rest], labels[rest], ())


def known_truth(path: Path, training: str) -> list[tuple[str, int, float]]:
    """The rows of an earlier run, if they are of the same training."""
    rows = read_csv(path) if path.exists() else pd.DataFrame(columns=TRUTH_COLUMNS)
    if not (rows["training"] == training).all():
        return []
    return list(rows.itertuples(index=False, name=None))


def digest(state: State) -> str:
    """By what the training is known that ended in `state`."""
    arrays = b"".join(state[name].tobytes() for name in sorted(state))
    return hashlib.sha256(arrays).hexdigest()[:16]


def main(arguments: Sequence[str] | None = None) -> None:
    """Do the one thing that is asked for."""
    threadpool_limits(1, "blas")
    options = _parse(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.command == "build":
        build(options.folder, options.problem, options.seed, options.data)
    elif options.command == "score":
        score(options.folder, options.method)
    elif options.command == "decide":
        decide(options.folder, options.methods, options.data)
    else:
        truth(options.folder, options.which, options.groups)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    building, scoring, retraining, deciding = map(
        commands.add_parser, ("build", "score", "truth", "decide")
    )
    for command in (building, scoring, retraining, deciding):
        command.add_argument("folder", type=Path)
    for command in (building, deciding):
        command.add_argument("--data", type=Path)
    building.add_argument("problem", choices=PROBLEMS)
    building.add_argument("seed", type=int)
    scoring.add_argument("method", choices=METHOD_NAMES)
    retraining.add_argument("which", choices=TRUTHS)
    retraining.add_argument("--groups", type=int, required=True)
    deciding.add_argument("methods", nargs="+")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
