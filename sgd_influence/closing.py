"""What a run prints at its end: the removals, and what is recommended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType

from sgd_influence.recommend import Recommendation, Verdict
from sgd_influence.verify import Agreement
from utils.methods import CONTROL, NO_REMOVAL
from utils.units import shown_ends

UNSOUND = "  scores not sound, see below"


def closing_table(
    recommendation: Recommendation,
    agreements: Mapping[str, Agreement] = MappingProxyType({}),
    unsound: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """A line per method for the terminal: the n to remove by it, or else the best that was tried.

    Args:
        recommendation: as in summary/recommendation.json.
        agreements: of the methods that were verified.
        unsound: of `unsound_methods`.
    """
    head = f"{'method':<20} {'n removed':>9} {'test accuracy':>14} {NO_REMOVAL:>11} "
    head += f"{'gain in points [95 % interval]':>31}"
    verified = f" {'random groups':>20} {'groups cut from ranking':>24}" if agreements else ""
    lines = [head + verified]
    for name, v in recommendation.methods.items():
        n, accuracy, gain, interval = _shown_removal(v)
        line = f"{name:<20} {n:>9} {accuracy:>13.2%} {v.test_accuracy_no_removal:>11.2%} "
        ends = shown_ends(interval)
        bounds = f" [{', '.join(ends)}]" if ends else ""
        line += f"{f'{gain:+.2f}{bounds}':>31}"
        if name in agreements:
            line += f" {agreements[name].of_random:>20} {agreements[name].of_ranking:>24}"
        standing = UNSOUND if name in unsound else _standing(v, recommendation.overall)
        lines.append(line + standing)
    explanation = ["Agreement with true retraining: Spearman's correlation [95 % interval]"]
    return "\n".join(lines + (explanation if agreements else []))


def _shown_removal(verdict: Verdict) -> tuple[int, float, float, Sequence[float]]:
    """Of what is recommended, or of the best n tried: n, test accuracy, its gain and interval."""
    best = verdict.best_tried if verdict.n == 0 else None
    shown = best or asdict(verdict)
    gain, interval = shown["test_gain_points"], shown["test_interval_points"]
    return shown["n"], shown["test_accuracy"], gain, interval


def _standing(verdict: Verdict, overall: Verdict) -> str:
    """What the line of a method means."""
    if verdict.n == 0:
        return "  best tried, not recommended" if verdict.best_tried else ""
    if verdict == overall:
        return "  recommended"
    if verdict.method == CONTROL:
        return "  a control, not recommended"
    if not overall.n:
        return f"  does not gain more than {CONTROL}"
    return "  good too, but gains less on validation images"


def closing_words(
    recommendation: Recommendation, unsound: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """The recommendation in words, for the terminal.

    Args:
        recommendation: as in summary/recommendation.json.
        unsound: of `unsound_methods`.
    """
    verdict = recommendation.overall
    lines = [f"Recommended: remove none ({verdict.reason})"]
    if not any(recommendation.gains.values()):
        lines = [f"Nothing is recommended: {verdict.reason}"]
    if verdict.n:
        gain = _points(verdict.expected_gain_points, verdict.interval_points)
        test = _points(verdict.test_gain_points, verdict.test_interval_points)
        lines = [
            f"Recommended: remove the {verdict.n} worst by {verdict.method} ({verdict.reason})",
            f"Points gained, validation: {gain}; test (not used to decide): {test}",
        ]
    lines += [recommendation.about] if recommendation.about else []
    remarks = [verdict.trials_disagree, recommendation.what_if, recommendation.validation]
    lines += [f"Note: {remark}" for remark in remarks if remark]
    return lines + _warnings(unsound, verdict.reason)


def _warnings(unsound: Mapping[str, str], known: str) -> list[str]:
    """A line for each reason why scores are not sound that is not in the text `known`."""
    methods: dict[str, list[str]] = {}
    for method, why in unsound.items():
        methods.setdefault(why, []).append(method)
    return [
        f"Do not remove images by {' or '.join(names)}: {why}"
        for why, names in methods.items()
        if why not in known
    ]


def _points(gain: float, interval: Sequence[float]) -> str:
    """A gain with its interval, unless that has no width."""
    ends = shown_ends(interval)
    return f"{gain:+.2f}{f' (95 % interval {ends[0]} to {ends[1]})' if ends else ''}"
