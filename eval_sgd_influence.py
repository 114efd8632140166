"""Cleanse training data by SGD-influence: train, score, remove, retrain, compare."""

import _signal  # of `signal` what needs no file to be read

if __name__ == "__main__" and hasattr(_signal, "pthread_sigmask"):  # not on Windows
    # Kept back until `program` heeds them, in a few milliseconds.
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP))

from utils.linux_only import require_linux

if __name__ == "__main__":
    require_linux("eval_sgd_influence.py")

from utils.options import Command
from utils.run.command import program

COMMAND = Command(
    program="eval_sgd_influence.py",
    description="Find harmful training images by SGD-influence (Hara et al., NeurIPS 2019; "
    "Suzuki et al., 2021), remove them, retrain and compare.",
    output_dir="output_sgd_influence",
    methods=("Hara", "Ours", "Random"),
)

if __name__ == "__main__":
    program(COMMAND)
