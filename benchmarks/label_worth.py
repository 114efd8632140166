"""What the marked labels are worth to an independent net: accuracy without the marked images.

    python benchmarks/label_worth.py --data PATH --records DIR CELL/SEED ... [--page PAGE]

For each data set of label_records.py, a net in PyTorch of another architecture
(benchmarks/peers/independent.py) is trained from scratch on all images, without those that the
label check marks, without as many drawn at random, without as many of the lowest label scores as
labels are wrong, and without all wrong labels (the oracle). It is tested on the images of the other
half, with their right labels. Rows of finished data sets are kept.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the repository, when run as a script

from benchmarks.label_check import evidence_of, worst
from benchmarks.label_noise import SETTINGS, resized
from benchmarks.label_records import cell_of, drawn, half_of
from benchmarks.reproduction_tables import fill_page, markdown, mean_and_deviation
from benchmarks.stored import beside_stored
from sgd_influence.label_check import check_labels
from utils.output.storage import read_csv, save_csv

RESULTS = ROOT / "benchmarks" / "results" / "label_worth.csv"
PYTHON = ROOT / ".venv-peers" / "bin" / "python"
NET = ROOT / "benchmarks" / "peers" / "independent.py"
KEYS = ["cell", "seed"]
ALL, MARKED, RANDOM, WORST, ORACLE = (
    *("all images", "without the marked", "without as many at random"),
    *("without as many of the lowest scores as are wrong", "without all wrong (oracle)"),
)


def left_out(record: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """By name the mask (N,) of the images that a training leaves out."""
    wrong = record["right"] != record["given"]
    checked, n = check_labels(evidence_of([record])), len(wrong)
    by_chance = np.random.default_rng([seed, 13]).permutation(n)[: checked.suspect.sum()]
    return {
        ALL: np.zeros(n, bool),
        MARKED: checked.suspect,
        RANDOM: np.isin(np.arange(n), by_chance),
        WORST: np.isin(np.arange(n), worst(checked.score, wrong.sum())),
        ORACLE: wrong,
    }


def rows_of(name: str, seed: int, data: Path, records: Path, python: Path) -> pd.DataFrame:
    """A row per training: cell, seed, training, accuracy, n left out, wrong among them.

    Raises:
        FileNotFoundError: the data set is not recorded.
    """
    record = dict(np.load(records / f"{name}_{seed}_0.npz"))
    cell = cell_of(name)
    setting = SETTINGS[cell.data]
    images, labels = setting.images(data)
    others = half_of(len(labels), seed + 1)
    masks = left_out(record, seed)
    tested = np.stack([resized(images[row], setting.side) for row in others])
    with TemporaryDirectory() as folder:
        source, target = Path(folder, "in.npz"), Path(folder, "out.npz")
        np.savez(
            source,
            images=_with_channels(drawn(cell, seed, data)[0]), labels=record["given"],
            test_images=_with_channels(tested), test_labels=labels[others],
            kept=~np.stack(list(masks.values())), seed=seed,
        )  # fmt: skip
        subprocess.run([str(python), str(NET), str(source), str(target)], check=True)
        accuracy = np.load(target)["accuracy"]
    wrong = record["right"] != record["given"]
    counts = [(int(mask.sum()), int((mask & wrong).sum())) for mask in masks.values()]
    table = pd.DataFrame(counts, columns=["n", "wrong"])
    return table.assign(cell=name, seed=seed, training=list(masks), accuracy=accuracy)


def _with_channels(images: np.ndarray) -> np.ndarray:
    return images if images.ndim == 4 else images[..., None]


def table_of(rows: pd.DataFrame) -> str:
    """The table of the page: changes in points against all images, mean over the seeds."""
    head = "images, wrong labels", "seeds", "trained", "left out: wrong", "accuracy, %", "change"
    table = [head]
    for name, own in rows.groupby("cell", sort=False):
        accuracy = 100 * own.pivot(index="seed", columns="training", values="accuracy")
        for training, its in own.groupby("training", sort=False):
            change = accuracy[training] - accuracy[ALL]
            table.append((
                str(name), str(len(accuracy)), str(training),
                "" if training == ALL else f"{its['n'].mean():.0f}: {its['wrong'].mean():.0f}",
                mean_and_deviation(accuracy[training]),
                "" if training == ALL else mean_and_deviation(change, sign="+"),
            ))  # fmt: skip
    return markdown(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing; print the table, store the rows, and put the table into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", nargs="+", metavar="CELL/SEED")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--records", type=Path, required=True, help="folder of label_records.py")
    parser.add_argument("--python", type=Path, default=PYTHON, help="an interpreter with PyTorch")
    parser.add_argument("--out", type=Path, default=RESULTS, help="CSV file of the rows")
    parser.add_argument("--page", type=Path, help="page whose table `worth` is replaced")
    options = parser.parse_args(arguments)
    done = set()
    if options.out.exists():
        done = set(read_csv(options.out)[KEYS].itertuples(index=False, name=None))
    for name in options.work:
        cell, seed = name.split("/")
        if (cell, int(seed)) not in done:
            rows = rows_of(cell, int(seed), options.data, options.records, options.python)
            save_csv(beside_stored(rows, options.out, KEYS), options.out)
    table = table_of(read_csv(options.out))
    print(table)
    if options.page:
        fill_page(options.page, {"worth": table})


if __name__ == "__main__":
    main()
