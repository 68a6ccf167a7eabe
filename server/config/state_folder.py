"""The folder in which a user's programs keep their state (XDG Base Directory Specification)."""

import os
from pathlib import Path


def state_folder() -> Path:
    """Return this program's folder. It need not exist."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "quotestream"
