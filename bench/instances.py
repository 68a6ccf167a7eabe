"""Several servers that share a Redis. They may use all cores, as the load may."""

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
    """A Redis of our own. Errors: TargetError if there is none on this machine."""
    try:
        with Redis() as redis:
            yield redis
    except MissingService as error:
        raise TargetError(str(error)) from None


class Instance(OwnServer):
    """One process, or as many `workers` on one port with their supervisor."""

    pinned = False

    def __init__(
        self, redis: Redis, schedule: Schedule | None = None, *, workers: int = 0, **variables: str
    ) -> None:
        super().__init__(schedule, REDIS_URL=redis.url, **variables)
        if workers:
            self._command = [*self._command, "--workers", str(workers)]

    @property
    def workers(self) -> list[int]:
        """The workers' process ids."""
        tasks = Path(f"/proc/{self._process.pid}/task")  # trio starts processes in threads
        return [int(pid) for each in tasks.glob("*/children") for pid in each.read_text().split()]

    @property
    def leads(self) -> bool:
        """Whether the feed runs here."""
        return self.metric("market_data_leader") == 1

    def kill(self) -> None:
        """End it as a crash does."""
        self._process.kill()
        self._process.wait()

    def cpu_seconds(self) -> float | None:
        """Of all its processes."""
        return sum(map(cpu_seconds, [self._process.pid, *self.workers]))


class Traffic(NamedTuple):
    """What Redis has received and sent since its start, in bytes, and its processor time in seconds."""

    received: float
    sent: float
    cpu: float

    @classmethod
    def read(cls, redis: Redis) -> Self:
        """As `INFO` says."""
        values = dict(line.partition(":")[::2] for line in redis.command("INFO").split())
        cpu = float(values["used_cpu_user"]) + float(values["used_cpu_sys"])
        return cls(
            float(values["total_net_input_bytes"]), float(values["total_net_output_bytes"]), cpu
        )

    def since(self, before: "Traffic") -> "Traffic":
        """What was added since `before`."""
        return Traffic(*(now - then for now, then in zip(self, before, strict=True)))


def kill(pid: int) -> None:
    """End a worker as a crash does."""
    os.kill(pid, signal.SIGKILL)
