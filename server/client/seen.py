"""The prices of one symbol that a client has seen, with their times, in bounded memory."""

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from math import ceil, log2

KEPT = 512
"""Points kept of a symbol, 8 KB. With more, they thin out to half as many, evenly over the time."""

SPAN = 3600.0
"""Seconds that a sparkline and the live chart reach back at most."""


Point = tuple[float, float]
"""A time in seconds since 1970, and a price."""


class PricesSeen:
    """The prices of a symbol in the order of their times, in seconds since 1970."""

    def __init__(self) -> None:
        self._times = array("d")
        self._prices = array("d")
        self.direction = 0
        self.moved_at = 0.0

    def __len__(self) -> int:
        return len(self._times)

    @property
    def rise(self) -> float | None:
        """Return how far the price rose since the first one seen, relative to it; None if unknown."""
        if len(self) < 2 or not self._prices[0]:
            return None
        return (self._prices[-1] - self._prices[0]) / abs(self._prices[0])

    def note(self, moment: float, price: float) -> None:
        """Add a price, unless it is the one before. A first price is not a move."""
        if self._prices and price == self._prices[-1]:
            return
        if self._prices:
            self.direction = 1 if price > self._prices[-1] else -1
            self.moved_at = moment
        self._add(max(moment, self._times[-1]) if self._times else moment, price)

    def put_before(self, points: Iterable[Point]) -> None:
        """Add older prices, such as those of the server's bars."""
        first = self._times[0] if self._times else float("inf")
        older = [point for point in points if point[0] < first]
        live = zip(self._times, self._prices, strict=True)
        points = [*older, *live]
        self._times, self._prices = array("d"), array("d")
        for moment, price in points:
            self._add(moment, price)

    def sampled(self, parts: int, now: float) -> list[float]:
        """Return the last price of each of `parts` equal parts of the time since the first price, at
        most SPAN. Empty before there are two prices.
        """
        if len(self) < 2:
            return []
        start = max(self._times[0], now - SPAN)
        step = max(now - start, 1e-6) / parts
        return [self._at(start + step * (part + 1)) for part in range(parts)]

    def points(self, now: float) -> list[Point]:
        """Return times and prices of the last SPAN, and the newest price as that of `now`."""
        if not self:
            return []
        start = bisect_right(self._times, now - SPAN)
        kept = [*zip(self._times[start:], self._prices[start:], strict=True)]
        return [*kept, (now, self._prices[-1])]

    def _at(self, moment: float) -> float:
        return self._prices[max(0, bisect_right(self._times, moment) - 1)]

    def _add(self, moment: float, price: float) -> None:
        self._times.append(moment)
        self._prices.append(price)
        if len(self) > KEPT:
            self._thin_out()

    def _thin_out(self) -> None:
        """Keep the last price of each part of the last SPAN. A part has 2^n seconds and begins at a
        multiple of them: so points that were kept once are not thinned out again and again.
        """
        now = self._times[-1]
        start = max(self._times[0], now - SPAN)
        step = 2.0 ** ceil(log2((now - start) / (KEPT // 2) or 1.0))
        kept: dict[float, Point] = {}
        for moment, price in zip(self._times, self._prices, strict=True):
            # The first price, or the one that held when SPAN began, stays at its place.
            part = moment // step if moment > start else 0.0
            kept[part] = (max(moment, start), price)
        self._times = array("d", [moment for moment, _ in kept.values()])
        self._prices = array("d", [price for _, price in kept.values()])
