"""The metrics of the HTTP ports."""

from collections import Counter
from collections.abc import Iterator, Sequence

from prometheus_client.core import Metric

from server.ops.families import PackageCollector, by_label, counter, counters, gauge
from server.ops.http_edge import HttpEdge


class HttpCollector(PackageCollector):
    """Adds up the counts of `edges`."""

    def __init__(self, edges: Sequence[HttpEdge]) -> None:
        self._edges = edges

    def collect(self) -> Iterator[Metric]:
        edges = self._edges
        refused: Counter[str] = sum((each.refused for each in edges), Counter())
        yield gauge(
            "market_data_http_connections",
            "Open connections to the HTTP ports",
            sum(len(each.streams) for each in edges),
        )
        yield counters(
            "market_data_http_refused",
            "Requests that the HTTP ports' edge refused",
            ["reason"],
            by_label(refused),
        )
        yield counter(
            "market_data_http_evicted",
            "Idle connections to the HTTP ports that made room for others",
            sum(each.evicted for each in edges),
        )
        yield counter(
            "market_data_http_failures",
            "Connections and requests of the HTTP ports that ended by an exception",
            sum(each.failures for each in edges),
        )
