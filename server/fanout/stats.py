"""The hot path's counters: plain integers, as a metrics library's call costs more than a frame."""

from collections import Counter
from dataclasses import dataclass, field
from functools import partial

from server.histogram import DELIVERY_BUCKETS, Histogram
from server.invalid import InvalidRecords
from server.quotes.messages import Recovered


@dataclass(slots=True)
class FanoutStats:
    """Owned by the hub. Every part of the fan-out adds to it; only metrics and checks read it."""

    messages_sent: int = 0
    bytes_sent: int = 0
    updates_encoded: int = 0
    conflated: int = 0
    recovered: Counter[Recovered] = field(default_factory=Counter)
    feed_updates: int = 0
    feed_waits: int = 0
    last_intake_us: int = 0
    delivery_latency: Histogram = field(default_factory=partial(Histogram, DELIVERY_BUCKETS))
    fanout_burst: Histogram = field(default_factory=partial(Histogram, DELIVERY_BUCKETS))
    longest_burst: float = 0.0
    invalid: InvalidRecords = field(default_factory=InvalidRecords)

    def take_longest_burst(self) -> float:
        """Return the longest round's seconds since the last call."""
        longest, self.longest_burst = self.longest_burst, 0.0
        return longest
