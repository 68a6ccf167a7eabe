"""The folder in which a user's programs keep their state (XDG Base Directory Specification)."""

import os
from pathlib import Path


def state_folder() -> Path:
    """Return this program's folder. It need not exist. Errors: OSError if the user has no home."""
    try:
        base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise FileNotFoundError(f"{error} XDG_STATE_HOME may name a folder") from None
    return Path(base) / "quotestream"
