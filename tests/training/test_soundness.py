from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.runs import contents, save_manifest, sgd_influence
from utils.methods import METHODS, Scores
from utils.output.manifest import Manifest
from utils.output.paths import OutputPaths
from utils.output.storage import read_csv
from utils.training.adjoint import DampedAdjoint
from utils.training.soundness import problems_in, problems_of, remedy
from utils.training.steps import plan_steps

N = 2000
STEPS = plan_steps(0, N, 1, 20, 0.1)  # 100 steps


def influences(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(N) / 1000


def test_random_scores_are_sound():
    for seed in range(50):
        assert problems_of(Scores(influences(seed), growth=1.2), STEPS, 0.5) == []
        assert problems_of(Scores(influences(seed)), STEPS, 0.5) == []


def test_growth_is_reported():
    (problem,) = problems_of(Scores(influences(), growth=2.3e5), STEPS, 0.5)
    assert "2.3e+05-fold over 100 steps" in problem
    (problem,) = problems_of(Scores(influences(), growth=float("inf")), STEPS, 0.5)
    assert "inf-fold" in problem


def test_more_than_the_whole_loss_is_reported():
    influence = influences()
    influence[7] = -0.6
    (problem,) = problems_of(Scores(influence), STEPS, 0.5)
    assert "0.6 nats" in problem and "0.5" in problem
    influence[7] = 0.6  # a helpful image may be worth any number of nats
    assert problems_of(Scores(influence), STEPS, 0.5) == []


def test_worst_images_of_the_last_steps_are_reported():
    influence = influences()
    seated_last = np.concatenate([step.indices for step in STEPS[-10:]])
    influence[seated_last[:60]] = -0.1
    (problem,) = problems_of(Scores(influence), STEPS, 0.5)
    assert "100% of its 50 worst images were in the last 10 of 100 steps" in problem
    assert "10.0% are expected" in problem


def test_the_share_that_the_damped_sweep_has_is_sound():
    """28 % of its 50 worst images were in the last 10 of 625 steps, and removing them helps."""
    steps = plan_steps(0, 6250, 1, 10, 0.1)
    influence = np.random.default_rng(0).standard_normal(6250) / 1000
    seated_last = np.concatenate([step.indices for step in steps[-10:]])
    influence[seated_last[:14]] = -0.1
    assert problems_of(Scores(influence), steps, 0.5) == []
    influence[seated_last[:30]] = -0.1
    (problem,) = problems_of(Scores(influence), steps, 0.5)
    assert "60% of its 50 worst images were in the last 10 of 625 steps" in problem


def test_few_steps_have_no_seats_to_rank():
    steps = plan_steps(0, 100, 1, 10, 0.1)
    assert problems_of(Scores(influences()[:100]), steps, 0.5) == []


def test_images_in_no_covered_step_are_no_worst_images() -> None:
    """As of a loop that records its last steps: their images have all of the scores."""
    recorded = STEPS[-15:]
    influence = np.zeros(N)
    in_steps = np.concatenate([step.indices for step in recorded])
    influence[in_steps] = influences()[in_steps]
    assert problems_of(Scores(influence), recorded, 0.5) == []
    last = np.concatenate([step.indices for step in recorded[-10:]])
    assert last[influence[last] < 0].size > 0.5 * in_steps[influence[in_steps] < 0].size


def test_equal_scores_are_reported() -> None:
    (problem,) = problems_of(Scores(np.zeros(N)), STEPS, 0.0)
    assert problem == "all 2000 scores are 0, so that nothing is ranked"


@pytest.mark.parametrize(
    ("method", "from_scratch", "named", "not_named"),
    [
        ("Hara", False, "lower --lr", "use Hara"),
        ("Ours", True, "lower --lr", "use Hara"),
        ("Ours_exact", False, "use Hara, whose damped sweep", "--preset"),
        ("Hara_exact", True, "--preset smooth", "use Hara"),
        (
            "Ours_exact",
            True,
            "use Hara_exact, or train a net without kinks (--preset smooth)",
            "use Hara,",
        ),
        ("Influence_functions", False, "--damping", "--lr"),
    ],
)
def test_the_remedy_is_not_what_was_done(
    method: str, from_scratch: bool, named: str, not_named: str
) -> None:
    text = remedy(METHODS[method], from_scratch, kinks=True)
    assert named in text and not_named not in text


def test_a_smooth_net_is_not_recommended_to_who_has_it() -> None:
    text = remedy(METHODS["Hara_exact"], from_scratch=True, kinks=False)
    assert "kinks" not in text and "train at a lower --lr" in text


def test_a_run_warns_and_recommends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sweep whose Hessian term has the wrong sign and a large factor grows."""
    plain = DampedAdjoint.derivatives

    def growing(self, x, y, direction, v):
        by_weight, by_theta, none = plain(self, x, y, direction, v)
        return by_weight, {name: -3e4 * g for name, g in by_theta.items()}, none

    monkeypatch.setattr(DampedAdjoint, "derivatives", growing)
    page = tmp_path / "report/index.html"
    assert sgd_influence(tmp_path, "-r 0 --methods Hara Random -j 1") == 0
    captured = capsys.readouterr()
    assert "Trial 0: the scores by Hara: the sweep grows" in captured.err
    assert "Do not remove images by Hara" in page.read_text()
    assert sgd_influence(tmp_path, "-r 0 5 --methods Hara Random -j 1") == 0
    captured = capsys.readouterr()
    assert "influence by Hara reused" in captured.out
    assert re.search("Trial 0: the scores by Hara: .*the sweep grows", captured.err)
    reason = "by Hara, its scores are not sound: in trial 0 the training loss never falls"
    assert f"Recommended: remove none ({reason}" in captured.out
    unsound = problems_in(OutputPaths(tmp_path), "Hara", [0])[0]
    assert problems_in(OutputPaths(tmp_path), "Random", [0]) == {}
    verdict = json.loads((tmp_path / "summary/recommendation.json").read_text())["methods"]["Hara"]
    assert verdict["n"] == 0 and "not sound" in verdict["reason"]
    shown = f"Do not remove images by Hara. In trial 0, {'; '.join(unsound.clauses)}."
    assert shown in html.unescape(page.read_text())
    assert unsound.remedy.startswith("train with another --lr")
    assert unsound.remedy in verdict["reason"]
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert any("the sweep grows" in problem for problem in manifest["warnings"]["Hara"]["0"])
    assert manifest["warnings"]["Hara"]["0"][-1] == unsound.remedy
    scores = contents(tmp_path, "influence/Hara/*")
    (tmp_path / "influence/Hara/soundness_0.json").unlink()
    assert sgd_influence(tmp_path, "-r 0 5 --methods Hara Random -j 1") == 0
    captured = capsys.readouterr()
    assert "soundness_0.json: missing; recomputed" in captured.err
    assert "influence by Hara written" in captured.out
    assert contents(tmp_path, "influence/Hara/*") == scores
    assert len(read_csv(tmp_path / "influence/Hara/influence_hara_0.csv")) == 60


def test_scores_of_the_earlier_arithmetic_are_not_mixed_with_new_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Earlier versions computed Hara and Ours by the exact sweep; their folders do not say so."""
    assert sgd_influence(tmp_path, "-r 0 --methods Hara AUM") == 0
    manifest = Manifest.read(OutputPaths(tmp_path))
    assert manifest.options.pop("sweep") == "damped"
    save_manifest(manifest)
    capsys.readouterr()
    assert sgd_influence(tmp_path, "-r 0 --methods Hara AUM") == 2
    assert "the sweep was exact, now damped" in capsys.readouterr().err
    assert sgd_influence(tmp_path, "-r 0 --methods AUM Random") == 0  # neither has a sweep
    assert Manifest.read(OutputPaths(tmp_path)).options["sweep"] == "exact"
