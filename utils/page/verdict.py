"""The recommendation of a run, as text for the page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from utils.methods import METHODS, shown
from utils.units import shown_ends


@dataclass(frozen=True)
class Verdict:
    """The recommendation for one method, or overall.

    Attributes:
        name: the method as in its file paths; method: its name for people; both empty for none.
        n: images to remove.
        headline: the recommendation in a sentence.
        gain, test_gain: gain in validation and test accuracy, in points.
        interval, test_interval: 95 % intervals of the two gains; empty if there is none.
        accuracy, no_removal: test accuracy with and without removal.
        reason, disagreement: sentences.
        closest: if nothing is to be removed, a sentence about the candidate that came closest.
        on_card: the same, without its name if `reason` has it.
    """

    name: str
    method: str
    n: int
    headline: str
    gain: str
    interval: str
    test_gain: str
    test_interval: str
    accuracy: str
    no_removal: str
    reason: str
    disagreement: str
    closest: str
    on_card: str


def verdict_of(value: Mapping[str, Any]) -> Verdict:
    """The view of a verdict of summary/recommendation.json.

    Raises:
        KeyError, TypeError, ValueError: fields are missing, or hold something else.
    """
    n, name = int(value["n"]), str(value["method"] or "")
    method = shown(name)
    images = "the image" if n == 1 else f"the {n:,} images"
    best, reason = value["best_tried"], _sentence(_with_names(value["reason"]))
    named = bool(best) and reason.startswith(f"{shown(best['method'])} n = {best['n']} ")
    closest = _closest(best) if best else ""
    return Verdict(
        name=name,
        method=method,
        n=n,
        headline=f"Remove {images} that {method} ranks worst." if n else "Remove none.",
        gain=_points(value["expected_gain_points"]),
        interval=_interval(value["interval_points"]),
        test_gain=_points(value["test_gain_points"]),
        test_interval=_interval(value["test_interval_points"]),
        accuracy=f"{value['test_accuracy']:.2%}",
        no_removal=f"{value['test_accuracy_no_removal']:.2%}",
        reason=reason,
        disagreement=_sentence(_with_names(value["trials_disagree"])),
        closest=closest,
        on_card=_sentence(_changes(best)) if named else closest,
    )


def _with_names(text: str) -> str:
    """A text of a run with the names that methods have on the page."""
    names = "|".join(map(re.escape, METHODS))
    return re.sub(rf"\b({names})\b", lambda found: shown(found[0]), text)


def _closest(best: Mapping[str, Any]) -> str:
    return f"Closest candidate: {shown(best['method'])}, n = {best['n']:,}; {_changes(best)}"


def _changes(best: Mapping[str, Any]) -> str:
    gain = _with_interval(best["expected_gain_points"], best["interval_points"])
    test = _with_interval(best["test_gain_points"], best["test_interval_points"])
    return f"validation accuracy changes by {gain} points, test accuracy by {test}."


def _with_interval(points: float, ends: Sequence[float]) -> str:
    interval = _interval(ends)
    return f"{_points(points)} ({interval})" if interval else _points(points)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}." if text else ""


def _points(points: float) -> str:
    return f"{points:+.2f}".replace("-", "−") if points else "0"


def _interval(ends: Sequence[float]) -> str:
    """The ends in words; empty if there is no width."""
    seen = shown_ends(ends)
    return " to ".join(seen).replace("-", "−") if seen else ""


@dataclass(frozen=True)
class Recommended:
    """The content of summary/recommendation.json.

    Attributes:
        rule: the rule that chose each n, in words.
        what_if: a sentence if labels were flipped on purpose, else empty.
        validation: a sentence where validation images lack a class or have wrong labels; else
            empty.
        about: which training the verdict is about; empty in folders of earlier versions.
        overall: the verdict to follow.
        methods: the verdict for each method.
        gains: by method, a row (n, gain, lower and upper end of its 95 % interval) per removal, in
            points of the mean probability of the validation labels.
        n_trials: that the gains are means over.
        cleansed: by method, how many images the cleansed list of the last command leaves out.
    """

    rule: str
    what_if: str
    validation: str
    about: str
    overall: Verdict
    methods: dict[str, Verdict]
    gains: dict[str, list[tuple[float, ...]]]
    n_trials: int
    cleansed: dict[str, int]


def recommended(value: Mapping[str, Any]) -> Recommended:
    """The view of a recommendation of version 2.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: as in `verdict_of`.
    """
    return Recommended(
        rule=str(value["rule"]),
        what_if=_sentence(value["what_if"]),
        validation=_sentence(value["validation"]),
        about=str(value.get("about", "")),
        overall=verdict_of(value["overall"]),
        methods={name: verdict_of(verdict) for name, verdict in value["methods"].items()},
        gains={
            name: [(g["n"], g["points"], *g["interval_points"]) for g in gains]
            for name, gains in value.get("gains", {}).items()  # earlier runs wrote none
        },
        n_trials=int(value["overall"]["n_trials"]),
        cleansed={name: int(n) for name, n in value.get("cleansed", {}).items()},  # nor these
    )
