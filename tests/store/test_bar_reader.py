"""Bars from memory and the tables at once, while minutes end and trades come."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast
from zoneinfo import ZoneInfo

from server.fanout.hub import Hub
from server.history.bar import MinuteBar
from server.history.minutes import Minutes
from server.ops.bar_query import read_query
from server.ops.bars import History
from server.quotes.snapshot import opening_snapshot
from server.quotes.traded import MINUTE_US
from server.quotes.update import Trade
from server.store.bar_reader import BarReader, Span
from server.store.bars import Wanted
from server.store.component import Component
from server.store.store import Store
from tests.ops.test_bar_query import DEFAULTS
from tests.store.test_bar_tables import FIRST, bar
from tests.store.test_bar_writer import IBM, Tables

UTC = ZoneInfo("UTC")


class Interrupted(Tables):
    """Tables that call `meanwhile` while they are asked."""

    def __init__(self, meanwhile: Callable[[Wanted], None]) -> None:
        super().__init__()
        self.meanwhile = meanwhile

    async def read(self, wanted: Wanted) -> list[MinuteBar]:
        found = await super().read(wanted)
        self.meanwhile(wanted)
        return found


async def no_trade_waits() -> None:
    """Settle nothing."""


def trade(minutes: Minutes, minute: int) -> None:
    """Let a trade count."""
    time_us = minute * MINUTE_US + 10 + minutes.newest_us % 1000
    minutes.absorb(IBM, Trade("IBM", 100.0, 5, time_us, time_us), 100.0)


def reader_of(minutes: Minutes, tables: Tables) -> BarReader:
    return BarReader(tables, Component("catalogue", "the tables"), minutes, no_trade_waits)


async def test_bar_that_ends_while_the_tables_are_asked():
    """Its last trade comes then, too. Such a bar is open: a final one has all its trades."""
    minutes = Minutes(FIRST + 4, FIRST + 1)
    trade(minutes, FIRST + 4)

    def meanwhile(wanted: Wanted) -> None:
        if wanted.size > 1 and minutes.closed_to == FIRST + 4:
            trade(minutes, FIRST + 4)
            minutes.close(FIRST + 5)

    reader = reader_of(minutes, Interrupted(meanwhile))
    span = Span("IBM", "5m", UTC, FIRST, FIRST + 5, 10)
    for expected in ((1, False), (2, True)):
        (found,) = await reader.read(span)
        assert (found.count, found.final) == expected


async def test_gap_that_gets_a_trade_while_the_tables_are_asked():
    """The minute ends then, too. `fill` does not call it final without its trade."""
    minutes = Minutes(FIRST + 3, FIRST)

    def meanwhile(wanted: Wanted) -> None:
        if minutes.closed_to == FIRST + 3:
            trade(minutes, FIRST + 3)
            minutes.close(FIRST + 4)

    tables = Interrupted(meanwhile)
    await tables.write([bar(FIRST - 5)])
    store = cast(Store, SimpleNamespace(bars=reader_of(minutes, tables)))
    history = History(store, Hub(), UTC, None)
    now_us = (FIRST + 4) * MINUTE_US
    start, end = str((FIRST - 1) * MINUTE_US), str((FIRST + 3) * MINUTE_US)
    values: dict[str, Any] = DEFAULTS | {"fill": "previous", "start": start, "end": end}
    query = read_query(values, UTC, now_us)

    async def last() -> MinuteBar:
        # The route asks the store for the instrument first, which this test has not.
        found = await history._bars(query, opening_snapshot(IBM), 10, now_us)
        return found[-1]

    found = await last()
    assert (found.minute, found.count, found.final) == (FIRST + 3, 0, False)
    found = await last()
    assert (found.minute, found.count, found.final) == (FIRST + 3, 1, True)


async def test_cancelled_minutes_count_for_the_revision_alone():
    """The tables have them, and memory has the next minute. Bars without a trade fill no page."""
    minutes = Minutes(FIRST + 30, FIRST + 14)
    empty: dict[str, Any] = {"volume": 0, "count": 0, "turnover": 0.0}
    trade(minutes, FIRST + 14)
    minutes.whole_from = FIRST + 30
    tables = Tables()
    await tables.write([bar(FIRST + each, rev=1, **empty) for each in (0, 1, 5, 10, 15, 25)])
    await tables.write([bar(FIRST + each) for each in (6, 20)])
    reader = reader_of(minutes, tables)
    for limit in (1, 2, 3, 9):
        for descending in (False, True):
            span = Span("IBM", "5m", UTC, FIRST, FIRST + 30, limit, descending)
            found = [(each.minute, each.count, each.rev) for each in await reader.read(span)]
            expected = [(FIRST + 5, 1, 1), (FIRST + 10, 1, 2), (FIRST + 20, 1, 0)]
            assert found == (expected[::-1] if descending else expected)[:limit]
