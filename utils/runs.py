"""The commands that wrote into an output folder: when, how long, what they took."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from utils.files import check_regular
from utils.storage import save_json


@dataclass(frozen=True)
class Run:
    """A command that got to its end.

    Attributes:
        command: as given, quoted for a shell.
        folder: where it was given.
        ended: date and time, ISO 8601 with the zone.
        seconds: from its start.
        memory: bytes that its processes took at most, together.
        written: bytes by which the output folder grew, but for the page.
    """

    command: str
    folder: str
    ended: str
    seconds: float
    memory: int
    written: int


def add_run(run: Run, path: Path) -> None:
    """Add a run to the list that the folder keeps."""
    save_json([asdict(one) for one in (*load_runs(path), run)], path)


def load_runs(path: Path) -> list[Run]:
    """The runs in the order in which they ended; none where the list is gone or not one."""
    try:
        check_regular(path)
        return [Run(**run) for run in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def run_of(command: str, seconds: float, memory: int, written: int) -> Run:
    """The run that ends now, of a command that was given in the working directory."""
    ended = datetime.now().astimezone().isoformat(timespec="seconds")
    return Run(command, _working_directory(), ended, seconds, memory, written)


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was removed while the run went on
        return ""
