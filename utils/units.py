"""Bytes, times, numbers and names as people write and read them.

Bytes are in powers of ten (KB, MB, GB, TB) or of two (KiB, ...).
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence

_POWERS = {unit: 1000**n for n, unit in enumerate(("B", "KB", "MB", "GB", "TB"))}
_POWERS |= {unit: 1024**n for n, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), start=1)}
_BY_NAME = {unit.lower(): factor for unit, factor in _POWERS.items()}


def bytes_of(text: str) -> int:
    """The bytes that `text` means, such as 500MB or 1.5 GiB.

    Raises:
        argparse.ArgumentTypeError: there is no unit, or no number above 0.
    """
    number, unit = re.fullmatch(r"\s*(.*?)\s*([a-z]*)\s*", text, re.IGNORECASE | re.DOTALL).groups()  # type: ignore[union-attr]
    try:
        size = float(number) * _BY_NAME[unit.lower()]
    except (ValueError, KeyError):
        size = math.nan
    if not 1 <= size < math.inf:
        raise argparse.ArgumentTypeError(
            f"{text!r}: must be a number above 0 with its unit, such as 500MB or 1.5GiB"
        )
    return int(size)


def shown_bytes(size: float) -> str:
    """Bytes with a unit of powers of ten, three figures: 640 B, 1.24 MB, 21.7 GB."""
    unit = next((u for u in ("B", "KB", "MB", "GB") if size < 999.5 * _POWERS[u]), "TB")
    value = size / _POWERS[unit]
    return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.3g} {unit}"


def duration(seconds: float) -> str:
    """Seconds in words: 42 s, 3 min, 2 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural where it has to be."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def abridged(names: Sequence[str], most: int = 5) -> str:
    """The names in a line, the first `most` of them and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def shown_ends(interval: Sequence[float], sign: str = "+") -> tuple[str, str] | None:
    """The two ends of an interval with two decimals; None if it then has no width, or is nan.

    Args:
        interval: the ends.
        sign: "+" to print it for positive numbers too, or "".
    """
    low, high = (f"{round(end, 2) + 0.0:{sign}.2f}" for end in interval)
    return (low, high) if low != high else None


def printable(text: str) -> str:
    r"""A text as one line that no terminal takes for a command: what cannot be printed is escaped.

    A newline becomes \n, ESC becomes \x1b, and a byte of a name that is no UTF-8 its number.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
