"""What is done when the machine cannot keep up: every symbol is published less often, for everyone.

Once a second the longest burst of the fan-out and the worst lateness of the event loop are looked at.
Beyond a limit twice in a row, the conflation interval of all topics doubles; calm again for a while,
it halves. Clients are told by a `status` message. Nobody is refused or cut for it.
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

OVER_CHECKS = 2
"""Looks in a row beyond a limit until the interval grows: one garbage collection is no overload."""

CALM_CHECKS = 5
"""Looks in a row below half of both limits until the interval shrinks."""

FIRST_INTERVAL, LONGEST_INTERVAL = 0.25, 4.0
"""Seconds between two publications of one symbol; doubled and halved between these."""

log = structlog.get_logger()


class OverloadControl:
    """Decides on the interval; knows neither clock nor loop."""

    def __init__(self) -> None:
        self.interval = 0.0
        self._over = 0
        self._calm = 0

    def look(self, lag: float, burst: float) -> float:
        """The interval after one more look at the worst `lag` and `burst` since the last one."""
        pressure = max(lag / LAG_LIMIT, burst / BURST_LIMIT)
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
        before = control.interval
        worst_lag, burst = lag.take_worst("overload"), hub.stats.take_longest_burst()
        if control.look(worst_lag, burst) != before:
            hub.set_conflation(control.interval)
            log.warning("conflation changed", interval=control.interval, was=before,
                        lag=round(worst_lag, 3), burst=round(burst, 3))  # fmt: skip
