"""Runs Node, in which the tests play `quotes.js`."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

RUNNERS = Path(__file__).parent

PATIENCE = 120.0
"""Seconds for a runner, which takes one or two on an idle machine."""

FLAGS = {
    (18, 0): ["--experimental-global-customevent"],
    (20, 10): ["--experimental-websocket"],
    (22, 0): [],
}
"""By the first version of Node: its flags to be like a browser. Debian 12 has Node 18."""


def command(runner: str, *arguments: str, flags: Sequence[str] = ()) -> list[str]:
    """Return the command that runs a file of this folder."""
    path = shutil.which("node")
    assert path is not None
    return [path, "--no-warnings", *_flags(path), *flags, str(RUNNERS / runner), *arguments]


@cache
def _flags(path: str) -> list[str]:
    """Return the flags that this Node needs."""
    printed = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.match(r"v(\d+)\.(\d+)", printed)
    assert found is not None, printed
    version = int(found[1]), int(found[2])
    return next((flags for first, flags in reversed(FLAGS.items()) if first <= version), [])


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
