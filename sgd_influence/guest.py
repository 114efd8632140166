"""Computes in a user's process as the commands do, and restores what that changes there."""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import nnabla as nn
import nnabla.random
from threadpoolctl import threadpool_limits

from utils.console import open_console
from utils.errors import UserError

log = logging.getLogger("data_cleansing")
WORDS = (
    (r"\(-e\)", "(n_epochs)"),
    (r",? or delete the results with --overwrite", ", or delete it"),
    (r"Try more trials \(-nt\)", "Try another seed"),
    (r"--verify(?= \d)", "n_groups"),
    (r"--verify", "verify()"),
    (r"--device-id", "device_id"),
    (r"give (--(image_size|color) \w+ ?)+, or", "give images of that size and colour, or"),
    (r"--cover_epochs all", 'cover_epochs="all"'),
    (r", listed in .*?data_problems\.csv", ""),  # in a temporary folder
    (r"--skip_broken leaves", "skip_broken=True leaves"),
    (r"use --preset (\w+)", r'use preset="\1"'),
    (r"(?<![\w-])-ra\b", "retrain_all"),
    (r"(?<![\w-])--(?=[a-z])", ""),
)
"""What the commands print, and what it is in Python."""


@contextmanager
def guest(verbose: bool = False) -> Iterator[None]:
    """Compute as the commands do, and leave the process as it was.

    Restored afterwards: threads of BLAS, nnabla's context, auto-forward and generator of initial
    parameters, and the levels and handlers of logs.

    Args:
        verbose: print what the commands print; else only warnings, to standard error.

    Raises:
        UserError: a mistake of the user, in the words of Python.
    """
    with _lines(verbose), _nnabla_kept(), threadpool_limits(1, "blas"), nn.auto_forward(False):
        try:
            yield
        except UserError as error:
            raise UserError(in_python(str(error))) from None


def in_python(line: str) -> str:
    """A line of the commands with the names that options have in Python: lr for --lr."""
    for pattern, name in WORDS:
        line = re.sub(pattern, name, line)
    return line


@contextmanager
def _nnabla_kept() -> Iterator[None]:
    context, generator = nn.get_current_context(), nnabla.random.prng
    try:
        yield
    finally:
        nnabla.random.prng = generator
        if nn.get_current_context() is not context:
            nn.set_default_context(context)


class _InPython(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = in_python(record.getMessage()), ()
        return True


@contextmanager
def _lines(verbose: bool) -> Iterator[None]:
    logs = [log, *map(logging.getLogger, ("nnabla", "matplotlib"))]
    levels, handlers, propagate = [one.level for one in logs], log.handlers, log.propagate
    filters, errors = list(log.filters), getattr(sys.stdout, "errors", None)
    open_console(quiet=not verbose, verbose=False)
    log.addFilter(_InPython())
    try:
        yield
    finally:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors=errors)
        log.handlers, log.propagate, log.filters = handlers, propagate, filters
        for one, level in zip(logs, levels, strict=True):
            one.setLevel(level)
