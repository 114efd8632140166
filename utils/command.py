"""What both entry scripts do: parse, run, and end with the right status."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from utils.errors import UserError
from utils.options import Command, Options, parse_options

log = logging.getLogger("data_cleansing")

DONE, MISTAKE, INTERRUPTED = 0, 2, 130


def main(command: Command, arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status.

    0: done; 2: a mistake that the user can mend, said in one line; 130: interrupted by Ctrl-C.
    """
    try:
        options = parse_options(command, arguments)
    except UserError as error:
        print(f"{command.program}: error: {error}", file=sys.stderr)
        return MISTAKE
    return _run(options)


def _run(options: Options) -> int:
    from utils.console import close_console, open_console  # heavy imports only after --help

    open_console(options.quiet, options.verbose)
    try:
        from utils.pipeline import run

        run(options)
        return DONE
    except UserError as error:
        log.error("%s: error: %s", options.program, error)
        return MISTAKE
    except KeyboardInterrupt:
        log.error(
            "%s: interrupted; what is finished is kept in %s, the same command goes on from there",
            options.program, options.output_dir,
        )  # fmt: skip
        return INTERRUPTED
    finally:
        close_console()
