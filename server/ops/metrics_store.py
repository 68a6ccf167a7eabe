"""The store's metrics, read from what it counts."""

from collections.abc import Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.ops.metrics import counter, counters, gauge, histograms
from server.store.store import Store

BREAKER_STATES = ("closed", "open", "half_open")


class StoreCollector(Collector):
    """Turns the store's counts into metric families."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry then does not collect once at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families, at this moment."""
        stats = self._store.stats
        yield counters(
            "market_data_cache_requests",
            "Symbols that were not live, by what the cache had",
            ["result"],
            {
                ("hit",): stats.hits,
                ("miss",): stats.misses,
                ("negative",): stats.negative,
                ("error",): stats.errors,
            },
        )
        asked = stats.hits + stats.misses
        yield gauge(
            "market_data_cache_hit_ratio",
            "Hits among what the cache was asked for since the start, 0 to 1",
            stats.hits / asked if asked else 0.0,
        )
        yield counter("market_data_live_snapshots", "Symbols answered from memory", stats.live)
        yield counter(
            "market_data_cache_collapsed",
            "Symbols that waited for a load somebody else had begun",
            stats.collapsed,
        )
        yield counter("market_data_cache_stale", "Symbols served past their TTL", stats.stale)
        yield counter(
            "market_data_cache_dropped_writes",
            "Symbols not written to the cache: too many waited, or it failed",
            stats.dropped_writes,
        )
        yield counter("market_data_db_errors", "Statements that failed", stats.db_errors)
        yield counter("market_data_prices_saved", "Last prices written back", stats.saved)
        yield histograms(
            "market_data_cache_operation_seconds",
            "Operations of the cache",
            ["operation"],
            {(name,): counts for name, counts in stats.operations.items()},
        )
        yield histograms(
            "market_data_db_query_seconds",
            "Statements of the database, with the wait for a connection",
            ["query"],
            {(name,): counts for name, counts in stats.queries.items()},
        )
        yield from self._pool()
        yield self._breakers()

    def _pool(self) -> Iterator[Metric]:
        if pool := self._store.catalogue.pool_use():
            yield gauge("market_data_db_pool_used", "Connections in use", pool.used)
            yield gauge("market_data_db_pool_size", "Connections there may be", pool.size)

    def _breakers(self) -> Metric:
        family = GaugeMetricFamily(
            "market_data_store_breaker",
            "1 for the state each breaker is in",
            labels=["component", "state"],
        )
        for component in self._store.components:
            for state in BREAKER_STATES:
                family.add_metric([component.role, state], component.breaker == state)
        return family
