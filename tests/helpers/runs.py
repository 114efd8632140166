"""Small runs of the two commands that several tests look at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import eval_influence_functions
import eval_sgd_influence
from utils.data.source import CACHE_VARIABLE
from utils.output.folder import OutputFolder
from utils.output.manifest import FileDigest, Manifest
from utils.output.paths import OutputPaths
from utils.run.command import main
from utils.training.models import find_model
from utils.training.network import Network, State, load_state

ROOT = Path(__file__).parents[2]
SMALL = "-ds digits -e 2 -nt 1 -r 0 5 --n_train 60 --n_val 30 --n_test 30 --batch_size 16"
"""Four steps an epoch, the last one short."""


def sgd_influence(output: Path, more: str = "", small: str = SMALL) -> int:
    """Run eval_sgd_influence.py; returns the exit status."""
    return main(eval_sgd_influence.COMMAND, _arguments(output, small, more))


def influence_functions(output: Path, more: str = "", small: str = SMALL) -> int:
    """Run eval_influence_functions.py; returns the exit status."""
    return main(eval_influence_functions.COMMAND, _arguments(output, small, more))


def _arguments(output: Path, small: str, more: str) -> list[str]:
    given = more.split()
    jobs = [] if {"-j", "--jobs", "--dask_scheduler"} & set(given) else ["-j", "1"]
    return ["-o", str(output), *jobs, *small.split(), *given]


def contents(output: Path, pattern: str = "**/*.csv") -> dict[str, bytes]:
    """The files of a run by their path under the output folder."""
    return {str(p.relative_to(output)): p.read_bytes() for p in sorted(output.glob(pattern))}


def heed_signals() -> None:
    """In a child: end by signals that the tests, run in the background, ignore."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def record(output: Path, path: Path) -> None:
    """Let the manifest of a run take a changed file for the one that the run wrote."""
    manifest = Manifest.read(OutputPaths(output))
    manifest.outputs[path.relative_to(output).as_posix()] = FileDigest.of(path)
    save_manifest(manifest)


def save_manifest(manifest: Manifest) -> None:
    """Write a manifest that a test has changed, with the checksum that fits."""
    OutputFolder(manifest.root).save_json(manifest.as_json(), manifest.paths.manifest)


def read_state(path: Path) -> State:
    """A state of the model mlp on digits."""
    network = Network(find_model("mlp"), (1, 8, 8), 10)
    return load_state(path, {name: array.shape for name, array in network.state().items()})


def command(output: Path, *more: str) -> list[str]:
    """The command line of a run of the model mlp."""
    quick = "--model mlp --context cpu -j 1"
    arguments = [*SMALL.split(), *quick.split(), "-o", str(output), *more]
    return [sys.executable, str(ROOT / "eval_sgd_influence.py"), *arguments]


def start(output: Path, data_cache: Path, *more: str, **options) -> subprocess.Popen[str]:
    """Start a run in a process of its own."""
    environment = os.environ | {CACHE_VARIABLE: str(data_cache)}
    options.setdefault("preexec_fn", heed_signals)
    return subprocess.Popen(
        command(output, *more), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, cwd=ROOT, **options,
    )  # fmt: skip


def wait_for(process: subprocess.Popen[str], there: Callable[[], object]) -> None:
    """Wait until something is there, as long as the process lives."""
    while process.poll() is None and not there():
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()


def last_line(printed: str) -> str:
    """The last line printed, without a traceback before it."""
    assert "Traceback" not in printed, printed
    assert "Exception ignored" not in printed, printed
    line = printed.strip().splitlines()[-1]
    print(line)
    return line


def children(parent: int) -> list[int]:
    """Process ids of the workers of a process."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
            names = (status.parent / "cmdline").read_text()
            if int(fields["PPid"]) == parent and "--multiprocessing-fork" in names:
                found.append(int(status.parent.name))
    return found
