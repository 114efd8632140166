"""What both commands share: options, data sets, networks, files and the pipeline."""

__version__ = "0.1.0"
