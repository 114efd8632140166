"""The run checks itself: do the scores of groups of images predict what their removal does?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sgd_influence.guessing import loss_never_falls
from sgd_influence.outcomes import load_outcomes
from utils.columns import INDEX, LABEL, SEED
from utils.errors import UserError
from utils.methods import METHODS, Method
from utils.output.figures import RANDOM, RANKING, Interval, VerificationPanel, verification_panels
from utils.output.folder import OutputFolder
from utils.output.paths import OutputPaths
from utils.output.results import Results
from utils.output.storage import load_array, read_csv
from utils.training.smoothness import SIGNS, smoothness_of
from utils.training.trial import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRUSTED = 0.3
"""Below this agreement a method's ranking should not be trusted."""
FEWEST = 10
"""With fewer groups of each kind, in all trials, an agreement says nothing."""
N_RESAMPLES = 1000
PANELS = 3
"""At most as many panels in a row of the picture."""
TRUE_COLUMNS = ["group", "kind", "size", "true"]
CHANGES = ["predicted", "true"]

Rankings = Mapping[str, np.ndarray]
"""Per method the training images (n_train,), the most harmful first."""


@dataclass(frozen=True)
class Group:
    """Images that are removed together.

    Attributes:
        name: unique within a trial.
        kind: "random", or "ranking" for a part of a method's ranking.
        members: (n_train,) mask.
    """

    name: str
    kind: str
    members: np.ndarray


@dataclass(frozen=True)
class Agreement:
    """Spearman's correlation of predicted and true changes over groups, mean over the trials.

    Each with the ends of its 95 % bootstrap interval.

    Attributes:
        random, low, high: over the random groups.
        ranking, ranking_low, ranking_high: over the groups cut from the rankings, which is what a
            user removes.
        n_groups: of each kind, the smaller number of the two, in all trials.
    """

    random: float
    low: float
    high: float
    ranking: float
    ranking_low: float
    ranking_high: float
    n_groups: int

    @property
    def of_random(self) -> str:
        """The agreement over random groups with its interval."""
        return Interval(self.random, self.low, self.high).bracketed

    @property
    def of_ranking(self) -> str:
        """The agreement over groups cut from the rankings with its interval."""
        return Interval(self.ranking, self.ranking_low, self.ranking_high).bracketed

    @property
    def tells(self) -> bool:
        """Whether there are enough groups to tell if the agreement reaches `TRUSTED`."""
        return self.n_groups >= FEWEST and (self.trusted or self.distrusted)

    @property
    def ranking_tells(self) -> bool:
        """Whether the interval over groups cut from the rankings is on one side of `TRUSTED`."""
        return self.ranking_low >= TRUSTED or self.ranking_high < TRUSTED

    @property
    def trusted(self) -> bool:
        """Whether both are at least `TRUSTED`; a figure that is missing speaks against it."""
        return self.random >= TRUSTED and self.ranking >= TRUSTED

    @property
    def distrusted(self) -> bool:
        """Whether the whole interval of one of them is below `TRUSTED`."""
        return self.high < TRUSTED or self.ranking_high < TRUSTED


def judgement(
    method: str, agreement: Agreement, n_groups: int, n_train: int, n_rankings: int
) -> str:
    """Whether `--verify` supports a method's ranking, in words; empty if it can be trusted.

    Args:
        method: that ranks.
        agreement: of its predictions with true retraining.
        n_groups: K of `--verify`.
        n_train: number of training images, the most groups there can be.
        n_rankings: from which groups were cut.
    """
    figures = (
        f"with --verify {n_groups} its agreement with true retraining is {agreement.of_random} "
        f"over random groups and {agreement.of_ranking} over groups cut from the rankings"
    )
    most = n_train if agreement.ranking_tells else most_groups(n_train, n_rankings)
    wanted = min(max(2 * n_groups, 2 * FEWEST), most)
    more = "Try more trials (-nt)."
    if wanted > n_groups:
        more = f"Try more groups (--verify {wanted})."
    if math.isnan(agreement.random) or math.isnan(agreement.ranking):
        return (
            f"The ranking by {method} cannot be verified: in a trial there are fewer than two "
            "groups of a kind (random, or cut from the rankings), or all of a kind have the same "
            f"predicted or the same true change of the loss. {more}"
        )
    if not agreement.tells:
        what = f"Too few groups to tell whether the ranking by {method} can be trusted"
        return f"{what}: {figures}. {more}"
    if agreement.trusted:
        return ""
    return (
        f"The ranking by {method} should not be trusted on this data: {figures}. Try more "
        "validation images, more epochs, a lower learning rate, or another method."
    )


def confirmation(method: str, agreement: Agreement) -> str:
    """That `--verify` supports a method's ranking, in words; empty where that is not certain."""
    lowest = min(agreement.low, agreement.ranking_low)
    if not (agreement.trusted and agreement.tells and lowest > 0):
        return ""
    return (
        f"The ranking by {method} agrees with true retraining: Spearman's correlation is "
        f"{agreement.of_random} over random groups and {agreement.of_ranking} over groups cut from "
        "the rankings."
    )


@dataclass
class Verification:
    """The verification of one trial: which groups are removed, and the tables of the results.

    Attributes:
        methods: whose influences are compared; parts of the predicting ones' rankings are groups.
        n_groups: K.
        results: the tables of the run.
    """

    methods: Sequence[Method]
    n_groups: int
    results: Results
    _groups: list[Group] = field(default_factory=list)

    def groups(self, trial: Trial) -> list[Group]:
        """The K groups of a trial that the methods have scored."""
        if not self._groups:
            predicting = [m.name for m in self.methods if m.predicts]
            tables = {name: self.results.influence(name, trial.seed) for name in predicting}
            rankings = {name: table[INDEX].to_numpy() for name, table in tables.items()}
            self._groups = make_groups(trial.seed, trial.n_train, self.n_groups, rankings)
        return self._groups

    def known(self, trial: Trial, number: int) -> bool:
        """Whether group `number` has been removed already."""
        return self.groups(trial)[number].name in set(self._true_changes(trial)["group"])

    def save_true_change(self, trial: Trial, number: int, loss: float) -> None:
        """Add to the file what removing group `number` changed, by the validation loss without it.

        Rows are in the order of the groups, whatever order they come in; those of groups that
        this run does not have come first.
        """
        group, known = self.groups(trial)[number], self._true_changes(trial)
        true = loss - self._base_loss(trial)
        row = (group.name, group.kind, int(group.members.sum()), true)
        places = {group.name: place for place, group in enumerate(self._groups)}
        rows = [*known.itertuples(index=False, name=None), row]
        rows.sort(key=lambda row: places.get(row[0], -1))
        table, path = (
            pd.DataFrame(rows, columns=TRUE_COLUMNS),
            trial.folder.true_changes(trial.seed),
        )
        trial.folder.save_csv(table, path)
        self.results.keep(table, path)

    def save_table(self, trial: Trial) -> None:
        """Write the verification table of a trial: a row per method and group."""
        groups = self.groups(trial)
        known = self._true_changes(trial).set_index("group")
        true = known.loc[[group.name for group in groups]].reset_index()
        rows = []
        for method in self.methods:
            table = self.results.influence(method.name, trial.seed).sort_values(INDEX)
            influence = table["influence"].to_numpy()
            rows.append(verification_rows(trial.seed, method.name, influence, groups, true))
        table, path = pd.concat(rows), trial.folder.verified(trial.seed)
        trial.folder.save_csv(table, path)
        self.results.keep(table, path)

    def _base_loss(self, trial: Trial) -> float:
        """Mean validation loss with nothing removed."""
        path = trial.folder.score(self.methods[0].name, 0, trial.seed)
        return float(self.results.table(path)["val_loss"].iloc[-1])

    def _true_changes(self, trial: Trial) -> pd.DataFrame:
        """The groups removed so far: group, kind, size and true (change of loss, nats)."""
        path = trial.folder.true_changes(trial.seed)
        return self.results.table(path) if path.exists() else pd.DataFrame(columns=TRUE_COLUMNS)


def compare(
    folder: OutputFolder,
    results: Results,
    methods: Sequence[str],
    seeds: Sequence[int],
    title: str,
) -> dict[str, Agreement]:
    """Join the trials' verification tables, draw them, and compute how far each method agrees."""
    table = pd.concat(results.table(folder.verified(seed)) for seed in seeds)
    agreements = {m: agreement_of(table[table["method"] == m]) for m in methods}
    rows = [{"method": method} | asdict(agreement) for method, agreement in agreements.items()]
    agreement = pd.DataFrame(rows).drop(columns="n_groups")
    for content, path in ((table, folder.verification), (agreement, folder.agreement)):
        folder.save_csv(content, path)
        results.keep(content, path)
    draw_verification(verification_panels(table, agreement), title, folder)
    return agreements


def compare_smoothness(
    folder: OutputFolder, results: Results, method: str, seeds: Sequence[int]
) -> tuple[float, bool]:
    """Write how smooth the training of each trial is.

    Args:
        folder: in which the trials were retrained with moved weights.
        results: of the run.
        method: any for which removing none was evaluated.
        seeds: of the trials.

    Returns:
        The mean over the trials, nan where no loss changed in any of them; and whether all
        trainings learnt something.
    """
    by_trial = [smoothness_in(folder, method, seed) for seed in seeds]
    labels = [results.influence(method, seed)[LABEL].to_numpy(np.int64) for seed in seeds]
    learnt = [learnt_in(folder, *of_trial) for of_trial in zip(seeds, labels, strict=True)]
    columns = {SEED: list(seeds), "smoothness": by_trial, "learnt": list(map(int, learnt))}
    table = pd.DataFrame(columns)
    folder.save_csv(table, folder.smoothness)
    results.keep(table, folder.smoothness)
    return float(table["smoothness"].mean()), all(learnt)


def learnt_in(paths: OutputPaths, seed: int, labels: np.ndarray) -> bool:
    """Whether the training loss of a trial fell; `labels` (n_train,) are those trained on."""
    return not loss_never_falls(read_csv(paths.learning_curve(seed)), labels)


def smoothness_in(paths: OutputPaths, method: str, seed: int) -> float:
    """The smoothness of a trial that was retrained with moved weights.

    Args:
        paths: of its files.
        method: any for which removing none was evaluated.
        seed: the trial's.

    Raises:
        UserError: a file of the losses is damaged.
    """
    unchanged = load_outcomes(paths.outcomes(method, 0, seed)).val_losses
    moved = [load_array(paths.moved_losses(seed, sign), unchanged.shape) for sign in SIGNS]
    return smoothness_of(unchanged, *moved)


def smoothness_of_trial(trial: Trial, method: str) -> tuple[float, bool]:
    """`smoothness_in` of a trial, and whether its training learnt something."""
    learnt = learnt_in(trial.folder, trial.seed, trial.data.training.labels)
    return smoothness_in(trial.folder, method, trial.seed), learnt


def make_groups(seed: int, n_train: int, n_groups: int, rankings: Rankings) -> list[Group]:
    """Groups of a tenth of the images: up to half of them parts of rankings, the others random.

    The rankings have parts in turn, about ten each at most, so that those of one hardly overlap. A
    part of which another ranking's part holds more than half tells little more and is left out.

    Args:
        seed: the trial's; a random group depends on it and the group's number alone.
        n_train: number of training images.
        n_groups: K.
        rankings: of the methods whose rankings give groups.
    """
    size, cut = _size_of_group(n_train), list[Group]()
    for which, (method, order) in enumerate(rankings.items()):
        n_parts = min(len(range(which, n_groups // 2, len(rankings))), _most_parts(n_train))
        starts = np.linspace(0, n_train - size, n_parts).astype(int)
        for part, start in enumerate(starts, start=1):
            members = _mask(n_train, order[start : start + size])
            if all((members & other.members).sum() <= size / 2 for other in cut):
                cut.append(Group(f"{method} part {part} of {n_parts}", RANKING, members))
    groups = []
    for number in range(n_groups - len(cut)):
        order = np.random.default_rng([seed, 4, number]).permutation(n_train)
        groups.append(Group(f"random {number + 1}", RANDOM, _mask(n_train, order[:size])))
    return groups + cut


def most_groups(n_train: int, n_rankings: int) -> int:
    """The K above which only random groups are added."""
    return min(2 * n_rankings * _most_parts(n_train), n_train)


def _size_of_group(n_train: int) -> int:
    return max(1, round(n_train / 10))


def _most_parts(n_train: int) -> int:
    """How many groups one after the other a ranking has."""
    return round(n_train / _size_of_group(n_train))


def check_groups(n_groups: int, n_train: int) -> None:
    """Raise a UserError for more groups than training images, of which no more tell anything new.

    Args:
        n_groups: K of `--verify`.
        n_train: number of training images.
    """
    if n_groups > n_train:
        raise UserError(
            f"--verify {n_groups}: more groups than there are training images ({n_train}); give "
            f"{n_train} or fewer"
        )


def _mask(n_train: int, members: np.ndarray) -> np.ndarray:
    return np.isin(np.arange(n_train), members)


def verification_rows(
    seed: int, method: str, influence: np.ndarray, groups: list[Group], true: pd.DataFrame
) -> pd.DataFrame:
    """Predicted and true changes of one method and trial: the sum of the group's influences.

    Args:
        seed: the trial's.
        method: whose influence it is.
        influence: (n_train,).
        groups: the groups of the trial.
        true: the columns group, kind, size and true (change of the mean validation loss, nats),
            in the order of `groups`.
    """
    predicted = [float(influence[group.members].sum()) for group in groups]
    table = true.assign(method=method, seed=seed, predicted=predicted)
    return table[["method", "seed", "group", "kind", "size", "predicted", "true"]]


def agreement_of(rows: pd.DataFrame) -> Agreement:
    """The agreement of one method from its rows of the verification table."""
    random, ranking = (rows[rows["kind"] == kind] for kind in (RANDOM, RANKING))
    fewer = min(len(random), len(ranking))
    return Agreement(*_with_interval(random), *_with_interval(ranking), fewer)


def _with_interval(rows: pd.DataFrame) -> tuple[float, float, float]:
    """The agreement over some groups, and the ends of its interval; nan where there is none."""
    trials = [trial[CHANGES].to_numpy() for _, trial in rows.groupby("seed")]
    value = float(np.mean([_spearman(changes) for changes in trials])) if trials else math.nan
    if math.isnan(value):
        return value, value, value
    rng = np.random.default_rng(0)
    drawn = (rng.integers(len(changes), size=(N_RESAMPLES, len(changes))) for changes in trials)
    by_trial = [_spearman(changes[rows]) for changes, rows in zip(trials, drawn, strict=True)]
    low, high = np.nanpercentile(np.mean(by_trial, axis=0), [2.5, 97.5])
    return value, float(low), float(high)


def _spearman(changes: np.ndarray) -> np.ndarray:
    """Spearman's correlation of two columns (..., K, 2); nan where one does not vary."""
    from scipy.stats import rankdata

    ranks = rankdata(changes, axis=-2)
    x, y = np.moveaxis(ranks - ranks.mean(axis=-2, keepdims=True), -1, 0)
    with np.errstate(invalid="ignore"):
        return (x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1))


def draw_verification(
    panels: Sequence[VerificationPanel], title: str, folder: OutputFolder
) -> None:
    """Draw predicted against true changes, a panel per method, at most `PANELS` in a row."""
    from matplotlib.figure import Figure

    n_rows = -(-len(panels) // PANELS)
    n_columns = -(-len(panels) // n_rows)
    figure = Figure(figsize=(4.2 * n_columns, 4.4 * n_rows + 0.4), layout="constrained")
    places = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True)
    for axes, panel in zip(places.flat, panels, strict=False):
        _draw_panel(axes, panel)
    for axes in places.flat[len(panels) :]:
        axes.set_axis_off()
    figure.supylabel(panels[0].y_label, fontsize=10)
    figure.suptitle(title, fontsize=11)
    handles, labels = places.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=9)
    with folder.written(folder.verification_figure) as temporary:
        figure.savefig(temporary, dpi=150, metadata={"Software": None})


def _draw_panel(axes: Axes, panel: VerificationPanel) -> None:
    for points in panel.points:
        face = "C0" if points.kind == RANDOM else "none"
        axes.scatter(
            points.predicted, points.true, s=26, facecolors=face, edgecolors="C0",
            label=points.label,
        )  # fmt: skip
    axes.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    axes.set_title(_panel_title(panel), fontsize=10)
    axes.set_xlabel(panel.x_label)
    if METHODS[panel.method].predicts:
        axes.axvline(0, color="0.7", linewidth=0.8, zorder=0)
        predicted, true = (
            np.concatenate([getattr(points, name) for points in panel.points])
            for name in ("predicted", "true")
        )
        ends = np.clip([predicted.min(), predicted.max()], true.min(), true.max())
        axes.plot(ends, ends, color="0.5", linestyle=":", label="predicted = true")


def _panel_title(panel: VerificationPanel) -> str:
    lines = [panel.label]
    if panel.of_random and panel.of_ranking:
        lines += [f"Spearman, random groups: {panel.of_random.bracketed}"]
        lines += [f"groups cut from the ranking: {panel.of_ranking.bracketed}"]
    return "\n".join(lines)
