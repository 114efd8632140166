"""How an error of the user reads."""

from __future__ import annotations

import pytest

from utils.errors import UserError


def one_line(caught: pytest.ExceptionInfo[UserError], *words: object) -> None:
    """The error is one line and holds all the words."""
    text = str(caught.value)
    assert "\n" not in text
    assert all(str(word) in text for word in words), text
