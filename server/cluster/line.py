"""What an instance knows of the one line of prices, and how long it waits: shared by its parts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import trio

from server.cluster.stats import ClusterStats
from server.cluster.wire import Batch
from server.fanout.hub import Hub

if TYPE_CHECKING:
    from server.cluster.bus import Bus

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
class Line:
    """Owned by the instance's member. `epoch` is the newest that it followed or led. `unclaimed`: it
    has symbols on whose state the cluster could not be asked to agree. `led`: the last that it led.
    `position`: the time of the newest trade that was published or heard of, as in `Batch`.
    """

    epoch: int = 0
    led: int = -1
    unclaimed: bool = False
    position: int = 0


class Instance(NamedTuple):
    """What an instance works with, whether it leads or follows. `batches`: what the bus hears, None
    where its connection changes.
    """

    hub: Hub
    bus: "Bus"
    policy: Policy
    line: Line
    batches: trio.MemoryReceiveChannel[Batch | None]
    stats: ClusterStats
