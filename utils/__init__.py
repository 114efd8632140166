"""What both commands share: options, data sets, networks, files and the pipeline."""
