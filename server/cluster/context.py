"""The objects that leader, follower and publisher of one instance share."""

from dataclasses import dataclass

import trio

from server.cluster.bus import Bus
from server.cluster.state import ClusterState, Policy
from server.cluster.stats import ClusterStats
from server.cluster.steps import Steps
from server.cluster.wire import Batch
from server.fanout.hub import Hub


@dataclass(frozen=True, kw_only=True)
class ClusterContext:
    """`batches` come from the bus; None stands for a change of its connection."""

    hub: Hub
    bus: Bus
    policy: Policy
    state: ClusterState
    batches: trio.MemoryReceiveChannel[Batch | None]
    steps: Steps
    stats: ClusterStats
