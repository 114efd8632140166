"""The page: report/index.html, one file, made from a finished output folder."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from utils.columns import IMAGE
from utils.methods import CONTROL, METHODS, shown
from utils.output.folder import OutputFolder
from utils.output.own_files import check_own
from utils.output.ranking import SHOWN_BEST, SHOWN_WORST
from utils.output.results import Results
from utils.page.facts import Facts
from utils.page.image_checks import ImageChecks
from utils.page.images import data_uris
from utils.page.labels import files_of, labels_view
from utils.page.review import Review, review_data
from utils.page.view import (
    Comparison,
    MethodView,
    Tile,
    class_names_of,
    comparison,
    flip_table,
    learning_charts,
    method_views,
    removal_charts,
    score_charts,
    seat_charts,
    verification_charts,
)
from utils.signals import stop_if_asked
from utils.training.smoothness import SMOOTH, smoothness_words
from utils.units import duration, shown_bytes

LARGEST = 5_000_000
"""Bytes that the page has at most."""
GALLERIES = ((SHOWN_WORST, SHOWN_BEST), (20, 10), (10, 5), (5, 2), (1, 1))
"""Images of the worst and of the best per method; the first with which the page is small enough."""
FOR_REVIEW = 2_000_000
"""Bytes that the galleries leave the review of labels, if it needs so many."""


def write_page(folder: OutputFolder, results: Results | None = None) -> Path:
    """Write the page of a finished output folder; returns its path.

    Args:
        folder: it.
        results: its tables, where they are in memory.

    Raises:
        UserError: the folder holds no finished run, a file in it cannot be read, or at the place
            of the page is a file that no run wrote.
    """
    page = page_of(Facts.read(folder, results))
    check_own(folder.page, folder)
    stop_if_asked()
    folder.save_bytes(page, folder.page)
    return folder.page


def page_of(facts: Facts, largest: int = LARGEST) -> bytes:
    """The page as UTF-8, with as many images as fit into `largest` bytes.

    The galleries leave the review up to `FOR_REVIEW` bytes, and it takes what they leave.
    """
    charts = {
        "accuracy": removal_charts(facts),
        "verification": verification_charts(facts),
        "learning": learning_charts(facts),
        "scores": score_charts(facts),
        "seats": seat_charts(facts),
    }
    review = Review.of(facts, FOR_REVIEW)
    for worst, best in GALLERIES:
        page = _rendered(facts, charts, worst, best, review)
        if len(page) <= largest:
            break
    if review and (more := review.extended(largest - len(page))):
        larger = _rendered(facts, charts, worst, best, more)
        page = larger if len(larger) <= largest else page
    return page


def _rendered(
    facts: Facts, charts: dict[str, Any], worst: int, best: int, review: Review | None
) -> bytes:
    overall = facts.recommendation.overall if facts.recommendation else None
    views, compared, labels = method_views(facts, worst, best), comparison(facts, worst), None
    checks = ImageChecks.read(facts.paths)
    files = [tile.file for tile in _tiles(views, compared)] + list(checks.files if checks else ())
    uris = data_uris(files)
    if review:
        labels = labels_view(facts)
        uris = {file: review.uris[file] for file in (*files_of(labels), *review.rows[IMAGE])} | uris
    pictures = {file: f"p{number}" for number, file in enumerate(uris)}
    scripts = [_source_of(name) for name in ("page.js", "review.js")[: 1 + bool(review)]]
    template = _environment().get_template("page.html")
    text = template.render(
        facts=facts,
        overall=overall,
        verdicts=list(facts.recommendation.methods.values()) if facts.recommendation else [],
        charts=charts,
        views=views,
        first=_first_shown(facts),
        class_names=class_names_of(facts, views),
        compared=compared,
        flips=flip_table(facts) if facts.flips is not None else None,
        labels=labels,
        review=review,
        review_data=review_data(facts, review.rows, pictures, uris) if review else "",
        pictures=pictures,
        uris=uris,
        checks=checks,
        smooth=SMOOTH,
        missing=sorted({file for file in files if not uris[file]}),
        thinned=(worst, best) if (worst, best) != GALLERIES[0] else None,
        scripts=scripts,
        script_hashes=[_hash(script) for script in scripts],
    )
    return text.encode("utf-8", errors="backslashreplace")


@cache
def _environment() -> Environment:
    """Where the templates are; it keeps those that it has compiled."""
    environment = Environment(
        loader=PackageLoader("utils.page"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "smoothness": smoothness_words,
        "size": shown_bytes, "duration": duration, "number": "{:,}".format, "shown": shown
    }  # fmt: skip
    return environment


def _source_of(name: str) -> str:
    environment = _environment()
    return environment.loader.get_source(environment, name)[0]  # type: ignore[union-attr]


def _hash(script: str) -> str:
    """What the page's policy knows a script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _tiles(views: Iterable[MethodView], compared: Comparison | None) -> Iterable[Tile]:
    galleries = ((*view.harmful, *view.helpful) for view in views)
    return chain(*galleries, *((compared.agreed, compared.disputed) if compared else ()))


def _first_shown(facts: Facts) -> str:
    """Whose images are shown first: the recommended method's, else those of one for labels."""
    recommended = facts.recommendation.overall.name if facts.recommendation else ""

    def place(method: str) -> tuple[bool, bool, bool]:
        return method != recommended, not METHODS[method].for_labels, method == CONTROL

    return min(facts.methods, key=place)
