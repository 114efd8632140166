"""Facts about images that a person should look at: blank, very dark, blurred, of an odd size ...

They are only measured: no image is left out because of them. Limits of size, aspect ratio and blur
follow the data set, so that what is usual in it is not reported.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from utils.data.copies import BLANK

DARK, BRIGHT = 64, 230  # gray levels, of 0 to 255
BLURRED = 0.2  # of the range of gray levels
ODD = 2  # times what is usual

Floats = npt.NDArray[np.float64]


class Fact(NamedTuple):
    """Something measured of each image (N,), which images it holds for, and the limit as text."""

    name: str
    values: Floats
    holds: npt.NDArray[np.bool_]
    limit: str


def facts_of(looks: npt.NDArray[np.void]) -> list[Fact]:
    """All facts about images by their looks (N,).

    blank: standard deviation of the gray levels; very dark: level below which 99 % of the pixels
    are; very bright: level above which 95 % are; blurred: `sharpness` in the size of the run,
    compared with the range of levels; odd size: square root of width x height in px; odd aspect
    ratio: longer by shorter side.
    """
    spread, light, dark = (looks[name].astype(float) for name in ("spread", "light", "dark"))
    blank = spread < BLANK
    return [
        Fact("blank", spread, blank, f"< {BLANK:g}"),
        Fact("very dark", light, light < DARK, f"< {DARK}"),
        Fact("very bright", dark, dark > BRIGHT, f"> {BRIGHT}"),
        _blurred(looks["sharpness"].astype(float), blank),
        _odd("odd size", _sizes(looks), (25, 75)),
        _odd("odd aspect ratio", _ratios(looks), (50, 50), least=1),
    ]


def _blurred(sharpness: Floats, blank: npt.NDArray[np.bool_]) -> Fact:
    """Images less sharp than photographs with a blur of 1.5 px, and than half the median."""
    limit = min(BLURRED, float(np.median(sharpness)) / 2)
    return Fact("blurred", sharpness, (sharpness < limit) & ~blank, f"< {short(limit)}")


def _odd(name: str, values: Floats, usual: tuple[float, float], least: float = 0) -> Fact:
    """Images `ODD` times below or above the usual range, which two percentiles give.

    least: the smallest possible value.
    """
    low, high = np.percentile(values, usual)
    low, high = low / ODD, high * ODD
    below = f"<= {short(low)} or " if low >= least else ""
    return Fact(name, values, (values <= low) | (values >= high), f"{below}>= {short(high)}")


def short(value: float) -> str:
    """A measurement in three digits, or in whole numbers from 100 on."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _sizes(looks: npt.NDArray[np.void]) -> Floats:
    return np.sqrt(looks["width"].astype(float) * looks["height"])


def _ratios(looks: npt.NDArray[np.void]) -> Floats:
    sides = np.stack([looks["width"], looks["height"]]).astype(float)
    return sides.max(axis=0) / sides.min(axis=0)
