"""Cleanse training data by SGD-influence: train, score, remove, retrain, compare."""

import sys

from utils.command import main
from utils.options import Command

COMMAND = Command(
    program="eval_sgd_influence.py",
    description="Find harmful training images by SGD-influence (Hara et al., NeurIPS 2019; "
    "Suzuki et al., 2021), remove them, retrain and compare.",
    output_dir="output_sgd_influence",
    methods=("Hara", "Ours", "Random"),
)

if __name__ == "__main__":
    sys.exit(main(COMMAND))
