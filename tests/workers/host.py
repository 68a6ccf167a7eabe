"""A supervisor with its workers, in processes of their own."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from bench.services import Redis
from tests.processes import ServerProcess
from tests.stopwatch import LOOK_INTERVAL, Stopwatch


class Host(ServerProcess):
    """`size` workers; entered once all of them serve."""

    def __init__(self, folder: Path, redis: Redis, size: int | str = 2, **variables: str) -> None:
        super().__init__(folder, REDIS_URL=redis.url, **variables)
        self.arguments = ("--workers", str(size))

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the log without the line of a worker that could not start, which is not JSON."""
        whole, _, _ = self.log.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    def pid(self, worker: int) -> int:
        """Return the process id of the last process that was started as `worker`."""
        return int(self.events("worker started", worker=worker)[-1]["pid"])

    @property
    def pids(self) -> list[int]:
        """Return the process ids of all worker processes so far."""
        return [line["pid"] for line in self.events("worker started")]

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
    watch = Stopwatch(*pids)
    while any(is_alive(pid) for pid in pids):
        assert watch.seconds < timeout, "they go on"
        time.sleep(LOOK_INTERVAL)
    return watch.seconds
