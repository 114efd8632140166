"""A function that other processes call by its name: light to import."""

import time
from collections.abc import Sequence


def sleep_briefly(paths: Sequence[str]) -> None:
    """Take 20 ms, whatever the paths are."""
    time.sleep(0.02)
