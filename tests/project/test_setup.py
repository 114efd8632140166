"""The script behind `make`: which Python 3.10 it takes, and when it installs again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BASH = shutil.which("bash") or "/bin/bash"

GOOD = f'exec "{sys.executable}" "$@"'
BROKEN_SHIM = 'echo "pyenv: python3.10: command not found" >&2; exit 127'


def changed(statement: str) -> str:
    """An interpreter that runs `statement` before the program given with `-I -c`."""
    return f'exec "{sys.executable}" -I -c "{statement}; exec(__import__(\'sys\').argv[1])" "$3"'


PYTHON_311 = changed("import sys; sys.version_info = (3, 11, 7, 'final', 0)")
WITHOUT_VENV = changed("import sys; sys.modules['ensurepip'] = None")


def program(path: Path, body: str) -> Path:
    """Write an executable shell script with the given body at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


class Machine:
    """A made-up machine: a home folder, and a PATH of two folders that hold nothing yet."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.first, self.second = folder / "bin1", folder / "bin2"
        self.home.mkdir()
        self.env = {"HOME": str(self.home), "PATH": f"{self.first}:{self.second}"}

    def find(self) -> subprocess.CompletedProcess[str]:
        """Ask the script for the interpreter that it would take on this machine."""
        command = [BASH, str(ROOT / ".ci" / "setup_venv.sh"), "--find"]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)

    def found(self) -> str:
        """The path that the script prints; its closing status and stderr must be clean."""
        result = self.find()
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout.removesuffix("\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine whose python3.10 is a pyenv shim that does not run, and its python3 a 3.11."""
    made = Machine(tmp_path)
    program(made.first / "python3.10", BROKEN_SHIM)
    program(made.first / "python3", PYTHON_311)
    return made


@pytest.mark.parametrize("name", ["python3.10", "python3", "python"])
def test_takes_a_later_interpreter_on_path(machine: Machine, name: str) -> None:
    good = program(machine.second / name, GOOD)
    assert machine.found() == str(good)


def test_finds_another_version_when_asked(machine: Machine) -> None:
    """The other libraries of benchmarks/peers/ live in a Python 3.11."""
    program(machine.second / "python", GOOD)
    machine.env["PYTHON_VERSION"] = "3.11"
    assert machine.found() == str(machine.first / "python3")


@pytest.mark.parametrize(
    "place",
    [
        ".pyenv/versions/3.10.13/bin/python3.10",
        ".local/share/uv/python/cpython-3.10.18-linux/bin/python3.10",
    ],
)
def test_takes_an_interpreter_that_is_not_on_path(machine: Machine, place: str) -> None:
    good = program(machine.home / place, GOOD)
    assert machine.found() == str(good)


def test_follows_pyenv_root(machine: Machine, tmp_path: Path) -> None:
    machine.env["PYENV_ROOT"] = str(tmp_path / "pyenv")
    good = program(tmp_path / "pyenv" / "versions" / "3.10.1" / "bin" / "python3.10", GOOD)
    assert machine.found() == str(good)


def test_asks_uv_for_its_own(machine: Machine, tmp_path: Path) -> None:
    good = program(tmp_path / "elsewhere" / "python3.10", GOOD)
    program(machine.second / "uv", f'[ "$2" = find ] && echo "{good}"')
    assert machine.found() == str(good)


def test_takes_a_named_conda_environment(machine: Machine, tmp_path: Path) -> None:
    machine.env["CONDA_EXE"] = str(program(tmp_path / "conda" / "bin" / "conda", "exit 1"))
    good = program(tmp_path / "conda" / "envs" / "old" / "bin" / "python3.10", GOOD)
    assert machine.found() == str(good)


def test_takes_a_conda_environment_on_record(machine: Machine, tmp_path: Path) -> None:
    good = program(tmp_path / "anywhere" / "bin" / "python3.10", GOOD)
    record = machine.home / ".conda" / "environments.txt"
    record.parent.mkdir()
    record.write_text(f"/does/not/exist\n{tmp_path / 'anywhere'}\n", encoding="utf-8")
    assert machine.found() == str(good)


def test_skips_an_interpreter_without_venv(machine: Machine) -> None:
    program(machine.second / "python3.10", WITHOUT_VENV)
    good = program(machine.second / "python", GOOD)
    assert machine.found() == str(good)


def test_lets_uv_fetch_one(machine: Machine, tmp_path: Path) -> None:
    good = program(tmp_path / "fetched", GOOD)
    place = machine.home / ".local/share/uv/python/cpython-3.10/bin"
    place.mkdir(parents=True)
    link = f'"{shutil.which("ln")}" -s "{good}" "{place}/python3.10"'
    program(machine.second / "uv", f'[ "$*" = "python install 3.10" ] && {link}')
    assert machine.found() == str(place / "python3.10")


def test_lets_conda_fetch_one_when_uv_cannot(machine: Machine, tmp_path: Path) -> None:
    good = program(tmp_path / "fetched", GOOD)
    place = tmp_path / "conda" / "envs" / "python3.10" / "bin"
    place.mkdir(parents=True)
    link = f'"{shutil.which("ln")}" -s "{good}" "{place}/python3.10"'
    program(machine.second / "uv", "echo no network >&2; exit 1")
    conda = program(tmp_path / "conda" / "bin" / "conda", f'[ "$1" = create ] && {link}')
    machine.env["CONDA_EXE"] = str(conda)
    assert machine.found() == str(place / "python3.10")


def test_says_in_one_line_how_to_get_one(machine: Machine) -> None:
    result = machine.find()
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "uv python install 3.10" in result.stderr


def test_needs_no_home(machine: Machine) -> None:
    """Services and some containers set none. Another Python may be found in the real home."""
    del machine.env["HOME"]
    assert "unbound variable" not in machine.find().stderr


# A stand-in for Python: makes a virtual environment with itself in it, and notes what pip is asked.
STAND_IN = """
case "$*" in
  *"-m venv"*) echo venv >>"$LOG"; mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
  *"-m pip"*"-r"*)
    echo install >>"$LOG"
    echo "Collecting one==1 (from -r requirements.txt (line 1))"; echo "WARNING: old" >&2
    echo "Processing /files/two-2.whl"; sleep "${SLOW:-0}"
    echo "Installing collected packages: one, two, three"; sleep "${SLOW:-0}"
    if [ -e no_network ]; then echo "ERROR: no one==1" >&2; echo "  and why" >&2; exit 1; fi ;;
esac
"""


class Project:
    """A folder with the script and requirement files, on a machine with a stand-in for Python."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        (folder / ".ci").mkdir()
        shutil.copy(ROOT / ".ci" / "setup_venv.sh", folder / ".ci")
        for name in ("requirements.txt", "requirements-dev.txt"):
            (folder / name).write_text("one==1\n", encoding="utf-8")
        program(folder / "bin" / "python3.10", STAND_IN)

    def set_up(self, *files: str) -> tuple[int, list[str]]:
        """Run the script for `files`; its status, and what it made or installed."""
        result = self.run(*files)
        return result.returncode, self.log.read_text(encoding="utf-8").split()

    def run(self, *files: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run the script for `files`, with more variables in its environment."""
        env = {"HOME": str(self.folder), "LOG": str(self.log)} | more
        env["PATH"] = f"{self.folder / 'bin'}:/usr/bin:/bin"
        self.log.write_text("", encoding="utf-8")
        script = str(self.folder / ".ci" / "setup_venv.sh")
        command = [BASH, script, *files]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project that has been set up once, without its development requirements."""
    made = Project(tmp_path)
    assert made.set_up("requirements.txt") == (0, ["venv", "install"])
    return made


def test_a_second_run_installs_nothing(project: Project) -> None:
    assert project.set_up("requirements.txt") == (0, [])


def test_changed_requirements_are_installed_into_the_same_venv(project: Project) -> None:
    (project.folder / "requirements.txt").write_text("one==2\n", encoding="utf-8")
    assert project.set_up("requirements.txt") == (0, ["install"])
    assert project.set_up("requirements.txt") == (0, [])


def test_development_requirements_join_and_stay(project: Project) -> None:
    both = ("requirements.txt", "requirements-dev.txt")
    assert project.set_up(*both) == (0, ["install"])
    assert project.set_up("requirements.txt") == (0, [])
    assert project.set_up(*both) == (0, [])


def test_a_half_made_venv_is_made_again(project: Project) -> None:
    (project.folder / "no_network").touch()
    (project.folder / "requirements.txt").write_text("one==2\n", encoding="utf-8")
    assert project.set_up("requirements.txt") == (1, ["install"])
    (project.folder / "no_network").unlink()
    assert project.set_up("requirements.txt") == (0, ["venv", "install"])


def test_a_venv_whose_python_is_gone_is_made_again(project: Project) -> None:
    (project.folder / ".venv" / "bin" / "python").unlink()
    assert project.set_up("requirements.txt") == (0, ["venv", "install"])


def test_it_is_told_what_pip_does(project: Project) -> None:
    """Each step, and within a step a line every few seconds; warnings of pip are left out."""
    (project.folder / "requirements.txt").write_text("one==2\n", encoding="utf-8")
    script = project.folder / ".ci" / "setup_venv.sh"
    script.write_text(script.read_text().replace("told_every=5", "told_every=1"))
    result = project.run("requirements.txt", SLOW="2.5")
    told = result.stdout
    assert (result.returncode, result.stderr) == (0, "")
    assert told.index("installing requirements.txt") < told.index("package 2: two-2.whl (")
    assert told.index("package 2") < told.index("unpacking 3 packages (")
    assert told.index("unpacking 3") < told.index("loading the packages once")


def test_errors_of_pip_are_shown_whole(project: Project) -> None:
    (project.folder / "no_network").touch()
    (project.folder / "requirements.txt").write_text("one==2\n", encoding="utf-8")
    lines = project.run("requirements.txt").stderr.splitlines()
    assert lines[:2] == ["ERROR: no one==1", "  and why"]
    assert lines[2].startswith("setup: pip could not install requirements.txt; fix what it reports")
