"""The cluster's metrics: leadership and the bus."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from server.cluster.member import Member
from server.cluster.stats import ClusterStats
from server.ops.families import PackageCollector, counter, gauge


class ClusterCollector(PackageCollector):
    """Reads the cluster's counts. A server without Redis counts as the leader and receives nothing."""

    def __init__(self, member: Member | None) -> None:
        self._member = member

    def collect(self) -> Iterator[Metric]:
        member = self._member
        stats = member.stats if member else ClusterStats()
        leading = member.leading if member else True
        yield gauge("market_data_leader", "1 if this instance makes the prices", leading)
        yield counter("market_data_bus_messages", "Batches received", stats.batches_received)
        yield counter(
            "market_data_bus_gaps",
            "Times that batches were missed and all quotes were read from Redis",
            stats.gaps,
        )
        if member:
            yield from self._bus(member, stats)

    def _bus(self, member: Member, stats: ClusterStats) -> Iterator[Metric]:
        yield gauge("market_data_bus_epoch", "The newest epoch followed or led", member.epoch or 0)
        yield gauge(
            "market_data_bus_connected",
            "1 if this instance receives its own probes back from Redis",
            member.bus.connection is not None,
        )
        yield gauge(
            "market_data_bus_round_trip_seconds", "The last probe's round trip", stats.round_trip
        )
        yield counter(
            "market_data_bus_moves", "Moves in the batches received", stats.moves_received
        )
        yield counter(
            "market_data_bus_published_messages", "Batches published", stats.batches_published
        )
        yield counter(
            "market_data_bus_published_moves",
            "Moves in the batches published",
            stats.moves_published,
        )
        yield counter(
            "market_data_bus_dropped_messages",
            "Batches dropped for want of room: each is a gap",
            stats.dropped,
        )
        yield counter(
            "market_data_bus_fenced", "Batches refused because another one leads", stats.fenced
        )
        yield counter("market_data_elections", "Epochs begun by this instance", stats.elections)
