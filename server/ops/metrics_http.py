"""The metrics of the HTTP ports, read from what their edges count."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from server.ops.http_edge import HttpEdge
from server.ops.metrics import counter, counters, gauge


class HttpCollector(Collector):
    """Turns the counts of `edges` into metric families, added up."""

    def __init__(self, edges: Sequence[HttpEdge]) -> None:
        self._edges = edges

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry then does not collect once at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families, at this moment."""
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
            {(reason,): count for reason, count in refused.items()},
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
