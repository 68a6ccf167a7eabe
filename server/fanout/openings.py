"""Opens sessions: the day's values begin anew, and clients learn whether the market is open."""

from collections import deque
from collections.abc import Callable
from time import time_ns

import structlog
import trio

from server.fanout.broadcaster import route
from server.fanout.hub import Hub
from server.fanout.topic import Topic
from server.fanout.topic_task import ROUND_TRADES
from server.quotes.opening import is_due
from server.quotes.quote import from_microseconds, to_microseconds
from server.quotes.update import NewSession
from server.sessions.calendar import Calendar, LastOpening

LOOK_INTERVAL = 1.0
"""Seconds between two looks at the clock and at symbols that were listed meanwhile."""

log = structlog.get_logger()


def wall_clock() -> int:
    """Return the time in microseconds since the Unix epoch."""
    return time_ns() // 1000


class Openings:
    """Opens the sessions of all symbols where the prices are made: on the leader, or the only server.

    Each symbol knows the session that its day's values belong to (`Instrument.opened_at`). So a start
    or a takeover at any moment opens those that are due, and none twice. Made before the feed starts,
    it notes the symbols that are due by then.
    """

    def __init__(self, hub: Hub, calendar: Calendar, clock: Callable[[], int] = wall_clock) -> None:
        self._hub = hub
        self._calendar = calendar
        self._clock = clock
        self._owed: deque[str] = deque()
        self._opening = 0
        self._last = LastOpening(calendar)
        self._look()

    def has_begun(self, symbol: str) -> bool:
        """Return whether the day's values of a symbol are those of the newest session.

        Until then the simulator makes no price of it. A price from after the opening would show to the
        next leader that the values are new, if nobody knows the symbol's last session.
        """
        topic = self._hub.topics.get(self._hub.present_symbol(symbol))
        return topic is None or not _is_due(topic, self._last.at(self._clock()))

    async def run(self) -> None:
        """Open each session until cancelled."""
        while True:
            self._look()
            await self._open_owed()
            await trio.sleep(_until(self._calendar.next_opening(self._clock()), self._clock()))

    def _look(self) -> None:
        """Note the symbols that have not begun the newest session."""
        session = self._calendar.last(self._clock())
        if session is None:
            return
        if session.opening > self._opening:
            log.info("session opened", date=str(session.date))
        self._opening = session.opening
        topics = self._hub.topics.values()
        self._owed.extend(each.symbol for each in topics if _is_due(each, self._opening))

    async def _open_owed(self) -> None:
        """Open a round at a time: many symbols for ten thousand clients make millions of frames."""
        while self._owed:
            for _ in range(min(ROUND_TRADES, len(self._owed))):
                symbol = self._owed.popleft()
                if symbol in self._hub.topics:
                    update = NewSession(symbol, self._opening, wall_clock())
                    await route(self._hub, update, lossless=True)
            # The topics' tasks publish in the next pass of the loop.
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            await self._hub.topic_tasks.flusher.wait_round()


async def run_market_hours(
    hub: Hub,
    calendar: Calendar,
    clock: Callable[[], int] = wall_clock,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Tell this instance's clients at each closing and opening, until cancelled."""
    while True:
        now = clock()
        session, opening = calendar.present(now), calendar.next_opening(now)
        if calendar.is_open(now):
            hub.status.open()
        else:
            hub.status.close(None if opening is None else from_microseconds(opening))
        task_status.started()
        task_status = trio.TASK_STATUS_IGNORED
        await trio.sleep(_until(session.closing if session else opening, now))


def _is_due(topic: Topic, opening: int) -> bool:
    """Whether the day's values are those of an earlier session."""
    opened_at = topic.instrument.opened_at
    if opened_at >= opening or topic.quote.current_price is None:
        return False
    updated = topic.quote.last_updated
    # A publisher's clock may be ahead, so the moment of intake counts if it is earlier.
    quoted_at = min(to_microseconds(updated), topic.ts) if updated else 0
    return is_due(opened_at, topic.version, quoted_at, opening)


def _until(change: int | None, now: int) -> float:
    """Return the seconds to sleep: not beyond a change, and short, as the clock may be set."""
    return LOOK_INTERVAL if change is None else min(LOOK_INTERVAL, max(0, change - now) / 1e6)
