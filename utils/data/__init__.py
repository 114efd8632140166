"""Images: named data sets, a user's folders and lists, splits, and decoding.

Whatever the images come from becomes a `Source` (source.py). A split of it, drawn by a seed,
becomes the arrays of a trial (splits.py, images.py).

May import: utils.output, utils.kernels and the modules of utils itself.
"""
