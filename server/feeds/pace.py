"""Keeps a replay's recorded intervals."""

from collections.abc import Callable

import trio

LONGEST_GAP = 600.0
"""Recorded seconds between two rows that a replay waits for, by default. Longer gaps are nights,
weekends and wrong timestamps.
"""


class Pace:
    """Keeps the recorded intervals between trades, divided by `speed`; none if it is 0.

    It does not wait if the time jumps forth or back by more than `longest_gap` recorded seconds. Then
    it calls `skipped` with the row's line and the seconds, and counts anew from that row. A trade that
    is less late comes at once.
    """

    def __init__(
        self, speed: float, longest_gap: float, skipped: Callable[[int, float], None]
    ) -> None:
        self._speed = speed
        self._longest_us = longest_gap * 1e6
        self._skipped = skipped
        self._started: tuple[float, int] | None = None
        self._newest_us = 0

    async def wait(self, time_us: int, line: int) -> None:
        """Sleep until the trade recorded at `time_us`, in the file's `line`, is due."""
        if self._speed == 0:
            return
        gap = time_us - self._newest_us
        if self._started is None or abs(gap) > self._longest_us:
            if self._started is not None:
                self._skipped(line, gap / 1e6)
            self._started = trio.current_time(), time_us
            self._newest_us = time_us
        self._newest_us = max(self._newest_us, time_us)
        started_at, first_us = self._started
        due = started_at + (time_us - first_us) / 1e6 / self._speed
        if due > trio.current_time():
            await trio.sleep_until(due)
