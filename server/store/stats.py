"""The store's counts, in plain integers. Only the metrics read them."""

from collections import defaultdict
from dataclasses import dataclass, field

from server.histogram import Histogram
from server.invalid import InvalidRecords

OPERATION_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 2.5)
"""Upper edges in seconds, from a lookup in memory to a query's timeout. They include the targets, 10
and 50 ms.
"""


def _histograms() -> dict[str, Histogram]:
    return defaultdict(lambda: Histogram(OPERATION_BUCKETS))


@dataclass(slots=True)
class StoreStats:
    """Counts of the store, which owns them. They count symbols, not requests, unless noted.

    A requested symbol that is not live counts once. It is one of the `hits` (in the cache), `misses`
    (not in the cache), `negative` (known not to exist) or `errors` (no answer of the cache).
    `collapsed` symbols waited for a load that another request had begun. `dropped_writes` were not
    written to the cache, because too many waited or the cache failed. `db_errors` counts failed
    statements. `bars_deleted` counts bars in SQLite, months in Postgres. The seconds of the cache's
    `operations` and the database's `queries` are by name.
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
    bars_written: int = 0
    bars_refused: int = 0
    bars_deleted: int = 0
    operations: dict[str, Histogram] = field(default_factory=_histograms)
    queries: dict[str, Histogram] = field(default_factory=_histograms)
    invalid: InvalidRecords = field(default_factory=InvalidRecords)
