"""What the parts of an instance that leads or follows share."""

from typing import TYPE_CHECKING, NamedTuple

import trio

from server.cluster.state import ClusterState, Policy
from server.cluster.stats import ClusterStats
from server.cluster.wire import Batch
from server.fanout.hub import Hub

if TYPE_CHECKING:  # redis and asyncio are imported only where REDIS_URL is set
    from server.cluster.bus import Bus


class ClusterContext(NamedTuple):
    """What an instance works with, whether it leads or follows. `batches`: what the bus hears, None
    where its connection changes.
    """

    hub: Hub
    bus: "Bus"
    policy: Policy
    line: ClusterState
    batches: trio.MemoryReceiveChannel[Batch | None]
    stats: ClusterStats
