"""What both commands share: options, data sets, networks, files and the pipeline."""

from utils.kernels.blas import choose_kernels

__version__ = "0.1.0"

choose_kernels()
