"""The latencies of a run, with percentiles and a timeline."""

from array import array
from time import monotonic
from typing import NamedTuple

from hdrh.histogram import HdrHistogram

LONGEST_US = 600_000_000
"""Microseconds: ten minutes, longer than any run. Longer latencies count as this."""

DIGITS = 3
"""Significant decimal digits of the histogram: 0.1 %."""


class Percentiles(NamedTuple):
    """Percentiles of latencies in seconds."""

    p50: float
    p95: float
    p99: float
    max: float


class Second(NamedTuple):
    """One second of a run: its start, the number of updates, and their p50 and maximum in seconds."""

    start: float
    updates: int
    p50: float
    max: float


class Latencies:
    """Latencies in microseconds, in order of arrival. Adding one costs a tenth of a microsecond."""

    def __init__(self) -> None:
        self._values = array("q")
        self._start = monotonic()
        self._marks: list[tuple[float, int]] = []
        self.add = self._values.append

    def __len__(self) -> int:
        return len(self._values)

    def mark(self) -> None:
        """End one step of the timeline and begin the next. Call it about once a second."""
        self._marks.append((monotonic() - self._start, len(self._values)))

    def histogram(self) -> HdrHistogram:
        """Return a histogram of all values, in microseconds."""
        histogram = HdrHistogram(1, LONGEST_US, DIGITS)
        for value in self._values:
            histogram.record_value(min(max(value, 1), LONGEST_US))
        return histogram

    def percentiles(self) -> Percentiles | None:
        """Return the percentiles; None without any latency."""
        return percentiles(self.histogram())

    def timeline(self) -> list[Second]:
        """Return an entry for each marked step with an update."""
        steps = []
        begun, first = 0.0, 0
        for at, last in self._marks:
            if values := sorted(self._values[first:last]):
                middle = values[len(values) // 2]
                steps.append(Second(begun, len(values), middle / 1e6, values[-1] / 1e6))
            begun, first = at, last
        return steps


def percentiles(histogram: HdrHistogram) -> Percentiles | None:
    """Return percentiles in seconds, None of an empty histogram. The maximum too is rounded."""
    if not histogram.get_total_count():
        return None
    p50, p95, p99, p100 = (histogram.get_value_at_percentile(p) / 1e6 for p in (50, 95, 99, 100))
    return Percentiles(p50, p95, p99, p100)
