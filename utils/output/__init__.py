"""An output folder: its paths, lock, manifest and settings, and files that are whole or not there.

folder.py owns the folder: everything in it is written and removed through its `OutputFolder`.
paths.py names every file, manifest.py keeps the hash of each result, lock.py lets one run at a time
into the folder, and storage.py writes a file whole or not at all, wherever it is. results.py reads
the tables of a folder and keeps those that a run computes, with a row for each image; figures.py
prepares what the PNG files and the page draw.

May import: utils.kernels and the modules of utils itself.
"""
