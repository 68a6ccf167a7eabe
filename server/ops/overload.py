"""Publishes every symbol less often, for all clients, while the machine cannot keep up.

Once a second it looks at the fan-out's longest round, and at the event loop's longest delay and load.
If a value exceeds its limit twice in a row, the conflation interval of all topics doubles. After a calm
time it halves. A `status` message tells the clients. The overload refuses and cuts no client.
"""

import structlog
import trio

from server.fanout.hub import Hub
from server.ops.lag import LoopLag

CHECK_INTERVAL = 1.0
"""Seconds between two looks."""

LAG_LIMIT = 0.1
"""Longest delay of a timer in seconds. It delays every price, of which 250 ms are promised."""

BURST_LIMIT = 0.5
"""Longest round in seconds. One price for 10,000 clients takes a fifth of that."""

BUSY_LIMIT = 0.95
"""Share of the time that the loop is busy. A loop that is never idle falls behind, even if each pass is
short.
"""

OVER_CHECKS = 2
"""Looks in a row above a limit before the interval grows. One garbage collection is not an overload."""

CALM_CHECKS = 5
"""Looks in a row below half of all limits before the interval halves, which doubles the work."""

FIRST_INTERVAL, LONGEST_INTERVAL = 0.25, 4.0
"""Bounds of the time between two publications of one symbol, in seconds."""

log = structlog.get_logger()


class OverloadControl:
    """Decides on the interval; it needs no clock and no event loop."""

    def __init__(self) -> None:
        self.interval = 0.0
        self._over = 0
        self._calm = 0

    def look(self, *, lag: float = 0.0, burst: float = 0.0, busy: float = 0.0) -> float:
        """Return the interval after one more look.

        `lag` and `burst` are the longest since the last look, in seconds. `busy` is the share of the
        time that the loop was busy, 0 to 1.
        """
        pressure = max(lag / LAG_LIMIT, burst / BURST_LIMIT, busy / BUSY_LIMIT)
        self._over = self._over + 1 if pressure > 1 else 0
        self._calm = self._calm + 1 if pressure < 0.5 else 0
        if self._over >= OVER_CHECKS:
            self._over = 0
            self.interval = min(LONGEST_INTERVAL, max(FIRST_INTERVAL, self.interval * 2))
        elif self._calm >= CALM_CHECKS:
            self._calm = 0
            self.interval = self.interval / 2 if self.interval > FIRST_INTERVAL else 0.0
        return self.interval


async def run_overload_control(hub: Hub, lag: LoopLag) -> None:
    """Adjust the hub's conflation until cancelled. It is for feeds that cannot be held back."""
    control = OverloadControl()
    while True:
        await trio.sleep(CHECK_INTERVAL)
        before = control.interval
        late, busy = lag.take_worst("overload"), lag.take_busy("overload")
        burst = hub.stats.take_longest_burst()
        if control.look(lag=late, burst=burst, busy=busy) != before:
            hub.set_conflation(control.interval)
            log.warning(
                "conflation changed",
                interval=control.interval,
                was=before,
                lag=round(late, 3),
                burst=round(burst, 3),
                busy=round(busy, 2),
            )
