"""A parser of command lines whose errors are one line with a suggestion."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from utils.errors import did_you_mean
from utils.units import printable


class Parser(argparse.ArgumentParser):
    """As argparse's, but an error is one line, and a mistyped name gets a suggestion."""

    def error(self, message: str) -> NoReturn:
        """End with exit status 2 and one line."""
        line = f"{self.prog}: error: {message}{self._meant(message)} (see {self.prog} --help)"
        self.exit(2, f"{printable(line)}\n")

    def _meant(self, message: str) -> str:
        """What an unknown option was to be, as far as that can be told."""
        start, _, arguments = message.partition("unrecognized arguments: ")
        options = [] if start else [name for name in arguments.split() if name.startswith("--")]
        if not options:
            return ""
        return did_you_mean(options[0].partition("=")[0], self._option_string_actions)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            meant = did_you_mean(str(value), map(str, action.choices))
            known = ", ".join(map(repr, action.choices))
            what = f"invalid choice: {value!r} (choose from {known}){meant}"
            raise argparse.ArgumentError(action, what)
