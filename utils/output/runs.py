"""The commands that wrote into an output folder: when, how long, what they took."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.link_free import read_file
from utils.output.folder import OutputFolder


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


_NAMES = {field.name for field in fields(Run)}
_MOST = 2**63


def add_run(run: Run, folder: OutputFolder) -> None:
    """Add a run to the list that the folder keeps."""
    folder.save_json([asdict(one) for one in (*load_runs(folder.runs), run)], folder.runs)


def load_runs(path: Path) -> list[Run]:
    """The runs in the order in which they ended; none where the list is gone or not one."""
    try:
        return runs_in(read_file(path))
    except (OSError, ValueError, UserError):
        return []


def runs_in(content: bytes) -> list[Run]:
    """The runs that the content of a list names; raises ValueError if it is no such list."""
    try:
        found = json.loads(content.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(found, list) or not all(map(_is_run, found)):
        raise ValueError("no list of runs")
    return [Run(**run) for run in found]


def _is_run(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != _NAMES:
        return False
    texts = (value["command"], value["folder"], value["ended"])
    numbers = (value["seconds"], value["memory"], value["written"])
    return all(isinstance(text, str) for text in texts) and all(
        type(number) in (int, float) and abs(number) < _MOST for number in numbers
    )


def run_of(command: str, seconds: float, memory: int, written: int) -> Run:
    """The run that ends now, of a command that was given in the working directory."""
    ended = datetime.now().astimezone().isoformat(timespec="seconds")
    return Run(command, _working_directory(), ended, seconds, memory, written)


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was removed while the run went on
        return ""
