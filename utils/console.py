"""What a run says: to the terminal and, whole, to the log file of its output folder."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

RESULT = logging.INFO + 5
"""Level of what `--quiet` still shows beside warnings and errors."""
logging.addLevelName(RESULT, "RESULT")

log = logging.getLogger("data_cleansing")


class _TerminalHandler(logging.Handler):
    """Results to standard output, warnings and errors to standard error, above any bar."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        tqdm.write(self.format(record), file=stream)
        stream.flush()


def open_console(quiet: bool, verbose: bool) -> None:
    """Say what is logged on the terminal, and keep it for the log file that opens later."""
    terminal = _TerminalHandler()
    terminal.setLevel(RESULT if quiet else logging.DEBUG if verbose else logging.INFO)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    log.handlers = [terminal, MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL)]
    logging.getLogger("nnabla").setLevel(logging.WARNING)


def open_log_file(path: Path) -> None:
    """Append everything that was and will be said to `path`, with its time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for kept in [h for h in log.handlers if isinstance(h, MemoryHandler)]:
        kept.setTarget(file)
        kept.flush()
        log.removeHandler(kept)
    log.addHandler(file)


_interrupted = False


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end the block at the next item of a bar; a second one ends it at once.

    Python raises KeyboardInterrupt in whatever code is running, and swallows it where that is
    the callback of a weak reference, of which nnabla's graphs have many.
    """

    def remember(signum: int, frame: object) -> None:
        global _interrupted
        if _interrupted:
            raise KeyboardInterrupt
        _interrupted = True

    global _interrupted
    _interrupted = False
    before = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def progress(items: Iterable[T], description: str) -> Iterator[T]:
    """A bar over `items`; none where the output is no terminal or `--quiet` was given.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed since the last item.
    """
    quiet = not any(
        isinstance(handler, _TerminalHandler) and handler.level <= logging.INFO
        for handler in log.handlers
    )
    for item in tqdm(items, desc=description, leave=False, disable=True if quiet else None):
        if _interrupted:
            raise KeyboardInterrupt
        yield item
