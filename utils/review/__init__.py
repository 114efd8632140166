"""Decisions on labels: the reviewed data set, and its gain in test accuracy.

`python -m utils.review OUTPUT_DIR decisions.csv` checks the decisions (utils/data/decisions.py),
writes the reviewed data set (export.py) and trains on both lists (worth.py). In the output folder,
it changes only reviewed/ and labels/decisions.csv.

May import: utils.training, utils.data, utils.output, utils.kernels and the modules of utils itself.
"""
