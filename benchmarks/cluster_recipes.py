"""Runs each recipe of docs/scaling.md as far as one machine can.

    python benchmarks/cluster_recipes.py [NAME ...] [--verbose]

NAME: hand, ssh, slurm, tls; all by default. The recipes are the code blocks of the page, run by
bash with a small run in the place of CIFAR-10, two workers instead of 16, and this clone and
temporary folders in the place of /shared. For `dask ssh` an sshd of its own is started on a free
port, which takes sshd and the package paramiko (skipped with a message where there is none); a
script that starts its command twice stands in for `srun`; certificates are made with openssl.

Then the same with a scheduler that cannot import this program: the run must end in one line.
Prints each recipe's exit status and last line. Exit status 1: one did not do what it should.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "scaling.md"
HOST = "127.0.0.1"
SMALL = (
    "-ds digits -nt 1 -e 1 --n_train 100 --n_val 50 --n_test 50 -r 0 5 --methods Random "
    "--model mlp --context cpu --no_report"
)
LONGEST = 300
"""Seconds that a recipe may take."""


class Skipped(Exception):
    """What a recipe needs and this machine has not."""


@dataclass(frozen=True)
class Recipe:
    """A code block of the page, and what makes it run here.

    Attributes:
        part: a piece of text that only this block holds.
        prepare: given a folder, sets up what the recipe needs as long as its block lasts; gives
            variables of the environment, and replacements in the text by regular expression.
        change: of the page's text, to a recipe that must fail.
        status: with which the run must end.
        last: a regular expression for its last line.
    """

    part: str
    prepare: Callable[[Path], Iterator[tuple[Mapping[str, str], Mapping[str, str]]]]
    change: tuple[str, str] = ("", "")
    status: int = 0
    last: str = "^Finished in "


# ---------------------------------------------------------------- what a recipe needs


def nothing(folder: Path) -> Iterator[tuple[Mapping[str, str], Mapping[str, str]]]:
    """All that the recipe needs is there."""
    yield {}, {}


def stand_in_for_slurm(
    folder: Path,
) -> Iterator[tuple[Mapping[str, str], Mapping[str, str]]]:
    """An `srun` that starts its command twice."""
    srun = folder / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text('#!/bin/sh\n"$@" &\n"$@" &\nwait\n', encoding="utf-8")
    srun.chmod(0o755)
    path = f"{srun.parent}{os.pathsep}{os.environ['PATH']}"
    yield {"PATH": path, "SLURM_JOB_ID": "7"}, {}


def certificates(folder: Path) -> Iterator[tuple[Mapping[str, str], Mapping[str, str]]]:
    """A certificate that signs itself, in a home folder of its own."""
    if not shutil.which("openssl"):
        raise Skipped("openssl")
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN={HOST}"
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    shutil.copy(folder / "cert.pem", folder / "ca.pem")
    yield {"HOME": str(folder)}, {}


def ssh_server(folder: Path) -> Iterator[tuple[Mapping[str, str], Mapping[str, str]]]:
    """An sshd on a free port that lets in the owner of a new key."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if not sshd or not find_spec("paramiko"):
        raise Skipped("the package paramiko" if sshd else "sshd")
    port, key = free_port(), folder / "key"
    config = settings_of_ssh(folder, port, key)
    (folder / "hosts.txt").write_text(f"{HOST}\n", encoding="utf-8")
    with (folder / "sshd.txt").open("w", encoding="utf-8") as printed:
        server = subprocess.Popen([sshd, "-D", "-e", "-f", str(config)], stderr=printed)
    time.sleep(1)
    if server.poll() is not None:
        raise Skipped(f"an sshd that starts ({(folder / 'sshd.txt').read_text().strip()})")
    ours = f"--ssh-port {port} --ssh-private-key {key} --hostfile {folder}/hosts.txt"
    try:
        yield {}, {r"--hostfile hosts\.txt": ours}
    finally:
        server.terminate()
        server.wait()


def settings_of_ssh(folder: Path, port: int, key: Path) -> Path:
    """Make the key, and the configuration of an sshd that lets it in; returns the latter."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f"]
    subprocess.run([*command, str(key)], check=True)
    shutil.copy(folder / "key.pub", folder / "authorized_keys")
    settings = {
        "Port": port, "ListenAddress": HOST, "HostKey": key, "StrictModes": "no", "UsePAM": "no",
        "AuthorizedKeysFile": folder / "authorized_keys", "PidFile": folder / "sshd.pid",
        "PermitRootLogin": "yes",
    }  # fmt: skip
    lines = "".join(f"{name} {value}\n" for name, value in settings.items())
    config = folder / "sshd_config"
    config.write_text(lines, encoding="utf-8")
    return config


RECIPES = {
    "hand": Recipe("--dask_scheduler scheduler.json", nothing),
    "ssh": Recipe("dask ssh", ssh_server),
    "slurm": Recipe("srun", stand_in_for_slurm),
    "tls": Recipe("--protocol tls", certificates),
    "hand, with the script `dask` as scheduler": Recipe(
        "--dask_scheduler scheduler.json",
        nothing,
        change=("python -m dask scheduler", "dask scheduler"),
        status=2,
        last="error: .*the scheduler has no utils; start it in ",
    ),
}


# ---------------------------------------------------------------- running it


def code_block(part: str) -> str:
    """The indented block of the page that holds `part`."""
    blocks = re.findall(r"(?:^ {4}.*\n)+", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return next(block for block in blocks if part in block)


def adapted(block: str, folder: Path, port: int) -> str:
    """The recipe for this machine: its folders, two workers, a small run, a free port."""
    replaced = {
        r"/shared/nnabla-data-cleansing && \. \.venv/bin/activate": str(ROOT),
        r"/shared/results": f"{folder}/results",
        r"\$PWD/\.venv/bin/python": sys.executable,
        r"-ds cifar10": SMALL,
        r"--nworkers 16": "--nworkers 2",
        r"FIRST_HOST:8786": f"{HOST}:{port}",
        r"--port 8786": f"--host {HOST} --port {port}",
        r"(scheduler)(-\$SLURM_JOB_ID)?\.json": rf"{folder}/\1\2.json",
        r"(dask scheduler --scheduler-file)": rf"dask scheduler --host {HOST} --port {port} \
            --no-dashboard --scheduler-file",
        r"dask ssh ": f"dask ssh --scheduler-port {port} ",
    }
    for old, new in replaced.items():
        block = re.sub(old, new, block)
    return block


def run(recipe: Recipe, folder: Path) -> tuple[int, list[str]]:
    """Run a recipe; the exit status of its last command, and all lines that it printed there.

    Raises:
        Skipped: this machine has not what it needs.
    """
    with ExitStack() as stack:
        variables, replaced = stack.enter_context(contextmanager(recipe.prepare)(folder))
        block = adapted(code_block(recipe.part).replace(*recipe.change), folder, free_port())
        for old, new in replaced.items():
            block = re.sub(old, new, block)
        lines = block.strip().splitlines()
        lines[-1] += f" >{folder}/run.txt 2>&1"
        path = (
            f"{Path(sys.executable).parent}{os.pathsep}{variables.get('PATH', os.environ['PATH'])}"
        )
        status = finished("\n".join(lines), os.environ | variables | {"PATH": path}, folder)
    printed = (folder / "run.txt").read_text(encoding="utf-8").splitlines()
    return status, printed


def finished(script: str, environment: Mapping[str, str], folder: Path) -> int:
    """The exit status of a script for bash; what it left running is ended."""
    with (folder / "others.txt").open("w", encoding="utf-8") as others:
        process = subprocess.Popen(
            ["bash", "-c", script],
            env=environment,
            stdout=others,
            stderr=others,
            start_new_session=True,
        )
        try:
            return process.wait(LONGEST)
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                    time.sleep(2)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listening:
        listening.bind((HOST, 0))
        return int(listening.getsockname()[1])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the recipes; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="those that begin with a name")
    parser.add_argument("--verbose", action="store_true", help="print what each printed")
    options = parser.parse_args(arguments)
    names = tuple(options.names)
    chosen = {n: r for n, r in RECIPES.items() if not names or n.startswith(names)}
    right = [reported(name, recipe, options.verbose) for name, recipe in chosen.items()]
    return int(not all(right))


def reported(name: str, recipe: Recipe, verbose: bool) -> bool:
    """Run a recipe, print how it ended; whether it did what it should, or was skipped."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        try:
            status, lines = run(recipe, folder)
        except Skipped as needed:
            print(f"{name}: skipped, it needs {needed}", flush=True)
            return True
        if verbose:
            others = (folder / "others.txt").read_text(encoding="utf-8")
            print(others, *lines, sep="\n")
    last = lines[-1] if lines else ""
    right = status == recipe.status and re.search(recipe.last, last) is not None
    print(f"{name}: exit {status}{'' if right else ' (NOT as it should)'}\n    {last}", flush=True)
    return right and not any("Traceback" in line for line in lines)


if __name__ == "__main__":
    sys.exit(main())
