"""Paces the requests to an HTTP port, so that streaming comes first.

A request costs about as much as fifty frames. If clients sent requests without a pause, they would take
the rest of the processor, and the server would conflate prices for all clients (`overload.py`). So one
request starts in each pass of the event loop, in the order of arrival. While the loop is busy, requests
start further apart.
"""

import trio

from server.ops.lag import LoopLag

LOOK_INTERVAL = 0.1
"""Seconds between two looks at how busy the event loop is."""

BUSY_LIMIT, CALM_LIMIT = 0.9, 0.7
"""Shares of the time that the loop is busy. Above the first, the interval between requests doubles;
below the second, it halves. Overload begins at 0.95.
"""

MIN_INTERVAL, MAX_INTERVAL = 0.00025, 0.0025
"""Bounds of the interval between two requests, in seconds. Even the busiest server starts 400 requests
a second, so it answers probes.
"""


class RequestPacer:
    """Lets waiting requests start in order of arrival, at least `interval` seconds apart."""

    def __init__(self, lag: LoopLag) -> None:
        self.interval = 0.0
        self._lag = lag
        self._reader = f"request pacer {id(self)}"
        self._turn = trio.Lock()
        self._next_at = 0.0
        self._look_at = 0.0

    async def enter(self) -> None:
        """Wait until the next request may start."""
        async with self._turn:
            await trio.sleep_until(self._next_at)
            now = trio.current_time()
            if now >= self._look_at:
                self._look_at = now + LOOK_INTERVAL
                self._adjust(self._lag.take_busy(self._reader))
            self._next_at = now + self.interval

    def _adjust(self, busy: float) -> None:
        if busy > BUSY_LIMIT:
            self.interval = min(MAX_INTERVAL, max(MIN_INTERVAL, self.interval * 2))
        elif busy < CALM_LIMIT:
            self.interval = self.interval / 2 if self.interval > MIN_INTERVAL else 0.0
