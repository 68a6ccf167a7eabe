"""The fan-out's metrics: updates from the feed's intake to the kernel."""

from collections.abc import Iterator
from time import time

from prometheus_client.core import Metric

from server.fanout.hub import Hub
from server.ops.families import PackageCollector, by_label, counter, counters, gauge, histogram


class FanoutCollector(PackageCollector):
    """Reads the hub's counts."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def collect(self) -> Iterator[Metric]:
        yield from self._deliveries()
        yield from self._intake()

    def _deliveries(self) -> Iterator[Metric]:
        hub, stats = self._hub, self._hub.stats
        yield counter(
            "market_data_messages_sent", "Frames given to the kernel", stats.messages_sent
        )
        yield counter("market_data_bytes_sent", "Bytes given to the kernel", stats.bytes_sent)
        yield counter(
            "market_data_conflated",
            "Updates merged into a later one, per receiver or before the fan-out",
            stats.conflated,
        )
        yield counter(
            "market_data_updates_encoded", "Quotes and patches encoded", stats.updates_encoded
        )
        yield counters(
            "market_data_recovered",
            "Symbols of clients that resumed, by what the client was sent",
            ["result"],
            by_label(stats.recovered),
        )
        yield gauge(
            "market_data_subscriptions", "Pairs of connection and symbol", hub.subscriptions
        )
        yield gauge("market_data_active_symbols", "Symbols with a task", hub.active_symbols)
        yield gauge(
            "market_data_conflation_interval_seconds",
            "Time between two publications of a symbol during an overload, else 0",
            hub.conflation,
        )
        yield histogram(
            "market_data_delivery_latency_seconds",
            "Time from the feed's intake until the kernel has the bytes",
            stats.delivery_latency,
        )
        yield histogram(
            "market_data_fanout_burst_seconds",
            "Time from the first to the last connection of one round",
            stats.fanout_burst,
        )

    def _intake(self) -> Iterator[Metric]:
        stats = self._hub.stats
        yield counter("market_data_feed_updates", "Trades taken in", stats.feed_updates)
        yield counter(
            "market_data_feed_waits", "Trades for which the feed was held back", stats.feed_waits
        )
        if stats.last_intake_us:
            yield gauge(
                "market_data_feed_age_seconds",
                "Time since the last trade was taken in",
                max(0.0, time() - stats.last_intake_us / 1e6),
            )
