"""How late the event loop is: what a timer set for now would be delayed by."""

import trio

INTERVAL = 0.5
"""Seconds between two measurements."""


class LoopLag:
    """`seconds` is the latest measurement."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._worst: dict[str, float] = {}

    def take_worst(self, reader: str) -> float:
        """The worst measurement since `reader` last called this."""
        worst = self._worst.get(reader, 0.0)
        self._worst[reader] = 0.0
        return worst

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            due = trio.current_time() + INTERVAL
            await trio.sleep_until(due)
            self.seconds = max(0.0, trio.current_time() - due)
            for reader, worst in self._worst.items():
                self._worst[reader] = max(worst, self.seconds)
