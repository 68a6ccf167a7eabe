"""The metric of stored values and messages that were left out, read from what each package counts."""

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from server.invalid import InvalidRecords
from server.ops.metrics import counters


class InvalidCollector(Collector):
    """Adds up what several packages count."""

    def __init__(self, *counted: InvalidRecords) -> None:
        self._counted = counted

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry then does not collect once at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """One counter, at this moment."""
        total: Counter[str] = Counter()
        for records in self._counted:
            total.update(records.counts)
        yield counters(
            "market_data_invalid_records",
            "Stored values and messages left out, as they are not what they should be",
            ["source"],
            {(source,): count for source, count in total.items()},
        )
