"""The routes of history: `GET /bars` and `GET /trades`."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from time import time_ns
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import msgspec
import trio
from msgspec import Meta

from server.fanout.hub import Hub
from server.gateway.budgets import BARS_A_LOOKUP
from server.history.bar import Bar, MinuteBar, bar_of
from server.history.filling import filled, periods
from server.history.timeframe import period_end
from server.history.trades import MOST
from server.ops.api import MAY_LEAVE_OUT, SYMBOLS, load_known, load_one, unavailable_store
from server.ops.bar_query import Query, read_query
from server.ops.endpoint import Call, Endpoint, Parameter, limit
from server.ops.http import NO_STORE
from server.ops.problems import STORE_UNAVAILABLE, TOO_MANY_SYMBOLS, UNKNOWN_SYMBOL
from server.quotes.adjustment import begun_us
from server.quotes.instrument import LARGEST_WHOLE, MAX_SYMBOL_LENGTH
from server.quotes.quote import from_microseconds
from server.quotes.snapshot import Snapshot
from server.quotes.traded import MINUTE_US, Timeframe
from server.sessions.calendar import Calendar
from server.store.bar_reader import Span
from server.store.catalogue import StoreUnavailable
from server.store.store import Store

MAX_BARS = 10_000
"""Bars of one page at most, some 1.2 MB."""

MAX_TIME_LENGTH, MAX_ZONE_LENGTH, MAX_TOKEN_LENGTH = 50, 50, 200
"""Characters of parameters."""

CHUNK = 1000
"""Bars that one step of a request converts: 4 ms, after which other tasks run."""

PAGE_SECONDS = 2.0
"""Seconds after which a page ends with the symbols that it has. The next page goes on."""


class BarsPage(msgspec.Struct, frozen=True):
    """A page of bars."""

    bars: Annotated[
        Mapping[str, Sequence[Bar]],
        Meta(description="Bars by symbol; symbols without bars on this page are left out"),
    ]
    next_page_token: Annotated[
        str | None,
        Meta(description="The `page_token` of the next page, null on the last one"),
    ]


class TradeView(msgspec.Struct, frozen=True):
    """One trade."""

    version: Annotated[int, Meta(description="The version that it made of the quote")]
    price: Annotated[float, Meta(description="Its price")]
    size: Annotated[int | float, Meta(description="Its size")]
    t: Annotated[datetime, Meta(description="Its time (RFC 3339)")]


class TradesPage(msgspec.Struct, frozen=True):
    """The last trades of a symbol."""

    symbol: Annotated[str, Meta(description="Symbol in upper case")]
    trades: Annotated[Sequence[TradeView], Meta(description="The trades, the oldest first")]
    complete: Annotated[
        bool, Meta(description="False if the server has forgotten a trade above `after_version`")
    ]


class History:
    """The handlers of the routes."""

    def __init__(self, store: Store, hub: Hub, zone: ZoneInfo, hours: Calendar | None) -> None:
        """
        Arguments:
            zone: in which days begin if a request names none.
            hours: when the market is open, None if always.
        """
        self._store = store
        self._hub = hub
        self._zone = zone
        self._hours = hours

    async def bars(self, call: Call) -> BarsPage:
        """Return a page of bars, symbol by symbol."""
        loaded = await load_known(self._store, call)
        now_us = time_ns() // 1000
        query = read_query(call.values, self._zone, now_us)
        call.pay(query.limit / BARS_A_LOOKUP)
        try:
            page, is_final = await self._page(query, loaded.found, now_us)
        except (StoreUnavailable, trio.TooSlowError) as error:
            raise unavailable_store(error) from error
        # An answer that lacks a symbol is not the last word about this range.
        if not is_final or loaded.unavailable:
            call.headers.update(NO_STORE)
        return page

    async def trades(self, call: Call) -> TradesPage:
        """Return the last trades of one symbol, the oldest first."""
        quote = await load_one(self._store, call)
        found, complete = self._hub.trades.after(
            quote.symbol, call.values["after_version"], quote.version, call.values["limit"]
        )
        views = [
            TradeView(each.version, each.price, each.size, from_microseconds(each.time_us))
            for each in found
        ]
        return TradesPage(quote.symbol, views, complete)

    async def _page(
        self, query: Query, found: Mapping[str, Snapshot], now_us: int
    ) -> tuple[BarsPage, bool]:
        """Return a page, and whether later requests get the same, unless a bar is revised."""
        page: dict[str, list[Bar]] = {}
        left, last, token = query.limit, ("", 0), None
        too_late = trio.current_time() + PAGE_SECONDS
        closed_to = self._store.bars.closed_to
        is_final = True
        for symbol in sorted(found):
            # One bar more than the page takes tells whether there is a next page.
            bars = await self._bars(query, found[symbol], left + 1, now_us)
            is_final = is_final and all(each.final for each in bars)
            if taken := bars[:left]:
                page[symbol] = await _views(taken, found[symbol].price_decimals)
                last = symbol, taken[-1].minute
            if len(bars) > left:
                token = query.token(*last)
                break
            left -= len(bars)
            if trio.current_time() > too_late and symbol != max(found):
                token = query.token(symbol, query.first if query.descending else query.end - 1)
                break
        return BarsPage(page, token), is_final and (bool(token) or query.end <= closed_to)

    async def _bars(
        self, query: Query, snapshot: Snapshot, most: int, now_us: int
    ) -> list[MinuteBar]:
        """Return the bars of one symbol. Errors: StoreUnavailable."""
        symbol, reader = snapshot.symbol, self._store.bars
        first, end = query.rest_of(symbol)
        begun = begun_us(snapshot.adjustments) // MINUTE_US
        first = max(first, begun)
        if first >= end:
            return []
        timeframe, tz, descending = query.timeframe, query.tz, query.descending
        # A minute that ends during the reads may have a trade that `bars` lacks.
        closed_to = reader.closed_to
        bars = await reader.read(Span(symbol, timeframe, tz, first, end, most, descending))
        if not query.fill:
            return bars
        before = await reader.before(symbol, begun, first)
        if before is None:
            if not bars:
                return []
            # Nothing is before the first bar of all. `filled` finds the end of a descending range.
            first = first if descending else bars[0].minute
        end = min(end, period_end(now_us // MINUTE_US, timeframe, tz))
        slots = periods(timeframe, tz, first, end, self._hours, descending=descending)
        return await _taken(filled(bars, slots, before, closed_to, descending=descending), most)


async def _taken(bars: Iterator[MinuteBar], most: int) -> list[MinuteBar]:
    """Return the first `most` of some bars."""
    taken: list[MinuteBar] = []
    while part := [*islice(bars, min(CHUNK, most - len(taken)))]:
        taken += part
        await trio.lowlevel.checkpoint()
    return taken


async def _views(bars: Sequence[MinuteBar], price_decimals: int) -> list[Bar]:
    views: list[Bar] = []
    for start in range(0, len(bars), CHUNK):
        views += [bar_of(each, price_decimals) for each in bars[start : start + CHUNK]]
        await trio.lowlevel.checkpoint()
    return views


def history_endpoints(history: History) -> list[Endpoint]:
    """Return the routes of history."""
    return [
        Endpoint(
            path="/bars",
            method="GET",
            handle=history.bars,
            result=BarsPage,
            summary="Bars of symbols, a page at a time; unknown symbols are left out",
            parameters=_PARAMETERS,
            headers=MAY_LEAVE_OUT,
            problems=(TOO_MANY_SYMBOLS, STORE_UNAVAILABLE),
            cacheable=True,
        ),
        Endpoint(
            path="/trades",
            method="GET",
            handle=history.trades,
            result=TradesPage,
            summary="The last trades of a symbol, so that a gap can be filled",
            parameters=_TRADES_PARAMETERS,
            problems=(UNKNOWN_SYMBOL, STORE_UNAVAILABLE),
        ),
    ]


def _time(name: str, text: str, example: str) -> Parameter:
    kind = Annotated[str, Meta(min_length=1, max_length=MAX_TIME_LENGTH)]
    return Parameter(
        name, kind, f"{text}: RFC 3339, a day, or microseconds since 1970", example, default=""
    )


_TRADES_PARAMETERS = [
    Parameter(
        "symbol",
        Annotated[str, Meta(min_length=1, max_length=MAX_SYMBOL_LENGTH)],
        "A symbol, in upper or lower case",
        "AAPL",
    ),
    Parameter(
        "after_version",
        Annotated[int, Meta(ge=0, le=LARGEST_WHOLE)],
        "Only trades that made a higher version of the quote",
        1042,
        default=0,
    ),
    limit(MOST, MOST),
]

_PARAMETERS = [
    SYMBOLS,
    Parameter(
        "timeframe",
        Timeframe,
        "Length of the bars. Minutes and hours are counted from midnight UTC",
        "1m",
        default="1m",
    ),
    _time(
        "start",
        "First time at which a bar begins; without it, today's midnight in `tz`",
        "2026-11-25",
    ),
    _time(
        "end", "Last time at which a bar begins; a day means its end; without it, now", "2026-11-26"
    ),
    limit(MAX_BARS, 1000, "Bars of a page, of all symbols together"),
    Parameter(
        "page_token",
        Annotated[str, Meta(max_length=MAX_TOKEN_LENGTH)],
        "The last page's `next_page_token`, with the same other parameters",
        "lcQIL9",
        default="",
    ),
    Parameter(
        "sort", Literal["asc", "desc"], "`desc`: the newest bars come first", "asc", default="asc"
    ),
    Parameter(
        "tz",
        Annotated[str, Meta(max_length=MAX_ZONE_LENGTH)],
        "Time zone in which days and weeks begin; without it, that of SESSION, else UTC",
        "America/New_York",
        default="",
    ),
    Parameter(
        "fill",
        Literal["none", "previous"],
        "`previous`: also periods without a trade, with the close before as their prices",
        "none",
        default="none",
    ),
]
