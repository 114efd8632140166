"""What both commands share.

CONTRIBUTING.md describes the packages. All of them may import the modules of utils itself:

options.py, presets.py,
methods.py                  the tables that users edit
errors.py, command_line.py  the one error that a user can cause, and the parser of command lines
console.py, units.py        what a run prints, and how it writes bytes, times and names
signals.py, processes.py    what ends a run, and the processes that it starts
files.py, link_free.py      files that a user names, and files in a folder without following links
columns.py, utf8.py         columns of the CSV files, and the encoding of names
linux_only.py               the one line where the program does not run
"""

from utils.kernels.blas import choose_kernels

__version__ = "0.1.0"

choose_kernels()
