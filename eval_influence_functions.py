"""Cleanse training data by influence functions: train, score, remove, retrain, compare."""

import sys

from utils.command import main
from utils.options import Command

COMMAND = Command(
    program="eval_influence_functions.py",
    description="Find harmful training images by influence functions (Koh & Liang, "
    "ICML 2017), remove them, retrain and compare.",
    output_dir="output_influence_functions",
    methods=("Influence_functions", "Random"),
)

if __name__ == "__main__":
    sys.exit(main(COMMAND))
