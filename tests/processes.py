"""A real server in a process of its own, on free ports."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import jwt

from tests.forks import Fork, can_fork, start_fork
from tests.stopwatch import Stopwatch

SECRET = "a secret of the tests, 32 bytes or longer"

WITHOUT_BUDGETS = dict.fromkeys(
    ("USER_COMMAND_RATE", "USER_LOOKUP_RATE", "ADDRESS_FAILURE_RATE", "ADDRESS_REQUEST_RATE"),
    "1000000",
)
"""Variables of a server that never tells a client to wait, so that every request of a test is
served.
"""

MACHINE_EVENTS = {"conflation changed", "health changed"}
"""Events that a server may log because other programs keep the machine busy."""

START_TIMEOUT = 40.0
"""Seconds in which a server starts on a busy machine. An idle one needs less than one."""

STOP_TIMEOUT = 15.0

TIMEOUT = 30.0
"""Seconds for everything that has no deadline of its own. An idle machine needs far less than one, a
machine with thirty busy processes up to ten.
"""

LONGEST_PAUSE = 0.1
"""Seconds between two polls at most: a page of metrics takes 5 ms of CPU, on which the server waits."""


def eventually(check: Callable[[], bool], timeout: float = TIMEOUT) -> None:
    """Poll until `check` is true, ever less often. Errors: AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    pause = 0.01
    while not check():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(pause)
        pause = min(1.2 * pause, LONGEST_PAUSE)


def make_token(user: str = "alice", lifetime: float = 1800.0, **claims: Any) -> str:
    """Sign a token for a client. It outlives a whole run, as some are made when tests are collected."""
    return jwt.encode({"sub": user, "exp": time.time() + lifetime, **claims}, SECRET, "HS256")


class ServerProcess:
    """A server process, which starts on entering.

    `variables` are its environment beside the machine's own. `lines` are what it prints at its
    start. Its log is at `log`, one JSON object a line.
    """

    arguments: Sequence[str] = ()
    module = "server"
    launcher: Sequence[str] = ()
    """A command that starts the server's, such as one that sets limits."""
    fresh = False
    """Start Python anew, as a shell does, instead of a fork of a process that has the imports."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.log = folder / "server.log"
        self._folder = folder
        self._variables = {
            "WS_PORT": "0", "HTTP_PORT": "0", "JWT_SECRET": SECRET, "LOG_FORMAT": "json",
            "XDG_STATE_HOME": str(folder), "DRAIN_DELAY": "0", **variables,
        }  # a table # fmt: skip

    def __enter__(self) -> Self:
        with self.log.open("ab") as log:
            self.process = self._start(log.fileno())
        assert self.process.stdout is not None
        self.lines: list[str] = []
        wanted = 3 if self._variables.get("JWT_SECRET", SECRET) else 5
        while len(self.lines) < wanted and (line := self.process.stdout.readline()):
            self.lines.append(line.rstrip())
        if len(self.lines) < wanted:
            raise RuntimeError(f"the server did not start: {self.log.read_text()}")
        self.quotes_url = self.lines[1].split()[1]
        self.http_url = self.lines[2].split()[1].removesuffix("/healthz")
        return self

    def _start(self, log: int) -> Fork | subprocess.Popen[str]:
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        variables = inherited | self._variables
        if not (self.fresh or self.launcher or self.module != "server") and can_fork(variables):
            return start_fork(["serve", *self.arguments], self._folder, variables, stderr=log)
        return subprocess.Popen(
            [*self.launcher, sys.executable, "-m", self.module, "serve", *self.arguments],
            cwd=self._folder,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            # Signals can be sent to all of its group.
            start_new_session=True,
        )

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(STOP_TIMEOUT)
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the streaming port, for raw sockets."""
        host, _, port = self.quotes_url.split("/")[2].rpartition(":")
        return host, int(port)

    @property
    def http_address(self) -> tuple[str, int]:
        """Host and port of the HTTP port."""
        host, _, port = self.http_url.removeprefix("http://").rpartition(":")
        return host, int(port)

    def url(self, symbols: str | None = None, token: str | None = None) -> str:
        """Return the address to connect to, with a good token unless another is given ('' for none)."""
        token = make_token() if token is None else token
        parts = [f"symbols={symbols}"] if symbols is not None else []
        parts += [f"token={token}"] if token else []
        return f"{self.quotes_url}?{'&'.join(parts)}"

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of a GET request to the HTTP port."""
        return self.request("GET", path)

    def request(self, method: str, path: str, **headers: str) -> tuple[int, str]:
        """Return status and body of a request. Header names are given with `_` for `-`."""
        request = urllib.request.Request(self.http_url + path, method=method)
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def ask(self, path: str, method: str = "GET", role: str = "user") -> tuple[int, Any]:
        """Return status and decoded body of a request to the API with a good token."""
        token = make_token("service", role=role)
        status, body = self.request(method, path, Authorization=f"Bearer {token}")
        return status, json.loads(body)

    def metric(self, sample: str) -> float:
        """Return one sample of `/metrics` by its name and labels as printed; 0 if it is absent."""
        _, text = self.get("/metrics")
        for line in text.splitlines():
            name, _, value = line.rpartition(" ")
            if name == sample:
                return float(value)
        return 0.0

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the log so far, without a line that the server is just writing."""
        whole, _, _ = self.log.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def own_lines(self) -> list[dict[str, Any]]:
        """Return the log so far, without events that other programs on this machine may cause."""
        return [line for line in self.log_lines() if line["event"] not in MACHINE_EVENTS]

    def events(self, name: str, **fields: object) -> list[dict[str, Any]]:
        """Return the log's lines of one event that have these fields."""
        wanted = {"event": name, **fields}.items()
        return [line for line in self.log_lines() if wanted <= line.items()]

    def await_event(self, name: str, times: int = 1, **fields: object) -> dict[str, Any]:
        """Wait until an event has been logged `times`, and return the line of the last of these.

        A client may see an effect before the server logs it. A test therefore waits for each line
        that it wants, and looks at once only for lines that must not be there.
        """
        eventually(lambda: len(self.events(name, **fields)) >= times, START_TIMEOUT)
        return self.events(name, **fields)[times - 1]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit code. `stop_seconds` then says how long that took."""
        watch = Stopwatch(self.process.pid)
        self.process.send_signal(number)
        code = watch.wait_for_end(self.process, STOP_TIMEOUT)
        self.stop_seconds = watch.seconds
        return code


class FreshServer(ServerProcess):
    """A server process that a new interpreter runs, for tests of the start and the stop themselves."""

    fresh = True
