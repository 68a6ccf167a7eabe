"""The registry of all metrics, and the metrics of the process as a whole."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import Metric

from server import __version__
from server.cluster.member import Member
from server.fanout.hub import Hub
from server.gateway.gateway import Gateway
from server.invalid import InvalidRecords
from server.ops.families import PackageCollector, by_label, counter, counters, gauge, gauges
from server.ops.health import Health, HealthMonitor
from server.ops.lag import LoopLag
from server.ops.metrics_cluster import ClusterCollector
from server.ops.metrics_fanout import FanoutCollector
from server.ops.metrics_gateway import GatewayCollector
from server.ops.metrics_store import StoreCollector
from server.process.output import lost_lines
from server.store.store import Store


def render(registry: CollectorRegistry) -> str:
    """Return the page that Prometheus reads."""
    return generate_latest(registry).decode()


def build_registry(
    service: "ServiceCollector", hub: Hub, gateway: Gateway, store: Store, member: Member | None
) -> CollectorRegistry:
    """Return a registry with the metrics of all packages. Those of the HTTP ports are added later."""
    invalid = [hub.stats.invalid, store.stats.invalid]
    invalid += [member.stats.invalid] if member else []
    registry = CollectorRegistry()
    for collector in (
        service,
        GatewayCollector(gateway, hub),
        FanoutCollector(hub),
        StoreCollector(store, hub.bars.minutes),
        ClusterCollector(member),
        InvalidCollector(invalid),
    ):
        registry.register(collector)
    ProcessCollector(registry=registry)
    return registry


class ServiceCollector(PackageCollector):
    """The metrics of the process as a whole. `bad_rows` returns the number of a replay's bad rows."""

    def __init__(self, lag: LoopLag, bad_rows: Callable[[], int], health: HealthMonitor) -> None:
        self._lag = lag
        self._bad_rows = bad_rows
        self._health = health

    def collect(self) -> Iterator[Metric]:
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
        yield counter("market_data_feed_bad_rows", "Rows of a replay skipped", self._bad_rows())
        yield gauges(
            "market_data_health",
            "1 for the state that the service is in",
            ["status"],
            {(each.name.lower(),): each is self._health.health for each in Health},
        )
        yield gauges(
            "market_data_build_info",
            "Always 1; the version is the label",
            ["version"],
            {(__version__,): 1},
        )


class InvalidCollector(PackageCollector):
    """Adds up the invalid records that several packages count."""

    def __init__(self, invalid: Sequence[InvalidRecords]) -> None:
        self._invalid = invalid

    def collect(self) -> Iterator[Metric]:
        total: Counter[str] = Counter()
        for records in self._invalid:
            total.update(records.counts)
        yield counters(
            "market_data_invalid_records",
            "Stored values and messages left out because they are not valid records",
            ["source"],
            by_label(total),
        )
