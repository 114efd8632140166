"""The HTML page of a finished run: report/index.html. `python -m utils.page OUTPUT_DIR` writes it.

facts.py gathers what the folder holds, view.py and verdict.py prepare what is shown, charts.py
draws with svg.py, and templates/ lays it out.

May import: utils.training, utils.data, utils.output, utils.kernels and the modules of utils itself.
"""
