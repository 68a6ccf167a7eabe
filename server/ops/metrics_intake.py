"""The metrics of prices from outside: each source, and what the intake holds and keeps."""

from collections.abc import Iterator, Sequence
from time import time_ns

from prometheus_client.core import Metric

from server.feeds.live.venue import VenueFeed
from server.intake.intake import Intake
from server.ops.families import PackageCollector, counter, counters, gauge, gauges


class IntakeCollector(PackageCollector):
    """Reads the intake's counts. A server has none of these metrics if no prices are pushed to it."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def collect(self) -> Iterator[Metric]:
        now, sources = time_ns() // 1000, self._intake.sources.all.values()
        yield counters(
            "market_data_published",
            "Published objects, by how they count",
            ["source", "result"],
            {
                (source.name, result): count
                for source in sources
                for result, count in source.results.items()
            },
        )
        yield gauges(
            "market_data_source_lag_seconds",
            "Intake of a source's last object minus that object's time",
            ["source"],
            {(source.name,): source.lag_us / 1e6 for source in sources},
        )
        yield gauges(
            "market_data_source_rate",
            "Objects a second of a source, over ten seconds",
            ["source"],
            {(source.name,): source.rate(now) for source in sources},
        )
        yield gauges(
            "market_data_source_silence_seconds",
            "Seconds since a source's last batch",
            ["source"],
            {(source.name,): (now - source.heard_at) / 1e6 for source in sources},
        )
        held, trades = self._intake.held, self._intake.trades
        yield gauge("market_data_held_trades", "Trades held back by PRICE_BAND", held.count)
        yield counter(
            "market_data_held_trades_dropped",
            "Held trades dropped for want of room or by a split",
            held.dropped,
        )
        yield gauge("market_data_kept_trades", "Trades that can still be revised", len(trades))
        yield gauge("market_data_kept_trades_bytes", "Memory of these trades", trades.used)


class VenueCollector(PackageCollector):
    """Reads the live feeds' counts."""

    def __init__(self, feeds: Sequence[VenueFeed]) -> None:
        self._feeds = feeds

    def collect(self) -> Iterator[Metric]:
        named = {(each.venue.name,): each for each in self._feeds}
        yield gauges(
            "market_data_venue_connected",
            "1 while a live venue is connected",
            ["venue"],
            {name: int(each.connected) for name, each in named.items()},
        )
        yield counters(
            "market_data_venue_connections",
            "Connections made to a live venue",
            ["venue"],
            {name: each.connections for name, each in named.items()},
        )
        yield counters(
            "market_data_venue_missed_trades",
            "Trades in the gaps of a venue's numbers",
            ["venue"],
            {name: each.missed for name, each in named.items()},
        )
