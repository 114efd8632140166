"""What both entry scripts do: parse, run, and end with the right status."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.errors import UserError
from utils.options import Command, Options, parse_options
from utils.utf8 import insist_on_utf8

log = logging.getLogger("data_cleansing")

DONE, MISTAKE, SIGNALLED, BROKEN_PIPE = 0, 2, 128, 141

_NOT_WRITABLE = "make it writable, or choose another --output_dir"
REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EACCES: _NOT_WRITABLE,
    errno.EPERM: _NOT_WRITABLE,
    errno.EROFS: _NOT_WRITABLE,
}
"""What helps against an error of the operating system, where that is known."""


def main(command: Command, arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status.

    0: done; 2: a mistake that the user can mend, said in one line; 128 + n: ended by signal n
    (130: Ctrl-C); 141: nobody reads the output any more.
    """
    if arguments is None:
        insist_on_utf8()
    try:
        options = parse_options(command, arguments)
    except UserError as error:
        print(f"{command.program}: error: {error}", file=sys.stderr)
        return MISTAKE
    try:
        return _run(options)
    except ModuleNotFoundError as error:
        missing = f"{sys.executable} has no {error.name}"
        remedy = "run it by .venv/bin/python (make venv), or pip install -r requirements.txt"
        print(f"{command.program}: error: {missing}; {remedy}", file=sys.stderr)
        return MISTAKE


def _run(options: Options) -> int:
    name, output = options.program, options.output_dir
    try:
        # heavy imports only after --help
        from utils.console import hung_up, interruptible, open_console, received

        open_console(options.quiet, options.verbose)
        with interruptible():
            from utils.pipeline import run

            run(options)
        return DONE
    except UserError as error:
        return _end(MISTAKE, f"{name}: error: {error}")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        if hung_up(error):
            return _end_by(signal.SIGHUP, name, _goes_on(output))
        remedy = f"; {REMEDIES[error.errno]}" if error.errno in REMEDIES else ""
        reason = f"{error.filename or output}: {error.strerror or error}{remedy}"
        return _end(MISTAKE, f"{name}: error: {reason}; {_goes_on(output)}")
    except MemoryError as error:
        remedy = "choose a smaller --n_train, --image_size or --batch_size"
        reason = f"not enough memory ({error or 'no size given'}); {remedy}"
        return _end(MISTAKE, f"{name}: error: {reason}; {_goes_on(output)}")
    except KeyboardInterrupt:
        return _end_by(received() or signal.SIGINT, name, _goes_on(output))
    finally:
        for handler in log.handlers[:]:
            log.removeHandler(handler)
            handler.close()


def _goes_on(output: Path) -> str:
    from utils.paths import OutputPaths

    if not OutputPaths(output).manifest.exists():
        return "nothing is finished yet"
    return f"what is finished is kept in {output}, the same command goes on from there"


def _end_by(number: signal.Signals, name: str, goes_on: str) -> int:
    how = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    return _end(SIGNALLED + number, f"{name}: {how}; {goes_on}")


def _end(status: int, line: str) -> int:
    """Say the closing line on the terminal and in the log file."""
    if log.handlers:
        log.error(line)
    else:
        print(line, file=sys.stderr)
    return status
