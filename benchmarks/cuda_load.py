"""Does nnabla's CUDA extension load from requirements-cuda.txt alone? No GPU is needed.

    python benchmarks/cuda_load.py [--venv DIR] [--keep]

Makes an environment of its own from requirements.txt and requirements-cuda.txt as `make venv-cuda`
does (--venv, a temporary folder by default; 1.8 GB to download, 3.8 GB on disk), builds a stand-in
for the driver's libcuda.so.1 with `cc` (skipped with a message where there is none), and

1. loads the extension there as the program does, and prints each library that it needs and the
   file that the system's loader has taken for it,
2. runs the stock command without a driver, and with the stand-in, which has no GPU: each must
   report in one line that there is none, and compute on the CPU.

The last line is JSON. Exit status 1: a library was not found, or a command failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the repository, when run as a script

from utils.training.cuda_libraries import DRIVER, LIBRARIES

REQUIREMENTS = ("requirements.txt", "requirements-cuda.txt")
COMMAND = (
    "eval_sgd_influence.py -ds digits -nt 1 -e 1 --n_train 100 --n_val 50 --n_test 50 -r 0 5 "
    "--methods Random --model mlp --no_report"
)
CUDNN_PARTS = ("OpsInfer", "OpsTrain", "CnnInfer", "CnnTrain", "AdvInfer", "AdvTrain")
NO_DEVICE = "int {}(void) {{ return 100; /* CUDA_ERROR_NO_DEVICE */ }}"
NAMES_ERROR = 'int {}(int error, const char **text) {{ *text = "no device"; return 0; }}'
"""What the functions of the stand-in do."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the environment, load, run, and print the table."""
    options = _parse(arguments)
    if options.load:
        print(json.dumps(loaded(options.load)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        python = environment(options.venv or folder / "venv")
        figures = proof(python, folder)
        if options.venv and not options.keep:
            shutil.rmtree(options.venv)
    print(json.dumps(figures))
    sys.exit(0 if figures["loads"] is not False and figures["runs"] else 1)


def environment(folder: Path) -> Path:
    """An environment with the requirements; returns its Python."""
    settings = {"VENV": str(folder), "TAKES": "1.8 GB to download, 3.8 GB on disk"}
    command = ["bash", str(ROOT / ".ci" / "setup_venv.sh"), *REQUIREMENTS]
    subprocess.run(command, env=os.environ | settings, check=True)
    return folder / "bin" / "python"


def proof(python: Path, folder: Path) -> dict[str, object]:
    """Load the extension and run the command; what was found."""
    driver = stub(needed_of_driver(extension_file(python)), folder)
    table: dict[str, str] = {}
    error = ""
    if driver:
        table, error = loaded_apart(python, driver)
        print(shown(table), error, sep="\n")
    without = stock_command(python, folder / "without")
    with_stub = stock_command(python, folder / "with", driver.parent) if driver else []
    return {
        "loads": set(needed_libraries()) <= table.keys() and not error if driver else None,
        "runs": bool(without) and (bool(with_stub) or not driver),
        "site_packages_bytes": size_of(python.parents[1] / "lib"),
    }


# ---------------------------------------------------------------- the stand-in for the driver


def extension_file(python: Path) -> Path:
    """The compiled library of nnabla's extension."""
    return next(python.parents[1].glob("lib/python*/site-packages/nnabla_ext/cuda/libnnabla_*.so"))


def needed_of_driver(library: Path) -> list[str]:
    """The functions of the driver that a library calls: cuInit, but not cudaMalloc or cublasX."""
    content = library.read_bytes()
    names = re.findall(rb"\0(cu[A-Z][a-z][A-Za-z]+(?:_v\d)?)(?=\0)", content)
    return sorted({name.decode() for name in names})


def stub(functions: Sequence[str], folder: Path) -> Path | None:
    """Build libcuda.so.1 with these functions; None, with a message, where there is no cc."""
    if not shutil.which("cc"):
        print("there is no cc: nothing is loaded, since that takes a stand-in for the driver")
        return None
    source, library = folder / "stub.c", folder / "driver" / DRIVER
    library.parent.mkdir()
    lines = ((NAMES_ERROR if "Error" in name else NO_DEVICE).format(name) for name in functions)
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{DRIVER}", "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    return library


# ---------------------------------------------------------------- loading


def needed_libraries() -> list[str]:
    """What has to be loaded in the end."""
    parts = (re.sub(r"(?=[A-Z])", "_", part).lower() for part in CUDNN_PARTS)
    return [DRIVER, *LIBRARIES, *(f"libcudnn{part}.so.8" for part in parts)]


def loaded_apart(python: Path, driver: Path) -> tuple[dict[str, str], str]:
    """The file of each library by name in a process that loads the extension, and its error."""
    command = [str(python), __file__, "--load", str(driver)]
    bare = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"}
    done = subprocess.run(command, env=bare, capture_output=True, text=True, check=False)
    if done.returncode:
        return {}, done.stderr.strip()
    return json.loads(done.stdout.splitlines()[-1]), ""


def loaded(driver: str) -> dict[str, str]:
    """In the process itself: load the driver, then the extension as the program does."""
    import ctypes

    from utils.training.device import cudnn_extension

    ctypes.CDLL(driver)
    cudnn_extension()
    for part in CUDNN_PARTS:  # cuDNN loads each with the first call of a function in it
        getattr(ctypes.CDLL("libcudnn.so.8"), f"cudnn{part}VersionCheck")()
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    files = {Path(line.split(maxsplit=5)[5]) for line in maps if line.count("/") and ".so" in line}
    wanted = re.compile(r"lib(cu|nv|nnabla)")
    return {file.name: str(file) for file in sorted(files) if wanted.match(file.name)}


def shown(table: dict[str, str]) -> str:
    """The table library -> file, paths below site-packages shortened."""
    width = max(map(len, table), default=0)
    short = (
        (name, re.sub(r".*/site-packages/", "site-packages/", file)) for name, file in table.items()
    )
    return "\n".join(f"{name:{width}} -> {file}" for name, file in short)


# ---------------------------------------------------------------- the stock command


def stock_command(python: Path, output: Path, libraries: Path | None = None) -> list[str]:
    """Run it; prints and returns what it says of the GPU, nothing if it failed or said more."""
    environment = os.environ | {"LD_LIBRARY_PATH": str(libraries or "")}
    command = [str(python), *COMMAND.split(), "-o", str(output)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "GPU" in line]
    print(f"{'with the stand-in' if libraries else 'without a driver'}: exit {done.returncode}")
    print(*lines, sep="\n")
    written = (output / "summary" / "summary.csv").exists()
    return lines if done.returncode == 0 and written and len(lines) == 1 else []


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--venv", type=Path, help="folder of the environment; deleted at the end")
    parser.add_argument("--keep", action="store_true", help="do not delete it")
    parser.add_argument("--load", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
