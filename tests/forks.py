"""Starts `quotestream` in forks of one process that has imported it once: `start_fork`.

A server or a command of its own takes 0.3 s of CPU for its imports, and the tests start hundreds.
Each fork is a process with a session, arguments, variables, folder and files of its own, and with the
test's limit of descriptors.
"""

import atexit
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO

from server.__main__ import import_structlog, main

IMPORTED = (
    "server.cli.commands",
    "server.app.serve",
    "server.store.catalogue_postgres",
    "redis.asyncio",
)
"""What most commands and servers import."""

LONGEST_REQUEST = 1 << 16
"""Bytes of the arguments and variables of a fork."""

WIDTH = 12
"""Bytes of each number that is told about a fork."""

INTERPRETER_VARIABLES = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC")
"""Beginnings of the variables that only a new interpreter reads."""


class Fork:
    """A process that was forked, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, ends: int, stdout: IO[str] | None) -> None:
        self.stdout = stdout
        self.returncode: int | None = None
        self._ends = ends
        self.pid = int(os.read(ends, WIDTH))

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        if self.returncode is None and select.select([self._ends], [], [], 0)[0]:
            self.returncode = int(os.read(self._ends, WIDTH))
            os.close(self._ends)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code. Errors: subprocess.TimeoutExpired."""
        if self.returncode is None:
            select.select([self._ends], [], [], timeout)
            if self.poll() is None:
                raise subprocess.TimeoutExpired("quotestream", timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if the process still runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End the process at once."""
        self.send_signal(signal.SIGKILL)


def can_fork(variables: Mapping[str, str]) -> bool:
    """Return whether a process with these variables may be a fork."""
    return not any(name.startswith(INTERPRETER_VARIABLES) for name in variables)


def start_fork(
    arguments: Sequence[str],
    folder: Path,
    variables: Mapping[str, str],
    *,
    stdout: int | None = None,
    stderr: int,
) -> Fork:
    """Start `quotestream ARGUMENTS`. Without `stdout`, its standard output is a pipe."""
    request = {
        "arguments": arguments,
        "folder": str(folder),
        "variables": dict(variables),
        "descriptors": resource.getrlimit(resource.RLIMIT_NOFILE),
    }
    ends, told = os.pipe()
    pipe = None if stdout is not None else os.pipe()
    output = pipe[1] if pipe else stdout
    assert output is not None
    socket.send_fds(_channel(), [json.dumps(request).encode()], [output, stderr, told])
    os.close(told)
    if pipe:
        os.close(pipe[1])
    return Fork(ends, os.fdopen(pipe[0]) if pipe else None)


@cache
def _channel() -> socket.socket:
    """Start the process that forks, and return the socket on which it takes requests."""
    channel, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with far:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.forks", str(far.fileno())],
            cwd=Path(__file__).parents[1],
            env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            stdin=subprocess.DEVNULL,
            # Nothing is written to it. Python treats the forks' output as it does a pipe.
            stdout=subprocess.PIPE,
            pass_fds=[far.fileno()],
            start_new_session=True,
        )

    def close() -> None:
        channel.close()
        # Do not read to the end of its output: a server that a test left still holds that open.
        assert process.stdout is not None
        process.stdout.close()
        process.wait()

    atexit.register(close)
    return channel


def serve_forks(channel: socket.socket) -> None:
    """Fork for each request. Return at the end of the requests, and in each fork at its own end."""
    import_structlog()
    for name in IMPORTED:
        import_module(name)
    while True:
        request, files, _, _ = socket.recv_fds(channel, LONGEST_REQUEST, 3)
        # Their processor time counts as that of the tests.
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not request:
            return
        if not os.fork():
            channel.detach()
            if pid := os.fork():
                _report(pid, files)
            _become(files, **json.loads(request))
            return
        for file in files:
            os.close(file)


def _report(pid: int, files: list[int]) -> None:
    """Tell the process id of a fork and later its exit code."""
    stdout, stderr, told = files
    os.close(stdout)
    os.close(stderr)
    with suppress(BrokenPipeError):
        os.write(told, f"{pid:{WIDTH}}".encode())
        _, status = os.waitpid(pid, 0)
        os.write(told, f"{os.waitstatus_to_exitcode(status):{WIDTH}}".encode())
    os._exit(0)


def _become(
    files: list[int],
    arguments: list[str],
    folder: str,
    variables: dict[str, str],
    descriptors: tuple[int, int],
) -> None:
    """Run the command in this process, as if exec(2) had started it."""
    os.setsid()
    for number, file in enumerate([os.open(os.devnull, os.O_RDONLY), *files[:2]]):
        os.dup2(file, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    resource.setrlimit(resource.RLIMIT_NOFILE, descriptors)
    os.environ.clear()
    os.environ.update(variables)
    time.tzset()
    os.chdir(folder)
    sys.argv = ["quotestream", *arguments]
    main()


if __name__ == "__main__":
    serve_forks(socket.socket(fileno=int(sys.argv[1])))
