"""How long an instance waits, and what it knows of the epochs that were led."""

from dataclasses import dataclass

HEARTBEAT = 1.0
"""Seconds between two signs of life, probes and the leader's batches; a third of `stale_after`, if that
is shorter.
"""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """`lease` and `stale_after` are in seconds; `candidate`: whether the instance may lead; `local`:
    whether it goes on by itself when the bus is lost.
    """

    lease: float
    stale_after: float
    candidate: bool
    local: bool

    @property
    def heartbeat(self) -> float:
        """Seconds between two signs of life."""
        return min(HEARTBEAT, self.stale_after / 3)


@dataclass(kw_only=True)
class ClusterState:
    """Owned by the instance's member. `epoch` is the newest that it followed or led. `unclaimed`: it
    has symbols on whose state the cluster could not be asked to agree. `led`: the last that it led.
    `position`: the time of the newest trade that was published or heard of, as in `Batch`.
    """

    epoch: int = 0
    led: int = -1
    unclaimed: bool = False
    position: int = 0
