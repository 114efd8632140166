"""What both entry scripts do: parse, run, and end with the right status."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from utils.errors import UserError, reason_of
from utils.options import Command, Options, parse_options
from utils.signals import SIGNALLED, as_program, heed, how_ended, interruptible, received
from utils.units import printable
from utils.utf8 import require_utf8

log = logging.getLogger("data_cleansing")

DONE, MISTAKE, BROKEN_PIPE = 0, 2, 141

_NOT_WRITABLE = "make it writable, or choose another --output_dir"
REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EACCES: _NOT_WRITABLE,
    errno.EPERM: _NOT_WRITABLE,
    errno.EROFS: _NOT_WRITABLE,
}
"""Remedies for some errors of the operating system."""


def program(command: Command) -> NoReturn:
    """Be the program of a command: run it with the arguments of this process, and exit."""
    require_utf8()  # which starts this program again: signals are still kept back
    heed(command.program)
    as_program(lambda: main(command))


def main(command: Command, arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status.

    0: done; 2: a mistake of the user, reported in one line; 128 + n: ended by signal n
    (130: Ctrl-C); 141: nobody reads the output any more.
    """
    try:
        options = parse_options(command, arguments)
    except UserError as error:
        print(printable(f"{command.program}: error: {error}"), file=sys.stderr)
        return MISTAKE
    try:
        _load(options)
        with interruptible():
            return _run(options)
    except ModuleNotFoundError as error:
        missing = f"{sys.executable} has no {error.name}"
        remedy = "run it by .venv/bin/python (make venv), or pip install -r requirements.txt"
        print(f"{command.program}: error: {missing}; {remedy}", file=sys.stderr)
        return MISTAKE


def _load(options: Options) -> None:
    """Import what is heavy, only after --help; the console opens first, so that nnabla is quiet."""
    from utils.console import open_console

    open_console(options.quiet, options.verbose)
    import utils.run.pipeline  # noqa: F401


def _run(options: Options) -> int:
    try:
        return _status(options)
    except KeyboardInterrupt:
        number = received() or signal.SIGINT
        return _end_by(number, options.program, _goes_on(options.output_dir))
    except Exception:
        if not (heard := received()):
            raise
        # a KeyboardInterrupt that went through a library's callback is an error of the library
        return _end_by(heard, options.program, _goes_on(options.output_dir))
    finally:
        for handler in log.handlers[:]:
            log.removeHandler(handler)
            handler.close()
        _discard_unwritable()


def _status(options: Options) -> int:
    """Run; a mistake or an error of the system ends it in one line."""
    from utils.console import hung_up
    from utils.run.pipeline import run

    name, output = options.program, options.output_dir
    try:
        run(options)
        return DONE
    except UserError as error:
        return _end(MISTAKE, f"{name}: error: {error}")
    except BrokenPipeError:
        return BROKEN_PIPE
    except OSError as error:
        if hung_up(error):
            return _end_by(signal.SIGHUP, name, _goes_on(output))
        remedy = f"; {REMEDIES[error.errno]}" if error.errno in REMEDIES else ""
        reason = reason_of(error, output) + remedy
        return _end(MISTAKE, f"{name}: error: {reason}; {_goes_on(output)}")
    except MemoryError as error:
        remedy = "choose a smaller --n_train, --image_size or --batch_size"
        reason = f"not enough memory ({str(error) or 'no size given'}); {remedy}"
        return _end(MISTAKE, f"{name}: error: {reason}; {_goes_on(output)}")
    except RuntimeError as error:
        from utils.training.device import machine_failure

        if not (reason := machine_failure(error)):
            raise
        return _end(MISTAKE, f"{name}: error: {reason}; {_goes_on(output)}")


def _discard_unwritable() -> None:
    """Drop buffered output that cannot be written: Python would exit with status 120 for it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _goes_on(output: Path) -> str:
    from utils.output.paths import OutputPaths

    if not os.path.exists(OutputPaths(output).manifest):  # nor where it may not be looked for
        return "nothing is finished yet"
    return f"finished work is kept in {output}; give the same command again to resume"


def _end_by(number: signal.Signals, name: str, goes_on: str) -> int:
    return _end(SIGNALLED + number, f"{name}: {how_ended(number)}; {goes_on}")


def _end(status: int, line: str) -> int:
    """Print the closing line on the terminal and in the log file."""
    if log.handlers:
        log.error(line)
    else:
        print(printable(line), file=sys.stderr)
    return status
