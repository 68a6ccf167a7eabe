"""How late the event loop is, what a timer set for now would be delayed by, and how busy it is."""

from time import perf_counter

import trio

INTERVAL = 0.5
"""Seconds between two measurements."""


class LoopLag(trio.abc.Instrument):
    """`seconds` is the latest measurement. As an instrument of the loop it times when that waits."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._worst: dict[str, float] = {}
        self._waited = 0.0
        self._waiting_since = 0.0
        self._looks: dict[str, tuple[float, float]] = {}

    def take_worst(self, reader: str) -> float:
        """The worst measurement since `reader` last called this."""
        worst = self._worst.get(reader, 0.0)
        self._worst[reader] = 0.0
        return worst

    def take_busy(self, reader: str) -> float:
        """Return the share of the time, 0 to 1, that the loop did not wait since `reader` last asked.

        Not the processor's time: on a machine shared with others that is less than there was to do.
        """
        now = perf_counter()
        looked_at, waited = self._looks.get(reader, (now, self._waited))
        self._looks[reader] = now, self._waited
        return 1 - (self._waited - waited) / (now - looked_at) if now > looked_at else 0.0

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002 (trio's interface)
        self._waiting_since = perf_counter()

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002 (trio's interface)
        self._waited += perf_counter() - self._waiting_since

    async def run(self) -> None:
        """Measure until cancelled."""
        trio.lowlevel.add_instrument(self)
        while True:
            due = trio.current_time() + INTERVAL
            await trio.sleep_until(due)
            self.seconds = max(0.0, trio.current_time() - due)
            for reader, worst in self._worst.items():
                self._worst[reader] = max(worst, self.seconds)
