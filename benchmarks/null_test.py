"""Is removal recommended where nothing is to be gained, and does it help where labels are wrong?

    python benchmarks/null_test.py [--data PATH] [--tasks NAME ...] [--seeds N]
                                   [--first_seed S] [--trials T] [--model NAME] [--work DIR]

Each seed is one run of eval_sgd_influence.py with T trials. Tasks:

digits, mnist: clean images, scored by `Random` alone: the right answer is to remove none.
clean: clean digits, scored by `AUM` and `Random`: an answer that costs accuracy is wrong.
flipped: digits of which a tenth of the training labels are flipped to another class drawn by seed.
suspect: digits of which a tenth of all labels but those of the test images are flipped; the
    validation images are drawn from these.
human, human_all: 2,000 CIFAR-10 images of 16 px with wrong labels by people (the first wrong one
    of three annotators of CIFAR-10H), validation images drawn from these; the net is retrained
    from the last epoch on, or from the first step.

The images come from --data (see benchmarks/real_images.py; human labels need it). Test labels are
the right ones. The rule of the product decides on each run by each of `CRITERIA`: on all trials
together, and on each trial alone. `right_labels` shows what the loss would decide if no validation
label were wrong.

The last line is JSON: for each task and criterion how often removal was recommended (by `Random`
itself on clean images, overall elsewhere) and the mean gain of test accuracy in points over all
runs. With --work the runs are kept and reused.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[1]))  # the repository, when run as a script

import eval_sgd_influence
from benchmarks.small_sets import N_CLASSES, cifar10_csv, flipped_digits, mnist_archives
from sgd_influence.analyze import load_tried
from sgd_influence.label_fits import fit_similar_classes, posterior_of
from sgd_influence.outcomes import Outcomes
from sgd_influence.recommend import Tried, measured, recommend
from utils.columns import IMAGE, LABEL
from utils.data.datasets import prepare
from utils.data.source import Source
from utils.data.splits import split_of
from utils.errors import UserError
from utils.methods import CONTROL
from utils.output.paths import OutputPaths
from utils.run.command import main as run_command

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Task:
    """One kind of run.

    Attributes:
        options: of the command.
        methods: that score the images; of one, a control, its own verdict counts.
        sizes: images for training, validation and testing; None: all of a set.
        side: of the images in px; None: the data set's own.
    """

    options: str
    methods: tuple[str, ...]
    sizes: tuple[int | None, int | None, int | None] = (None, None, None)
    side: int | None = None


DIGITS = "-e 8 --batch_size 16 -r 0 5 10 20 30 50 100"
HUMAN = "-e 15 --batch_size 32 -r 0 40 80 160 320 480"
TASKS = {
    "digits": Task(
        "-ds digits -r 0 5 10 20 50 -e 8 --batch_size 16", ("Random",), (300, 200, 200)
    ),
    "clean": Task(f"-ds digits {DIGITS}", ("AUM", "Random"), (300, 200, None)),
    "mnist": Task(
        "-ds mnist --allow_unverified_data -r 0 5 10 20 50 -e 4 --batch_size 32",
        ("Random",), (1000, 300, 300),
    ),
    "flipped": Task(DIGITS, ("Hara", "Random"), side=8),
    "suspect": Task(DIGITS, ("AUM", "Hara", "Random"), (300, 200, None), 8),
    "human": Task(HUMAN, ("AUM", "Hara", "Random"), (1600, 400, None), 16),
    "human_all": Task(f"{HUMAN} -ra", ("AUM", "Random"), (1600, 400, None), 16),
}  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """The validation images of a trial, as it was trained.

    Attributes:
        labels: (n_val,), the given ones.
        right: (n_val,) bool, whether they are right.
        held: (n_val, K), mean probabilities by the trial's net, which did not train on them.
    """

    labels: npt.NDArray[np.int64]
    right: Bools
    held: Floats


Measure = Callable[[Outcomes, Outcomes, Seen], Outcomes]
"""Of the outcomes of a removal, those without removal, and the images: outcomes to judge by."""


def fall(outcomes: Outcomes) -> Floats:
    """What the rule looks at (N,), more being better: the fall of what stands for the losses."""
    return -outcomes.val_losses.astype(float)


def by_loss(after: Outcomes, _: Outcomes, __: Seen) -> Outcomes:
    """The cross-entropy."""
    return after


def by_accuracy(after: Outcomes, _: Outcomes, __: Seen) -> Outcomes:
    """Misses in the place of losses."""
    return replace(after, val_losses=1.0 - after.val_hits)


def by_probability(after: Outcomes, _: Outcomes, __: Seen) -> Outcomes:
    """1 - p of the given label, which is bounded: what the product judges by."""
    return replace(after, val_losses=1.0 - after.val_probabilities)


def by_capped_loss(after: Outcomes, _: Outcomes, __: Seen) -> Outcomes:
    """The cross-entropy, at most that of guessing."""
    return replace(after, val_losses=np.minimum(after.val_losses, np.log(N_CLASSES)))


def by_median(after: Outcomes, before: Outcomes, __: Seen) -> Outcomes:
    """The median of the paired differences of the cross-entropy."""
    median = np.median(after.val_losses.astype(float) - before.val_losses)
    return replace(after, val_losses=np.full(len(after.val_losses), median))


def by_signs(after: Outcomes, before: Outcomes, __: Seen) -> Outcomes:
    """The share of images whose cross-entropy rises, less the share whose falls."""
    return replace(after, val_losses=np.sign(after.val_losses.astype(float) - before.val_losses))


def by_checked_labels(after: Outcomes, _: Outcomes, seen: Seen) -> Outcomes:
    """The cross-entropy of images whose labels pass the check of nets that held them out."""
    return _among(after, passing(seen))


def by_right_labels(after: Outcomes, _: Outcomes, seen: Seen) -> Outcomes:
    """The cross-entropy of images whose labels are right, which no product can know."""
    return _among(after, seen.right)


CRITERIA: Mapping[str, Measure] = {
    "loss": by_loss,
    "accuracy": by_accuracy,
    "probability": by_probability,
    "capped_loss": by_capped_loss,
    "median": by_median,
    "signs": by_signs,
    "checked_labels": by_checked_labels,
    "right_labels": by_right_labels,
}
AGREEMENT = "agreement"
"""The removal that gains most in cross-entropy among those that gain in every trial, however little
that is."""


@dataclass(frozen=True)
class Choice:
    """How many images a criterion removes, and the gain of test accuracy in points."""

    n: int
    test_gain: float


def agreed(tried: Tried, methods: Sequence[str], seeds: Sequence[int]) -> Choice:
    """What `AGREEMENT` removes; none where `Random` gains most of several methods."""
    found = measured(tried, methods, seeds, score=fall)
    gains = np.where((found.trial_gains > 0).all(axis=0), found.gains.mean, -np.inf)
    best = int(gains.argmax())
    if not np.isfinite(gains[best]) or (found.methods[best] == CONTROL and len(methods) > 1):
        return Choice(0, 0.0)
    return Choice(int(found.n[best]), float(found.test.mean[best]))


def passing(seen: Seen) -> Bools:
    """The images (n_val,) whose labels are likelier right than wrong by the label check's fit."""
    logs = np.log(np.maximum(seen.held, 1e-6))
    fit = fit_similar_classes(logs, seen.labels)
    posterior = posterior_of(logs, seen.labels, fit.beta, fit.confusion)
    return np.asarray(posterior[np.arange(len(logs)), seen.labels] >= 0.5)


def _among(after: Outcomes, images: Bools) -> Outcomes:
    return replace(after, val_losses=after.val_losses[images], val_hits=after.val_hits[images])


def judged(tried: Tried, measure: Measure, seen: Mapping[int, Seen]) -> Tried:
    """The outcomes by (method, n, seed) to judge by; `seen` by seed."""
    return {
        (method, n, seed): measure(after, tried[method, 0, seed], seen[seed])
        for (method, n, seed), after in tried.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the tasks; the last line printed is JSON."""
    options = _parse(arguments)
    figures = {}
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        for name in options.tasks:
            answers = [answer(name, seed, options, work) for seed in seeds]
            figures[name] = {"first_seed": options.first_seed, "trials": options.trials}
            figures[name] |= figures_of(answers)
    print(json.dumps(figures))


Answer = Mapping[str, tuple[Choice, ...]]
"""By criterion: what all trials together remove, and, if there are several, each alone."""


def answer(name: str, seed: int, options: argparse.Namespace, work: Path) -> Answer:
    """Run one seed of a task and let the rule decide by each criterion."""
    task, output, first = TASKS[name], work / name / f"seed_{seed}", seed * options.trials
    data = _data(name, seed, options.data, work)
    command = f"{task.options} --seed {first} -nt {options.trials} --model {options.model} -q"
    words = [*command.split(), *data.options, "--methods", *task.methods, "--context", "cpu"]
    words += _given(zip(("--n_train", "--n_val", "--n_test"), task.sizes, strict=True))
    words += _given([("--image_size", task.side)])
    words += ["-j", "1", "--no_report", "-o", str(output)]
    if status := run_command(eval_sgd_influence.COMMAND, words):
        raise UserError(f"{name}, seed {seed}: the run ended with status {status}")
    seeds = range(first, first + options.trials)
    tried = load_tried(OutputPaths(output), task.methods, seeds)
    seen = {trial: _seen(output, data, task, trial) for trial in seeds}
    sets = [list(seeds), *([s] for s in seeds if len(seeds) > 1)]
    found = {
        criterion: tuple(_choice(task, judged(tried, measure, seen), trials) for trials in sets)
        for criterion, measure in CRITERIA.items()
    }
    found[AGREEMENT] = tuple(agreed(tried, task.methods, trials) for trials in sets)
    counts = ", ".join(f"{choices[0].n} by {criterion}" for criterion, choices in found.items())
    print(f"{name}, seed {seed}: {counts}", flush=True)
    return found


def _given(values: Iterable[tuple[str, int | None]]) -> list[str]:
    """Options and their values, without those that are None."""
    return [word for name, value in values if value is not None for word in (name, str(value))]


def _choice(task: Task, tried: Tried, seeds: Sequence[int]) -> Choice:
    found = recommend(tried, task.methods, seeds, score=fall)
    verdict = found.methods[task.methods[0]] if len(task.methods) == 1 else found.overall
    return Choice(verdict.n, verdict.test_gain_points)


def figures_of(answers: Sequence[Answer]) -> dict[str, dict[str, float]]:
    """By criterion: runs with a removal and mean gain, of all trials together and of each alone."""
    found = {}
    for criterion in answers[0]:
        together = [a[criterion][0] for a in answers]
        alone = [choice for a in answers for choice in a[criterion][1:]]
        found[criterion] = _figures(together)
        if alone:
            found[criterion] |= {f"{key}_alone": v for key, v in _figures(alone).items()}
    return found


def _figures(choices: Sequence[Choice]) -> dict[str, float]:
    return {
        "runs": len(choices),
        "removal": sum(choice.n > 0 for choice in choices),
        "test_gain": round(float(np.mean([choice.test_gain for choice in choices])), 2),
    }


# ---------------------------------------------------------------- data


@dataclass(frozen=True)
class Data:
    """The data set of a task.

    Attributes:
        options: of the command.
        source: its images.
        right: the right label of each image by its path; None if the given ones are right.
    """

    options: list[str]
    source: Source
    right: Mapping[str, int] | None = None


def _data(name: str, seed: int, data: Path | None, work: Path) -> Data:
    if name == "mnist":
        archives = data and mnist_archives(data, work / "archives")
        words = ["--data_dir", str(archives)] if archives else []
        return Data(words, prepare("mnist", archives, True))
    if name in ("digits", "clean"):
        return Data([], prepare("digits", None, False))
    task, kind, right = TASKS[name], name.removesuffix("_all"), None
    folder = work / f"{kind}_data" / str(seed)
    if kind == "human":
        right = cifar10_csv(folder, seed, data, sum(filter(None, task.sizes)))
    else:
        right = _right_digits() if kind == "suspect" else None
        flipped_digits(folder, seed, validation=kind == "flipped")
    return Data(["-ds", str(folder)], prepare(str(folder), None, False, task.side), right)


def _right_digits() -> dict[str, int]:
    images = prepare("digits", None, False).images
    return dict(zip(images[IMAGE], images[LABEL], strict=True))


def _seen(output: Path, data: Data, task: Task, seed: int) -> Seen:
    """What is known of the validation images of a trial."""
    (path,) = OutputPaths(output).training(seed).glob("label_record_*.npz")
    with np.load(path) as record:
        held = record["validation"].astype(float)
    rows = split_of(data.source, seed, *task.sizes).validation
    images = data.source.images.iloc[rows]
    labels = images[LABEL].to_numpy(np.int64)
    right = labels if data.right is None else np.array([data.right[p] for p in images[IMAGE]])
    return Seen(labels, right == labels, held)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with the real images")
    parser.add_argument(
        "--tasks", nargs="+", choices=TASKS, default=["digits", "flipped"], metavar="NAME",
        help=f"of {', '.join(TASKS)}; default: digits flipped",
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
