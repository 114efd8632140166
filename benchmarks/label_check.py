"""How well the label check counts, ranks and suggests, on the trainings of label_records.py.

    python benchmarks/label_check.py --records DIR [--page docs/label_noise.md]

A row per cell and seed, and one for all trials of a seed together where there are several. The
rules and constants of the check were chosen on even seeds; odd seeds have other images. The scores
of one seed are too few below .5 to tell their calibration, so that a second table has those of all
even and of all odd seeds of a cell. Nothing is trained here.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import roc_auc_score

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the repository, when run as a script

from benchmarks.reproduction_tables import fill_page, markdown
from sgd_influence.label_check import Evidence, check_labels
from utils.output.storage import save_csv
from utils.training.evaluation import softmax
from utils.training.sgd import margins_of

RESULTS = ROOT / "benchmarks" / "results" / "label_check.csv"
CALIBRATION = "label_calibration.csv"
SURE = 0.9
NAME = re.compile(r"(?P<cell>.+)_(?P<seed>\d+)_(?P<trial>\d+)\.npz")
Record = dict[str, np.ndarray]


def evidence_of(records: Sequence[Record]) -> Evidence:
    """The evidence from the records of one data set's trials, merged as in a run."""
    given = records[0]["given"]
    sums = np.zeros((2, len(given), records[0]["before"].shape[2]), np.float32)
    counts = np.zeros((2, len(given)), np.int64)
    for record in records:
        weights = (
            np.arange(1, len(record["before"]) + 1) / np.arange(len(record["before"]) + 1).sum()
        )
        for kind, (rows, logits) in enumerate((("trained", "before"), ("held", "after"))):
            by_epoch = [
                w * softmax(x.astype(np.float32))
                for w, x in zip(weights, record[logits], strict=True)
            ]
            sums[kind, record[rows]] += np.sum(by_epoch, axis=0)
            counts[kind, record[rows]] += 1
    sums /= np.maximum(counts, 1)[:, :, None]
    zero = np.zeros(len(given), np.int64)
    return Evidence(given.astype(np.int64), zero, sums[0], counts[0], sums[1], counts[1])


def aum_of(records: Sequence[Record]) -> np.ndarray:
    """The mean margin of each image (N,) over epochs and trials."""
    given = records[0]["given"]
    total, count = np.zeros(len(given)), np.zeros(len(given))
    for record in records:
        for rows, logits in (("trained", "before"), ("held", "after")):
            labels = given[record[rows]]
            by_epoch = [margins_of(x.astype(np.float32), labels) for x in record[logits]]
            total[record[rows]] += np.mean(by_epoch, axis=0)
            count[record[rows]] += 1
    return total / np.maximum(count, 1)


def figures(records: Sequence[Record]) -> dict[str, Any]:
    """The figures of the check of one data set, by column."""
    first = records[0]
    right, given = first["right"], first["given"]
    wrong, checked = right != given, check_labels(evidence_of(records))
    sure = (checked.predicted != given) & (checked.predicted_score >= SURE)
    trained = first["trained"]
    of_label = first["final"].astype(float)[np.arange(len(trained)), given[trained]]
    return {
        "images": len(given),
        "wrong": int(wrong.sum()),
        "n": checked.count.n,
        "low": checked.count.low,
        "high": checked.count.high,
        "at_least": not checked.good,
        "auc": auc(wrong, checked.score),
        "auc_aum": auc(wrong, aum_of(records)),
        "auc_loss": auc(wrong[trained], of_label),
        "auc_held": auc(wrong[first["held"]], _held_margins(first)),
        "worst_5": worst_5(wrong, checked.score),
        "found_10": found(wrong, checked.score, 0.1),
        "found_20": found(wrong, checked.score, 0.2),
        "suspects_wrong": float(wrong[checked.suspect].mean()) if checked.suspect.any() else np.nan,
        "brier": relative_brier(checked.score, ~wrong),
        "calibration": calibration_error(checked.score, ~wrong),
        "sure": int(sure.sum()),
        "sure_right": int((checked.predicted == right)[sure].sum()),
    }


def _held_margins(record: Record) -> np.ndarray:
    labels = record["given"][record["held"]]
    return np.mean([margins_of(x.astype(np.float32), labels) for x in record["after"]], axis=0)


def auc(wrong: np.ndarray, score: np.ndarray) -> float:
    """The area under the ROC curve of scores (N,), the most suspicious lowest; nan for one kind."""
    return float(roc_auc_score(wrong, -score)) if 0 < wrong.sum() < len(wrong) else np.nan


def worst_5(wrong: np.ndarray, score: np.ndarray) -> float:
    """The share of wrong labels among the worst 5 %, for masks and scores (N,)."""
    return float(wrong[worst(score, len(wrong) // 20)].mean())


def found(wrong: np.ndarray, score: np.ndarray, share: float) -> float:
    """The share of the wrong labels among the worst `share` of all, for masks and scores (N,)."""
    among = wrong[worst(score, round(share * len(wrong)))].sum()
    return float(among / wrong.sum()) if wrong.any() else np.nan


def worst(score: np.ndarray, n: int) -> np.ndarray:
    """The n images (n,) with the lowest scores (N,)."""
    return np.argsort(score, kind="stable")[:n]


def relative_brier(score: np.ndarray, right: np.ndarray) -> float:
    """Brier score of scores (N,), divided by that of the constant base rate; nan without wrong."""
    base = right.mean() * (1 - right.mean())
    return float(((score - right) ** 2).mean() / base) if base else np.nan


def calibration_error(score: np.ndarray, right: np.ndarray, n_bins: int = 10) -> float:
    """Mean distance of score and share of right labels, in bins of equal count below .5.

    Args:
        score: (N,) probabilities.
        right: (N,) bool.
        n_bins: how many; nan where there are fewer images.
    """
    low = np.flatnonzero(score < 0.5)
    if len(low) < n_bins:
        return float("nan")
    bins = np.array_split(low[np.argsort(score[low], kind="stable")], n_bins)
    return sum(len(b) * abs(score[b].mean() - right[b].mean()) for b in bins) / len(low)


def calibration_by_chance(score: np.ndarray, draws: int = 200) -> float:
    """The calibration error to be expected of these scores (N,) if they are exactly right."""
    rng, low = np.random.default_rng(0), score[score < 0.5]
    errors = [calibration_error(low, rng.random(len(low)) < low) for _ in range(draws)]
    return float(np.mean(errors))


def records_in(folder: Path) -> Iterator[tuple[str, int, list[Record]]]:
    """Cell, seed and the records of its trials."""
    files: dict[tuple[str, int], list[Path]] = {}
    for path in sorted(folder.glob("*.npz")):
        if named := NAME.fullmatch(path.name):
            files.setdefault((named["cell"], int(named["seed"])), []).append(path)
    for (cell, seed), paths in files.items():
        yield cell, seed, [dict(np.load(path)) for path in paths]


def calibration_of(folder: Path) -> pd.DataFrame:
    """A row per cell with wrong labels and half of the seeds: the scores of one training each."""
    halves: dict[tuple[str, int], list[tuple[int, np.ndarray, np.ndarray]]] = {}
    for cell, seed, records in records_in(folder):
        score = check_labels(evidence_of(records[:1])).score
        right = records[0]["right"] == records[0]["given"]
        halves.setdefault((cell, seed % 2), []).append((seed, score, right))
    rows = []
    for (cell, odd), found in halves.items():
        seeds, scores, rights = zip(*found, strict=True)
        score, right = np.concatenate(scores), np.concatenate(rights)
        low = score < 0.5
        if not right.all():
            rows.append({
                "cell": cell, "odd": odd, "seeds": " ".join(map(str, seeds)),
                "below": int(low.sum()), "claimed": score[low].mean(), "right": right[low].mean(),
                "calibration": calibration_error(score, right),
                "by_chance": calibration_by_chance(score),
                "brier": relative_brier(score, right),
                "brier_best": relative_brier(_best_monotone(score, right), right),
            })  # fmt: skip
    return pd.DataFrame(rows)


def _best_monotone(score: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The scores (N,) after their best monotone change, chosen with the truth at hand."""
    return np.asarray(IsotonicRegression(out_of_bounds="clip").fit_transform(score, right))


def rows_of(folder: Path) -> pd.DataFrame:
    """A row per data set of the records in a folder, and one more where it has several trials."""
    rows = []
    for cell, seed, records in records_in(folder):
        for n_trials in sorted({1, len(records)}):
            key = {"cell": cell, "seed": seed, "trials": n_trials}
            rows.append(key | figures(records[:n_trials]))
    return pd.DataFrame(rows)


def table_of(rows: pd.DataFrame) -> str:
    """The table of the page: first the seeds that rules were chosen on, then the others."""
    head = (
        "images, wrong labels", "seed", "trials", "wrong", "counted (95 % interval)", "AUC",
        "AUC of AUM", "AUC of the last loss", "wrong of the worst 5 %",
        "found in the worst 10, 20 %", "wrong of the marked", "Brier / base",
        "calibration error", "suggested >= .9: right",
    )  # fmt: skip
    table = [head]
    for row in rows.sort_values("seed", key=lambda s: s % 2, kind="stable").itertuples():
        count = f"{row.n}{' marked' if row.at_least else ''} ({row.low} to {row.high})"
        table.append((
            row.cell, f"{row.seed}{', chosen on' if row.seed % 2 == 0 else ''}", str(row.trials),
            str(row.wrong), count, *(_number(v, 3) for v in (row.auc, row.auc_aum, row.auc_loss)),
            _number(row.worst_5, 2),
            f"{row.found_10:.0%}, {row.found_20:.0%}" if row.wrong else "",
            *(_number(v, 2) for v in (row.suspects_wrong, row.brier, row.calibration)),
            f"{row.sure_right} of {row.sure}",
        ))  # fmt: skip
    return markdown(table)


def calibration_table(rows: pd.DataFrame) -> str:
    """The table of `calibration_of`, first the seeds that rules were chosen on."""
    head = (
        "images, wrong labels", "seeds", "scores below .5", "their mean", "right of them",
        "calibration error", "by chance alone", "Brier / base", "best by any monotone change",
    )  # fmt: skip
    table = [head]
    for row in rows.sort_values("odd", kind="stable").itertuples():
        shares = (row.claimed, row.right, row.calibration, row.by_chance, row.brier, row.brier_best)
        seeds = f"{row.seeds}{'' if row.odd else ', chosen on'}"
        table.append((row.cell, seeds, str(row.below), *(_number(v, 2) for v in shares)))
    return markdown(table)


def _number(value: float, digits: int) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Judge all records; print the table, store the rows, and put the table into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=Path, required=True, help="folder of label_records.py")
    parser.add_argument("--out", type=Path, default=RESULTS, help="CSV file of the rows")
    parser.add_argument("--page", type=Path, help="page whose tables are replaced")
    options = parser.parse_args(arguments)
    rows = rows_of(options.records)
    save_csv(rows, options.out)
    calibration = calibration_of(options.records)
    save_csv(calibration, options.out.with_name(CALIBRATION))
    blocks = {"check": table_of(rows), "calibration": calibration_table(calibration)}
    print(*blocks.values(), sep="\n\n")
    if options.page:
        fill_page(options.page, blocks)


if __name__ == "__main__":
    main()
