"""Counts of values by bucket, in plain integers: a metrics library's call costs more than a frame."""

from bisect import bisect_left


class Histogram:
    """The bounds are inclusive upper ones, as in Prometheus."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count `value` as having been seen `times` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times
