"""Is removal recommended where nothing is to be gained, and where labels are wrong?

    python benchmarks/null_test.py [--data PATH] [--tasks NAME ...] [--seeds N]
                                   [--first_seed S] [--trials T] [--model NAME] [--work DIR]

digits and mnist: clean images, scored by `Random` alone: the right answer is to remove none.
flipped: digits of which a tenth of the training labels are flipped to another class drawn by seed,
scored by `Hara` and `Random`. Each seed is one run of eval_sgd_influence.py with T trials; the rule
decides as in the product, on validation loss, and also on validation accuracy. mnist takes the
MNIST test images in PATH, or the official archives.

The last line is JSON: task to the number of seeds, how often removal was recommended (by Random
itself on clean images, overall where labels are flipped) by loss and by accuracy, and the mean gain
of test accuracy over all seeds in points. With --work the runs are kept and reused.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # the repository, when run as a script

import eval_sgd_influence
from benchmarks.make_archives import shuffled_parts, write_mnist
from benchmarks.real_images import mnist_images
from sgd_influence.analyze import load_tried
from sgd_influence.recommend import Recommendation, Tried, Verdict, recommend
from utils.columns import IMAGE, LABEL
from utils.data.datasets import prepare
from utils.data.splits import draw_split
from utils.errors import UserError
from utils.output.paths import OutputPaths
from utils.output.storage import save_csv
from utils.run.command import main as run_command

FLIPPED_SHARE = 0.1
N_CLASSES = 10


@dataclass(frozen=True)
class Task:
    """One kind of run.

    Attributes:
        options: of the command.
        methods: that score the images; of one, a control, its own verdict counts.
    """

    options: str
    methods: tuple[str, ...]


CLEAN = "-r 0 5 10 20 50 --n_train 300 --n_val 200 --n_test 200 -e 8 --batch_size 16"
TASKS = {
    "digits": Task(f"-ds digits {CLEAN}", ("Random",)),
    "mnist": Task(
        "-ds mnist --allow_unverified_data -r 0 5 10 20 50 --n_train 1000 --n_val 300 "
        "--n_test 300 -e 4 --batch_size 32",
        ("Random",),
    ),
    "flipped": Task(
        "--image_size 8 -e 8 --batch_size 16 -r 0 5 10 20 30 50 100", ("Hara", "Random")
    ),
}


@dataclass(frozen=True)
class Answer:
    """The verdicts on one run, by what decided."""

    by_loss: Verdict
    by_accuracy: Verdict


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the tasks; the last line printed is JSON."""
    options = _parse(arguments)
    figures = {}
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        for name in options.tasks:
            answers = [answer(name, seed, options, work) for seed in seeds]
            figures[name] = {"first_seed": options.first_seed} | figures_of(answers)
    print(json.dumps(figures))


def answer(name: str, seed: int, options: argparse.Namespace, work: Path) -> Answer:
    """Run one seed of a task and let the rule decide."""
    task, output = TASKS[name], work / name / f"seed_{seed}"
    first = seed * options.trials
    command = f"{task.options} --seed {first} -nt {options.trials} --model {options.model} -q"
    words = [*command.split(), "--methods", *task.methods, "--context", "cpu", "-o", str(output)]
    words += _data_options(name, seed, options.data, work)
    if status := run_command(eval_sgd_influence.COMMAND, words):
        raise UserError(f"{name}, seed {seed}: the run ended with status {status}")
    seeds = range(first, first + options.trials)
    tried = load_tried(OutputPaths(output), task.methods, seeds)
    found = [recommend(t, task.methods, seeds) for t in (tried, by_accuracy(tried))]
    result = Answer(*(_verdict(task, recommendation) for recommendation in found))
    print(f"{name}, seed {seed}: {result.by_loss.n} by loss, {result.by_accuracy.n} by accuracy")
    return result


def by_accuracy(tried: Tried) -> Tried:
    """The same outcomes with misses in the place of losses, so that the rule looks at accuracy."""
    return {
        key: replace(outcomes, val_losses=1.0 - outcomes.val_hits)
        for key, outcomes in tried.items()
    }


def _verdict(task: Task, found: Recommendation) -> Verdict:
    return found.methods[task.methods[0]] if len(task.methods) == 1 else found.overall


def figures_of(answers: Sequence[Answer]) -> dict[str, float]:
    """What is shown of the answers of a task."""
    return {
        "seeds": len(answers),
        "removal_by_loss": sum(a.by_loss.n > 0 for a in answers),
        "removal_by_accuracy": sum(a.by_accuracy.n > 0 for a in answers),
        "test_gain_by_loss": float(np.mean([a.by_loss.test_gain_points for a in answers])),
        "test_gain_by_accuracy": float(np.mean([a.by_accuracy.test_gain_points for a in answers])),
    }


# ---------------------------------------------------------------- data


def _data_options(name: str, seed: int, data: Path | None, work: Path) -> list[str]:
    if name == "flipped":
        return ["-ds", str(flipped_digits(work / "flipped_digits" / str(seed), seed))]
    if name == "mnist" and data is not None:
        return ["--data_dir", str(_mnist_archives(data, work / "archives"))]
    return []


def flipped_digits(folder: Path, seed: int) -> Path:
    """NNC CSV files of 300 training digits, a tenth flipped, 200 to validate, 400 to test."""
    source, rng = prepare("digits", None, False), np.random.default_rng([seed, 1])
    split, images = draw_split(source, seed, 300, 200, None), source.images[[IMAGE, LABEL]]
    training = images.iloc[split.training]
    labels = training[LABEL].to_numpy(copy=True)
    flipped = rng.choice(len(labels), round(FLIPPED_SHARE * len(labels)), replace=False)
    labels[flipped] = (labels[flipped] + rng.integers(1, N_CLASSES, len(flipped))) % N_CLASSES
    save_csv(training.assign(**{LABEL: labels}), folder / "train.csv")
    save_csv(images.iloc[split.validation], folder / "validation.csv")
    save_csv(images.iloc[split.test], folder / "test.csv")
    return folder


def _mnist_archives(data: Path, folder: Path) -> Path:
    if not folder.exists():
        folder.mkdir(parents=True)
        write_mnist(*shuffled_parts(*mnist_images(data), 8000, 2000, 0), folder)
    return folder


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with the real images")
    parser.add_argument(
        "--tasks", nargs="+", choices=TASKS, default=["digits", "flipped"], metavar="NAME",
        help="of digits, mnist and flipped; default: digits flipped",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=10, help="how many runs; default: 10")
    parser.add_argument("--first_seed", type=int, default=0, help="of the runs; default: 0")
    parser.add_argument("--trials", type=int, default=1, help="of each run; default: 1")
    parser.add_argument("--model", default="six_convolutions", help="default: six_convolutions")
    parser.add_argument("--work", type=Path, help="folder to keep the runs in")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        main()
    except (OSError, UserError) as problem:  # images that are not there
        sys.exit(f"null_test.py: error: {problem}")
