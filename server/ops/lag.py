"""Measures how late the event loop's timers are, and how busy the loop is."""

from time import perf_counter
from typing import NamedTuple

import trio

INTERVAL = 0.5
"""Seconds between two measurements."""


class _Look(NamedTuple):
    """One look at the load: when, and the loop's seconds of waiting until then."""

    at: float
    waited: float


class LoopLag(trio.abc.Instrument):
    """The loop's lateness and load. `seconds` is the latest delay of a timer.

    It is an instrument of trio's loop, and times the loop's waits for I/O. Each reader has a name, so
    that readers do not reset each other's measurements.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._worst: dict[str, float] = {}
        self._waited = 0.0
        self._waiting_since = 0.0
        self._looks: dict[str, _Look] = {}

    def take_worst(self, reader: str) -> float:
        """Return the longest delay since `reader` last called this."""
        worst = self._worst.get(reader, 0.0)
        self._worst[reader] = 0.0
        return worst

    def take_busy(self, reader: str) -> float:
        """Return the share of the time, 0 to 1, that the loop was busy since `reader` last asked.

        The share of processor time would be lower on a shared machine, where the loop also waits for
        the processor.
        """
        now = _Look(perf_counter(), self._waited)
        last = self._looks.get(reader, now)
        self._looks[reader] = now
        elapsed = now.at - last.at
        return 1 - (now.waited - last.waited) / elapsed if elapsed > 0 else 0.0

    def before_io_wait(self, _timeout: float) -> None:
        self._waiting_since = perf_counter()

    def after_io_wait(self, _timeout: float) -> None:
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
