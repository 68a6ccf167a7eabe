"""Remembers the last hour of a server's own metrics, for the operators' page.

It reads the registry that `/metrics` is made of, so both show the same numbers. It takes the memory of
360 points for each column, and nothing for each client or price.
"""

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import add, sub
from time import perf_counter, time
from typing import Annotated, Literal, NamedTuple

import msgspec
import structlog
import trio
from msgspec import Meta
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from server.histogram import DELIVERY_BUCKETS
from server.ops.health import Health

INTERVAL = 10
"""Seconds between two points."""

POINTS = 360
"""Points of an hour."""

MAX_COLUMNS = 160
"""Columns at most: some 40, and one for each reason of a refusal and each source of prices."""

PERCENTILES = (50, 95, 99)

BUCKETS = [*map(str, DELIVERY_BUCKETS), "+Inf"]

log = structlog.get_logger()

Labels = tuple[tuple[str, str], ...]

Samples = Mapping[str, Mapping[Labels, float]]
"""The values of a page of metrics, by the sample's name and its labels."""

Unit = Literal["", "1/s", "B/s", "B", "s", "share", "cores", "grade"]


class Series(msgspec.Struct, frozen=True):
    """One number over the last hour."""

    name: Annotated[str, Meta(description="Name of the number")]
    unit: Annotated[
        Unit,
        Meta(
            description="Unit: empty for a count, `s` seconds, `B` bytes, `share` from 0 to 1, `cores` "
            "of processors, `grade` from 0 (healthy) to 3 (critical)"
        ),
    ]
    points: Annotated[
        Sequence[float | None],
        Meta(description="Its values, the newest last; null if there was none"),
    ]


class Recording(msgspec.Struct, frozen=True):
    """A part of a recorder's columns. The point at `last` is the newest; time is in INTERVALs."""

    last: int
    columns: dict[str, list[float | None]]


class _Column(NamedTuple):
    """A column that is read from metrics: the sum of a metric's samples, or how fast it grows."""

    metric: str
    labels: Mapping[str, str] = {}
    grows: bool = False


_COLUMNS = {
    "connections": _Column("market_data_connections"),
    "messages": _Column("market_data_messages_sent_total", grows=True),
    "bytes": _Column("market_data_bytes_sent_total", grows=True),
    "conflated": _Column("market_data_conflated_total", grows=True),
    "refused": _Column("market_data_connections_rejected_total", grows=True),
    "breakers_closed": _Column("market_data_circuit_breakers", {"state": "closed"}),
    "breakers_all": _Column("market_data_circuit_breakers"),
    "cache_hits": _Column("market_data_cache_requests_total", {"result": "hit"}, grows=True),
    "cache_misses": _Column("market_data_cache_requests_total", {"result": "miss"}, grows=True),
    "database_errors": _Column("market_data_db_errors_total", grows=True),
    "database_seconds": _Column("market_data_db_query_seconds_sum", grows=True),
    "database_queries": _Column("market_data_db_query_seconds_count", grows=True),
    "bus_gaps": _Column("market_data_bus_gaps_total", grows=True),
    "max.bus_round_trip": _Column("market_data_bus_round_trip_seconds"),
    "leaders": _Column("market_data_leader"),
    "max.trades": _Column("market_data_feed_updates_total", grows=True),
    "cpu": _Column("process_cpu_seconds_total", grows=True),
    "memory": _Column("process_resident_memory_bytes"),
    **{
        f"delivery.{bucket}": _Column(
            "market_data_delivery_latency_seconds_bucket", {"le": bucket}, grows=True
        )
        for bucket in map(str, BUCKETS)
    },
}
"""The columns by name. Those of several workers are added up; of `max.`, the largest is taken."""

_BY_LABEL = {
    "refused.": ("market_data_connections_rejected_total", "reason", True),
    "max.source_lag.": ("market_data_source_lag_seconds", "source", False),
}
"""Columns for each value of a label, by the beginning of their names."""


class Recorder:
    """Owned by the server, which runs it.

    Arguments:
        registry: that of `/metrics`.
        worst_lag: returns the longest delay of the event loop since it was last asked.
    """

    def __init__(self, registry: Collector, worst_lag: Callable[[], float]) -> None:
        self._registry = registry
        self._worst_lag = worst_lag
        self._columns: dict[str, array[float]] = {}
        self._before: dict[str, float] = {}
        self._before_at = 0.0
        self._first = 0
        self._last = 0

    async def run(self) -> None:
        """Add a point at each multiple of INTERVAL until cancelled. A metric that cannot be read does
        not end the server.
        """
        self._worst_lag()
        while True:
            await trio.sleep(INTERVAL - time() % INTERVAL)
            try:
                self.sample(round(time() / INTERVAL), self._worst_lag())
            except Exception as error:
                log.error("no point of the last hour was added", exc_info=error)

    def sample(self, point: int, worst_lag: float) -> None:
        """Add the point with the number `point`. The clock may have gone back: then the hour begins
        anew.
        """
        if point == self._last:
            # Woken a moment early.
            return
        samples = self.samples()
        if not self._columns or point < self._last or point - self._last > POINTS:
            self._columns.clear()
            self._first = point
        for skipped in range(self._last + 1, point if self._columns else 0):
            for column in self._columns.values():
                column[skipped % POINTS] = math.nan
        self._last = point
        now = perf_counter()
        # The sources of prices are last. Publishers name them, so they get the room that is left.
        values = {"max.lag": worst_lag, "max.health": _grade(samples)}
        values |= self._values(samples, now - self._before_at)
        self._before_at = now
        self._add_columns(list(values)[:MAX_COLUMNS])
        for name, column in self._columns.items():
            column[point % POINTS] = _rounded(values.get(name, math.nan))

    def _add_columns(self, wanted: Sequence[str]) -> None:
        """Add the missing columns. Others end after an hour without a value, or to make room."""
        others = [name for name in self._columns if name not in wanted]
        over = [name for name in others if all(map(math.isnan, self._columns[name]))]
        kept = [name for name in others if name not in over]
        room = MAX_COLUMNS - len(wanted)
        for name in [*over, *kept[: max(0, len(kept) - room)]]:
            del self._columns[name]
        for name in wanted:
            if name not in self._columns:
                self._columns[name] = array("d", [math.nan]) * POINTS

    def samples(self) -> Samples:
        """Return the present values of all metrics."""
        return read(self._registry.collect())

    def since(self, point: int) -> Recording:
        """Return the points after the one with the number `point`, an hour at most."""
        count = max(0, min(POINTS, self._last - point, self._last - self._first + 1))
        numbers = [each % POINTS for each in range(self._last - count + 1, self._last + 1)]
        return Recording(
            self._last,
            {
                name: [None if math.isnan(each[at]) else each[at] for at in numbers]
                for name, each in self._columns.items()
            },
        )

    def _values(self, samples: Samples, elapsed: float) -> Iterator[tuple[str, float]]:
        columns = dict(_COLUMNS)
        for start, (metric, label, grows) in _BY_LABEL.items():
            for labels in samples.get(metric, {}):
                named = dict(labels)[label]
                columns[f"{start}{named}"] = _Column(metric, {label: named}, grows)
        for name, column in columns.items():
            if not column.grows and column.metric not in samples:
                continue
            value = total(samples, column.metric, column.labels)
            if column.grows:
                before, self._before[name] = self._before.get(name, 0.0), value
                # The first point has nothing to compare with.
                if not self._before_at:
                    continue
                value = (value - before) / elapsed
            yield name, value


def read(families: Iterable[Metric]) -> dict[str, dict[Labels, float]]:
    """Return the values of metrics by the sample's name and its labels."""
    found: dict[str, dict[Labels, float]] = {}
    for family in families:
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.items())] = float(sample.value)
    return found


def total(samples: Samples, metric: str, labels: Mapping[str, str]) -> float:
    """Return the sum of a metric's samples with `labels`."""
    wanted = labels.items()
    return sum(
        value for found, value in samples.get(metric, {}).items() if wanted <= dict(found).items()
    )


def merge(recordings: Sequence[Recording]) -> Recording:
    """Return the recording of all workers together, up to the newest point that all of them have."""
    newest = max((each.last for each in recordings), default=0)
    # A worker whose loop hangs does not hold up the others' points.
    recordings = [each for each in recordings if newest - each.last <= 1]
    last = min((each.last for each in recordings), default=0)
    length = max(
        (
            len(points) - (each.last - last)
            for each in recordings
            for points in each.columns.values()
        ),
        default=0,
    )
    columns: dict[str, list[float | None]] = {}
    for each in recordings:
        for name, points in each.columns.items():
            common = points[: len(points) - (each.last - last)]
            padded = [None] * (length - len(common)) + common
            merged = columns.get(name)
            columns[name] = padded if merged is None else _together(name, merged, padded)
    return Recording(last, columns)


def _together(
    name: str, some: Sequence[float | None], others: Sequence[float | None]
) -> list[float | None]:
    combine: Callable[[float, float], float] = max if name.startswith("max.") else add
    return [
        other if one is None else one if other is None else combine(one, other)
        for one, other in zip(some, others, strict=True)
    ]


def series(recording: Recording) -> list[Series]:
    """Return the series that the columns make."""
    columns = recording.columns
    length = max(map(len, columns.values()), default=0)
    nothing: list[float | None] = [None] * length

    def column(name: str) -> list[float | None]:
        return columns.get(name, nothing)

    told: list[tuple[str, Unit, list[float | None]]] = [
        ("connections", "", column("connections")),
        ("messages", "1/s", column("messages")),
        ("bytes", "B/s", column("bytes")),
        *_latencies(columns, nothing),
        ("lag", "s", column("max.lag")),
        ("refused", "1/s", column("refused")),
        ("breakers", "", _combined(sub, column("breakers_all"), column("breakers_closed"))),
        ("conflated", "1/s", column("conflated")),
        ("cache_hits", "share", _combined(_share, column("cache_hits"), column("cache_misses"))),
        (
            "database_time",
            "s",
            _combined(_ratio, column("database_seconds"), column("database_queries")),
        ),
        ("database_errors", "1/s", column("database_errors")),
        ("bus_round_trip", "s", column("max.bus_round_trip")),
        ("bus_gaps", "1/s", column("bus_gaps")),
        ("leaders", "", column("leaders")),
        ("trades", "1/s", column("max.trades")),
        ("cpu", "cores", column("cpu")),
        ("memory", "B", column("memory")),
        ("health", "grade", column("max.health")),
    ]
    for name in sorted(columns):
        if name.startswith("refused."):
            told.append((name, "1/s", columns[name]))
        elif name.startswith("max.source_lag."):
            told.append((name.removeprefix("max."), "s", columns[name]))
    return [Series(name, unit, points) for name, unit, points in told]


def _latencies(
    columns: Mapping[str, list[float | None]], nothing: list[float | None]
) -> Iterator[tuple[str, Unit, list[float | None]]]:
    """Yield the percentiles of the delivery latency."""
    buckets = [columns.get(f"delivery.{bound}", nothing) for bound in BUCKETS]
    points = list(zip(*buckets, strict=True))
    for percentile in PERCENTILES:
        yield f"latency_p{percentile}", "s", [_percentile(each, percentile) for each in points]


def _percentile(cumulative: Sequence[float | None], percentile: int) -> float | None:
    """Return the seconds within which a share of the frames lies; None without frames.

    It interpolates within a bucket, as Prometheus' histogram_quantile does.
    """
    counts = [each or 0.0 for each in cumulative]
    wanted = counts[-1] * percentile / 100
    if wanted <= 0:
        return None
    low, below = 0.0, 0.0
    for bound, count in zip(DELIVERY_BUCKETS, counts, strict=False):
        if count >= wanted:
            return _rounded(low + (bound - low) * (wanted - below) / (count - below))
        low, below = bound, count
    return DELIVERY_BUCKETS[-1]


def _combined(
    combine: Callable[[float, float], float | None],
    some: Sequence[float | None],
    others: Sequence[float | None],
) -> list[float | None]:
    return [
        None if one is None or other is None else combine(one, other)
        for one, other in zip(some, others, strict=True)
    ]


def _share(part: float, rest: float) -> float | None:
    return _rounded(part / (part + rest)) if part + rest else None


def _ratio(amount: float, count: float) -> float | None:
    return _rounded(amount / count) if count else None


def _grade(samples: Samples) -> float:
    states = samples.get("market_data_health", {})
    return max(
        (Health[dict(labels)["status"].upper()] for labels, value in states.items() if value),
        default=Health.HEALTHY,
    )


def _rounded(value: float) -> float:
    """Return four digits of a value: more is not seen in a chart."""
    return float(f"{value:.4g}")
