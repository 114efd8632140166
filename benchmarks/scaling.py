"""How do time and memory grow? One process per measurement, one axis at a time.

    python benchmarks/scaling.py --data PATH [--axes NAME ...] [--out DIR]

Axes: images, steps (more epochs, all of them covered), parameters (wider nets) and removals (how
many removals of a tenth are retrained). Each measurement runs the product's own stages, train, infl
(Hara_exact, with the cache that replays) and eval, on MNIST of 8 px in a process of its own, and
counts the stage's CPU seconds and the process's peak memory. PATH holds the MNIST test images;
without it the official archives are taken.

Written into --out: scaling.csv, after each measurement (rows of other axes there are kept), and
scaling.png. The last line is JSON: per axis the exponents b of time ~ x^b (CPU seconds of all
stages) and memory ~ x^b, by least squares on the logarithms.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))  # the repository, when run as a script

from utils.output.storage import read_csv, save_csv, written_beside
from utils.output.usage import peak_memory

STAGES = ("train", "infl", "eval")
SIDE, N_EVALUATED = 8, 300
"""Image size in px; how many validation images, and as many test images."""


@dataclass(frozen=True)
class Work:
    """What one process measures.

    Attributes:
        axis: what is varied, as in the CSV.
        n_images: training images.
        n_epochs: all of them are covered by the scores.
        width: maps of the net's first block; the next have twice and four times as many.
        n_removals: how many random tenths are removed and the last epoch retrained without.
    """

    axis: str
    n_images: int = 1000
    n_epochs: int = 1
    width: int = 8
    n_removals: int = 1


IMAGES, EPOCHS = (500, 1000, 2000, 4000, 8000), (1, 2, 4, 8, 16)
WIDTHS, REMOVALS = (4, 8, 16, 32, 64), (1, 2, 4, 8, 16)

AXES: dict[str, list[Work]] = {
    "images": [Work("images", n_images=n) for n in IMAGES],
    "steps": [Work("steps", n_epochs=n) for n in EPOCHS],
    "parameters": [Work("parameters", n_images=500, width=n) for n in WIDTHS],
    "removals": [Work("removals", n_removals=n) for n in REMOVALS],
}


# ---------------------------------------------------------------- in the measured process


def measure(work: Work, data: Path | None, folder: Path) -> dict[str, float]:
    """Run the stages; CPU and wall seconds of each, peak memory (bytes), and the sizes.

    nnabla is imported here only, so that the process that starts the others stays small.
    """
    from threadpoolctl import threadpool_limits

    from sgd_influence.eval import evaluate_without
    from sgd_influence.train import record_steps, train_epoch
    from utils.methods import METHODS

    threadpool_limits(1, "blas")
    trial = trial_of(work, data, folder)

    def train() -> None:
        record_steps(trial)
        for epoch in range(work.n_epochs):
            train_epoch(trial, epoch)

    def evaluate() -> None:
        for k in range(work.n_removals):
            order = np.random.default_rng(k).permutation(work.n_images)
            evaluate_without(trial, order < work.n_images // 10, f"eval {k}")

    row: dict[str, float] = {"steps": len(trial.steps), "parameters": trial.network.n_parameters}
    row |= timed("train", train)
    row |= timed("infl", partial(METHODS["Hara_exact"].score, trial))
    row |= timed("eval", evaluate)
    return row | {"peak_bytes": peak_memory()}


def timed(name: str, stage: Callable[[], object]) -> dict[str, float]:
    """CPU and wall seconds of a stage."""
    cpu, wall = time.process_time(), time.perf_counter()
    stage()
    return {
        f"{name}_cpu_s": time.process_time() - cpu,
        f"{name}_wall_s": time.perf_counter() - wall,
    }


def trial_of(work: Work, data: Path | None, folder: Path):  # type: ignore[no-untyped-def]
    """The trial of `work` on MNIST images, with its files under `folder`."""
    from benchmarks.tasks import small_mnist
    from utils.data.images import ImageSet
    from utils.data.splits import SplitFiles, TrialData
    from utils.options import GAUSS_NEWTON, RECOMPUTE
    from utils.output.folder import OutputFolder
    from utils.training.models import three_blocks
    from utils.training.network import Network
    from utils.training.sgd import Optimiser
    from utils.training.steps import plan_steps
    from utils.training.trial import Trial

    images, labels = small_mnist(data, SIDE)
    rows = np.random.default_rng(0).permutation(len(labels))
    ends = np.cumsum([work.n_images, N_EVALUATED, N_EVALUATED])
    training, validation, test = (
        ImageSet(images[part], labels[part], ()) for part in np.split(rows, ends)[:3]
    )
    thin = partial(three_blocks, widths=(work.width, 2 * work.width, 4 * work.width))
    network = Network(thin, training.shape, 10, seed=0)
    return Trial(
        seed=0,
        data=TrialData(training, validation, test, SplitFiles(folder, folder, folder)),
        network=network,
        optimiser=Optimiser(augmented=False),
        steps=plan_steps(0, work.n_images, work.n_epochs, 64, 0.05),
        retrain_all=False,
        cover_epochs=work.n_epochs,
        if_solver=GAUSS_NEWTON,
        damping=None,
        cache=RECOMPUTE,
        cache_memory=10**9,
        folder=OutputFolder(folder),
    )


# ---------------------------------------------------------------- in the process that starts them


def measured_apart(work: Work, data: Path | None) -> dict[str, float]:
    """`measure` in a process of its own: a row of scaling.csv."""
    command = [sys.executable, __file__, "--measure", json.dumps(asdict(work))]
    command += ["--data", str(data)] if data else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"scaling.py: error: {work} ended with {done.returncode}:\n{done.stderr}")
    row = asdict(work) | json.loads(done.stdout.splitlines()[-1])
    return row | {"cpu_s": sum(row[f"{stage}_cpu_s"] for stage in STAGES)}


VARIED = {
    "images": "n_images",
    "steps": "steps",
    "parameters": "parameters",
    "removals": "n_removals",
}
"""The column of the CSV that holds an axis's x."""


def exponent(x: np.ndarray, y: np.ndarray) -> float:
    """b of y ~ x^b (n,), by least squares on the logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def exponents(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Per axis: the exponents of the time of all stages, of each stage, and of the peak memory."""
    figures = {}
    for axis, rows in table.groupby("axis", sort=False):
        x = rows[VARIED[str(axis)]].to_numpy(float)
        columns = {"time": "cpu_s", "memory": "peak_bytes"} | {s: f"{s}_cpu_s" for s in STAGES}
        figures[str(axis)] = {
            name: round(exponent(x, rows[column].to_numpy(float)), 3)
            for name, column in columns.items()
        }
    return figures


def draw(table: pd.DataFrame, figures: dict[str, dict[str, float]], path: Path) -> None:
    """Draw time (above) and peak memory (below) against each axis, both axes logarithmic."""
    from matplotlib.figure import Figure

    axes_names = list(figures)
    figure = Figure(figsize=(3.4 * len(axes_names), 6), layout="constrained")
    panels = figure.subplots(2, len(axes_names), squeeze=False, sharex="col")
    for (above, below), axis in zip(panels.T, axes_names, strict=True):
        rows = table[table["axis"] == axis]
        x = rows[VARIED[axis]]
        for stage in STAGES:
            above.loglog(x, rows[f"{stage}_cpu_s"], "o-", markersize=3, label=stage)
        above.loglog(x, rows["cpu_s"], "ko-", label="all")
        above.set_title(f"time ~ {axis}^{figures[axis]['time']:.2f}", fontsize=10)
        below.semilogx(x, rows["peak_bytes"] / 1e6, "ko-")
        below.set_title(f"memory ~ {axis}^{figures[axis]['memory']:.2f}", fontsize=10)
        below.set_ylim(0, 1.15 * table["peak_bytes"].max() / 1e6)
        below.set_xlabel(axis)
    panels[0, 0].legend(fontsize=8)
    panels[0, 0].set_ylabel("CPU seconds")
    panels[1, 0].set_ylabel("peak memory (MB)")
    with written_beside(path) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every point of every axis, write the table and the picture, print the exponents."""
    options = _parse(arguments)
    if options.measure:
        with tempfile.TemporaryDirectory() as folder:
            work = Work(**json.loads(options.measure))
            print(json.dumps(measure(work, options.data, Path(folder))))
        return
    path = options.out / "scaling.csv"
    table = read_csv(path) if path.exists() else pd.DataFrame({"axis": []})
    table = table[~table["axis"].isin(options.axes)]
    measured_apart(AXES[options.axes[0]][0], options.data)  # compiles the modules, once and for all
    for work in (work for axis in options.axes for work in AXES[axis]):
        row = measured_apart(work, options.data)
        table = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
        save_csv(table, path)
        print(f"{work}: {row['cpu_s']:.1f} s, {row['peak_bytes'] / 1e6:.0f} MB", flush=True)
    figures = exponents(table)
    draw(table, figures, options.out / "scaling.png")
    print(json.dumps(figures))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with the MNIST test images")
    parser.add_argument(
        "--axes", nargs="+", choices=AXES, default=list(AXES), metavar="NAME",
        help=f"default: all, {', '.join(AXES)}",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results",
        help="folder of the CSV file and the picture; default: benchmarks/results",
    )  # fmt: skip
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
