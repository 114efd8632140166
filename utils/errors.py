"""The one error that a user can cause."""

LONGEST = 2000
"""Characters of a line at most; of a longer one beginning and end are said."""


class UserError(Exception):
    """A mistake that the user can mend: one line saying what, where and the remedy.

    The commands print the line and end with exit status 2, without a traceback. Of a line that
    quotes more than fits (a field of a CSV file may have millions of characters) the middle is
    left out, so that it still begins with the place and ends with the remedy.
    """

    def __init__(self, line: str) -> None:
        super().__init__(bounded(line))


def bounded(line: str) -> str:
    """`line`, or what fits of its beginning and end into `LONGEST` characters."""
    if len(line) <= LONGEST:
        return line
    half = LONGEST // 2 - 40
    return f"{line[:half]} ... ({len(line) - 2 * half:,} characters left out) ... {line[-half:]}"
