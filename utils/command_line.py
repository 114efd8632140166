"""A parser of command lines whose errors are one line with a suggestion."""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn

from utils.errors import did_you_mean
from utils.units import printable

NUMBERS: dict[object, str] = {int: "a whole number", float: "a number"}
"""What the types of options are called."""
THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+")


class Parser(argparse.ArgumentParser):
    """As argparse's, but an error is one line, and a mistyped name gets a suggestion."""

    def error(self, message: str) -> NoReturn:
        """End with exit status 2 and one line."""
        line = f"{self.prog}: error: {message}{self._meant(message)} (see {self.prog} --help)"
        self.exit(2, f"{printable(line)}\n")

    def _meant(self, message: str) -> str:
        """What an unknown argument was to be, as far as that can be told."""
        start, _, arguments = message.partition("unrecognized arguments: ")
        if start:
            return ""
        options = [name for name in arguments.split() if name.startswith("--")]
        if options:
            return did_you_mean(options[0].partition("=")[0], self._option_string_actions)
        example = (
            "; a data set is given as -ds cifar10" if "-ds" in self._option_string_actions else ""
        )
        return "" if arguments.startswith("-") else f"; it belongs to no option{example}"

    def _get_value(self, action: argparse.Action, text: str) -> Any:
        try:
            return super()._get_value(action, text)
        except argparse.ArgumentError:
            if action.type not in NUMBERS:
                raise
            what = f"{text!r}: must be {NUMBERS[action.type]}{_without_comma(action, text)}"
            raise argparse.ArgumentError(action, what) from None

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            text = str(value)
            meant = _without_comma(action, text) or did_you_mean(text, map(str, action.choices))
            known = ", ".join(map(repr, action.choices))
            what = f"invalid choice: {value!r} (choose from {known}){meant}"
            raise argparse.ArgumentError(action, what)


def _without_comma(action: argparse.Action, text: str) -> str:
    """How to write a value with a comma in it, as far as that can be told."""
    if "," not in text:
        return ""
    if action.type is int and THOUSANDS.fullmatch(text):
        return f"; write {text.replace(',', '')}"
    if action.nargs in ("+", "*"):
        return f"; separate values by spaces: {' '.join(text.replace(',', ' ').split())}"
    return f"; write {text.replace(',', '.')}" if action.type is float else ""
