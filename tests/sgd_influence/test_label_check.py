"""The label check, on predictions whose truth is known."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from sgd_influence.label_check import (
    Checked,
    Evidence,
    check_known_classes,
    check_labels,
    interval_of,
    lower_part,
)
from sgd_influence.label_fits import fit_any_class, fit_similar_classes, posterior_of, sharpened

K = 5


def evidence(
    n: int = 3000, rate: float = 0.1, clear: float = 6.0, similar: bool = False, seed: int = 0
) -> tuple[Evidence, np.ndarray]:
    """Predictions of a net, drawn so that they are right as often as they claim; the true classes.

    Args:
        n: images; three tenths are held out.
        rate: share of wrong labels.
        clear: how far the logit of the true class stands out.
        similar: wrong labels are those of the next class, else of any.
        seed: draws everything.
    """
    rng = np.random.default_rng(seed)
    true = rng.integers(0, K, n)
    logits = rng.standard_normal((n, K))
    logits[np.arange(n), true] += clear * rng.random(n) ** 0.3
    softmax = sharpened(logits, 1.0)
    wrong = rng.random(n) < rate
    far = np.ones(n, int) if similar else rng.integers(1, K, n)
    labels = np.where(wrong, (true + far) % K, true)
    held = rng.random(n) < 0.3
    zero = np.zeros_like(softmax)
    learnt = sharpened(logits + np.eye(K)[labels], 1.0)  # the net has begun to learn the labels
    return (
        Evidence(
            labels=labels,
            groups=np.zeros(n, np.int64),
            trained=np.where(held[:, None], zero, learnt).astype(np.float32),
            n_trained=(~held).astype(np.int64),
            held=np.where(held[:, None], softmax, zero).astype(np.float32),
            n_held=held.astype(np.int64),
        ),
        true,
    )


def found(checked: Checked, given: Evidence, true: np.ndarray) -> tuple[float, float]:
    """Precision and recall of the suspects."""
    wrong = given.labels != true
    hits = (checked.suspect & wrong).sum()
    return hits / checked.suspect.sum(), hits / wrong.sum()


@pytest.mark.parametrize("similar", [False, True])
@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_a_good_net_counts_and_finds_wrong_labels(rate: float, similar: bool) -> None:
    given, true = evidence(rate=rate, similar=similar)
    n = (given.labels != true).sum()
    checked = check_labels(given)
    assert checked.good
    assert checked.count.low <= n <= checked.count.high
    assert checked.count.n == pytest.approx(n, rel=0.3)
    assert checked.suspect.sum() == checked.count.n
    assert min(found(checked, given, true)) > 0.7
    right = checked.predicted == true
    assert right[checked.suspect].mean() > 0.65
    assert right[checked.suspect & (checked.predicted_score >= 0.9)].mean() > 0.9


def without(given: Evidence, gone: np.ndarray) -> Evidence:
    """The evidence without some images."""
    return Evidence(**{f.name: getattr(given, f.name)[~gone] for f in fields(Evidence)})


def test_a_class_without_training_images_is_not_judged() -> None:
    given = evidence(rate=0.1)[0]
    given = without(given, (given.labels == 3) & (given.n_trained > 0))
    of_it = given.labels == 3
    checked, others = check_known_classes(given, True), check_labels(without(given, of_it))
    assert of_it.sum() > 10
    assert checked.untrained == (3,)
    assert not checked.suspect[of_it].any()
    assert set(checked.score[of_it]) == set(checked.predicted_score[of_it]) == {0.5}
    assert set(checked.predicted[of_it]) == {3}
    assert checked.count == others.count
    for name in ("score", "suspect", "predicted", "predicted_score"):
        assert np.array_equal(getattr(checked, name)[~of_it], getattr(others, name))


def test_classes_with_training_images_are_all_judged() -> None:
    given = evidence(rate=0.1)[0]
    checked, same = check_known_classes(given, True), check_labels(given)
    assert checked.untrained == ()
    assert np.array_equal(checked.suspect, same.suspect)


@pytest.mark.parametrize("clear", [2.5, 6.0])
def test_next_to_none_where_nothing_is_wrong(clear: float) -> None:
    checked = check_labels(evidence(rate=0, clear=clear)[0])
    assert checked.count.n <= 0.02 * 3000
    assert checked.count.low == 0


@pytest.mark.parametrize("similar", [False, True])
def test_right_labels_of_held_out_images_hide_no_wrong_ones(similar: bool) -> None:
    """As with validation images that somebody checked, or with --flip_labels."""
    given, true = evidence(rate=0.2, similar=similar)
    labels = np.where(given.n_held > 0, true, given.labels)
    checked = check_labels(replace(given, labels=labels))
    n = (labels != true).sum()
    assert checked.good
    assert checked.count.low <= n <= checked.count.high
    assert checked.count.n == pytest.approx(n, rel=0.3)


def predicted(
    logits: np.ndarray, labels: np.ndarray, held: np.ndarray, groups: np.ndarray | None = None
) -> Evidence:
    """The evidence of a net with logits (N, K), the images `held` (N,) being held out."""
    softmax, zero = sharpened(logits, 1.0), np.zeros_like(logits)
    return Evidence(
        labels=labels,
        groups=np.zeros(len(labels), np.int64) if groups is None else groups,
        trained=np.where(held[:, None], zero, softmax).astype(np.float32),
        n_trained=(~held).astype(np.int64),
        held=np.where(held[:, None], softmax, zero).astype(np.float32),
        n_held=held.astype(np.int64),
    )


def logits_of(classes: np.ndarray, k: int, height: float, rng: np.random.Generator) -> np.ndarray:
    """Logits (N, k) in which the class of each image stands out by about `height`."""
    logits = 0.4 * rng.standard_normal((len(classes), k))
    logits[np.arange(len(classes)), classes] += height + 0.5 * rng.standard_normal(len(classes))
    return logits


def test_right_labels_that_the_net_learns_late_do_not_count() -> None:
    """A rare class that it hardly tells from another one."""
    rng = np.random.default_rng(0)
    true = np.where(np.arange(1500) < 60, 9, rng.integers(0, 9, 1500))
    logits = logits_of(true, 10, 8.0, rng)
    logits[:60] = logits_of(true[:60], 10, 2.2, rng)
    logits[:60, 3] += 2.0
    given = predicted(logits, true, rng.random(1500) < 0.15)
    for sound in (True, False):
        assert check_labels(given, sound).count.n <= 3


def test_one_odd_image_among_few_makes_no_estimate() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 70)
    logits = logits_of(true, 3, 6.0, rng)
    logits[0] = 8.0 * np.eye(3)[(true[0] + 1) % 3]
    assert not check_labels(predicted(logits, true, np.arange(70) >= 58), sound=False).good


def test_wrong_labels_that_were_learnt_by_heart_count_too() -> None:
    """2 % stand apart; 10 % of a similar class are seen on held-out images alone."""
    rng = np.random.default_rng(0)
    true, chance = rng.integers(0, 10, 2000), rng.random(2000)
    far, near, held = chance < 0.02, (chance > 0.03) & (chance < 0.13), rng.random(2000) < 0.25
    labels = np.where(far, (true + 4) % 10, np.where(near, (true + 1) % 10, true))
    logits = logits_of(true, 10, 6.0, rng)
    logits[near & ~held] += 12 * np.eye(10)[labels[near & ~held]]
    count = check_labels(predicted(logits, labels, held)).count
    assert count.low <= (labels != true).sum() <= count.high


def test_the_scores_of_a_net_that_learnt_all_by_heart_expect_what_is_counted() -> None:
    rng = np.random.default_rng(0)
    true, held = rng.integers(0, 10, 1500), rng.random(1500) < 0.3
    labels = np.where(rng.random(1500) < 0.15, (true + rng.integers(1, 10, 1500)) % 10, true)
    logits = np.where(held[:, None], logits_of(true, 10, 0.6, rng), logits_of(labels, 10, 8.0, rng))
    checked = check_labels(predicted(logits, labels, held))
    assert not checked.good
    assert (1 - checked.score).sum() >= 0.9 * checked.count.n > 100


def test_validation_images_of_their_own_make_the_interval_narrow() -> None:
    rng = np.random.default_rng(0)
    true, held = rng.integers(0, 5, 1500), np.arange(1500) >= 1000
    given = predicted(logits_of(true, 5, 6.0, rng), true, held, held.astype(np.int64))
    assert check_labels(given).count.high < 40


def test_errors_of_a_doubted_net_on_test_images_do_not_count() -> None:
    rng = np.random.default_rng(0)
    true, is_test = rng.integers(0, 5, 1800), np.arange(1800) >= 1200
    held = (rng.random(1800) < 0.25) | is_test
    wrong, missed = (rng.random(1800) < 0.12) & ~is_test, (rng.random(1800) < 0.18) & held
    logits = logits_of(true, 5, 6.0, rng)
    logits[missed] = logits_of((true[missed] + 1) % 5, 5, 3.0, rng)
    labels = np.where(wrong, (true + 2) % 5, true)
    checked = check_labels(predicted(logits, labels, held, 2 * is_test), sound=False)
    assert checked.good and checked.suspect[wrong].mean() > 0.7
    assert checked.suspect[is_test].sum() <= 6


def test_scores_of_test_images_do_not_assume_the_wrong_labels_of_training_images() -> None:
    rng = np.random.default_rng(0)
    true, is_test = rng.integers(0, 5, 1800), np.arange(1800) >= 1200
    held, wrong = (rng.random(1800) < 0.25) | is_test, (rng.random(1800) < 0.15) & ~is_test
    logits = logits_of(true, 5, 6.0, rng)
    unsure = (rng.random(1800) < 0.1) & held
    logits[unsure] = logits_of(true[unsure], 5, 0.5, rng)
    labels = np.where(wrong, (true + 2) % 5, true)
    checked = check_labels(predicted(logits, labels, held, 2 * is_test), sound=False)
    assert (checked.score[is_test] < 0.5).mean() < 0.005
    assert (checked.score[~is_test] < 0.5).sum() == pytest.approx(wrong.sum(), rel=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_wrong_labels_that_the_net_has_learnt_too_count_if_they_stand_apart(seed: int) -> None:
    """The net gives the class of the wrong labels a fifth to a third of every image."""
    given, true = evidence(rate=0.2, similar=True, clear=7, seed=seed)
    share = np.random.default_rng(seed).uniform(0.2, 0.35, (len(true), 1))

    def drawn(softmax: np.ndarray) -> np.ndarray:
        both = (1 - share) * softmax + share * np.eye(K)[(true + 1) % K]
        return np.where(softmax.any(axis=1, keepdims=True), both, 0).astype(np.float32)

    learnt = replace(given, trained=drawn(given.trained), held=drawn(given.held))
    checked, n = check_labels(learnt), (given.labels != true).sum()
    assert checked.good and checked.accuracy < 0.9
    assert checked.count.n == pytest.approx(n, rel=0.2)
    assert checked.count.low <= n <= checked.count.high
    assert found(checked, learnt, true)[0] > 0.7


def test_a_poor_net_counts_at_most_what_is_there() -> None:
    for similar in (False, True):
        given, true = evidence(rate=0.15, similar=similar, clear=2.5)
        checked = check_labels(given)
        n = (given.labels != true).sum()
        assert not checked.good
        assert checked.count.n < 1.3 * n
        assert checked.count.high >= n


def test_a_net_that_others_doubt_counts_as_a_poor_one() -> None:
    """Unless wrong labels stand apart."""
    assert check_labels(evidence(rate=0.1)[0], sound=False).good
    given, true = evidence(rate=0.02, similar=True)
    trusted, doubted = check_labels(given), check_labels(given, sound=False)
    assert trusted.good and not doubted.good
    assert doubted.accuracy == trusted.accuracy
    assert doubted.count != trusted.count
    assert doubted.count.high >= (given.labels != true).sum()


def test_scores_are_probabilities() -> None:
    given, true = evidence(rate=0.2, clear=5)
    checked = check_labels(given)
    right = given.labels == true
    base = right.mean() * (1 - right.mean())
    assert ((checked.score - right) ** 2).mean() < 0.5 * base
    low = checked.score < 0.5
    assert checked.score[low].mean() == pytest.approx(right[low].mean(), abs=0.1)


def test_scores_of_a_poor_net_allow_for_labels_that_look_like_its_own_errors() -> None:
    rng = np.random.default_rng(0)
    given, true = evidence(rate=0, clear=2.5)
    second = np.argsort(given.held + given.trained, axis=1)[:, -2]
    labels = np.where((rng.random(len(true)) < 0.15) & (second != true), second, true)
    given = Evidence(**{**vars(given), "labels": labels})
    checked = check_labels(given)
    right = labels == true
    assert not checked.good
    assert checked.score.mean() == pytest.approx(right.mean(), abs=0.07)
    assert ((checked.score - right) ** 2).mean() < right.mean() * (1 - right.mean())


def test_labels_near_the_image_are_given_in_proportion_to_its_classes() -> None:
    """The posterior is that of labels drawn by the model."""
    rng = np.random.default_rng(0)
    q, eps, near, n = np.array([0.6, 0.3, 0.1]), 0.1, 0.2, 400_000
    true = rng.choice(3, n, p=q)
    chance = rng.random(n)
    others = np.where(np.eye(3, dtype=bool), 0, q)
    others /= others.sum(axis=1, keepdims=True)
    by_image = (rng.random((n, 1)) > others[true].cumsum(axis=1)).sum(axis=1)
    labels = np.where(chance < eps, (true + rng.integers(1, 3, n)) % 3, true)
    labels = np.where((chance >= eps) & (chance < eps + near), by_image, labels)
    confusion = np.full((3, 3), eps / 2)
    np.fill_diagonal(confusion, 1 - eps - near)
    for label in range(3):
        expected = np.bincount(true[labels == label], minlength=3) / (labels == label).sum()
        found = posterior_of(np.log(q)[None], np.array([label]), 1.0, confusion, near)
        assert found[0] == pytest.approx(expected, abs=0.01)


def test_scores_of_a_good_net_are_as_often_right_as_they_say() -> None:
    """How sure they are does not depend on the spread of the held-out predictions."""
    given, true = evidence(rate=0.1, clear=8)
    blurred = Evidence(**{**vars(given), "held": _blurred(given.held, np.random.default_rng(1))})
    right, trained = given.labels == true, given.n_trained > 0
    for one in (given, blurred):
        checked = check_labels(one)
        assert checked.good
        low = trained & (checked.score < 0.5)
        assert checked.score[low].mean() == pytest.approx(right[low].mean(), abs=0.03)


def test_suspects_are_never_of_the_class_given_and_the_worst() -> None:
    given, _ = evidence(rate=0.2, clear=5)
    checked = check_labels(given)
    suspect = checked.suspect
    assert (checked.predicted[suspect] != given.labels[suspect]).all()
    assert checked.score[suspect].max() <= checked.score[~suspect].min() + 1e-9
    assert (checked.predicted_score >= 0).all() and (checked.predicted_score <= 1).all()


def test_the_last_tenth_of_a_class_is_never_suspected() -> None:
    given, true = evidence(rate=0.02, clear=9)
    rare = np.flatnonzero(true == 3)
    labels = np.where(np.isin(np.arange(len(true)), rare[12:]), 2, given.labels)
    labels[np.flatnonzero(true == 1)[:40]] = 3  # most labels of the rare class are wrong
    changed = Evidence(**{**vars(given), "labels": labels})
    suspect = check_labels(changed).suspect[labels == 3]
    assert suspect.sum() > len(suspect) / 2
    assert (~suspect).sum() >= np.ceil(len(suspect) / 10)


def test_sets_are_counted_apart() -> None:
    noisy, true = evidence(rate=0.2)
    clean, _ = evidence(n=800, rate=0, seed=1)
    n = len(clean.labels)
    test = Evidence(
        labels=clean.labels,
        groups=np.full(n, 2),
        trained=np.zeros((n, K), np.float32),
        n_trained=np.zeros(n, np.int64),
        held=np.where(clean.n_held[:, None] > 0, clean.held, clean.trained),
        n_held=np.ones(n, np.int64),
    )
    both = Evidence(**{k: np.concatenate([v, vars(test)[k]]) for k, v in vars(noisy).items()})
    suspect = check_labels(both).suspect
    assert suspect[:3000].sum() == pytest.approx((noisy.labels != true).sum(), rel=0.2)
    assert suspect[3000:].sum() <= 0.02 * n


def test_more_trials_say_more() -> None:
    first, true = evidence(rate=0.2, clear=4)
    rng = np.random.default_rng(5)
    several = np.mean(
        [first.trained] + [_blurred(first.trained, rng) for _ in range(3)], axis=0, dtype=np.float32
    )
    blurred = Evidence(**{**vars(first), "trained": _blurred(first.trained, rng)})
    joint = Evidence(**{**vars(first), "trained": several, "n_trained": 4 * first.n_trained})
    one, four = (found(check_labels(e), e, true)[1] for e in (blurred, joint))
    assert four > one


def _blurred(softmax: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The predictions of another, noisier net."""
    noise = 1.5 * rng.standard_normal(softmax.shape)
    zero = softmax.sum(axis=1, keepdims=True) == 0
    return np.where(zero, 0, sharpened(np.log(softmax + 1e-6) + noise, 1.0)).astype(np.float32)


def test_the_fit_with_one_rate_is_the_most_likely_one() -> None:
    given, true = evidence(rate=0.1)
    held = given.n_held > 0
    logs, labels = np.log(given.held[held] + 1e-9).astype(float), given.labels[held]
    fit = fit_any_class(logs, labels)

    def likelihood(beta: float, rate: float) -> float:
        own = sharpened(logs, beta)[np.arange(len(labels)), labels]
        return float(np.log((1 - rate) * own + rate * (1 - own) / (K - 1)).sum())

    best = likelihood(fit.beta, fit.rate)
    for beta in (0.8 * fit.beta, 1.25 * fit.beta):
        assert likelihood(beta, fit.rate) < best
    for rate in (fit.low / 1.5, fit.high * 1.5):
        assert likelihood(fit.beta, rate) < best - 1.5
    assert fit.low <= (given.labels != true)[held].mean() <= fit.high


def test_the_fit_of_similar_classes_finds_which_are_confused() -> None:
    given, _ = evidence(n=8000, rate=0.15, similar=True, clear=9)
    held = given.n_held > 0
    fit = fit_similar_classes(np.log(given.held[held] + 1e-9).astype(float), given.labels[held])
    np.testing.assert_allclose(fit.confusion.sum(axis=1), 1)
    nexts = fit.confusion[np.arange(K), (np.arange(K) + 1) % K]
    assert nexts == pytest.approx(0.15, abs=0.06)
    assert fit.accuracy > 0.9


def test_the_share_of_the_lower_of_two_normal_distributions() -> None:
    rng = np.random.default_rng(0)
    odds = np.concatenate([rng.normal(-2, 2, 120), rng.normal(7, 1.5, 880)])
    lower = lower_part(odds)
    assert lower.share == pytest.approx(0.12, abs=0.02)
    assert lower.distance == pytest.approx(np.sqrt(2) * 9 / np.hypot(2, 1.5), rel=0.1)
    for one in (rng.normal(3, 1.5, 1000), np.full(200, 12.0), np.empty(0)):
        assert not lower_part(one).apart


def test_the_interval_of_few_held_out_images_is_wide() -> None:
    for n in (20, 50, 450):
        low, high = interval_of(0.0, n)
        assert low == 0 and high == pytest.approx(1 - 0.025 ** (1 / n), rel=0.25)
    low, high = interval_of(0.1, 450)
    chance = 1.96 * np.sqrt(0.1 * 0.9 / 450)
    assert low < 0.1 - chance and high > 0.1 + chance


def few_held_out(rate: float, seed: int) -> tuple[Evidence, np.ndarray]:
    """184 images, 28 of them test images, 28 held out; a net that is sure; which are wrong.

    The net has not begun to learn the wrong labels.
    """
    rng = np.random.default_rng(seed)
    true = rng.integers(0, K, 184)
    wrong = np.arange(184) % round(1 / rate) == 3 if rate else np.zeros(184, bool)
    softmax = sharpened(9 * np.eye(K)[true] + rng.standard_normal((184, K)), 1.0)
    test, held = np.arange(184) >= 156, np.arange(184) >= 128
    wrong &= ~held | test
    zero = np.zeros_like(softmax)
    given = Evidence(
        labels=np.where(wrong, (true + 1) % K, true),
        groups=np.where(test, 2, 0),
        trained=np.where(held[:, None], zero, softmax).astype(np.float32),
        n_trained=(~held).astype(np.int64),
        held=np.where(held[:, None], softmax, zero).astype(np.float32),
        n_held=held.astype(np.int64),
    )
    return given, wrong


@pytest.mark.parametrize("seed", range(3))
def test_clear_cases_count_though_no_held_out_label_is_wrong(seed: int) -> None:
    given, wrong = few_held_out(0.07, seed)
    checked = check_labels(given)
    assert checked.suspect[wrong].all()
    assert wrong.sum() <= checked.count.n == checked.suspect.sum() <= wrong.sum() + 2
    assert checked.count.low <= wrong.sum() <= checked.count.high
    assert checked.score[wrong].max() < 0.5 < checked.score[~wrong].min()


@pytest.mark.parametrize("seed", range(3))
def test_few_held_out_images_make_no_clean_label_a_suspect(seed: int) -> None:
    checked = check_labels(few_held_out(0.0, seed)[0])
    assert checked.count.n == 0 and not checked.suspect.any()
    assert 5 < checked.count.high < 40


@pytest.mark.parametrize("n", [150, 300, 3000])
@pytest.mark.parametrize("clear", [6.0, 9.0])
def test_the_count_is_never_below_what_the_scores_expect(n: int, clear: float) -> None:
    checked = check_labels(evidence(n=n, rate=0.08, clear=clear)[0])
    expected = (1 - checked.score).sum()
    assert checked.good
    assert checked.count.n >= round(expected) - 1
    assert checked.suspect.sum() == checked.count.n
    assert checked.count.low <= checked.count.n <= checked.count.high


def test_nothing_can_be_wrong_where_there_is_one_class() -> None:
    one, zero = np.ones((4, 1), np.float32), np.zeros(4, np.int64)
    checked = check_labels(Evidence(zero, zero, one, zero + 1, one, zero))
    assert checked.count.n == 0 and not checked.suspect.any()
    assert (checked.score == 1).all()


def test_more_classes_than_images_that_were_held_out() -> None:
    rng = np.random.default_rng(0)
    labels, held = rng.integers(0, 40, 60), np.arange(60) < 3
    softmax = sharpened(5 * np.eye(40)[labels] + rng.standard_normal((60, 40)), 1.0)
    trained, out = (np.where(m[:, None], softmax, 0).astype(np.float32) for m in (~held, held))
    zero = np.zeros(60, np.int64)
    given = Evidence(labels, zero, trained, (~held).astype(int), out, held.astype(int))
    checked = check_labels(given)
    assert np.isfinite(checked.score).all()
    assert checked.count.n <= 6
