"""Counts values by bucket, in plain integers: a metrics library's call costs more than a frame."""

from bisect import bisect_left

DELIVERY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of the delivery latency in seconds, among them the service's targets of 10 to 250 ms. A
supervisor adds up its workers' counts for each bucket.
"""


class Histogram:
    """`bounds` are inclusive upper bounds, as in Prometheus."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count `value` `times` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times
