"""What the store counts, in plain integers; only the metrics read it."""

from collections import defaultdict
from dataclasses import dataclass, field

from server.histogram import Histogram
from server.invalid import InvalidRecords

OPERATION_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 2.5)
"""Seconds: from a look into memory to a query's timeout. The targets, 10 and 50 ms, are edges."""


def _histograms() -> dict[str, Histogram]:
    return defaultdict(lambda: Histogram(OPERATION_BUCKETS))


@dataclass(slots=True)
class StoreStats:
    """Owned by the store. Symbols are counted, not requests, unless that is said.

    `hits`, `misses`, `negative`, `errors`: what became of symbols that were not live: in the cache;
    not in it; known not to exist; the cache gave no answer. `collapsed`: waited for a load that
    somebody else had begun. `dropped_writes`: not written to the cache, as too many waited.
    """

    live: int = 0
    hits: int = 0
    misses: int = 0
    negative: int = 0
    errors: int = 0
    collapsed: int = 0
    stale: int = 0
    dropped_writes: int = 0
    db_errors: int = 0
    saved: int = 0
    operations: dict[str, Histogram] = field(default_factory=_histograms)
    queries: dict[str, Histogram] = field(default_factory=_histograms)
    invalid: InvalidRecords = field(default_factory=InvalidRecords)

    def observe_query(self, name: str, seconds: float) -> None:
        """A statement of the database ended after so long."""
        self.queries[name].observe(seconds)

    def observe_operation(self, name: str, seconds: float) -> None:
        """An operation of the cache ended after so long."""
        self.operations[name].observe(seconds)
