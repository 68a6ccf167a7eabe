"""Runs the command as a user does."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from tests.forks import start_fork

COMMAND = [sys.executable, "-m", "server"]

TIMEOUT = 60.0
"""Seconds for a command, which an idle machine runs in less than one."""


def environment(**variables: str) -> dict[str, str]:
    """Return the machine's own variables, none of the server's, and `variables`."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "TERM") if name in os.environ}
    return inherited | variables


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run to the end in `folder`, whose `.env` file is read."""
    defaults = environment(XDG_STATE_HOME=str(folder), WS_PORT="0", HTTP_PORT="0")
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        files = {"stdout": output.fileno(), "stderr": errors.fileno()}
        process = start_fork(arguments, folder, defaults | variables, **files)
        try:
            code = process.wait(TIMEOUT)
        finally:
            process.kill()
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(arguments, code, output.read(), errors.read())


def complaint(folder: Path, *arguments: str, **variables: str) -> str:
    """Return the one line with which a command fails because of its user's fault."""
    done = run(folder, *arguments, **variables)
    assert done.returncode == 2, done
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert not done.stdout
    return lines[0]


class Piped(NamedTuple):
    """A command with a pipe at each end."""

    process: subprocess.Popen[str]
    stdin: IO[str]
    stdout: IO[str]
    stderr: IO[str]


@contextmanager
def piped(command: Sequence[str], folder: Path, **variables: str) -> Iterator[Piped]:
    """Run a command with pipes. At the end it is killed."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment(**variables),
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield Piped(process, process.stdin, process.stdout, process.stderr)
        finally:
            process.kill()
