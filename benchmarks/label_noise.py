"""How many wrong labels does each method find? A row per data set, kind, fraction, seed and method.

    python benchmarks/label_noise.py --data PATH [--seeds 0 1 2] [--only mnist/uniform/0.1 ...]
                                     [--methods AUM Random ...]

A fraction of the training labels is replaced, by a class drawn uniformly or by the most similar
one, the net is trained, and each method ranks the training images. Of the ranking: the area under
its ROC curve, and the share of the flips among the worst 10 % and 20 %. Besides the product's
methods: the loss of the final model, and cleanlab on out-of-fold probabilities of the same net
(`pip install -r requirements-benchmarks.txt`).

PATH holds the MNIST and CIFAR-10 test images; without it the official archives are taken. Each
training is stored in --out when it is judged; rows there of other trainings and methods are kept.
At the end the table of --page is rewritten.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the repository, when run as a script

from benchmarks.real_images import Labelled, cifar10_images, mnist_images
from benchmarks.reproduction_tables import fill_page, markdown, mean_and_deviation
from benchmarks.stored import beside_stored
from sgd_influence.train import record_steps, train_epoch
from utils.data.flips import flipped
from utils.data.images import ImageSet
from utils.data.splits import SplitFiles, TrialData
from utils.errors import UserError
from utils.methods import METHODS
from utils.options import GAUSS_NEWTON, RECOMPUTE
from utils.output.folder import OutputFolder
from utils.output.storage import read_csv, save_csv
from utils.training.evaluation import Evaluator
from utils.training.models import six_convolutions
from utils.training.network import Network
from utils.training.sgd import SGD, Optimiser
from utils.training.steps import Step, plan_steps
from utils.training.trial import Trial

RESULTS = ROOT / "benchmarks" / "results"
LOSS, CLEANLAB = "Loss, final model", "cleanlab"
RANKINGS = (*(name for name in METHODS if name != "Ours_mean"), LOSS, CLEANLAB)
N_FOLDS = 4
N_CLASSES = 10
BATCH = 64
SHARES = {"worst_10": 0.1, "worst_20": 0.2}
KEYS = ["data", "kind", "fraction", "seed", "method"]
FIGURES = ["auc", *SHARES]
MISSING = "cleanlab is not installed: pip install -r requirements-benchmarks.txt"


@dataclass(frozen=True)
class Setting:
    """A row of the table of data sets.

    Attributes:
        images: reads them from a folder, of the test or, by a second argument, another part.
        side: pixels that they are brought to.
        sizes: training and validation images.
        n_epochs: of the training and of each fold's.
        lr: learning rate of the first step, 0 in the end along a cosine.
        similar: pairs of classes that are taken for each other.
    """

    images: Callable[..., Labelled]
    side: int
    sizes: tuple[int, int]
    n_epochs: int
    lr: float
    similar: tuple[tuple[int, int], ...]


SETTINGS = {
    "mnist": Setting(
        mnist_images, 16, (7000, 1000), 5, 0.05,
        similar=((4, 9), (3, 5), (1, 7), (2, 8), (0, 6)),
    ),
    "cifar10": Setting(
        cifar10_images, 32, (5000, 1000), 15, 0.05,
        # airplane and ship, automobile and truck, bird and frog, cat and dog, deer and horse
        similar=((0, 8), (1, 9), (2, 6), (3, 5), (4, 7)),
    ),
}  # fmt: skip
UNIFORM, SIMILAR = "uniform", "similar"


@dataclass(frozen=True)
class Work:
    """One training to judge.

    Attributes:
        name: a row of `SETTINGS`.
        kind: how labels are flipped.
        fraction: of the training labels.
        seed: of everything in it.
        methods: what ranks.
        data: folder with the images.
        small: training and validation images and epochs, for tests; None: those of the setting.
    """

    name: str
    kind: str
    fraction: float
    seed: int
    methods: tuple[str, ...]
    data: Path | None
    small: tuple[int, int, int] | None = None

    @property
    def setting(self) -> Setting:
        """Its row, in its size."""
        row = SETTINGS[self.name]
        if self.small is None:
            return row
        return replace(row, sizes=self.small[:2], n_epochs=self.small[2])


WORK = [
    f"{name}/{kind}/{fraction}"
    for name, kind, fraction in product(SETTINGS, (UNIFORM, SIMILAR), (0.1, 0.2))
]


# ---------------------------------------------------------------- one training


def judge(work: Work) -> pd.DataFrame:
    """Flip labels, train, rank by each method: a row per method.

    Returns:
        Columns `KEYS`, `FIGURES` and seconds (processor time of the scoring alone).
    """
    threadpool_limits(1, "blas")
    rows = []
    with TemporaryDirectory() as folder:
        trial, wrong = noisy_trial(work, Path(folder))
        record_steps(trial)
        for epoch in range(trial.n_epochs):
            train_epoch(trial, epoch)
        for method in work.methods:
            started = time.process_time()
            scores = scores_of(method, trial, work.setting)
            seconds = time.process_time() - started
            key = (work.name, work.kind, work.fraction, work.seed, method)
            rows.append((*key, *found(scores, wrong), round(seconds, 1)))
    return pd.DataFrame(rows, columns=[*KEYS, *FIGURES, "seconds"])


def noisy_trial(work: Work, folder: Path) -> tuple[Trial, np.ndarray]:
    """A trial of the product with flipped labels, to be trained; and which are flipped (n,)."""
    setting = work.setting
    clean, validation = image_sets(setting, work.seed, work.data)
    labels = flipped_labels(clean.labels, work.kind, setting.similar, work.fraction, work.seed)
    training = replace(clean, labels=labels)
    nowhere = SplitFiles(folder, folder, folder)
    trial = Trial(
        seed=work.seed,
        data=TrialData(training, validation, validation, nowhere),
        network=Network(six_convolutions, training.shape, N_CLASSES, work.seed),
        optimiser=Optimiser(),
        steps=steps_of(setting, work.seed, len(labels)),
        retrain_all=False,
        cover_epochs=1,
        if_solver=GAUSS_NEWTON,
        damping=None,
        cache=RECOMPUTE,
        cache_memory=10**9,
        folder=OutputFolder(folder),
    )
    return trial, labels != clean.labels


def steps_of(setting: Setting, seed: int, n: int) -> list[Step]:
    """The steps of a training on n images."""
    return plan_steps(seed, n, setting.n_epochs, BATCH, setting.lr, "cosine")


def image_sets(setting: Setting, seed: int, data: Path | None) -> tuple[ImageSet, ImageSet]:
    """Training and validation images, drawn by `seed`, with their right labels."""
    images, labels = setting.images(data)
    n_training, n_validation = setting.sizes
    rows = np.random.default_rng([seed, 3]).permutation(len(labels))[: n_training + n_validation]
    pixels = np.stack([resized(images[row], setting.side) for row in rows])
    whole = ImageSet(pixels, labels[rows].astype(np.int32), ())
    return _part(whole, slice(n_training)), _part(whole, slice(n_training, None))


def resized(image: np.ndarray, side: int) -> np.ndarray:
    """(side, side, C) uint8."""
    small = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(small).reshape(side, side, -1)


def _part(data: ImageSet, rows: slice | np.ndarray) -> ImageSet:
    return ImageSet(data.images[rows], data.labels[rows], ())


def flipped_labels(
    labels: np.ndarray, kind: str, similar: Sequence[tuple[int, int]], fraction: float, seed: int
) -> np.ndarray:
    """Labels (n,) with a fraction of them wrong: the same images for both kinds.

    Args:
        labels: the right ones (n,).
        kind: "uniform", any other class; "similar", the class of the same pair.
        similar: pairs of classes.
        fraction: of the images.
        seed: draws them.
    """
    wrong = flipped(labels, N_CLASSES, fraction, seed)
    if kind == UNIFORM:
        return wrong
    partner = np.arange(N_CLASSES, dtype=labels.dtype)
    for a, b in similar:
        partner[[a, b]] = b, a
    return np.where(wrong != labels, partner[labels], labels)


def found(scores: np.ndarray, wrong: np.ndarray) -> tuple[float, ...]:
    """The figures of a ranking.

    Args:
        scores: (n,), the most suspicious lowest.
        wrong: (n,) mask of the flips.

    Returns:
        Area under the ROC curve; shares of the flips among the worst 10 % and 20 % of all. nan
        for scores that are not finite.
    """
    if not np.isfinite(scores).all():
        return (float("nan"),) * len(FIGURES)
    order = np.argsort(scores, kind="stable")
    shares = [wrong[order[: round(p * len(order))]].sum() / wrong.sum() for p in SHARES.values()]
    return float(roc_auc_score(wrong, -scores)), *map(float, shares)


# ---------------------------------------------------------------- rankings


def scores_of(method: str, trial: Trial, setting: Setting) -> np.ndarray:
    """The score of each training image (n,), the most suspicious lowest."""
    labels = trial.data.training.labels
    if method == LOSS:
        trial.network.load(trial.final_state())
        of_class = trial.evaluator.probabilities(trial.data.training.images).astype(np.float64)
        of_label = of_class[np.arange(len(labels)), labels]
        return np.log(np.maximum(of_label, np.finfo(np.float32).tiny))
    if method == CLEANLAB:
        from cleanlab.rank import get_label_quality_scores

        return get_label_quality_scores(labels, out_of_fold(trial, setting))
    return METHODS[method].score(trial)


def out_of_fold(trial: Trial, setting: Setting) -> np.ndarray:
    """Class probabilities (n, K) of each image by a net trained, alike, on the other folds."""
    training = trial.data.training
    result = np.empty((len(training), N_CLASSES))
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=trial.seed)
    for others, held in folds.split(training.labels, training.labels):
        network = Network(six_convolutions, training.shape, N_CLASSES, trial.seed)
        sgd, data = SGD(network, trial.optimiser), _part(training, others)
        for step in steps_of(setting, trial.seed, len(others)):
            sgd.step(data, step)
        result[held] = Evaluator(network).probabilities(training.images[held])
    return result


# ---------------------------------------------------------------- command line


def table_of(rows: pd.DataFrame) -> str:
    """A line per training and ranking: mean and standard deviation over the seeds."""
    shares = (f"found in the worst {100 * share:g} %" for share in SHARES.values())
    table = [("images, wrong labels", "ranking", "seeds", "AUC", *shares)]
    for key, part in rows.groupby(["data", "kind", "fraction", "method"], sort=False):
        data, kind, fraction, method = key
        finite = part.dropna(subset="auc")
        lost = len(part) - len(finite)
        seeds = f"{len(part)}" + (f", diverged in {lost}" if lost else "")
        figures = (_cell(finite["auc"], 3), *(_cell(100 * finite[c], 0, " %") for c in SHARES))
        table.append((f"{data}, {kind}, {100 * fraction:g} %", method, seeds, *figures))
    return markdown(table)


def _cell(values: pd.Series, digits: int, unit: str = "") -> str:
    return "" if values.empty else f"{mean_and_deviation(values, digits=digits)}{unit}"


def store(rows: pd.DataFrame, path: Path) -> None:
    """Write the rows of `judge`; those there of the same keys are replaced, others are kept."""
    rows = beside_stored(rows, path, KEYS)
    order = {name: place for place, name in enumerate((*SETTINGS, UNIFORM, SIMILAR, *RANKINGS))}
    save_csv(rows.sort_values(KEYS, key=lambda c: c.map(order).fillna(c), kind="stable"), path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark; print the table of what is stored, and put it into the page.

    Raises:
        UserError: cleanlab is asked for and not installed.
    """
    options = _parse(arguments)
    if CLEANLAB in options.methods and find_spec("cleanlab") is None:
        raise UserError(MISSING)
    work = [
        Work(name, kind, float(fraction), seed, tuple(options.methods), options.data, options.small)
        for seed in options.seeds
        for name, kind, fraction in (one.split("/") for one in options.only)
    ]
    run = Parallel(n_jobs=options.jobs, return_as="generator_unordered")
    path = options.out / "label_noise.csv"
    for number, part in enumerate(run(delayed(judge)(one) for one in work), start=1):
        store(part, path)
        print(f"{number} of {len(work)} trainings judged", file=sys.stderr)
    table = table_of(read_csv(path))
    print(table)
    if options.page:
        fill_page(options.page, {"table": table})


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with the real images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument(
        "--only", nargs="+", choices=WORK, default=WORK, metavar="DATA/KIND/FRACTION",
        help=f"trainings; default: all, {', '.join(WORK)}",
    )  # fmt: skip
    parser.add_argument(
        "--methods", nargs="+", choices=RANKINGS, default=RANKINGS, metavar="METHOD",
        help=f"default: all, {', '.join(RANKINGS)}",
    )  # fmt: skip
    parser.add_argument(
        "--small", type=int, nargs=3, metavar=("N_TRAIN", "N_VAL", "EPOCHS"),
        help="for a try: other sizes than those of the table",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, help="processes; default: 1")
    parser.add_argument(
        "--out", type=Path, default=RESULTS,
        help="folder of label_noise.csv; default: benchmarks/results",
    )  # fmt: skip
    parser.add_argument(
        "--page", type=Path,
        help="whose table is rewritten; default: docs/label_noise.md, none with other --out",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    if options.page is None and options.out == RESULTS:
        options.page = ROOT / "docs" / "label_noise.md"
    return options


if __name__ == "__main__":
    try:
        main()
    except (OSError, UserError) as problem:  # images that are not there
        sys.exit(f"label_noise.py: error: {problem}")
