"""Cleanse training data by influence functions: train, score, remove, retrain, compare."""

import _signal  # of `signal` what needs no file to be read

if __name__ == "__main__" and hasattr(_signal, "pthread_sigmask"):  # not on Windows
    # Kept back until `program` heeds them, in a few milliseconds.
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP))

from utils.linux_only import require_linux

if __name__ == "__main__":
    require_linux("eval_influence_functions.py")

from utils.options import Command
from utils.run.command import program

COMMAND = Command(
    program="eval_influence_functions.py",
    description="Find harmful training images by influence functions (Koh & Liang, "
    "ICML 2017), remove them, retrain and compare.",
    output_dir="output_influence_functions",
    methods=("Influence_functions", "Random"),
)

if __name__ == "__main__":
    program(COMMAND)
