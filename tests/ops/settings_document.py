"""Writes docs/settings.md from the settings: `scripts/python -m tests.ops.settings_document`."""

from itertools import groupby
from pathlib import Path

from server.config.help import Described, described_settings

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"

INTRODUCTION = """\
# Settings

Settings are environment variables, or lines of a `.env` file in the working directory.
`scripts/serve --help` shows the same list. [operations.md](operations.md#settings) says how they are
read, and which to set first. This document is written by
`scripts/python -m tests.ops.settings_document`.
"""

HEADER = "| variable | default | meaning | value |\n| --- | --- | --- | --- |\n"


def settings_document() -> str:
    """Return the document: a table for each group."""
    parts = [INTRODUCTION]
    for group, settings in groupby(described_settings(), lambda each: each.group):
        parts += [f"\n## {group}\n\n{HEADER}", *(_row(each) for each in settings)]
    return "".join(parts)


def _row(setting: Described) -> str:
    default = f"`{setting.default}`" if setting.default else "empty"
    value = setting.allowed or "text"
    return f"| `{setting.variable}` | {default} | {setting.meaning} | {value} |\n"


if __name__ == "__main__":
    DOCUMENT.write_text(settings_document())
