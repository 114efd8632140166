"""What both entry scripts do: parse, run, and end with the right status."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from utils.errors import UserError
from utils.options import Command, Options, parse_options

log = logging.getLogger("data_cleansing")

DONE, MISTAKE, INTERRUPTED, BROKEN_PIPE = 0, 2, 130, 141


def main(command: Command, arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status.

    0: done; 2: a mistake that the user can mend, said in one line; 130: interrupted by Ctrl-C;
    141: nobody reads the output any more.
    """
    try:
        options = parse_options(command, arguments)
    except UserError as error:
        print(f"{command.program}: error: {error}", file=sys.stderr)
        return MISTAKE
    return _run(options)


def _run(options: Options) -> int:
    name, output = options.program, options.output_dir
    goes_on = f"what is finished is kept in {output}, the same command goes on from there"
    try:
        from utils.console import interruptible, open_console  # heavy imports only after --help

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
        reason = f"{error.strerror or error}: {error.filename or output}"
        return _end(MISTAKE, f"{name}: error: {reason}; {goes_on}")
    except KeyboardInterrupt:
        return _end(INTERRUPTED, f"{name}: interrupted; {goes_on}")
    finally:
        for handler in log.handlers[:]:
            log.removeHandler(handler)
            handler.close()


def _end(status: int, line: str) -> int:
    """Say the closing line on the terminal and in the log file."""
    if log.handlers:
        log.error(line)
    else:
        print(line, file=sys.stderr)
    return status
