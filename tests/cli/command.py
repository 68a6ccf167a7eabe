"""Runs the command as a user does."""

import os
import subprocess
import sys
from pathlib import Path

from tests.cli.forks import Forks

COMMAND = [sys.executable, "-m", "server"]

TIMEOUT = 60.0
"""Seconds for a command, which an idle machine runs in less than one."""

_FORKS = Forks()


def environment(**variables: str) -> dict[str, str]:
    """Return the machine's own variables, none of the server's, and `variables`."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "TERM") if name in os.environ}
    return inherited | variables


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run to the end in `folder`, whose `.env` file is read."""
    defaults = environment(XDG_STATE_HOME=str(folder), WS_PORT="0", HTTP_PORT="0")
    return _FORKS.run(arguments, folder, defaults | variables, TIMEOUT)


def complaint(folder: Path, *arguments: str, **variables: str) -> str:
    """Return the one line with which a command fails because of its user's fault."""
    done = run(folder, *arguments, **variables)
    assert done.returncode == 2, done
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert not done.stdout
    return lines[0]
