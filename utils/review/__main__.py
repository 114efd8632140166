"""python -m utils.review OUTPUT_DIR decisions.csv: apply and measure decisions on labels."""

from __future__ import annotations

from utils.linux_only import require_linux

PROGRAM = "python -m utils.review"
if __name__ == "__main__":
    require_linux(PROGRAM)

from utils.signals import SIGNALLED, as_program, heed, how_ended, interruptible, received
from utils.utf8 import require_utf8

if __name__ == "__main__":  # before the imports below, which take a second
    require_utf8()
    heed(PROGRAM)

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.command_line import Parser
from utils.console import open_console
from utils.errors import UserError, reason_of
from utils.options import MOST_TRIALS
from utils.units import printable

log = logging.getLogger("data_cleansing")
EXPORTS = ("csv", "folder", "filelist")
N_TRIALS = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Check decisions, write the reviewed data set and measure it; returns the exit status.

    0: done; 2: a mistake, reported in one line; 128 + n: ended by signal n.
    """
    chosen = parser().parse_args(arguments)
    open_console(quiet=False, verbose=False)
    try:
        with interruptible():
            return _reviewed(chosen)
    finally:
        log.handlers.clear()


def parser() -> Parser:
    """The options of the command line."""
    found = Parser(
        prog=PROGRAM,
        description="Apply decisions on labels to the data set of a run, and measure their effect: "
        "train from scratch on the original and on the reviewed list, with the options of the run "
        "and the same seeds, and test on the same images.",
    )
    found.add_argument(
        "output_dir", type=Path, help="the folder that a run wrote into (its --output_dir)"
    )
    found.add_argument("decisions", type=Path, help="decisions.csv, downloaded from the page")
    found.add_argument(
        "--export", choices=EXPORTS, default=EXPORTS[0],
        help="how the reviewed data set is written: csv, NNC CSV files; folder, a folder per class "
        "with links to the images, or copies where links cannot be made; filelist, one path per "
        "line, without labels (default: csv)",
    )  # fmt: skip
    found.add_argument(
        "-nt", "--n_trials", type=_count, default=N_TRIALS, metavar="N",
        help="trainings on each list, with seeds 0 to N - 1; 0 measures nothing, 1 gives no "
        f"interval (default: {N_TRIALS})",
    )  # fmt: skip
    return found


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) > MOST_TRIALS:
        what = f"must be a whole number from 0 to {MOST_TRIALS:,}"
        raise argparse.ArgumentTypeError(f"{text!r}: {what}")
    return int(text)


def _reviewed(chosen: argparse.Namespace) -> int:
    from utils.review.command import review  # after the console is open, so that nnabla is quiet
    from utils.training.device import machine_failure

    try:
        review(chosen.output_dir, chosen.decisions, chosen.export, chosen.n_trials)
    except (UserError, OSError) as error:
        return _failed(reason_of(error, chosen.output_dir))
    except MemoryError as error:
        return _failed(f"not enough memory ({str(error) or 'no size given'}); close other programs")
    except RuntimeError as error:
        if not (reason := machine_failure(error)):
            raise
        return _failed(reason)
    except KeyboardInterrupt:
        number = received() or signal.SIGINT
        kept = "finished trainings are kept; give the same command again to resume"
        print(f"{PROGRAM}: {how_ended(number)}; {kept}", file=sys.stderr)
        return SIGNALLED + number
    return 0


def _failed(reason: str) -> int:
    print(printable(f"{PROGRAM}: error: {reason}"), file=sys.stderr)
    return 2


if __name__ == "__main__":
    as_program(main)
