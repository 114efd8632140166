"""The product compared with the libraries that one would take instead; `make peers` runs it all."""
