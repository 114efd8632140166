"""The table of `--preset`: options that are set together for a purpose. A new preset is one row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from utils.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Preset:
    """Values of options for a purpose; each counts only where its option is not given.

    Attributes:
        options: the value of each option, by its name in `utils.options.Options`; of the group
            "training" alone, which is what `sgd_influence.Cleanser` knows presets of.
        purpose: what they are for, a sentence.
    """

    options: Mapping[str, Any]
    purpose: str

    @property
    def flags(self) -> str:
        """The options as on a command line."""
        return " ".join(f"--{name} {value}" for name, value in self.options.items())


PRESETS: dict[str, Preset] = {
    "smooth": Preset(
        {"model": "smooth_convolutions", "lr": 0.005},
        "a net without kinks, trained in small steps, so that scores over all epochs predict "
        "training from scratch",
    ),
}


def preset_of(name: str) -> Preset:
    """The preset of a name.

    Raises:
        UserError: there is none.
    """
    if name not in PRESETS:
        known, meant = ", ".join(PRESETS), did_you_mean(name, PRESETS)
        raise UserError(f"--preset {name}: not known; known are {known}{meant}")
    return PRESETS[name]


def presets_text() -> str:
    """What each preset sets and is for, for `--help`."""
    return "; ".join(f"{name}: {p.flags}, {p.purpose}" for name, p in PRESETS.items())
