"""The label check from one training, compared with cleanlab from five.

    python benchmarks/label_peers.py --records DIR [--page docs/label_noise.md]

Needs cleanlab (`pip install -r requirements-benchmarks.txt`) and, of each data set, records of a
training and of folds, by label_records.py. All rankings are of the same images: those of the folds
that are recorded. Nothing is trained here.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the repository, when run as a script

from benchmarks.label_check import Record, auc, aum_of, evidence_of, worst_5
from benchmarks.label_noise import CLEANLAB, LOSS, MISSING
from benchmarks.reproduction_tables import fill_page, markdown
from sgd_influence.label_check import Checked, check_labels
from utils.errors import UserError
from utils.output.storage import save_csv

RESULTS = ROOT / "benchmarks" / "results" / "label_peers.csv"
NAME = re.compile(r"(?P<cell>.+)_(?P<seed>\d+)_fold\d\.npz")
CHECK, AUM, NEIGHBOURS = "label check", "AUM", "nearest neighbours"
TRAININGS = {CHECK: 1, AUM: 1, LOSS: 1, CLEANLAB: 5, NEIGHBOURS: 5}
DRAWS = 500


def paired(folder: Path) -> Iterator[tuple[str, int, Record, list[Record]]]:
    """Cell, seed, the record of a training and those of the folds on the same images."""
    folds: dict[tuple[str, int], list[Path]] = {}
    for path in sorted(folder.glob("*.npz")):
        if named := NAME.fullmatch(path.name):
            folds.setdefault((named["cell"], int(named["seed"])), []).append(path)
    for (cell, seed), paths in folds.items():
        one = dict(np.load(folder / f"{cell}_{seed}_0.npz"))
        yield cell, seed, one, [dict(np.load(path)) for path in paths]


def rankings(
    one: Record, folds: Sequence[Record], checked: Checked, rows: np.ndarray
) -> dict[str, np.ndarray]:
    """The scores of the images `rows` (M,) by each ranking, the most suspicious lowest."""
    from cleanlab.rank import get_label_quality_scores

    given = one["given"]
    of_label = np.zeros(len(given))  # by the final model
    for images, logits in ((one["trained"], one["final"]), (one["held"], one["after"][-1])):
        of_label[images] = logits.astype(float)[np.arange(len(images)), given[images]]
    near = np.concatenate([fold["neighbours"] for fold in folds])
    return {
        CHECK: checked.score[rows],
        AUM: aum_of([one])[rows],
        LOSS: of_label[rows],
        CLEANLAB: get_label_quality_scores(given[rows], _probabilities(folds)),
        NEIGHBOURS: near[np.arange(len(rows)), given[rows]],
    }


def _probabilities(folds: Sequence[Record]) -> np.ndarray:
    return np.concatenate([fold["probabilities"] for fold in folds])


def difference_error(
    figure: Callable[[np.ndarray, np.ndarray], float], wrong: np.ndarray, *scores: np.ndarray
) -> float:
    """The standard error of the difference of a figure between two rankings of the same images.

    By drawing images with replacement; chance in the training is not in it.
    """
    rng, n = np.random.default_rng(0), len(wrong)
    draws = (rng.integers(0, n, n) for _ in range(DRAWS))
    found = [[figure(wrong[rows], score[rows]) for score in scores] for rows in draws]
    return float(np.std([a - b for a, b in found]))


def rows_of(folder: Path) -> pd.DataFrame:
    """A row per data set and ranking; figures relative to cleanlab's with their standard error."""
    result: list[dict[str, Any]] = []
    for cell, seed, one, folds in paired(folder):
        rows = np.concatenate([fold["rows"] for fold in folds])
        checked = check_labels(evidence_of([one]))
        by_name = rankings(one, folds, checked, rows)
        counts = {CHECK: int(checked.suspect[rows].sum()), CLEANLAB: counted(one, folds, rows)}
        wrong = (one["right"] != one["given"])[rows]
        key = {"cell": cell, "seed": seed, "folds": len(folds), "images": len(rows)}
        for name, score in by_name.items():
            row = {"wrong": int(wrong.sum()), "ranking": name, "n": counts.get(name, np.nan)}
            result.append(key | row | compared(wrong, score, by_name[CLEANLAB]))
    return pd.DataFrame(result)


def counted(one: Record, folds: Sequence[Record], rows: np.ndarray) -> int:
    """How many wrong labels confident learning counts among the images `rows` (M,)."""
    from cleanlab.count import num_label_issues

    return int(num_label_issues(one["given"][rows], _probabilities(folds)))


def compared(wrong: np.ndarray, score: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """The figures of a ranking, how far they are ahead of cleanlab's, and the error of that."""
    found = {}
    for name, figure in (("auc", auc), ("worst_5", worst_5)):
        found[name] = figure(wrong, score)
        found[f"{name}_ahead"] = found[name] - figure(wrong, theirs)
        found[f"{name}_error"] = difference_error(figure, wrong, score, theirs)
    return found


def table_of(rows: pd.DataFrame) -> str:
    """The table of the page: a row per cell and ranking, the mean over its seeds."""
    head = (
        "images, wrong labels", "seeds", "images: wrong", "ranking", "trainings", "counted", "AUC",
        "ahead of cleanlab", "wrong of the worst 5 %", "ahead of cleanlab",
    )  # fmt: skip
    table = [head]
    for (cell, ranking), own in rows.groupby(["cell", "ranking"], sort=False):
        n = own["n"].mean()
        table.append((
            str(cell), " ".join(map(str, own["seed"])),
            f"{own['images'].sum()}: {own['wrong'].sum()}", str(ranking),
            str(TRAININGS[str(ranking)]), "" if np.isnan(n) else f"{n:.0f}",
            f"{own['auc'].mean():.3f}", _ahead(own, "auc"),
            f"{own['worst_5'].mean():.2f}", _ahead(own, "worst_5"),
        ))  # fmt: skip
    return markdown(table)


def _ahead(own: pd.DataFrame, figure: str) -> str:
    """How far a ranking is ahead, ± the standard error over the seeds; of one seed, by drawing."""
    if (own["ranking"] == CLEANLAB).all():
        return ""
    ahead, n = own[f"{figure}_ahead"], len(own)
    error = ahead.std() / n**0.5 if n > 1 else own[f"{figure}_error"].iloc[0]
    return f"{ahead.mean():+.3f} ± {error:.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare on all records; print the table, store the rows, and put the table into the page.

    Raises:
        UserError: cleanlab is not installed.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=Path, required=True, help="folder of label_records.py")
    parser.add_argument("--out", type=Path, default=RESULTS, help="CSV file of the rows")
    parser.add_argument("--page", type=Path, help="page whose table `peers` is replaced")
    options = parser.parse_args(arguments)
    if find_spec("cleanlab") is None:
        raise UserError(MISSING)
    rows = rows_of(options.records)
    save_csv(rows, options.out)
    table = table_of(rows)
    print(table)
    if options.page:
        fill_page(options.page, {"peers": table})


if __name__ == "__main__":
    try:
        main()
    except (OSError, UserError) as problem:
        sys.exit(f"label_peers.py: error: {problem}")
