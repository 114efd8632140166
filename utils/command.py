"""What both entry scripts do: parse, run, and end with the right status."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from utils.errors import UserError
from utils.options import parse_options


def main(program: str, description: str, output_dir: str, methods: Sequence[str]) -> int:
    """Run a command; returns its exit status.

    0: done; 2: a mistake that the user can mend, said in one line; 130: interrupted by Ctrl-C.
    """
    output = output_dir
    try:
        options = parse_options(program, description, output_dir, methods)
        output = str(options.output_dir)
        from utils.console import close_console, open_console  # heavy imports only after --help

        open_console(options.quiet, options.verbose)
        from utils.pipeline import run

        run(options)
    except UserError as error:
        return _end(2, f"{program}: error: {error}")
    except KeyboardInterrupt:
        return _end(
            130, f"{program}: interrupted; what is finished is kept in {output}, "
            "the same command goes on from there",
        )  # fmt: skip
    close_console()
    return 0


def _end(status: int, line: str) -> int:
    """Say the closing line on the terminal and in the log file."""
    import logging

    log = logging.getLogger("data_cleansing")
    if log.handlers:
        log.error(line)
    else:
        print(line, file=sys.stderr)
    return status
