"""Images: named data sets, a user's folders and lists, splits, and decoding.

Whatever the images come from becomes a `Source` (source.py), in which each image has a row. A split
is rows, drawn by a seed, and becomes the arrays of a trial (splits.py, images.py).

May import: utils.output, utils.kernels and the modules of utils itself.
"""
