"""Charts of the page as numbers in a frame; the template draws them, its style colours them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

LEFT, RIGHT, TOP, BOTTOM = 54, 440, 8, 254
"""The frame within the picture, in pixels."""
LABEL_WIDTH = 7
"""Pixels of a character of a tick's label, about."""
NARROW = 1.35
"""How much wider it is in narrow charts, whose letters are larger (page.css)."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """Maps values to pixels, evenly or evenly in their logarithms.

    Attributes:
        low, high: the values at `start` and `end`.
        start, end: pixels.
        ticks: values that are labelled.
        label: what the values are, with their unit.
        log: whether logarithms are mapped.
        decimals: of the labels of the ticks.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    label: str
    log: bool = False
    decimals: int = 0

    def __call__(self, value: float) -> float:
        """The pixel of a value; those beyond the ends come to lie there."""
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return round(self.start + (at - low) / (high - low) * (self.end - self.start), 1)

    @property
    def labelled(self) -> list[tuple[float, str]]:
        """Pixel and text of each tick."""
        texts = [f"{tick:,.{self.decimals}f}".replace("-", "−") for tick in self.ticks]
        return [(self(tick), text) for tick, text in zip(self.ticks, texts, strict=True)]


@dataclass(frozen=True)
class Path:
    """A line, or an area where it is closed: `d` as in SVG, class of the style, text on hover."""

    d: str
    css: str
    title: str = ""


@dataclass(frozen=True)
class Dot:
    """A point at pixels (x, y)."""

    x: float
    y: float
    css: str
    title: str = ""


@dataclass(frozen=True)
class Chart:
    """What is drawn in a frame.

    Attributes:
        title: shown above it.
        description: for those who do not see it.
        x, y: its axes.
        paths, dots: its marks.
        legend: (class of the style, text) of each kind of mark.
        note: shown below.
    """

    title: str
    description: str
    x: Axis
    y: Axis
    paths: tuple[Path, ...]
    dots: tuple[Dot, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()
    note: str = ""


# ---------------------------------------------------------------- axes


def x_axis(values: Sequence[float], label: str) -> Axis:
    """An even axis below the frame that holds all values."""
    low, high, ticks, decimals = _around(values)
    axis = Axis(low, high, LEFT, RIGHT, ticks, label, decimals=decimals)
    room = NARROW * LABEL_WIDTH * max(len(f"{tick:.{decimals}f}") for tick in ticks) + 6
    every = math.ceil(room / (axis(ticks[1]) - axis(ticks[0]))) if len(ticks) > 1 else 1
    return replace(axis, ticks=ticks[(ticks.index(0) if 0 in ticks else 0) % every :: every])


def y_axis(values: Sequence[float], label: str) -> Axis:
    """An even axis left of the frame that holds all values."""
    low, high, ticks, decimals = _around(values)
    return Axis(low, high, BOTTOM, TOP, ticks, label, decimals=decimals)


def count_axis(counts: Sequence[int], label: str) -> Axis:
    """A logarithmic axis below the frame with numbers above 0; ticks where they have room."""
    low, high = counts[0] / 1.4, counts[-1] * 1.4
    axis = Axis(low, high, LEFT, RIGHT, (), label, log=True)
    ticks: list[float] = []
    for count in counts:
        room = LABEL_WIDTH * len(f"{count:,}") + 6
        if not ticks or axis(count) - axis(ticks[-1]) >= room:
            ticks.append(count)
    return Axis(low, high, LEFT, RIGHT, tuple(ticks), label, log=True)


def log_y_axis(highest: int, label: str) -> Axis:
    """A logarithmic axis left of the frame for counts from 1; 0 lies at its foot."""
    end = max(highest * 1.2, 10.0)
    ticks = tuple(10.0**power for power in range(math.floor(math.log10(end)) + 1))
    return Axis(0.7, end, BOTTOM, TOP, ticks, label, log=True)


def _around(values: Sequence[float]) -> tuple[float, float, tuple[float, ...], int]:
    """Ends a little beyond the values, round numbers between, the decimals that tell them apart."""
    from matplotlib.ticker import MaxNLocator

    whole = all(float(value).is_integer() for value in values)
    low, high = float(np.min(values)), float(np.max(values))
    room = 0.04 * (high - low) or (0.5 if whole else abs(low) / 10)
    low, high = low - room, high + room
    locator = MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10], integer=whole, min_n_ticks=1)
    ticks = [float(tick) for tick in locator.tick_values(low, high)]
    step = float(f"{ticks[1] - ticks[0]:.2g}")
    decimals = next(d for d in range(13) if d == 12 or math.isclose(step, round(step, d)))
    return low, high, tuple(tick for tick in ticks if low <= tick <= high), decimals


# ---------------------------------------------------------------- marks


def line(points: Points, x: Axis, y: Axis, css: str, title: str = "") -> Path:
    """A line through points in units of the axes."""
    return Path("M" + "L".join(f"{x(a)} {y(b)}" for a, b in points), f"line {css}", title)


def band(lower: Points, upper: Points, x: Axis, y: Axis, css: str) -> Path:
    """The area between two lines."""
    around = line([*lower, *reversed(list(upper))], x, y, css)
    return Path(around.d + "Z", f"band {css}")


def bar(left: float, right: float, height: float, x: Axis, y: Axis, css: str, title: str) -> Path:
    """A bar of a histogram, from the foot of the frame."""
    corners = [(left, y.low), (left, height), (right, height), (right, y.low)]
    return Path(line(corners, x, y, css).d + "Z", f"bar {css}", title)


def dots(points: Points, x: Axis, y: Axis, css: str, titles: Sequence[str]) -> tuple[Dot, ...]:
    """Points in units of the axes, each with the text of its tooltip."""
    return tuple(Dot(x(a), y(b), css, text) for (a, b), text in zip(points, titles, strict=True))
