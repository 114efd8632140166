"""Write the option table of docs/options.md from the fields of `utils.options.Options`.

python docs/option_table.py
"""

from __future__ import annotations

import sys
from dataclasses import MISSING, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the repository, when run as a script

from benchmarks.reproduction_tables import fill_page, markdown
from utils.options import GROUPS, Options, default_text, long_flag, options_by_name

PAGE = ROOT / "docs" / "options.md"
BY_COMMAND = {"output_dir": "by the command", "methods": "by the command"}


def option_table() -> str:
    """A row per option, in the groups and the order of `--help`."""
    given = options_by_name()
    default = {f.name: f.default for f in fields(Options) if f.default is not MISSING}
    rows: list[tuple[str, ...]] = [("option", "default", "meaning")]
    for group in GROUPS:
        rows.append((f"**{group}**", "", ""))
        for name, option in given.items():
            if option.group == group:
                flags = ", ".join((*option.flags, long_flag(name)))
                shown = option.shown or BY_COMMAND.get(name) or default_text(default[name])
                rows.append((f"`{flags}`", shown, option.text.replace("|", "\\|")))
    return markdown(rows)


if __name__ == "__main__":
    fill_page(PAGE, {"options": option_table()})
