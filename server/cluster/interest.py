"""Which symbols are watched on other instances: the simulator moves only symbols that are watched."""

from collections.abc import Awaitable, Callable, Sequence

import trio

from server.cluster.bus import Bus
from server.cluster.errors import BusLost
from server.cluster.wire import PAGE_FIELDS
from server.fanout.hub import Hub
from server.quotes.quote import Quote

INTERVAL = 0.5
"""Seconds between two reports, and between two of the leader's questions."""

REFRESH = 10.0
"""Seconds after which an instance reports a watched symbol again."""

LIFETIME = 25.0
"""Seconds for which a report counts: two refreshes and some delay."""

MARGIN_MS = 1000
"""Milliseconds by which each question overlaps the last one, as somebody may set Redis' clock."""


class Interest:
    """Reports the symbols watched here and, while this instance leads, asks for those of all instances.

    The feed calls `watched_quotes` and `is_watched`.
    """

    def __init__(self, hub: Hub, bus: Bus) -> None:
        self._hub = hub
        self._bus = bus
        self._elsewhere: dict[str, float] = {}
        self._since = 0
        self._connection: int | None = None
        self._report_at: dict[str, float] = {}

    def watched_quotes(self) -> list[Quote]:
        """Return the quotes of all symbols that are watched on any instance."""
        topics = self._hub.topics.values()
        return [each.quote for each in topics if self.is_watched(each.symbol)]

    def is_watched(self, symbol: str) -> bool:
        """Return whether a client of any instance would get this symbol's updates."""
        return symbol in self._elsewhere or self._hub.is_watched(symbol)

    async def run(
        self,
        leading: Callable[[], bool],
        list_symbols: Callable[[Sequence[str]], Awaitable[object]],
    ) -> None:
        """Report the symbols watched here and, while `leading`, ask for those of all instances.

        Arguments:
            list_symbols: makes the store list symbols that are not in memory.
        """
        while True:
            await trio.sleep(INTERVAL)
            if not leading():
                self._elsewhere.clear()
                self._since = 0
            if self._bus.connection:
                try:
                    await self._share(asking=leading())
                except BusLost:
                    # The report may not have arrived: make it again.
                    self._connection = None
            missing = [symbol for symbol in self._elsewhere if symbol not in self._hub.topics]
            if missing:
                await list_symbols(missing)

    async def _share(self, *, asking: bool) -> None:
        if self._bus.connection != self._connection:
            # Redis may have forgotten everything.
            self._connection = self._bus.connection
            self._report_at.clear()
        now = trio.current_time()
        watched = [quote.symbol for quote in self._hub.watched_quotes()]
        due = [symbol for symbol in watched if self._report_at.get(symbol, 0.0) <= now]
        for start in range(0, len(due), PAGE_FIELDS):
            await self._bus.share_interest(due[start : start + PAGE_FIELDS], None, LIFETIME)
        self._report_at = {symbol: self._report_at.get(symbol, 0.0) for symbol in watched}
        self._report_at.update(dict.fromkeys(due, now + REFRESH))
        if asking:
            time_ms, reported = await self._bus.share_interest((), self._since, LIFETIME)
            self._since = time_ms - MARGIN_MS
            self._elsewhere.update(dict.fromkeys(reported, now + LIFETIME))
            self._elsewhere = {
                symbol: until for symbol, until in self._elsewhere.items() if until > now
            }
