"""What is done when the machine cannot keep up: every symbol is published less often, for everyone.

Once a second the longest burst of the fan-out, the worst lateness of the event loop and the share of
the time it was busy are looked at. Beyond a limit twice in a row, the conflation interval of all
topics doubles; calm again for a while, it halves. Clients are told by a `status` message. Nobody is
refused or cut for it.
"""

import structlog
import trio

from server.fanout.hub import Hub
from server.ops.lag import LoopLag

CHECK_INTERVAL = 1.0
"""Seconds between two looks."""

LAG_LIMIT = 0.1
"""Seconds a timer may be late: then each price is late by that, of the 250 ms promised."""

BURST_LIMIT = 0.5
"""Seconds one round may take to reach everybody; 10,000 clients with one price take a fifth."""

BUSY_LIMIT = 0.95
"""Share of the time; a loop that is never idle is behind, though each turn of it may be short."""

OVER_CHECKS = 2
"""Looks in a row beyond a limit until the interval grows: one garbage collection is no overload."""

CALM_CHECKS = 5
"""Looks in a row below half of all limits until the interval shrinks: half of it is twice the work."""

FIRST_INTERVAL, LONGEST_INTERVAL = 0.25, 4.0
"""Seconds between two publications of one symbol; doubled and halved between these."""

log = structlog.get_logger()


class OverloadControl:
    """Decides on the interval; knows neither clock nor loop."""

    def __init__(self) -> None:
        self.interval = 0.0
        self._over = 0
        self._calm = 0

    def look(self, *, lag: float = 0.0, burst: float = 0.0, busy: float = 0.0) -> float:
        """The interval after one more look: at the worst `lag` and `burst` since the last one, in
        seconds, and how `busy` the loop was, from 0 to 1.
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
    """Adjust the hub's conflation until cancelled. For feeds that cannot be held back."""
    control = OverloadControl()
    while True:
        await trio.sleep(CHECK_INTERVAL)
        before, late, busy = control.interval, lag.take_worst("overload"), lag.take_busy("overload")
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
