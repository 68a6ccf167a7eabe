"""Clients that asked for fewer updates: each gets a symbol at most once in its interval."""

import trio

from server.fanout.outbox import Outbox
from server.pacing import CHECKPOINT_EVERY

GRANTED = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Seconds. They are few, so that one timer serves all, and the clients of an interval share each
encoded quote.
"""

TICK = 0.25
"""Seconds of which all intervals are multiples."""


def granted(interval: float) -> float:
    """Return the shortest of GRANTED that is not below `interval`, else the longest; 0 for 0."""
    if interval <= 0:
        return 0.0
    return next((choice for choice in GRANTED if choice >= interval), GRANTED[-1])


class Throttles:
    """The throttled outboxes by interval, with one task for all."""

    def __init__(self) -> None:
        self._groups: dict[float, set[Outbox]] = {interval: set() for interval in GRANTED}

    def set(self, outbox: Outbox, interval: float) -> None:
        """Throttle `outbox` to one of the `granted` intervals; 0 ends its throttle."""
        self.clear(outbox)
        if interval:
            self._groups[interval].add(outbox)
        outbox.set_throttle(interval)

    def clear(self, outbox: Outbox) -> None:
        """Forget `outbox`: the connection is over."""
        if outbox.throttle:
            self._groups[outbox.throttle].discard(outbox)

    async def run(self) -> None:
        """Release each outbox when its interval is over, until cancelled."""
        start, ticks = trio.current_time(), 0
        while True:
            ticks += 1
            await trio.sleep_until(start + ticks * TICK)
            for interval, group in self._groups.items():
                if ticks % round(interval / TICK) == 0:
                    await self._release(list(group))

    async def _release(self, outboxes: list[Outbox]) -> None:
        for start in range(0, len(outboxes), CHECKPOINT_EVERY):
            for outbox in outboxes[start : start + CHECKPOINT_EVERY]:
                outbox.release()
            await trio.lowlevel.checkpoint()
