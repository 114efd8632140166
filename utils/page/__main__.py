"""python -m utils.page OUTPUT_DIR writes report/index.html, the page of a finished run."""

from __future__ import annotations

from utils.linux_only import require_linux

PROGRAM = "python -m utils.page"
if __name__ == "__main__":
    require_linux(PROGRAM)

from utils.signals import SIGNALLED, as_program, heed, how_ended, interruptible, received
from utils.utf8 import require_utf8

if __name__ == "__main__":  # before the imports below, which take a second
    require_utf8()
    heed(PROGRAM)

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.command_line import Parser
from utils.errors import UserError, reason_of
from utils.output.folder import OutputFolder
from utils.page.page import write_page
from utils.units import printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page of a folder; returns the exit status, 2 for a mistake."""
    parser = Parser(
        prog=PROGRAM,
        description="Write report/index.html, the page to look at, of a finished output folder.",
    )
    parser.add_argument(
        "output_dir", type=Path, help="the folder that a run wrote into (its --output_dir)"
    )
    chosen = parser.parse_args(arguments)
    with interruptible():
        return _written(chosen.output_dir)


def _written(folder: Path) -> int:
    try:
        print(printable(str(write_page(OutputFolder(folder)).resolve())))
    except (UserError, OSError) as error:
        print(printable(f"{PROGRAM}: error: {reason_of(error, folder)}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        number = received() or signal.SIGINT
        print(f"{PROGRAM}: {how_ended(number)}; no page was written", file=sys.stderr)
        return SIGNALLED + number
    return 0


if __name__ == "__main__":
    as_program(main)
