"""Names of files are UTF-8 to this program, whatever the locale says."""

from __future__ import annotations

import os
import sys

VARIABLE = "PYTHONUTF8"


def require_utf8() -> None:
    """Restart this command in Python's UTF-8 mode where names of files are not UTF-8 to it.

    That is so in another locale, such as C, if the mode is turned off. CSV files, the log and the
    page are UTF-8; a name in another encoding would not be found again by what they say.
    """
    if sys.getfilesystemencoding() == "utf-8" or os.environ.get(VARIABLE) == "1":
        return
    os.environ[VARIABLE] = "1"  # worker processes read it too
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
