"""An output folder: its paths, lock, manifest and settings, and files that are whole or not there.

paths.py names every file. Everything is written through storage.py; manifest.py keeps the hash of
each result; lock.py lets one run at a time into the folder.

May import: utils.kernels and the modules of utils itself.
"""
