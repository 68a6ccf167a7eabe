"""Which symbols are watched on other instances: a feed that moves only what is watched has to know."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import trio

from server.cluster.errors import BusLost
from server.cluster.wire import PAGE_FIELDS
from server.fanout.hub import Hub
from server.quotes.quote import Quote

if TYPE_CHECKING:
    from server.cluster.bus import Bus

INTERVAL = 0.5
"""Seconds between two looks at what is watched here, and for the leader elsewhere."""

REFRESH = 10.0
"""Seconds after which an instance says again that it watches a symbol."""

LIFETIME = 25.0
"""Seconds for which it is believed: two refreshes and some delay."""

MARGIN_MS = 1000
"""What is asked for anew beyond what is new, as Redis' clock may be set."""


class Interest:
    """`watched_quotes` and `is_watched` are the feed's: of this instance, and of all while it leads."""

    def __init__(self, hub: Hub, bus: "Bus") -> None:
        self._hub = hub
        self._bus = bus
        self._elsewhere: dict[str, float] = {}
        self._since = 0
        self._connection = 0
        self._told: dict[str, float] = {}

    def watched_quotes(self) -> list[Quote]:
        """The quotes of all symbols that somebody watches somewhere."""
        topics = self._hub.topics.values()
        return [each.quote for each in topics if each.watched or each.symbol in self._elsewhere]

    def is_watched(self, symbol: str) -> bool:
        """Whether anybody would get this symbol's updates."""
        return symbol in self._elsewhere or self._hub.is_watched(symbol)

    async def run(
        self,
        leading: Callable[[], bool],
        list_symbols: Callable[[Sequence[str]], Awaitable[object]],
    ) -> None:
        """Say what is watched here, and while `leading` hear what is elsewhere, until cancelled.

        Arguments:
            list_symbols: has the store list symbols that are not in memory.
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
                    self._connection = 0  # nobody knows whether it was heard
            missing = [symbol for symbol in self._elsewhere if symbol not in self._hub.topics]
            if missing:
                await list_symbols(missing)

    async def _share(self, *, asking: bool) -> None:
        if self._bus.connection != self._connection:  # Redis may have forgotten all
            self._connection = self._bus.connection
            self._told.clear()
        now = trio.current_time()
        watched = [topic.symbol for topic in self._hub.topics.values() if topic.watched]
        due = [symbol for symbol in watched if self._told.get(symbol, 0.0) <= now]
        for start in range(0, len(due), PAGE_FIELDS):
            await self._bus.share_interest(due[start : start + PAGE_FIELDS], None, LIFETIME)
        self._told = {symbol: self._told.get(symbol, 0.0) for symbol in watched}
        self._told.update(dict.fromkeys(due, now + REFRESH))
        if asking:
            time_ms, heard = await self._bus.share_interest((), self._since, LIFETIME)
            self._since = time_ms - MARGIN_MS
            self._elsewhere.update(dict.fromkeys(heard, now + LIFETIME))
            self._elsewhere = {
                symbol: until for symbol, until in self._elsewhere.items() if until > now
            }
