"""How late the event loop is: what a timer set for now would be delayed by."""

import trio

INTERVAL = 0.5
"""Seconds between two measurements."""


class LoopLag:
    """`seconds` is the latest measurement."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._worst = 0.0

    def take_worst(self) -> float:
        """The worst measurement since this was last called."""
        worst, self._worst = self._worst, 0.0
        return worst

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            due = trio.current_time() + INTERVAL
            await trio.sleep_until(due)
            self.seconds = max(0.0, trio.current_time() - due)
            self._worst = max(self._worst, self.seconds)
