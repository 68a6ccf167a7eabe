"""The times for which an instance waits, and its knowledge of the epochs."""

from dataclasses import dataclass

from server.quotes.update import NOWHERE, FeedPosition

COMMAND_TIMEOUT = 1.0
"""Seconds of one command, which takes one millisecond; a third of a lease, if that is shorter."""

HEARTBEAT = 1.0
"""Seconds between two probes, and two of the leader's batches; at most a third of `stale_after`."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """`lease` and `stale_after` are in seconds. `candidate`: the instance may lead. `local`: it goes on
    by itself while the bus is lost.
    """

    lease: float
    stale_after: float
    candidate: bool
    local: bool

    @property
    def heartbeat(self) -> float:
        """Seconds between two signs of life."""
        return min(HEARTBEAT, self.stale_after / 3)

    @property
    def patience(self) -> float:
        """Seconds to wait for Redis."""
        return min(COMMAND_TIMEOUT, self.lease / 3)


@dataclass(kw_only=True)
class ClusterState:
    """Owned by the instance's member.

    `epoch`: the newest one that the instance followed or led, None before the first. `led`: the last
    one that it led. `unclaimed`: the cluster has not agreed yet on the state of some of its symbols.
    `position`: that of the last batch published or received. `abandoned`: topics here have moves of a
    step of published prices that Redis does not have.
    """

    epoch: int | None = None
    led: int | None = None
    unclaimed: bool = False
    position: FeedPosition = NOWHERE
    abandoned: bool = False

    def is_newer(self, epoch: int) -> bool:
        """Return whether `epoch` is newer than the newest one here."""
        return self.epoch is None or epoch > self.epoch
