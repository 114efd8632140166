"""What a run says: to the terminal and, whole, to the log file of its output folder."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

RESULT = logging.INFO + 5
"""Level of what `--quiet` still shows beside warnings and errors."""

log = logging.getLogger("data_cleansing")


class _TerminalHandler(logging.Handler):
    """Results to standard output, warnings and errors to standard error, above any bar."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        tqdm.write(self.format(record), file=stream)
        stream.flush()


def open_console(quiet: bool, verbose: bool) -> None:
    """Say what is logged on the terminal, at the level that the options ask for."""
    close_console()
    handler = _TerminalHandler()
    handler.setLevel(RESULT if quiet else logging.DEBUG if verbose else logging.INFO)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    log.addHandler(handler)
    logging.getLogger("nnabla").setLevel(logging.WARNING)


def open_log_file(path: Path) -> None:
    """Append everything that is said from now on to `path`, with its time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)


def close_console() -> None:
    """Close terminal and log file."""
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()


def progress(items: Iterable[T], description: str) -> Iterable[T]:
    """A bar over `items`; none where the output is no terminal or `--quiet` was given."""
    quiet = not any(
        isinstance(handler, _TerminalHandler) and handler.level <= logging.INFO
        for handler in log.handlers
    )
    return tqdm(items, desc=description, leave=False, disable=True if quiet else None)
