"""Columns of the CSV files that several packages read or write."""

IMAGE, LABEL = "x:image", "y:label"
"""Path and class of an image, as in Neural Network Console."""
CLASS = "#class"
"""The name of the class; Neural Network Console takes columns that begin so for comments."""
SET, ROW = "set", "row"
"""Which set an image is of, and its row there, from 0."""
