"""Reads bars: those of the tables, with the newest ones from memory.

Memory is asked first. What it has is at least as new as what the tables have, so these leave it out.
Tables roll minutes up to longer bars themselves: a year has a hundred thousand minutes.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, tzinfo
from functools import partial
from time import time_ns
from typing import NamedTuple

import trio

from server.history.bar import MinuteBar
from server.history.minutes import Minutes, closed_at
from server.history.timeframe import MINUTES, period_end, period_start, roll_up
from server.quotes.traded import Timeframe
from server.store.bars import BarTables, Wanted
from server.store.component import Component

READERS = 4
"""Reads of bars at once. They leave connections of the pool to look-ups of symbols."""

LONGEST_PERIOD = 100_000
"""Minutes that no day or week has."""

DAY = 1440
"""Minutes of the shortest part of a range that one query rolls up."""

WIDENING = 4
"""The factor from one part to the next, if the symbol trades rarely."""


class Span(NamedTuple):
    """Bars to read: of a symbol and timeframe, from the minute `first` to before the minute `end`.

    Both are limits of bars. `limit` counts bars, the last ones by time if `descending`.
    """

    symbol: str
    timeframe: Timeframe
    tz: tzinfo
    first: int
    end: int
    limit: int
    descending: bool = False


class BarReader:
    """Reads for clients. `newest` are the minutes in memory. `database` has the catalogue's breaker.
    `settle` counts trades that wait for what the tables have of their minutes.
    """

    def __init__(
        self,
        tables: BarTables,
        database: Component,
        newest: Minutes,
        settle: Callable[[], Awaitable[None]],
    ) -> None:
        self._tables = tables
        self._database = database
        self._newest = newest
        self._settle = settle
        self._readers = trio.CapacityLimiter(READERS)

    async def read(self, span: Span) -> list[MinuteBar]:
        """Return bars in their order. Errors: StoreUnavailable, if memory does not have the range."""
        if span.first < self._newest.whole_from:
            await self._settle()
        if span.timeframe == "1m":
            return await self._minutes(span)
        found: list[MinuteBar] = []
        width = DAY
        limit = span.limit
        while len(found) < limit and span.first < span.end:
            # Nothing is rolled up between two bars that lie far apart.
            nearest = await self._minutes(span._replace(timeframe="1m", limit=1))
            if not nearest:
                break
            span = span._replace(limit=limit - len(found))
            part = _part(span, nearest[0].minute, max(width, span.limit * _least(span)))
            found += await self._rolled(part)
            first, end = (span.first, part.first) if span.descending else (part.end, span.end)
            span = span._replace(first=first, end=end)
            width *= WIDENING
        return found

    @property
    def closed_to(self) -> int:
        """The minute before which all minutes are final. Without a trade yet, the clock tells it."""
        return self._newest.closed_to or closed_at(time_ns() // 1000)

    async def before(self, symbol: str, first: int, end: int) -> MinuteBar | None:
        """Return the last minute with a bar from `first` to before `end`. Errors: StoreUnavailable."""
        span = Span(symbol, "1m", UTC, first, end, 1, descending=True)
        newest = await self._minutes(span._replace(first=max(first, self._newest.whole_from)))
        return next(iter(newest or await self._minutes(span)), None)

    async def stored(
        self, symbol: str, first: int, end: int, without: Sequence[int]
    ) -> MinuteBar | None:
        """Return the stored minutes from `first` to before `end`, without some of them, as one bar.

        Errors: StoreUnavailable.
        """
        size = max(2, end - first)
        wanted = Wanted(symbol, first, end, 1, starts=[first], size=size, without=without)
        return next(iter(await self._database.ask(partial(self._tables.read, wanted))), None)

    async def _minutes(self, span: Span) -> list[MinuteBar]:
        """Return bars of one minute that have trades."""
        memory = self._newest.recent([span.symbol], span.first, span.end)
        found = [*await self._stored(span, memory), *memory]
        # Memory keeps bars without trades, as all of them were cancelled, for their revision.
        found.sort(key=lambda each: each.minute, reverse=span.descending)
        return [each for each in found if each.count][: span.limit]

    async def _rolled(self, span: Span) -> list[MinuteBar]:
        # Minutes that end while the tables are asked may have trades that `memory` lacks.
        closed_to = self.closed_to
        memory = self._newest.recent([span.symbol], span.first, span.end)
        found = [*await self._stored_with(span, memory), *memory]
        found.sort(key=lambda each: each.minute)
        bars = roll_up(found, span.timeframe, closed_to, span.tz)
        bars = [each for each in bars if each.count]
        return bars[::-1][: span.limit] if span.descending else bars[: span.limit]

    async def _stored_with(self, span: Span, memory: Sequence[MinuteBar]) -> list[MinuteBar]:
        """Ask the tables for longer bars. Those whose trades were all cancelled do not count for the
        limit, but the revisions of their minutes count for what `memory` has of the same bars.
        """
        empty = 0
        while True:
            limit = span.limit + empty
            found = await self._stored(span._replace(limit=limit), memory)
            counted = sum(bool(each.count) for each in found)
            if len(found) < limit or counted >= span.limit:
                return found
            empty = len(found) - counted

    async def _stored(self, span: Span, memory: Sequence[MinuteBar]) -> list[MinuteBar]:
        """Ask the tables for all that is not in `memory`, unless memory has the whole range."""
        if span.first >= self._newest.whole_from or span.first >= span.end:
            return []
        wanted = Wanted(
            span.symbol,
            span.first,
            span.end,
            span.limit,
            span.descending,
            *_periods(span),
            without=[each.minute for each in memory],
        )
        async with self._readers:
            return await self._database.ask(partial(self._tables.read, wanted))


def _least(span: Span) -> int:
    """Return the minutes of the shortest of the bars, give or take an hour."""
    return MINUTES.get(span.timeframe, 7 * DAY if span.timeframe == "1w" else DAY)


def _part(span: Span, nearest: int, width: int) -> Span:
    """Return a part of `span` that begins, or ends if `descending`, with the bar of a minute."""
    if span.descending:
        end = min(span.end, period_end(nearest, span.timeframe, span.tz))
        first = period_start(max(span.first, end - width), span.timeframe, span.tz)
        return span._replace(first=max(span.first, first), end=end)
    first = period_start(nearest, span.timeframe, span.tz)
    end = period_end(min(span.end, first + width) - 1, span.timeframe, span.tz)
    return span._replace(first=max(span.first, first), end=min(span.end, end))


def _periods(span: Span) -> tuple[Sequence[int], int]:
    """Return the `starts` and the `size` with which the tables roll minutes up."""
    if size := MINUTES.get(span.timeframe):
        return [0], size
    starts = [period_start(span.first, span.timeframe, span.tz)]
    while (end := period_end(starts[-1], span.timeframe, span.tz)) < span.end:
        starts.append(end)
    return starts, LONGEST_PERIOD
