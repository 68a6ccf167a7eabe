"""The Prometheus metrics, read from the integers the other packages count in.

Nothing on the way of a price calls the metrics library: one `labels().observe()` costs as much as
sending half a frame. The collector reads when it is scraped.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from time import time
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from server import __version__
from server.fanout.breaker import BreakerState
from server.fanout.hub import Hub
from server.gateway.closing import KNOWN_CODES
from server.gateway.lifecycle import State
from server.gateway.pool import Pool
from server.histogram import Histogram
from server.ops.health import Health, HealthMonitor
from server.ops.lag import LoopLag
from server.output import lost_lines


def render(registry: CollectorRegistry) -> str:
    """The page that Prometheus reads."""
    return generate_latest(registry).decode()


class ServiceCollector(Collector):
    """Turns the service's counts into metric families."""

    def __init__(
        self, hub: Hub, pool: Pool, lag: LoopLag, bad_rows: Callable[[], int], health: HealthMonitor
    ) -> None:
        self._health = health
        self._bad_rows = bad_rows
        self._hub = hub
        self._pool = pool
        self._lag = lag

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry then does not collect once at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families, at this moment."""
        yield from self._connections()
        yield from self._fanout()
        yield from self._feed()
        yield gauge(
            "market_data_event_loop_lag_seconds",
            "How late a timer of the event loop was",
            self._lag.seconds,
        )
        yield counter(
            "market_data_output_lines_lost",
            "Lines of the log or of standard output that could not be written",
            lost_lines(),
        )
        yield gauge(
            "market_data_conflation_interval_seconds",
            "Between two publications of a symbol in an overload, else 0",
            self._hub.conflation,
        )
        health = GaugeMetricFamily(
            "market_data_health", "1 for the state the service is in", labels=["status"]
        )
        for state in Health:
            health.add_metric([state.name.lower()], state is self._health.health)
        yield health
        build = GaugeMetricFamily(
            "market_data_build_info", "Always 1; the version is the label", labels=["version"]
        )
        build.add_metric([__version__], 1)
        yield build

    def _connections(self) -> Iterator[Metric]:
        pool = self._pool
        states = GaugeMetricFamily(
            "market_data_connections", "Open connections by state", labels=["state"]
        )
        for state in State:
            if state is not State.CLOSED:
                states.add_metric([state.value], pool.states[state])
        yield states
        breakers = GaugeMetricFamily(
            "market_data_circuit_breakers", "Open connections by circuit breaker", labels=["state"]
        )
        not_closed = self._hub.breakers
        breakers.add_metric(["closed"], len(pool.sessions) - sum(not_closed.values()))
        for breaker in BreakerState:
            if breaker is not BreakerState.CLOSED:
                breakers.add_metric([breaker.value], not_closed[breaker])
        yield breakers
        yield counter("market_data_connections", "Connections opened", pool.opened_total)
        yield counters(
            "market_data_connections_rejected",
            "Connections refused before the upgrade",
            ["reason"],
            {(reason,): count for reason, count in pool.rejected.items()},
        )
        closed: dict[tuple[str, ...], int] = {}
        for code, count in pool.closed.items():
            label = (str(code) if code in KNOWN_CODES else "other",)
            closed[label] = closed.get(label, 0) + count
        yield counters(
            "market_data_connections_closed", "Connections closed, by close code", ["code"], closed
        )
        yield counters(
            "market_data_commands", "Clients' commands", ["action", "result"], pool.commands
        )

    def _fanout(self) -> Iterator[Metric]:
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
            "Symbols of clients that resumed, by what they were sent",
            ["result"],
            {(result,): count for result, count in stats.recovered.items()},
        )
        yield gauge("market_data_subscriptions", "Symbols watched, by all", hub.subscriptions)
        yield gauge("market_data_active_symbols", "Symbols with a task", hub.active_symbols)
        yield histogram(
            "market_data_delivery_latency_seconds",
            "From the feed's intake to the bytes handed to the kernel",
            stats.delivery_latency,
        )
        yield histogram(
            "market_data_fanout_burst_seconds",
            "From the first to the last connection of one round",
            stats.fanout_burst,
        )

    def _feed(self) -> Iterator[Metric]:
        stats = self._hub.stats
        yield counter("market_data_feed_updates", "Trades taken in", stats.feed_updates)
        yield counter(
            "market_data_feed_waits", "Trades for which the feed was held back", stats.feed_waits
        )
        yield counter("market_data_feed_bad_rows", "Rows of a replay skipped", self._bad_rows())
        if stats.last_intake_us:
            yield gauge(
                "market_data_feed_age_seconds",
                "Since the last trade was taken in",
                max(0.0, time() - stats.last_intake_us / 1e6),
            )


def counter(name: str, text: str, value: float) -> Metric:
    """A counter without labels."""
    family = CounterMetricFamily(name, text)
    family.add_metric([], value)
    return family


def counters(name: str, text: str, labels: list[str], values: Mapping[Any, int]) -> Metric:
    """A counter; `values` by the labels' values."""
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def gauge(name: str, text: str, value: float) -> Metric:
    """A gauge without labels."""
    family = GaugeMetricFamily(name, text)
    family.add_metric([], value)
    return family


def histogram(name: str, text: str, counts: Histogram) -> Metric:
    """A histogram without labels."""
    return histograms(name, text, [], {(): counts})


def histograms(name: str, text: str, labels: list[str], values: Mapping[Any, Histogram]) -> Metric:
    """A histogram; `values` by the labels' values."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, counts in values.items():
        cumulative, buckets = 0, []
        for bound, count in zip((*counts.bounds, "+Inf"), counts.counts, strict=True):
            cumulative += count
            buckets.append((str(bound), cumulative))
        family.add_metric(key, buckets, counts.total)
    return family
