"""A supervisor with its workers, in processes of their own."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from bench.services import Redis
from tests.gateway.wire import eventually
from tests.processes import ServerProcess

START_TIMEOUT = 40.0
"""Seconds for a worker on a busy machine, where starting one takes two."""


class Host(ServerProcess):
    """`size` workers; entered once all of them serve."""

    def __init__(self, folder: Path, redis: Redis, size: int | str = 2, **variables: str) -> None:
        super().__init__(folder, REDIS_URL=redis.url, **variables)
        self.arguments = ("--workers", str(size))

    def log_lines(self) -> list[dict[str, Any]]:
        """The log, without the error of a worker that could not start."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def events(self, name: str, worker: int | None = None) -> list[dict[str, Any]]:
        """Return the supervisor's and workers' log lines of one kind."""
        return [
            line
            for line in self.log_lines()
            if line["event"] == name and (worker is None or line.get("worker") == worker)
        ]

    def pid(self, worker: int) -> int:
        """Return the process id of the last process that was started as `worker`."""
        return int(self.events("worker started", worker)[-1]["pid"])

    @property
    def pids(self) -> list[int]:
        """Return the process ids of all worker processes so far."""
        return [line["pid"] for line in self.events("worker started")]

    def await_event(self, name: str, times: int = 1, worker: int | None = None) -> dict[str, Any]:
        """Wait for the line of the `times`-th event of a kind."""
        eventually(lambda: len(self.events(name, worker)) >= times, START_TIMEOUT)
        return self.events(name, worker)[times - 1]

    def kill(self, worker: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to one worker."""
        os.kill(self.pid(worker), number)


def is_alive(pid: int) -> bool:
    """Return whether a process runs, or has ended and was not reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def end_of(pids: list[int], timeout: float) -> float:
    """Wait until all of the processes have ended. Return the seconds that it took."""
    start = time.monotonic()
    eventually(lambda: not any(is_alive(pid) for pid in pids), timeout)
    return time.monotonic() - start
