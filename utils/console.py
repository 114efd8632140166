"""What a run says: to the terminal and, whole, to the log file of its output folder."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from io import TextIOWrapper
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import NoReturn, TypeVar

from tqdm import tqdm

from utils.errors import bounded
from utils.link_free import open_file
from utils.signals import stop_if_asked
from utils.units import printable

T = TypeVar("T")

RESULT = logging.INFO + 5
"""Level of what `--quiet` still shows besides warnings and errors."""
logging.addLevelName(RESULT, "RESULT")

log = logging.getLogger("data_cleansing")

tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, lost in a killed worker


class _Printable(logging.Formatter):
    """One line, whatever is in the names of files and folders that it holds."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _TerminalHandler(logging.Handler):
    """Results to standard output, warnings and errors to standard error, above any bar."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        try:
            tqdm.write(self.format(record), file=stream)
            stream.flush()
        except OSError as error:
            if not hung_up(error):
                raise


def hung_up(error: OSError) -> bool:
    """Whether the error says that the terminal is gone."""
    return error.errno == errno.EIO and error.filename is None


class _LogFile(logging.FileHandler):
    """A log file that gives up silently where the disk is full: the run itself says that.

    A link is not followed, and a file that has another name is left alone.
    """

    def _open(self) -> TextIOWrapper:
        descriptor = open_file(Path(self.baseFilename), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        return open(descriptor, "a", encoding=self.encoding)

    def handleError(self, record: logging.LogRecord) -> None:
        """Lose the record."""

    def close(self) -> None:
        with suppress(OSError):
            super().close()


def _bound(record: logging.LogRecord) -> bool:
    """Leave out the middle of a line that quotes more of the data than anybody reads."""
    text = record.getMessage()
    if (short := bounded(text)) != text:
        record.msg, record.args = short, ()
    return True


def open_console(quiet: bool, verbose: bool) -> None:
    """Say what is logged on the terminal, and keep it for the log file that opens later."""
    log.addFilter(_bound)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error is
    terminal = _TerminalHandler()
    terminal.setFormatter(_Printable())
    terminal.setLevel(RESULT if quiet else logging.DEBUG if verbose else logging.INFO)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    log.handlers = [terminal, MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL)]
    for other in ("nnabla", "matplotlib"):
        logging.getLogger(other).setLevel(logging.WARNING)


def open_log_file(path: Path) -> None:
    """Append every message, past and future, to `path` with its time.

    Raises:
        UserError: `path` is a link, or something else that is no file of its own.
    """
    file = _LogFile(path, encoding="utf-8", errors="backslashreplace")
    file.setFormatter(_Printable("%(asctime)s %(levelname)s %(message)s"))
    for kept in [h for h in log.handlers if isinstance(h, MemoryHandler)]:
        kept.setTarget(file)
        kept.flush()
        log.removeHandler(kept)
    log.addHandler(file)


def is_shown() -> bool:
    """Whether bars and notices are shown: `--quiet` was not given."""
    return any(
        isinstance(handler, _TerminalHandler) and handler.level <= logging.INFO
        for handler in log.handlers
    )


def on_terminal() -> bool:
    """Whether bars go to a terminal."""
    return sys.stderr.isatty()


def overall_bar(description: str) -> tqdm[NoReturn]:
    """A bar from 0 to 100 that is set, above those that are opened while it is there."""
    shown = "{desc}: {percentage:3.0f}%|{bar}| {postfix}"
    return tqdm(desc=description, total=100, leave=False, bar_format=shown)


def progress(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """A bar over `items`; none where the output is no terminal or `--quiet` was given.

    Args:
        items: what is gone through.
        description: what the bar says.
        total: how many there are, where `items` has no length.

    Raises:
        KeyboardInterrupt: a signal asked the run to end since the last item.
    """
    disable = None if is_shown() else True
    shown = printable(description)
    for item in tqdm(items, desc=shown, total=total, leave=False, disable=disable):
        stop_if_asked()
        yield item
