"""The server to measure: one of our own on its own core, or one that runs already."""

import os
import secrets
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

import jwt

from bench.schedule import Schedule

START_TIMEOUT, STOP_TIMEOUT, SCRAPE_TIMEOUT = 20.0, 15.0, 10.0
"""Seconds for a server to start, to stop, and to answer a request for its metrics."""

FAR_FUTURE = 4_102_444_800
"""Unix seconds: tokens of a benchmark do not expire."""


class TargetError(Exception):
    """The server cannot be measured. The message gives the reason in one line."""


class Target(Protocol):
    """A server for a scenario. Values that it cannot tell are None."""

    url: str

    def query(self, user: str, symbols: str) -> str:
        """Return the request's query with a token of `user` and the symbols to subscribe to."""

    def cpu_seconds(self) -> float | None:
        """Return the processor time used so far, in user and kernel."""

    def resident_bytes(self) -> int | None:
        """Return the resident memory."""

    def peak_bytes(self) -> int | None:
        """Return the largest resident memory since the server started."""

    def descriptors(self) -> int | None:
        """Return the number of open file descriptors."""

    def metric(self, name: str) -> float | None:
        """Return a metric of the server: the sum of its samples, or the sample with given labels."""


class Process:
    """A server process on the first core that this process may use. This process moves to the others.

    The server's first line names its address. If it is not `pinned`, both may use all cores.
    """

    pinned = True

    def __init__(self, command: Sequence[str], **variables: str) -> None:
        self._command = command
        self._variables = variables

    def __enter__(self) -> Self:
        cores = sorted(os.sched_getaffinity(0))
        alone = self.pinned and len(cores) > 1
        self._folder = tempfile.TemporaryDirectory(prefix="quotestream-bench-")
        folder = Path(self._folder.name)
        self.prepare(folder)
        log = folder / "log"
        with log.open("w") as stderr:
            # The server inherits the core.
            if alone:
                os.sched_setaffinity(0, cores[:1])
            try:
                self._process = subprocess.Popen(
                    self._command,
                    env=os.environ | self._variables,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    text=True,
                )
            finally:
                os.sched_setaffinity(0, cores)
        if alone:
            os.sched_setaffinity(0, cores[1:])
        self._cores = cores
        assert self._process.stdout is not None
        first = self._process.stdout.readline().split()
        if not first:
            self._process.wait(START_TIMEOUT)
            problem = log.read_text().strip()
            self.__exit__()
            raise TargetError(f"the server did not start: {problem}")
        self.url = first[1]
        self.started()
        return self

    def __exit__(self, *_: object) -> None:
        os.sched_setaffinity(0, self._cores)
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._folder.cleanup()

    def prepare(self, folder: Path) -> None:
        """Prepare the start. `folder` lives as long as the process."""

    def started(self) -> None:
        """Finish the start, after the process has printed its first line."""

    def query(self, user: str, symbols: str) -> str:  # noqa: ARG002 (peers ask for no token)
        return f"symbols={symbols}"

    def cpu_seconds(self) -> float | None:
        return cpu_seconds(self._process.pid)

    def active_seconds(self) -> float:
        """Return how long the main thread ran, or was ready to run and had no core (schedstat)."""
        ran, waited, _ = Path(f"/proc/{self._process.pid}/schedstat").read_text().split()
        return (int(ran) + int(waited)) / 1e9

    def resident_bytes(self) -> int | None:
        fields = Path(f"/proc/{self._process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def peak_bytes(self) -> int | None:
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return None

    def descriptors(self) -> int | None:
        return sum(1 for _ in Path(f"/proc/{self._process.pid}/fd").iterdir())

    def metric(self, name: str) -> float | None:  # noqa: ARG002 (peers have no metrics)
        return None


class OwnServer(Process):
    """The project's own server, which replays `schedule` or uses the feed in `variables`."""

    def __init__(self, schedule: Schedule | None = None, **variables: str) -> None:
        self._schedule = schedule
        self._secret = secrets.token_urlsafe(32)
        settings = {
            "WS_PORT": "0",
            "HTTP_PORT": "0",
            "LOG_FORMAT": "json",
            "JWT_SECRET": self._secret,
            "WS_MAX_CONNECTIONS": "20000",
            **variables,
        }
        super().__init__([sys.executable, "-m", "server", "serve"], **settings)

    def prepare(self, folder: Path) -> None:
        self._variables["XDG_STATE_HOME"] = str(folder)
        if self._schedule:
            self._variables["FEED"] = f"replay:{self._schedule.write(folder / 'trades.csv')}"

    def started(self) -> None:
        assert self._process.stdout is not None
        # The first line has the page's address.
        self.http = self.url.removesuffix("/")
        self.url = self._process.stdout.readline().split()[1]

    def query(self, user: str, symbols: str) -> str:
        return f"symbols={symbols}&token={self.token(user)}"

    def token(self, user: str, **claims: str) -> str:
        """Return a token of `user`."""
        return jwt.encode({"sub": user, "exp": FAR_FUTURE, **claims}, self._secret, "HS256")

    def metric(self, name: str) -> float | None:
        return scrape(self.http, name)


class RunningServer:
    """A server that runs already.

    Arguments:
        token: the token of all connections.
        secret: signs a token for each user instead, as WS_MAX_CONNECTIONS_PER_USER may require.
        http: the URL of its HTTP port. Without it, CPU and memory are unknown.
    """

    def __init__(self, url: str, token: str, secret: str, http: str) -> None:
        if not token and not secret:
            raise TargetError("--url needs --token or --secret")
        self.url = url
        self._token = token
        self._secret = secret
        self._http = http

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the server running."""

    def query(self, user: str, symbols: str) -> str:
        token = self._token or jwt.encode({"sub": user, "exp": FAR_FUTURE}, self._secret, "HS256")
        return f"symbols={symbols}&token={token}"

    def cpu_seconds(self) -> float | None:
        return self.metric("process_cpu_seconds_total")

    def resident_bytes(self) -> int | None:
        resident = self.metric("process_resident_memory_bytes")
        return None if resident is None else int(resident)

    def peak_bytes(self) -> int | None:
        return None

    def descriptors(self) -> int | None:
        descriptors = self.metric("process_open_fds")
        return None if descriptors is None else int(descriptors)

    def metric(self, name: str) -> float | None:
        return scrape(self._http, name) if self._http else None


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used, in user and kernel."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


def scrape(http: str, name: str) -> float:
    """Return the sum of a metric's samples, or the sample with given labels. Errors: TargetError."""
    try:
        with urllib.request.urlopen(f"{http}/metrics", timeout=SCRAPE_TIMEOUT) as response:
            lines = response.read().decode().splitlines()
    except (OSError, ValueError) as error:
        raise TargetError(f"cannot read {http}/metrics: {error}") from None
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return sum(
        float(value) for sample, _, value in samples if name in (sample, sample.partition("{")[0])
    )
