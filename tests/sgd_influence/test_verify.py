"""`--verify` and `--cover_epochs`."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import utils.run.tasks
from sgd_influence.eval import validation_loss_without
from sgd_influence.verify import (
    Agreement,
    agreement_of,
    check_groups,
    confirmation,
    judgement,
    learnt_in,
    make_groups,
    most_groups,
)
from tests.helpers.runs import contents, sgd_influence
from utils.errors import UserError
from utils.output.folder import OutputFolder
from utils.output.storage import read_csv
from utils.training.smoothness import retrain_moved, smoothness_words
from utils.training.trial import Trial

RANKINGS = {"Hara": np.arange(50)[::-1], "Ours": np.arange(50)}
QUICK = "--model mlp"


def test_groups_are_half_random_half_parts_of_rankings() -> None:
    other = np.random.default_rng(0).permutation(50)
    groups = make_groups(3, 50, 12, RANKINGS | {"Ours": other})
    assert [group.kind for group in groups] == ["random"] * 6 + ["ranking"] * 6
    assert len({group.name for group in groups}) == 12
    assert {int(group.members.sum()) for group in groups} == {5}
    first, last = (np.flatnonzero(groups[i].members).tolist() for i in (6, 8))
    assert first == [45, 46, 47, 48, 49]
    assert last == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("n_train", [100, 997, 1000])
@pytest.mark.parametrize("n_groups", [6, 40, 80])
def test_parts_of_a_ranking_hardly_overlap(n_train: int, n_groups: int) -> None:
    """Also where one method has all of them; what is left of K is random."""
    groups = make_groups(0, n_train, n_groups, {"Hara": np.arange(n_train)})
    cut = [group.members for group in groups if group.kind == "ranking"]
    assert len(groups) == n_groups and len(cut) == min(n_groups // 2, most_groups(n_train, 1) // 2)
    times = np.sum(cut, axis=0)
    assert times.max() <= 2 and (times == 2).mean() < 0.01


@pytest.mark.parametrize(("n_methods", "n_cut"), [(2, 10), (3, 10), (7, 6)])
def test_rankings_that_agree_give_each_group_once(n_methods: int, n_cut: int) -> None:
    """Random groups take the places of the others."""
    rankings = {f"method {number}": np.arange(1000) for number in range(n_methods)}
    groups = make_groups(0, 1000, 40, rankings)
    cut = [group.members for group in groups if group.kind == "ranking"]
    assert len(groups) == 40 and len(cut) <= n_cut
    assert all((a & b).sum() <= 50 for a, b in combinations(cut, 2))


def test_random_groups_depend_on_seed_and_number_alone() -> None:
    few, many = make_groups(3, 50, 8, {}), make_groups(3, 50, 12, RANKINGS)
    for a, b in zip(few[:6], many, strict=False):
        assert a.name == b.name
        assert np.array_equal(a.members, b.members)
    assert not np.array_equal(make_groups(4, 50, 8, {})[0].members, few[0].members)


def test_agreement_quotes_the_random_groups() -> None:
    rows = pd.DataFrame({"seed": 0, "kind": ["random"] * 8 + ["ranking"] * 8,
                         "predicted": [*range(8), *range(8)],
                         "true": [*range(8), *range(8, 0, -1)]})  # fmt: skip
    agreement = agreement_of(rows)
    assert agreement.random == pytest.approx(1)
    assert agreement.low <= 1 and agreement.high == pytest.approx(1)
    assert agreement.ranking == pytest.approx(-1)
    assert agreement.ranking_low == pytest.approx(-1)
    assert not agreement.trusted
    assert agreement.n_groups == 8
    assert agreement.of_random == "1.00"  # an interval without width tells nothing


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kinds", [["random"] * 6, ["random"] * 3 + ["ranking"] * 3])
@pytest.mark.parametrize("varying", ["predicted", "true"])
def test_agreement_is_unknown_without_groups_or_changes(kinds: list[str], varying: str) -> None:
    """Methods that predict nothing have no groups of rankings; some trainings change nothing."""
    rows = pd.DataFrame({"seed": 0, "kind": kinds, "predicted": 0.5, "true": 0.1})
    agreement = agreement_of(rows.assign(**{varying: range(6)}))
    assert agreement.of_random == agreement.of_ranking == "unknown"
    assert "cannot be verified" in judgement("Hara", agreement, 6, 100, 1)


def test_no_more_groups_than_training_images() -> None:
    check_groups(60, 60)
    with pytest.raises(UserError, match=r"--verify 61: more groups .* \(60\); give 60 or fewer"):
        check_groups(61, 60)


def test_too_many_groups_end_a_command_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sgd_influence(tmp_path, f"{QUICK} --verify 100000") == 2
    assert "give 60 or fewer" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("losses", "learnt"), [([0.7, 0.69], False), ([0.7, 0.5], True)])
def test_what_counts_as_learnt(losses: list[float], learnt: bool, tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    curve = pd.DataFrame({"train_loss": losses, "val_loss": losses})
    folder.save_csv(curve, folder.learning_curve(0))
    assert learnt_in(folder, 0, np.arange(20) % 2) == learnt


@pytest.mark.parametrize(
    ("random", "high", "n_groups", "begins"),
    [
        (0.6, 0.9, 10, ""),
        (0.6, 0.9, 3, "Too few groups to tell"),
        (-1.0, -1.0, 3, "Too few groups to tell"),
        (0.2, 0.7, 10, "Too few groups to tell"),
        (float("nan"), float("nan"), 10, "The ranking by Hara cannot be verified"),
        (-0.2, 0.1, 10, "The ranking by Hara should not be trusted"),
    ],
)
def test_judgement_needs_groups_and_an_interval(
    random: float, high: float, n_groups: int, begins: str
) -> None:
    agreement = Agreement(random, random - 0.3, high, 0.8, 0.5, 0.9, n_groups)
    printed = judgement("Hara", agreement, 2 * n_groups, 1000, 1)
    assert printed.startswith(begins)
    assert bool(printed) == bool(begins)
    sure = replace(agreement, low=0.1)
    assert bool(confirmation("Hara", sure)) == (not begins)
    assert not confirmation("Hara", replace(agreement, low=0.0))
    if "cannot" not in begins and printed:
        assert agreement.of_random in printed
        assert agreement.of_ranking in printed


def test_more_groups_are_advised_where_they_help() -> None:
    """Beyond ten parts a ranking gives no more, and there are no more groups than images."""

    def advice(agreement: Agreement, n_groups: int, n_train: int, n_rankings: int = 1) -> str:
        return judgement("Hara", agreement, n_groups, n_train, n_rankings).rpartition("Try ")[2]

    wide_ranking = Agreement(0.6, 0.4, 0.9, 0.2, 0.1, 0.9, 10)
    wide_random = Agreement(0.2, 0.1, 0.9, 0.6, 0.4, 0.9, 10)
    assert advice(wide_ranking, 6, 100) == "more groups (--verify 20)."
    assert advice(wide_ranking, 6, 8) == "more groups (--verify 8)."
    assert advice(wide_ranking, 6, 6) == "more trials (-nt)."
    assert advice(wide_ranking, 40, 1000) == "more trials (-nt)."
    assert advice(wide_ranking, 20, 1000, n_rankings=2) == "more groups (--verify 40)."
    assert advice(wide_random, 40, 1000) == "more groups (--verify 80)."


def test_verify_joins_a_finished_run_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sgd_influence(tmp_path, f"{QUICK} -r 0") == 0
    before = contents(tmp_path)
    assert sgd_influence(tmp_path, f"{QUICK} -r 0 --verify 6") == 0
    printed = capsys.readouterr().out
    stages = printed.split("Rough time")[-1].splitlines()[0]
    assert "verify" in stages and "infl" not in stages
    assert "random groups" in printed and "groups cut from ranking" in printed
    assert before.items() <= contents(tmp_path).items()
    table = read_csv(tmp_path / "summary/verification.csv")
    columns = ["method", "seed", "group", "kind", "size", "predicted", "true"]
    assert list(table) == columns
    assert len(table) == 3 * 6
    assert set(table["size"]) == {6}
    assert (tmp_path / "fig/verification.png").read_bytes().startswith(b"\x89PNG")

    hara = read_csv(tmp_path / "influence/Hara/influence_hara_0.csv")
    worst = table[(table["method"] == "Hara") & (table["group"] == "Hara part 1 of 2")]
    assert worst["predicted"].item() == pytest.approx(hara["influence"][:6].sum())
    score = read_csv(tmp_path / "score/Hara/score_delete_worst_0_seed_0.csv")
    assert sgd_influence(tmp_path, f"{QUICK} -r 0 6") == 0
    removed = read_csv(tmp_path / "score/Hara/score_delete_worst_6_seed_0.csv")
    assert worst["true"].item() == removed["val_loss"].item() - score["val_loss"].item()

    def forbidden(*_: object) -> None:
        raise AssertionError("a verified group was removed again")

    monkeypatch.setattr(utils.run.tasks, "validation_loss_without", forbidden)
    assert sgd_influence(tmp_path, f"{QUICK} -r 0 --verify 6") == 0
    assert_smoothness_is_measured_and_reused(tmp_path, printed, monkeypatch, capsys)


def test_smoothness_is_said_before_scores_and_removals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sgd_influence(tmp_path, f"{QUICK} -r 0 5 --verify 6 -v") == 0
    lines = capsys.readouterr().out.splitlines()
    said, scored, removed = (
        next(number for number, line in enumerate(lines) if line.startswith(f"Trial 0: {begin}"))
        for begin in ("Smoothness of the training", "influence by", "Hara, n = 5")
    )
    assert said < scored < removed


def assert_smoothness_is_measured_and_reused(
    output: Path,
    printed: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without the groups, which may not be removed again."""
    table = read_csv(output / "summary/smoothness.csv")
    assert list(table) == ["seed", "smoothness", "learnt"]
    words = smoothness_words(table["smoothness"].mean(), bool(table["learnt"].all()))
    assert words in printed
    assert words in (output / "report/index.html").read_text("utf-8")
    signs: list[int] = []

    def counted(trial: Trial, sign: int) -> object:
        signs.append(sign)
        return retrain_moved(trial, sign)

    monkeypatch.setattr(utils.run.tasks, "retrain_moved", counted)
    before = contents(output, "verification/*.npy")
    assert len(before) == 2
    (output / "verification/moved_losses_minus_seed_0.npy").unlink()
    capsys.readouterr()
    assert sgd_influence(output, f"{QUICK} -r 0 --verify 6 --dry_run") == 0
    assert "(verify " in capsys.readouterr().out.split("Rough time")[-1].splitlines()[0]
    assert sgd_influence(output, f"{QUICK} -r 0 --verify 6") == 0
    assert signs == [-1]
    assert contents(output, "verification/*.npy") == before


def test_cover_epochs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        sgd_influence(tmp_path / "all", f"{QUICK} -r 0 --methods Hara --cover_epochs all -ra") == 0
    )
    assert sgd_influence(tmp_path / "two", f"{QUICK} -r 0 --methods Hara --cover_epochs 2 -ra") == 0
    assert "the scores cover only the last" not in capsys.readouterr().err
    assert sgd_influence(tmp_path / "one", f"{QUICK} --methods Hara -ra") == 0
    remark = "the scores cover only the last of 2 epochs"
    assert capsys.readouterr().err.count(remark) == 1
    (kept,) = json.loads((tmp_path / "one/manifest.json").read_text("utf-8"))["remarks"]
    assert remark in kept
    page = (tmp_path / "one/report/index.html").read_text("utf-8")
    assert page.count(f"{kept}.") == 1
    assert "These results are for training from scratch" in page
    recommended = json.loads((tmp_path / "one/summary/recommendation.json").read_text("utf-8"))
    assert recommended["about"].startswith("These results are for training from scratch")
    every, two, one = (contents(tmp_path / n, "influence/**/*.csv") for n in ("all", "two", "one"))
    assert every == two != one


def test_other_groups_of_an_earlier_run_do_not_keep_new_ones_from_being_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another K the parts of rankings have other names; an interruption keeps what is new."""
    assert sgd_influence(tmp_path, f"{QUICK} -r 0 --verify 12") == 0
    n_calls = 0

    def interrupted(*arguments, **named):
        nonlocal n_calls
        n_calls += 1
        if n_calls == 2:
            raise KeyboardInterrupt
        return validation_loss_without(*arguments, **named)

    monkeypatch.setattr(utils.run.tasks, "validation_loss_without", interrupted)
    assert sgd_influence(tmp_path, f"{QUICK} -r 0 --verify 6") == 130
    known = read_csv(tmp_path / "verification/true_changes_seed_0.csv")
    assert len(known) == 13
    assert sgd_influence(tmp_path, f"{QUICK} -r 0 --verify 6") == 0
    assert len(read_csv(tmp_path / "summary/verification.csv")) == 3 * 6
