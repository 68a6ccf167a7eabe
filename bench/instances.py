"""Several servers that share a Redis. They and the load may use all cores."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from bench.schedule import Schedule
from bench.services import MissingService, Redis
from bench.target import OwnServer, TargetError, cpu_seconds


@contextmanager
def open_redis() -> Iterator[Redis]:
    """Start a Redis of our own. Errors: TargetError if it is not installed."""
    try:
        with Redis() as redis:
            yield redis
    except MissingService as error:
        raise TargetError(str(error)) from None


class Instance(OwnServer):
    """One server process, or a supervisor with `workers` on one port."""

    pinned = False

    def __init__(
        self, redis: Redis, schedule: Schedule | None = None, *, workers: int = 0, **variables: str
    ) -> None:
        super().__init__(schedule, REDIS_URL=redis.url, **variables)
        if workers:
            self._command = [*self._command, "--workers", str(workers)]

    @property
    def workers(self) -> list[int]:
        """Return the workers' process ids."""
        # trio starts processes in threads, and each thread lists its own children.
        tasks = Path(f"/proc/{self._process.pid}/task")
        return [int(pid) for each in tasks.glob("*/children") for pid in each.read_text().split()]

    @property
    def leads(self) -> bool:
        """Return whether this instance leads and runs the feed."""
        return self.metric("market_data_leader") == 1

    def kill(self) -> None:
        """End the process as a crash does."""
        self._process.kill()
        self._process.wait()

    def cpu_seconds(self) -> float | None:
        """Return the processor seconds of all its processes."""
        return sum(map(cpu_seconds, [self._process.pid, *self.workers]))


class Traffic(NamedTuple):
    """Bytes that Redis has received and sent since its start, and its processor time in seconds."""

    received: float
    sent: float
    cpu: float

    @classmethod
    def read(cls, redis: Redis) -> Self:
        """Read the counts from `INFO`."""
        values = dict(line.partition(":")[::2] for line in redis.command("INFO").split())
        cpu = float(values["used_cpu_user"]) + float(values["used_cpu_sys"])
        return cls(
            float(values["total_net_input_bytes"]), float(values["total_net_output_bytes"]), cpu
        )

    def since(self, before: "Traffic") -> "Traffic":
        """Return the difference to `before`."""
        return Traffic(*(now - then for now, then in zip(self, before, strict=True)))


def kill(pid: int) -> None:
    """End a worker as a crash does."""
    os.kill(pid, signal.SIGKILL)
