"""The one line where this program does not run."""

import sys


def require_linux(program: str) -> None:
    """End with exit status 2 on another system: its signals and nnabla's wheels are missing."""
    if sys.platform == "linux":
        return
    remedy = "on Windows use WSL2, on a Mac a Linux container or virtual machine"
    sys.stderr.write(f"{program}: error: this program runs on Linux only; {remedy}\n")
    raise SystemExit(2)
