"""Decides how many workers there should be, from how loaded they are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from typing import Literal, NamedTuple

from server.histogram import DELIVERY_BUCKETS
from server.workers.process import BUCKETS, Worker

PERCENTILE = 0.95
"""Share of the frames that are delivered within the latency of `Load`."""


@dataclass(frozen=True, kw_only=True)
class ScalePolicy:
    """When to change the number of workers, between `minimum` and `maximum`.

    Shares are from 0 to 1, times in seconds. The scaler adds a worker if one of three values stays
    above its limit for `after`. These are the share of places taken (`up_connections`), the workers'
    average share of a core (`up_cpu`), and the latency (`up_latency`). It removes a worker if both
    shares stay below `down` for `after`. After each change it waits for `cooldown`.
    """

    minimum: int
    maximum: int
    up_connections: float = 0.8
    up_cpu: float = 0.8
    up_latency: float = 0.1
    down: float = 0.3
    after: float = 10.0
    cooldown: float = 30.0


class Load(NamedTuple):
    """The load of all workers: shares, and a latency in seconds, 0 if nothing was delivered."""

    connections: float
    cpu: float
    latency: float


class Decision(NamedTuple):
    """`reason` is one of a few words: a label of the metrics."""

    action: Literal["up", "down", "hold"]
    reason: str


MAXIMUM = Decision("hold", "maximum")
MINIMUM = Decision("hold", "minimum")


class Scaler:
    """Decides without clock and workers."""

    def __init__(self, policy: ScalePolicy) -> None:
        self.policy = policy
        self._over_since: float | None = None
        self._calm_since: float | None = None
        self._quiet_until = -inf

    def look(self, now: float, workers: int, load: Load, *, leaving: bool = False) -> Decision:
        """Decide what to do with `workers` under this load. While one is `leaving`, no other leaves."""
        over = self._over(load)
        calm = not over and not leaving and self._is_calm(workers, load)
        self._over_since = _begun(self._over_since, now) if over else None
        self._calm_since = _begun(self._calm_since, now) if calm else None
        if now < self._quiet_until:
            return Decision("hold", "cooldown")
        if self._held(self._over_since, now):
            return self._change(now, "up", over) if workers < self.policy.maximum else MAXIMUM
        if self._held(self._calm_since, now):
            return self._change(now, "down", "calm") if workers > self.policy.minimum else MINIMUM
        return Decision("hold", "rising" if over else "steady")

    def changed(self, now: float) -> None:
        """Forget the load seen so far: the number of workers changes, or all were replaced."""
        self._over_since = self._calm_since = None
        self._quiet_until = now + self.policy.cooldown

    def _over(self, load: Load) -> str:
        """Return the name of a value beyond its limit, '' if there is none."""
        policy = self.policy
        if load.connections > policy.up_connections:
            return "connections"
        if load.cpu > policy.up_cpu:
            return "cpu"
        return "latency" if load.latency > policy.up_latency else ""

    def _is_calm(self, workers: int, load: Load) -> bool:
        """Return whether a worker may leave without the others being too few at once."""
        policy = self.policy
        if workers < 2:
            return load.connections < policy.down and load.cpu < policy.down
        grown = workers / (workers - 1)
        connections = min(policy.down, policy.up_connections / grown)
        return load.connections < connections and load.cpu < min(policy.down, policy.up_cpu / grown)

    def _held(self, since: float | None, now: float) -> bool:
        return since is not None and now - since >= self.policy.after

    def _change(self, now: float, action: Literal["up", "down"], reason: str) -> Decision:
        self.changed(now)
        return Decision(action, reason)


def _begun(since: float | None, now: float) -> float:
    return now if since is None else since


def measure(workers: Iterable[Worker]) -> Load:
    """Return the load of `workers`. At least one of them has reported."""
    samples, delivered = [], [0] * BUCKETS
    for worker in workers:
        if worker.sample:
            samples.append(worker.sample)
            (_, first), (_, last) = worker.delivered[0], worker.delivered[-1]
            delivered = [
                total + max(0, new - old)
                for total, new, old in zip(delivered, last, first, strict=True)
            ]
    return Load(
        sum(each.places for each in samples) / max(1, sum(each.capacity for each in samples)),
        sum(each.cpu for each in samples) / len(samples),
        percentile(delivered),
    )


def percentile(counts: Sequence[int]) -> float:
    """Return the seconds within which PERCENTILE of the counts lie. `counts` are by delivery bucket.

    It interpolates within a bucket, as Prometheus' histogram_quantile does. 0 without counts.
    """
    wanted = PERCENTILE * sum(counts)
    if not wanted:
        return 0.0
    edges = (0.0, *DELIVERY_BUCKETS)
    for number, below in enumerate(accumulate(counts[:-1])):
        if below >= wanted:
            low, high = edges[number], edges[number + 1]
            return low + (high - low) * (1 - (below - wanted) / counts[number])
    return DELIVERY_BUCKETS[-1]
