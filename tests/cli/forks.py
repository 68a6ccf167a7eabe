"""Runs commands in forks of one process that has imported `quotestream` once: `Forks`.

A command of its own takes a quarter of a second of CPU for its imports, and the tests run hundreds.
Each fork is a process with its own arguments, variables, folder and output, as the shell would make it.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from threading import Lock

from server.__main__ import import_structlog, main

IMPORTED = ("server.cli.commands", "server.app.options", "server.store.catalogue_postgres")
"""What most commands import."""

STOP_TIMEOUT = 10.0
"""Seconds for the process to end."""


class Forks:
    """The process that forks, started at the first command."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = Lock()

    def run(
        self, arguments: Sequence[str], folder: Path, variables: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. After `timeout` seconds SIGALRM ends it."""
        with tempfile.TemporaryDirectory() as place:
            output, errors = Path(place, "output"), Path(place, "errors")
            request = {
                "arguments": arguments,
                "folder": str(folder),
                "variables": dict(variables),
                "files": [str(output), str(errors)],
                "timeout": timeout,
            }
            with self._lock:
                code = self._ask(json.dumps(request))
            return subprocess.CompletedProcess(
                ["quotestream", *arguments], code, output.read_text(), errors.read_text()
            )

    def _ask(self, request: str) -> int:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.cli.forks"],
                cwd=Path(__file__).parents[2],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            atexit.register(self._close)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{request}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def _close(self) -> None:
        assert self._process
        self._process.communicate(timeout=STOP_TIMEOUT)


def serve_forks() -> None:
    """Fork for each line of standard input, and answer the exit code. A fork ends as `main` does."""
    import_structlog()
    for name in IMPORTED:
        import_module(name)
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            _run_fork(**json.loads(line))
            break
        _, status = os.waitpid(pid, 0)
        os.write(1, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _run_fork(
    arguments: list[str], folder: str, variables: dict[str, str], files: list[str], timeout: float
) -> None:
    signal.alarm(int(timeout))
    flags = os.O_WRONLY | os.O_CREAT
    for number, file in enumerate([os.devnull, *files]):
        os.dup2(os.open(file, flags if number else os.O_RDONLY, 0o600), number)
    os.environ.clear()
    os.environ.update(variables)
    time.tzset()
    os.chdir(folder)
    sys.argv = ["quotestream", *arguments]
    main()


if __name__ == "__main__":
    serve_forks()
