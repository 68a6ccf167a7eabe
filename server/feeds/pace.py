"""Keeps a replay's recorded intervals."""

from collections.abc import Callable

import trio

LONGEST_GAP = 600.0
"""Recorded seconds between two rows that a replay waits for, by default. Longer gaps are nights,
weekends and wrong timestamps.
"""

LONG_WAIT = 10.0
"""Seconds of a wait that the log names: the row may have a wrong time."""

LATE_ROWS = 10
"""Late rows in a file that is not in order. After more of them, the recording itself goes on there."""


class Pace:
    """Keeps the recorded intervals between trades, divided by `speed`; none if it is 0.

    It does not wait if the time jumps forth or back by more than `longest_gap` recorded seconds. Then
    it calls `skipped` with the row's line and the seconds, and counts anew from that row. A trade that
    is less late comes at once. Before a wait of LONG_WAIT it calls `waits` with the line and seconds.

    After a jump back, the rows come at once while it may go on where it was: until one does, or until
    LATE_ROWS have not. If the row before the jump came by a jump forth, it had the wrong time.
    """

    def __init__(
        self,
        speed: float,
        longest_gap: float,
        skipped: Callable[[int, float], None],
        waits: Callable[[int, float], None],
    ) -> None:
        self._speed = speed
        self._longest_us = longest_gap * 1e6
        self._skipped = skipped
        self._waits = waits
        self._started = 0.0, 0
        self._newest_us = 0
        self._rows = 0
        self._left: tuple[tuple[float, int], int] | None = None

    async def wait(self, time_us: int, line: int) -> None:
        """Sleep until the trade recorded at `time_us`, in the file's `line`, is due."""
        if self._speed == 0:
            return
        gap = time_us - self._newest_us
        if not self._rows or abs(gap) > self._longest_us:
            if self._rows:
                self._skipped(line, gap / 1e6)
                self._leave(gap)
            # The first row of all is where the recording was.
            self._begin(time_us, 0 if self._rows else 1)
        elif self._left is not None:
            started, newest_us = self._left
            if newest_us - time_us <= self._longest_us:
                self._started, self._newest_us, self._left = started, newest_us, None
            elif self._rows < LATE_ROWS:
                self._begin(time_us, self._rows)
            else:
                self._left = None
        self._rows += 1
        self._newest_us = max(self._newest_us, time_us)
        started_at, first_us = self._started
        due = started_at + (time_us - first_us) / 1e6 / self._speed
        wait = due - trio.current_time()
        if wait >= LONG_WAIT:
            self._waits(line, wait)
        if wait > 0:
            await trio.sleep_until(due)

    def _begin(self, time_us: int, rows: int = 0) -> None:
        """Count from this row, which comes at once, as the one behind `rows` since the last jump."""
        self._started = trio.current_time(), time_us
        self._newest_us, self._rows = time_us, rows

    def _leave(self, gap: int) -> None:
        """Remember where the recording was, if it may go on there after a jump by `gap`."""
        if gap > 0:
            self._left = None
        elif self._left is None and self._rows > 1:
            self._left = self._started, self._newest_us
