"""The server that is measured: one of our own on a core of its own, or one that runs already."""

import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import jwt

START_TIMEOUT = 20.0
STOP_TIMEOUT = 15.0

FAR_FUTURE = 4_102_444_800
"""Unix seconds: tokens of a benchmark do not expire."""


class TargetError(Exception):
    """The server cannot be measured; one line says why."""


class Target:
    """A server process on the first core this process may use; this process moves to the others.

    `variables` are its settings. `token` makes a token for a user.
    """

    def __init__(self, **variables: str) -> None:
        self._secret = secrets.token_urlsafe(32)
        self._variables = {
            "WS_PORT": "0", "HTTP_PORT": "0", "LOG_FORMAT": "json", "JWT_SECRET": self._secret,
            **variables,
        }  # fmt: skip

    def __enter__(self) -> Self:
        cores = sorted(os.sched_getaffinity(0))
        self._folder = tempfile.TemporaryDirectory()
        log = Path(self._folder.name) / "log"
        with log.open("w") as stderr:
            os.sched_setaffinity(0, cores[:1])  # inherited by the server
            self._process = subprocess.Popen(
                [sys.executable, "-m", "server", "serve"],
                env=os.environ | self._variables,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        os.sched_setaffinity(0, cores[1:] or cores)
        assert self._process.stdout is not None
        first = self._process.stdout.readline().split()
        if not first:
            self._process.wait(START_TIMEOUT)
            raise TargetError(f"the server did not start: {log.read_text().strip()}")
        self.url = first[1]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._folder.cleanup()

    def token(self, user: str) -> str:
        """A token the server accepts."""
        return jwt.encode({"sub": user, "exp": FAR_FUTURE}, self._secret, "HS256")

    def cpu_seconds(self) -> float:
        """Processor time used so far, in user and kernel."""
        stat = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """Resident memory now."""
        fields = Path(f"/proc/{self._process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
