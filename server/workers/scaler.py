"""Decides how many workers there should be, from how loaded they are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from typing import Literal, NamedTuple

from server.fanout.stats import DELIVERY_BUCKETS
from server.workers.process import Worker

PERCENTILE = 0.95
"""Of frames, whose delivery latency is looked at."""


@dataclass(frozen=True, kw_only=True)
class ScalePolicy:
    """When to change the number of workers, between `minimum` and `maximum`.

    Shares are from 0 to 1, times in seconds. One more: more than `up_connections` of the places
    taken, more than `up_cpu` of a core used by each, or latencies beyond `up_latency`, for all of
    `after`. One less: both shares below `down`, as long. Nothing for `cooldown` after a change.
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
    """How loaded the workers are together: shares, seconds; no latency where nothing was delivered."""

    connections: float
    cpu: float
    latency: float


class Decision(NamedTuple):
    """`reason` is one of few words."""

    action: Literal["up", "down", "hold"]
    reason: str


MAXIMUM = Decision("hold", "maximum")
MINIMUM = Decision("hold", "minimum")


class Scaler:
    """Knows neither clock nor workers."""

    def __init__(self, policy: ScalePolicy) -> None:
        self.policy = policy
        self._over_since: float | None = None
        self._calm_since: float | None = None
        self._quiet_until = -inf

    def look(self, now: float, workers: int, load: Load, *, leaving: bool = False) -> Decision:
        """What to do with so many workers under this load; while one is `leaving`, none follows."""
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
        """The workers are others: what was seen of them counts no more."""
        self._over_since = self._calm_since = None
        self._quiet_until = now + self.policy.cooldown

    def _over(self, load: Load) -> str:
        """What is beyond its limit, none if nothing is."""
        policy = self.policy
        if load.connections > policy.up_connections:
            return "connections"
        if load.cpu > policy.up_cpu:
            return "cpu"
        return "latency" if load.latency > policy.up_latency else ""

    def _is_calm(self, workers: int, load: Load) -> bool:
        """Whether one may go, and the others then are not at once too few."""
        policy = self.policy
        if workers < 2:
            return load.connections < policy.down and load.cpu < policy.down
        grown = workers / (workers - 1)
        return (
            load.connections < min(policy.down, policy.up_connections / grown)
            and load.cpu < min(policy.down, policy.up_cpu / grown)
        )  # fmt: skip

    def _held(self, since: float | None, now: float) -> bool:
        return since is not None and now - since >= self.policy.after

    def _change(self, now: float, action: Literal["up", "down"], reason: str) -> Decision:
        self.changed(now)
        return Decision(action, reason)


def _begun(since: float | None, now: float) -> float:
    return now if since is None else since


def measure(workers: Iterable[Worker]) -> Load:
    """The load of those that serve, of whom there is one at least."""
    samples, delivered = [], [0] * (len(DELIVERY_BUCKETS) + 1)
    for worker in workers:
        if worker.sample:
            samples.append(worker.sample)
            (_, first), (_, last) = worker.delivered[0], worker.delivered[-1]
            delivered = [
                total + new - old for total, new, old in zip(delivered, last, first, strict=True)
            ]
    return Load(
        sum(each.places for each in samples) / sum(each.capacity for each in samples),
        sum(each.cpu for each in samples) / len(samples),
        percentile(delivered),
    )


def percentile(counts: Sequence[int]) -> float:
    """The seconds within which PERCENTILE of what was counted by delivery bucket lies, drawn evenly
    within its bucket as Prometheus' histogram_quantile does; 0 where nothing was counted.
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
