"""The cluster's metrics, read from what it counts."""

from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from server.cluster.member import Member
from server.cluster.stats import ClusterStats
from server.ops.metrics import counter, gauge


class ClusterCollector(Collector):
    """Turns the cluster's counts into metric families; who is alone leads, and hears nobody."""

    def __init__(self, member: Member | None) -> None:
        self._member = member

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry then does not collect once at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families, at this moment."""
        member = self._member
        stats = member.stats if member else ClusterStats()
        leading = member.leading if member else True
        yield gauge("market_data_leader", "1 if this instance makes the prices", leading)
        yield counter("market_data_bus_messages", "Batches heard", stats.batches_received)
        yield counter(
            "market_data_bus_gaps", "Times that batches were missed and all was read", stats.gaps
        )
        if member:
            yield from self._bus(member, stats)

    def _bus(self, member: Member, stats: ClusterStats) -> Iterator[Metric]:
        yield gauge("market_data_bus_epoch", "The newest epoch followed or led", member.epoch or 0)
        yield gauge(
            "market_data_bus_connected",
            "1 if what this instance publishes comes back to it",
            member.bus.connection is not None,
        )
        yield gauge("market_data_bus_round_trip_seconds", "The last probe's way", stats.round_trip)
        yield counter("market_data_bus_moves", "Moves in them", stats.moves_received)
        yield counter(
            "market_data_bus_published_messages", "Batches published", stats.batches_published
        )
        yield counter("market_data_bus_published_moves", "Moves in them", stats.moves_published)
        yield counter(
            "market_data_bus_dropped_messages",
            "Batches for which there was no room: each is a gap",
            stats.dropped,
        )
        yield counter("market_data_bus_fenced", "Batches refused, as another leads", stats.fenced)
        yield counter("market_data_elections", "Epochs begun by this instance", stats.elections)
