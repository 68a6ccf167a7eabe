"""Runs Node, in which the tests play `quotes.js`."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

RUNNERS = Path(__file__).parent

PATIENCE = 120.0
"""Seconds for a runner, which takes one or two on an idle machine."""


def command(runner: str, *arguments: str, flags: Sequence[str] = ()) -> list[str]:
    """Return the command that runs a file of this folder."""
    path = shutil.which("node")
    assert path is not None
    return [path, "--no-warnings", *flags, str(RUNNERS / runner), *arguments]


def run(runner: str, text: str = "", flags: Sequence[str] = ()) -> str:
    """Return what a runner prints when it reads `text`. Errors: AssertionError if it fails."""
    done = subprocess.run(
        command(runner, flags=flags),
        input=text,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
