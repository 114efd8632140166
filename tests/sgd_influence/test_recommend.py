"""How many to remove, from outcomes made up by hand and by a seeded generator."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sgd_influence.closing import closing_table, closing_words
from sgd_influence.outcomes import Outcomes
from sgd_influence.recommend import (
    Recommendation,
    about_retraining,
    errors_of,
    gains_of,
    noise_limit,
    recommend,
)

N_IMAGES = 400
COUNTS = (1, 5, 10, 20, 50, 100)
Losses = dict[tuple[str, int, int], float]


def outcomes(loss: float, accuracy: float = 0.8, test_accuracy: float = 0.8) -> Outcomes:
    """Images with nearly the same losses, and as many hits as given."""
    spread = np.random.default_rng(0).normal(scale=0.001, size=N_IMAGES)
    order = np.arange(N_IMAGES)
    nothing = np.empty(0)
    return Outcomes(
        val_losses=(loss + spread).astype("float32"),
        val_hits=order < accuracy * N_IMAGES,
        test_hits=order < test_accuracy * N_IMAGES,
        removed=nothing.astype(np.int64),
        predicted=nothing.astype(np.int32),
        confidence=nothing.astype(np.float32),
    )


def by_n(losses: dict[int, float], method: str = "Hara", seed: int = 0, **more: float) -> Any:
    return {(method, n, seed): outcomes(loss, **more) for n, loss in losses.items()}


def falling(to: float, noise: int = 0) -> dict[int, float]:
    """Losses that fall from 0.5 with n, up to n = 20, where they stay; by little steps of noise."""
    jitter = np.random.default_rng(noise).normal(scale=0.002, size=len(COUNTS))
    path = np.interp([0, 1, 2, 3, 4, 5], [0, 3, 5], [0.5, to, to])
    return {0: 0.5} | dict(zip(COUNTS, (path + jitter).tolist(), strict=True))


FLAT = {0: 0.5} | dict(zip(COUNTS, (0.501, 0.499, 0.502, 0.498, 0.5, 0.501), strict=True))


def test_nothing_is_recommended_from_unsound_scores() -> None:
    """Not even where their removal gains; a sound method's smaller gain is followed."""
    tried = by_n(falling(0.2)) | by_n(falling(0.3, noise=1), "Ours") | by_n(FLAT, "Random")
    methods = ["Hara", "Ours", "Random"]
    assert recommend(tried, methods, [0]).overall.method == "Hara"
    found = recommend(tried, methods, [0], {"Hara": "the sweep grows"})
    assert found.overall.method == "Ours"
    assert (found.methods["Hara"].n, found.methods["Hara"].method) == (0, "Hara")
    assert found.methods["Hara"].reason == "its scores are not sound: the sweep grows"
    alone = recommend(tried, ["Hara", "Random"], [0], {"Hara": "the sweep grows"}).overall
    assert alone.n == 0 and alone.best_tried is not None
    assert alone.best_tried["method"] == "Random"
    nobody = recommend(tried, ["Hara"], [0], {"Hara": "the sweep grows"}).overall
    assert nobody.n == 0 and nobody.best_tried is None
    assert alone.reason == nobody.reason == "by Hara, its scores are not sound: the sweep grows"


def test_a_removal_that_empties_a_class_is_not_recommended() -> None:
    tried = by_n(falling(0.3)) | by_n(FLAT, "Random")
    emptied = {("Hara", n): "c2" for n in (20, 50, 100)}
    verdict = recommend(tried, ["Hara", "Random"], [0], emptied=emptied).overall
    assert (verdict.method, verdict.n) == ("Hara", 10)
    emptied |= {("Hara", n): "c2" for n in COUNTS}
    verdict = recommend(tried, ["Hara", "Random"], [0], emptied=emptied).methods["Hara"]
    assert verdict.n == 0
    assert verdict.reason.endswith("but leaves no training image of c2")


def test_a_clear_gain_is_recommended_with_the_smallest_n_near_the_best() -> None:
    tried = by_n(falling(0.3)) | by_n(FLAT, "Random")
    verdict = recommend(tried, ["Hara", "Random"], [0]).overall
    assert (verdict.method, verdict.n) == ("Hara", 20)
    assert verdict.best_tried is None


def test_an_n_worse_than_the_best_by_more_than_its_error_is_not_near() -> None:
    losses = falling(0.3) | {100: 0.2}
    verdict = recommend(by_n(losses) | by_n(FLAT, "Random"), ["Hara", "Random"], [0]).overall
    assert verdict.n == 100


@pytest.mark.parametrize("n_trials", [1, 3])
def test_noise_alone_is_hardly_ever_recommended(n_trials: int) -> None:
    """Also where the bootstrap over the validation images sees next to no error."""
    rng, seeds = np.random.default_rng(1), range(n_trials)
    recommended = 0
    for _ in range(100):
        tried: dict = {}
        for seed in seeds:
            values = rng.normal(0.5, 0.05, 1 + len(COUNTS))
            tried |= by_n(dict(zip((0, *COUNTS), values.tolist(), strict=True)), seed=seed)
        recommended += recommend(tried, ["Hara"], list(seeds)).overall.n > 0
    assert recommended <= 6


def test_one_n_of_one_trial_cannot_be_told_from_noise() -> None:
    for gain in (0.001, 0.1, 0.4):
        tried = by_n({0: 0.5, 10: 0.5 - gain})
        assert recommend(tried, ["Hara"], [0]).overall.n == 0


def test_wrong_validation_labels_do_not_decide() -> None:
    """They get improbable as the others get probable: the mean loss rises, the probability too."""
    wrong = np.arange(N_IMAGES) < 0.15 * N_IMAGES
    right = {n: outcomes(loss) for n, loss in falling(0.3).items()}
    tried = {("Hara", n, 0): replace(o, val_losses=o.val_losses.copy()) for n, o in right.items()}
    for (_, n, _), o in tried.items():
        o.val_losses[wrong] = 3.0 + 20 * (0.5 - right[n].val_losses[wrong])
    assert tried["Hara", 20, 0].val_losses.mean() > tried["Hara", 0, 0].val_losses.mean()
    assert recommend(tried, ["Hara"], [0]).overall.n == 20
    by_loss = recommend(tried, ["Hara"], [0], score=lambda o: -o.val_losses).overall
    assert by_loss.n == 0


def test_a_falling_accuracy_speaks_against_a_rising_probability() -> None:
    tried = by_n({0: 0.5}) | by_n(falling(0.3), accuracy=0.7)
    tried["Hara", 0, 0] = outcomes(0.5, accuracy=0.8)
    verdict = recommend(tried | by_n(FLAT, "Random"), ["Hara", "Random"], [0]).overall
    assert verdict.n == 0
    assert verdict.reason.endswith(
        "raises the mean probability of the validation labels, but validation accuracy falls"
    )


def test_a_control_that_gains_most_speaks_against_the_ranking() -> None:
    tried = by_n(falling(0.35)) | by_n(falling(0.3, noise=1), "Random")
    found = recommend(tried, ["Hara", "Random"], [0])
    assert found.methods["Hara"].n > 0
    assert found.methods["Random"].n > 0
    assert (found.overall.method, found.overall.n) == (None, 0)
    assert "it is not the ranking that helps" in found.overall.reason
    assert found.overall.best_tried is not None
    assert found.overall.best_tried["method"] == "Random"


def test_one_removal_of_one_trial_tells_nothing() -> None:
    found = recommend(by_n({0: 0.5, 10: 0.4}), ["Hara"], [0])
    assert found.overall.n == 0
    assert "Hara n = 10 raises" in found.overall.reason
    assert "but one removal of one trial may always be chance; give more" in found.overall.reason
    more = recommend(by_n({0: 0.5, 10: 0.4, 20: 0.5}), ["Hara"], [0])
    assert "may always be chance" not in more.overall.reason


def test_nothing_tried() -> None:
    found = recommend(by_n({0: 0.5}), ["Hara"], [0])
    assert (found.overall.n, found.overall.best_tried) == (0, None)
    printed = "Nothing is recommended: no n above 0 was tried in every trial (-r)"
    assert closing_words(found)[0] == printed
    about = about_retraining(from_start=False, n_judged=1, n_trained=2)
    assert about.startswith("These results are for retraining the last epoch only")
    assert about.endswith("Only 1 of the folder's 2 trials are judged, those of this command.")
    assert "It judges" not in about_retraining(from_start=True, n_judged=2, n_trained=2)
    assert about in closing_words(replace(found, about=about))
    unsound = {"Hara": "it grows", "Ours": "it grows", "Ours_exact": "in trial 1 it is equal"}
    assert closing_words(found, unsound)[1:] == [
        "Do not remove images by Hara or Ours: it grows",
        "Do not remove images by Ours_exact: in trial 1 it is equal",
    ]
    overall = replace(found.overall, reason="by Hara, its scores are not sound: it grows")
    (_, *last) = closing_words(replace(found, overall=overall), {"Hara": "it grows"})
    assert not last  # known already


def test_test_images_decide_nothing() -> None:
    tried = by_n(falling(0.3)) | by_n(FLAT, "Random")
    worse = {key: replace(o, test_hits=~o.test_hits) for key, o in tried.items() if key[1]}
    first, second = (recommend(t, ["Hara", "Random"], [0]).overall for t in (tried, tried | worse))
    assert (first.n, first.reason) == (second.n, second.reason)
    assert first.expected_gain_points == second.expected_gain_points
    assert first.test_gain_points != second.test_gain_points


def three_trials() -> Recommendation:
    tried: dict = {}
    for seed, to in enumerate((0.3, 0.29, 0.31)):
        tried |= by_n(falling(to, seed), seed=seed) | by_n(FLAT, "Random", seed)
    return recommend(tried, ["Hara", "Random"], [0, 1, 2])


def test_an_n_that_not_all_trials_tried_does_not_count() -> None:
    tried = by_n(falling(0.3)) | by_n(falling(0.3) | {70: 0.01}, seed=1)
    verdict = recommend(tried, ["Hara"], [0, 1]).overall
    assert verdict.n != 70
    assert verdict.n_trials == 2


def test_disagreeing_trials_are_said() -> None:
    assert three_trials().overall.trials_disagree == ""
    tried = by_n({0: 0.5, 5: 0.4, 10: 0.45}) | by_n({0: 0.5, 5: 0.55, 10: 0.6}, seed=1)
    found = recommend(tried, ["Hara"], [0, 1])
    assert found.overall.trials_disagree == (
        "the trials disagree: Hara n = 5 raises the mean probability of the validation labels in "
        "1 of 2"
    )
    assert closing_words(found)[-1] == f"Note: {found.overall.trials_disagree}"


def test_json_holds_the_schema_and_only_numbers() -> None:
    value = json.loads(json.dumps(three_trials().as_json(), allow_nan=False))
    assert value.keys() == {
        "version", "rule", "measure", "what_if", "validation", "about", "overall", "methods",
        "gains", "cleansed",
    }  # fmt: skip
    assert (value["version"], value["measure"]) == (2, "val_probability")
    assert value["overall"] == value["methods"]["Hara"]
    assert value["overall"].keys() == {
        "method", "n", "reason", "n_trials", "trials_disagree", "expected_gain_points",
        "interval_points", "test_accuracy", "test_accuracy_no_removal", "test_gain_points",
        "test_interval_points", "best_tried", "quantity",
    }  # fmt: skip
    random = value["methods"]["Random"]
    assert (random["method"], random["n"], random["interval_points"]) == ("Random", 0, [0.0, 0.0])
    assert random["best_tried"]["n"] in COUNTS
    assert random["quantity"] == "place in a random order, from 0"
    assert value["overall"]["quantity"].startswith("predicted change of the validation loss")
    gains = {gain["n"]: gain for gain in value["gains"]["Hara"]}
    assert list(gains) == [n for n in COUNTS if n]
    low, high = gains[20]["interval_points"]
    assert low < gains[20]["points"] < high
    assert gains[20]["points"] > 0


def test_json_names_no_quantity_where_no_method_is_followed() -> None:
    value = recommend(by_n(FLAT, "AUM"), ["AUM"], [0]).as_json()
    assert value["overall"]["quantity"] is None
    assert value["methods"]["AUM"]["quantity"].endswith("in logits")


def test_closing_lines() -> None:
    found = three_trials()
    table = closing_table(found).splitlines()
    cells = ["Hara", "20", "80.00%", "80.00%", "+0.00", "recommended"]
    assert table[1].split() == cells  # the interval has no width
    wide = replace(found.overall, test_interval_points=[-0.5, 0.5])
    some = replace(found, overall=wide, methods=found.methods | {"Hara": wide})
    assert "+0.00 [-0.50, +0.50]  recommended" in closing_table(some).splitlines()[1]
    assert table[0].endswith("gain in points [95 % interval]")
    best = found.methods["Random"].best_tried
    assert best is not None
    assert table[2].split()[:2] == ["Random", str(best["n"])]
    tried = replace(found.methods["Random"], best_tried=best | {"test_interval_points": [-1, 2]})
    other = replace(found, methods=found.methods | {"Random": tried})
    gain = f"{best['test_gain_points']:+.2f} [-1.00, +2.00]"
    assert gain in closing_table(other).splitlines()[2]
    assert table[2].endswith("best tried, not recommended")
    words = closing_words(found)
    assert words[0].startswith(
        "Recommended: remove the 20 worst by Hara (the mean probability of the validation labels "
        "rises by 13.6 points, "
    )
    assert "test (not used to decide)" in words[1]
    doubted = replace(found, what_if="not for use", validation="drawn from the same")
    assert closing_words(doubted) == [*words, "Note: not for use", "Note: drawn from the same"]


def test_every_line_of_the_closing_table_says_what_it_means() -> None:
    tried: dict = {}
    for seed, (to, less) in enumerate(((0.3, 0.33), (0.29, 0.34), (0.31, 0.35))):
        tried |= by_n(falling(to, seed), seed=seed) | by_n(falling(less, seed), "Ours", seed)
        tried |= by_n(FLAT, "Random", seed)
    found = recommend(tried, ["Hara", "Ours", "Random"], [0, 1, 2])
    assert found.methods["Ours"].n > 0
    ends = ["recommended", "good too, but gains less on validation images", "best tried, not"]
    for line, end in zip(closing_table(found).splitlines()[1:], ends, strict=True):
        assert end in line
    control = replace(found, overall=found.methods["Random"])
    assert "does not gain more than Random" in closing_table(control).splitlines()[1]


def test_an_interval_without_width_is_not_printed() -> None:
    found = three_trials()
    flat = replace(found.overall, interval_points=[1.0, 1.0], test_interval_points=[0.0, 0.001])
    assert "95 % interval" not in closing_words(replace(found, overall=flat))[1]
    assert (
        "95 % interval"
        in closing_words(replace(found, overall=replace(flat, interval_points=[0.5, 1.5])))[1]
    )


# ---------------------------------------------------------------- standard errors


def test_sampling_error_is_that_of_a_bootstrap() -> None:
    rng = np.random.default_rng(0)
    before = [rng.random(500) < 0.8 for _ in range(3)]
    hits = [np.stack([h, h ^ (rng.random(500) < 0.1)]).astype(float) for h in before]
    gains = [h[1] - h[0] for h in hits]
    means = [np.mean([g[rng.integers(0, 500, 500)].mean() for g in gains]) for _ in range(3000)]
    table_error = errors_of(np.stack([h.mean(axis=1) for h in hits]), np.array([0]))
    error = gains_of(hits, np.array([0])).error
    assert error == pytest.approx(max(np.std(means), table_error[0]), rel=0.05)


def test_sampling_error_of_trials_with_the_same_images() -> None:
    """Of the mean over the trials: more of the same images make it no smaller."""
    rng = np.random.default_rng(0)
    before = rng.random(500) < 0.5
    hits = np.stack([before, before ^ (rng.random(500) < 0.1)]).astype(float)
    none = np.array([0])
    gains = hits[1] - hits[0]
    means = [gains[rng.integers(0, 500, 500)].mean() for _ in range(3000)]
    error = gains_of([hits] * 4, none, same_images=True).error
    assert error == pytest.approx(np.std(means), rel=0.05)
    assert gains_of([hits] * 4, none).error < 0.6 * error


def test_equal_numbers_of_hits_are_no_fall() -> None:
    """Though the mean of the trials' accuracies may be rounded to a little below."""
    order = np.arange(90)
    for n in range(60, 80):
        more_and_fewer = [
            100.0 * np.stack([order < a, order < b]) for a, b in ((n, n + 1), (n, n - 1))
        ]
        assert gains_of(more_and_fewer, np.array([0])).mean.item() == 0


def test_scatter_is_that_of_neighbouring_n() -> None:
    """Two methods: a steady fall with a wave, and a steady fall."""
    table = np.array([[0.0, 1.0, 4.0, 3.0, 2.0, 4.0, 6.0]])
    bends = np.abs([4 - 2 * 1 + 0, 3 - 2 * 4 + 1, 0, 0]) / np.sqrt(3)
    expected = np.quantile(bends, 0.75) / 1.1503
    assert errors_of(table, np.array([0, 1, 2, 0, 4, 5])) == pytest.approx(np.full(6, expected))


def test_scatter_with_one_n_of_each_method() -> None:
    expected = np.quantile([3.0, 1.0], 0.75) / 1.1503
    assert errors_of(np.array([[1.0, 4.0, 0.0]]), np.array([0, 0])) == pytest.approx(expected)


def test_deviation_over_trials() -> None:
    table = np.array([[0.0, 3.0, 6.0], [1.0, 0.0, -1.0]])  # no bends
    expected = np.std([[3, 6], [-1, -2]], axis=0, ddof=1) / np.sqrt(2)
    assert errors_of(table, np.array([0, 1])) == pytest.approx(expected)


def test_limit_grows_with_the_number_of_removals() -> None:
    few, many = noise_limit(3, (0, 1)), noise_limit(3, tuple(range(30)))
    assert 1.5 < few < many < 4
