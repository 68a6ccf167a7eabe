"""How fast the HTTP port may start requests: as fast as the event loop has time for beside streaming.

A request costs about as much as fifty frames. Clients that ask without pause would take all that is
left of the processor, and prices would be conflated for everybody (`overload.py`). So requests start
one in each pass of the event loop, in the order in which they came, and further apart while it is busy.
"""

import trio

from server.ops.lag import LoopLag

LOOK_INTERVAL = 0.1
"""Seconds between two looks at how busy the event loop is."""

BUSY_LIMIT, CALM_LIMIT = 0.9, 0.7
"""Shares of the time: above the first requests start further apart, below the second closer again.
Overload begins at 0.95.
"""

MIN_INTERVAL, MAX_INTERVAL = 0.00025, 0.0025
"""Seconds between two requests: doubled and halved between these. So 400 requests a second may start on
the busiest server, and probes are answered.
"""


class Pace:
    """Requests wait in `enter`, first come first served. `interval` is in seconds."""

    def __init__(self, lag: LoopLag) -> None:
        self.interval = 0.0
        self._lag = lag
        self._reader = f"pace {id(self)}"
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
