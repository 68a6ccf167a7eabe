"""The store's metrics: catalogue and cache."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from server.history.minutes import Minutes
from server.ops.families import (
    PackageCollector,
    by_label,
    counter,
    counters,
    gauge,
    gauges,
    histograms,
)
from server.store.store import Store

BREAKER_STATES = ("closed", "open", "half_open")


class StoreCollector(PackageCollector):
    """Reads the store's counts, and those of the bars that wait for it."""

    def __init__(self, store: Store, minutes: Minutes) -> None:
        self._store = store
        self._minutes = minutes

    def collect(self) -> Iterator[Metric]:
        yield from self._cache()
        yield from self._database()
        yield gauges(
            "market_data_store_breaker",
            "1 for the state that each breaker is in",
            ["component", "state"],
            {
                (component.role, state): component.breaker == state
                for component in self._store.components
                for state in BREAKER_STATES
            },
        )

    def _cache(self) -> Iterator[Metric]:
        stats = self._store.stats
        results = {
            "hit": stats.hits,
            "miss": stats.misses,
            "negative": stats.negative,
            "error": stats.errors,
        }
        yield counters(
            "market_data_cache_requests",
            "Symbols that were not live, by what the cache had",
            ["result"],
            by_label(results),
        )
        asked = stats.hits + stats.misses
        yield gauge(
            "market_data_cache_hit_ratio",
            "Hits among hits and misses since the start, 0 to 1",
            stats.hits / asked if asked else 0.0,
        )
        yield counter("market_data_live_snapshots", "Symbols answered from memory", stats.live)
        yield counter(
            "market_data_cache_collapsed",
            "Symbols that waited for a load that another request had begun",
            stats.collapsed,
        )
        yield counter("market_data_cache_stale", "Symbols served past their TTL", stats.stale)
        yield counter(
            "market_data_cache_dropped_writes",
            "Symbols not written to the cache: too many waited, or it failed",
            stats.dropped_writes,
        )
        yield histograms(
            "market_data_cache_operation_seconds",
            "Operations of the cache",
            ["operation"],
            {(name,): counts for name, counts in stats.operations.items()},
        )

    def _database(self) -> Iterator[Metric]:
        stats = self._store.stats
        yield counter("market_data_db_errors", "Statements that failed", stats.db_errors)
        yield counter("market_data_prices_saved", "Last prices written back", stats.saved)
        yield counter("market_data_bars_written", "Bars written, open ones too", stats.bars_written)
        yield counter(
            "market_data_bars_refused", "Bars that the database refused", stats.bars_refused
        )
        yield gauge(
            "market_data_bars_unwritten",
            "Final bars that wait for the database",
            self._minutes.unwritten_count,
        )
        yield counter(
            "market_data_bars_lost",
            "Final bars dropped, as the database took none for too long",
            self._minutes.lost,
        )
        yield counter(
            "market_data_bars_deleted",
            "Bars deleted for their age; with Postgres, months",
            stats.bars_deleted,
        )
        yield histograms(
            "market_data_db_query_seconds",
            "Statements of the database, with the wait for a connection",
            ["query"],
            {(name,): counts for name, counts in stats.queries.items()},
        )
        if pool := self._store.catalogue.pool_use():
            yield gauge("market_data_db_pool_used", "Connections in use", pool.used)
            yield gauge("market_data_db_pool_size", "Largest number of connections", pool.size)
