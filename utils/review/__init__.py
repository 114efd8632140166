"""Decisions on labels: the reviewed data set, and what it is worth.

`python -m utils.review OUTPUT_DIR decisions.csv` checks the decisions (utils/data/decisions.py),
writes the reviewed data set (export.py) and trains on both lists (worth.py). The output folder of
the run stays as it is, but for reviewed/ and labels/decisions.csv.

May import: utils.training, utils.data, utils.output, utils.kernels and the modules of utils itself.
"""
