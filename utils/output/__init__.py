"""An output folder: its paths, lock, manifest and settings, and files that are whole or not there.

folder.py owns the folder: everything in it is written and removed through its `OutputFolder`.
paths.py names every file, manifest.py keeps the hash of each result, lock.py lets one run at a time
into the folder, and storage.py writes a file whole or not at all, wherever it is.

May import: utils.kernels and the modules of utils itself.
"""
