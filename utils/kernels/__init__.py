"""nnabla functions for the CPU: convolution, maps, BatchNorm with example weights.

They take the place of nnabla's own functions while a graph is built (fast_functions.py), and can be
differentiated any number of times. cores.py and blas.py decide what they run on.

May import: the modules of utils itself.
"""
