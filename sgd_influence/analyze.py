"""Stage 4: the summary table, the picture, the recommendation and the cleansed data of a run."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from sgd_influence.class_counts import emptied_classes, unvalidated_classes
from sgd_influence.cleanse import cleanse
from sgd_influence.closing import closing_table, closing_words
from sgd_influence.eval import SCORE_COLUMNS
from sgd_influence.guessing import may_be_guessing
from sgd_influence.label_issues import about_validation, check_of_run, label_words
from sgd_influence.outcomes import load_outcomes
from sgd_influence.recommend import Recommendation, Tried, about_retraining, recommend
from sgd_influence.verify import (
    Agreement,
    compare,
    compare_smoothness,
    confirmation,
    judgement,
)
from utils.columns import LABEL
from utils.console import RESULT
from utils.data.flips import what_if
from utils.data.source import Source
from utils.data.splits import have_same_validation, split_of_trial
from utils.methods import METHODS, NO_REMOVAL
from utils.options import Options
from utils.output.figures import Curve, RemovalFigure, removal_figure
from utils.output.folder import OutputFolder
from utils.output.paths import OutputPaths
from utils.output.results import Results
from utils.output.storage import read_csv
from utils.training.smoothness import smoothness_words
from utils.training.soundness import problems_in
from utils.training.trial import Trial
from utils.units import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

log = logging.getLogger("data_cleansing")

SUMMARY_COLUMNS = [*SCORE_COLUMNS, "method", "seed", "n_drops", "mean", "std"]

Scores = Mapping[tuple[str, int, int], pd.DataFrame]
"""The score file of each (method, seed, n)."""


def analyze(options: Options, source: Source, trial: Trial, results: Results) -> None:
    """Summarise what all trials left in the output folder, recommend, and cleanse.

    Args:
        options: as parsed.
        source: the images of the data set.
        trial: one of the trials, all being of one size.
        results: the tables of the run.
    """
    folder = trial.folder
    summary = summarise(load_scores(results))
    folder.save_csv(summary, folder.summary, index=True)
    results.keep(summary, folder.summary)
    title = f"{options.dataset}: {trial.sizes}, {counted(trial.n_epochs, 'epoch')}"
    draw(summary, title, folder)
    agreements, verified = _verified(options, trial, results, title)
    methods = judged_methods(options, folder)
    tried = load_tried(folder, methods, options.seeds)
    unsound = unsound_methods(folder, methods, options.seeds)
    labels = check_of_run(options, source, trial, results)
    doubts = about_validation(labels, options.flip_labels is not None)
    recommendation = _recommendation(options, source, trial, tried, unsound, doubts, methods)
    folder.save_json(recommendation.as_json(), folder.recommendation)
    cleanse(options, source, folder, results, tried, recommendation.cleansed)
    first = label_words(labels, folder.latest(folder.label_issues).name) if labels else []
    table = closing_table(recommendation, agreements, unsound).splitlines()
    for line in ("", *first, *table, *closing_words(recommendation, unsound), *verified):
        log.log(RESULT, "%s", line)


def _verified(
    options: Options, trial: Trial, results: Results, title: str
) -> tuple[dict[str, Agreement], list[str]]:
    """How far scores agree with retraining, by method, and in sentences; empty without --verify."""
    if not options.verify:
        return {}, []
    folder = trial.folder
    agreements = compare(folder, results, options.methods, options.seeds, title)
    n_rankings = sum(METHODS[method].predicts for method in options.methods)
    words = [
        judgement(method, agreement, options.verify, trial.n_train, n_rankings)
        or confirmation(method, agreement)
        for method, agreement in agreements.items()
        if METHODS[method].predicts
    ]
    smoothness = compare_smoothness(folder, results, options.methods[0], options.seeds)
    return agreements, list(filter(None, [*words, smoothness_words(*smoothness)]))


def _recommendation(
    options: Options,
    source: Source,
    trial: Trial,
    tried: Tried,
    unsound: Mapping[str, str],
    doubts: str,
    methods: Sequence[str],
) -> Recommendation:
    """How many images to remove, how many are left out of the cleansed lists, and remarks."""
    emptied = emptied_classes(options, source, tried)
    same_validation = have_same_validation(options, source)
    found = recommend(tried, methods, options.seeds, unsound, emptied, same_validation)
    n_trained = len(trial.folder.trained())
    remarks = (
        about_retraining(trial.retrain_start == 0, len(options.seeds), n_trained),
        guessing(options, source, trial.folder),
        not_judged(trial.folder, methods),
    )
    return replace(
        found,
        cleansed={
            method: verdict.n if options.cleanse_n is None else options.cleanse_n
            for method, verdict in found.methods.items()
        },
        what_if=what_if(options.flip_labels),
        validation="; ".join(filter(None, [unvalidated_classes(options, source), doubts])),
        about=" ".join(filter(None, remarks)),
    )


def judged_methods(options: Options, paths: OutputPaths) -> list[str]:
    """The methods of the command, and those that earlier commands scored in all its trials."""

    def is_scored(method: str) -> bool:
        return all(
            paths.outcomes(method, 0, seed).exists() and paths.influence(method, seed).exists()
            for seed in options.seeds
        )

    others = [method for method in METHODS if method not in options.methods and is_scored(method)]
    return [*options.methods, *others]


def guessing(options: Options, source: Source, paths: OutputPaths) -> str:
    """A sentence on the first trial whose accuracy may be that of guessing; else empty."""
    labels = source.images[LABEL].to_numpy()
    for seed in options.seeds:
        validation = labels[split_of_trial(options, source, seed).validation]
        if clause := may_be_guessing(read_csv(paths.learning_curve(seed)), validation):
            return f"In trial {seed} the {clause}."
    return ""


def not_judged(paths: OutputPaths, methods: Sequence[str]) -> str:
    """A sentence on methods of earlier commands that are not among those judged; else empty."""
    others = [m for m in METHODS if m not in methods and any(n for _, n, _ in paths.scores(m))]
    if not others:
        return ""
    names = " and ".join(others)
    return f"Not judged: {names}, not scored in all trials of this command (--methods)."


def unsound_methods(
    paths: OutputPaths, methods: Sequence[str], seeds: Sequence[int]
) -> dict[str, str]:
    """The methods with unsound scores in some trial: what the first one shows, and the remedy."""
    found = {method: problems_in(paths, method, seeds) for method in methods}
    return {
        method: f"in trial {seed} {unsound.in_short}"
        for method, by_seed in found.items()
        for seed, unsound in list(by_seed.items())[:1]
    }


def load_scores(results: Results) -> Scores:
    """All score files of the folder: earlier commands with other n or methods count too."""
    return {
        (method, seed, n): results.table(path, columns=SCORE_COLUMNS)
        for method in METHODS
        for seed, n, path in sorted(results.paths.scores(method))
    }


def load_tried(paths: OutputPaths, methods: Sequence[str], seeds: Sequence[int]) -> Tried:
    """The results of every removal of these methods and trials, also of earlier commands."""
    return {
        (method, n, seed): load_outcomes(paths.outcomes(method, n, seed))
        for method in methods
        for seed, n, _ in sorted(paths.scores(method))
        if seed in seeds and paths.outcomes(method, n, seed).exists()
    }


def summarise(scores: Scores) -> pd.DataFrame:
    """The summary table, in the reference's row kinds.

    A row per (method, seed, n) holds the scores of the last retrained epoch. Rows with `mean`
    or `std` in the column of that name and an empty seed hold the means and the standard
    deviations (n - 1 in the denominator; empty with one trial) over the trials. n = 0 becomes the
    method `No Removal`, repeated for every n.

    Returns:
        A table with the columns `SUMMARY_COLUMNS`.
    """
    counts = sorted({n for _, _, n in scores if n > 0}) or [0]
    last = {key: table.iloc[-1][SCORE_COLUMNS].to_dict() for key, table in scores.items()}
    unchanged = {seed: row for (_, seed, n), row in last.items() if n == 0}
    rows = [
        row | {"method": NO_REMOVAL, "seed": seed, "n_drops": n}
        for seed, row in unchanged.items()
        for n in counts
    ]
    rows += [
        row | {"method": method, "seed": seed, "n_drops": n}
        for (method, seed, n), row in last.items()
        if n > 0
    ]
    by_seed = pd.DataFrame(rows)
    groups = by_seed.groupby(["method", "n_drops"], sort=False)[SCORE_COLUMNS]
    means = groups.mean().reset_index().assign(mean="mean")
    deviations = groups.std().reset_index().assign(std="std")
    summary = pd.concat([by_seed, means, deviations], ignore_index=True)
    return summary.reindex(columns=SUMMARY_COLUMNS).astype({"seed": "Int64"})


def draw(summary: pd.DataFrame, title: str, folder: OutputFolder) -> None:
    """Draw test accuracy against n removed: a line and a band (one standard deviation) a method.

    Args:
        summary: the table of `summarise`.
        title: says data set, sizes, epochs and trials.
        folder: gets the PNG file.
    """
    from matplotlib.figure import Figure

    shows = removal_figure(summary, "test_accuracy")
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for number, curve in enumerate(shows.curves):
        _draw_curve(axes, curve, number)
    _label(axes, shows, title)
    with folder.written(folder.figure) as temporary:
        figure.savefig(temporary, dpi=150, metadata={"Software": None})


def _draw_curve(axes: Axes, curve: Curve, number: int) -> None:
    if curve.method == NO_REMOVAL:
        axes.axhline(curve.mean[0], color="black", linestyle="--", label=curve.label)
        axes.axhspan(curve.low[0], curve.high[0], color="black", alpha=0.08, linewidth=0)
        return
    color, marker = f"C{number - 1}", "os^Dv"[(number - 1) % 5]
    axes.plot(curve.n, curve.mean, color=color, marker=marker, label=curve.label)
    for k, count in enumerate(curve.beneath):
        if count:
            stretch, wide = slice(k, k + 2), 1.5 + 3 * count
            axes.plot(
                curve.n[stretch], curve.mean[stretch], color=color, linewidth=wide, zorder=1.5
            )
    axes.fill_between(curve.n, curve.low, curve.high, color=color, alpha=0.15, linewidth=0)


def _label(axes: Axes, shows: RemovalFigure, title: str) -> None:
    counts = shows.counts
    axes.set_xscale("log")
    if counts:
        axes.set_xlim(counts[0] / 1.5, counts[-1] * 1.5)
        axes.set_xticks(counts, [f"{n:,}" for n in counts], rotation=45 if len(counts) > 6 else 0)
        axes.minorticks_off()
    else:
        axes.set_xticks([])
        axes.minorticks_off()
        some = "no removal was made in every trial"
        nothing = some if shows.left_out else "nothing was removed (-r 0)"
        axes.text(0.5, 0.6, nothing, transform=axes.transAxes, ha="center")
    several = f"mean of {shows.n_trials} trials, band: one standard deviation"
    more = "".join(f"\n{line}" for line in textwrap.wrap(shows.left_out, 90))
    axes.set_title(f"{title}\n{several if shows.n_trials > 1 else '1 trial'}{more}", fontsize=11)
    axes.set_xlabel(shows.x_label)
    axes.set_ylabel(shows.y_label)
    axes.grid(alpha=0.3)
    axes.legend()
