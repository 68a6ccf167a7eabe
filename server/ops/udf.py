"""TradingView's datafeed (UDF), so that its charts work unchanged: `/udf/*`.

Charts show errors only in UDF's own form. So a wrong parameter and an unknown symbol are answered with
200 and `s: error`, as its documentation says.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import partial
from time import time, time_ns
from typing import Annotated

import trio
from msgspec import Meta

from server.gateway.budgets import BARS_A_LOOKUP, SEARCH
from server.history.bar import MinuteBar
from server.history.timeframe import period_end, period_start
from server.ops.api import MAX_RESULTS, SEARCH_TIMEOUT
from server.ops.bar_query import AHEAD
from server.ops.endpoint import Call, Endpoint, Parameter, limit
from server.ops.udf_messages import (
    RESOLUTIONS,
    SPELLINGS,
    TYPES,
    Choice,
    Columns,
    Config,
    Failure,
    Match,
    NoData,
    SymbolInfo,
    SymbolTable,
    match,
    symbol_info,
    symbol_table,
)
from server.quotes.adjustment import begun_us
from server.quotes.instrument import normalize_symbol
from server.quotes.snapshot import LATEST_US, Snapshot
from server.quotes.traded import MINUTE_US, Timeframe
from server.sessions.calendar import Calendar
from server.store.bar_reader import Span
from server.store.catalogue import BATCH_ROWS, StoreUnavailable
from server.store.store import Store

MAX_BARS = 10_000
"""Bars of one answer. Of a longer range, a chart gets the newest ones, and asks for the others."""

MAX_GROUP = 10_000
"""Instruments of one answer of `/udf/symbol_info`, some 1.5 MB."""

LATEST = LATEST_US // 1_000_000 - 8 * 86_400
"""The last time in Unix seconds that has a next day and a next week within the year 9999."""

UNKNOWN_SYMBOL = Failure("unknown_symbol")

UNAVAILABLE = Failure("store_unavailable: the store gives no answer at the moment")


class BadRequest(Exception):
    """A parameter is wrong. The message says why."""


class Datafeed:
    """The handlers of the routes."""

    def __init__(self, store: Store, calendar: Calendar) -> None:
        self._store = store
        self._calendar = calendar

    async def config(self, _: Call) -> Config:
        """Return what the datafeed can do."""
        types = [Choice(name, name.capitalize()) for name in TYPES.values()]
        return Config(
            supported_resolutions=list(RESOLUTIONS),
            supports_search=True,
            supports_group_request=False,
            supports_marks=False,
            supports_timescale_marks=False,
            supports_time=True,
            exchanges=[Choice("", "All exchanges")],
            symbols_types=[Choice("", "All types"), *types],
        )

    async def time(self, _: Call) -> int:
        """Return the server's time in Unix seconds."""
        return int(time())

    async def symbols(self, call: Call) -> SymbolInfo | Failure:
        """Return one instrument."""
        try:
            row = await self._find(call)
        except StoreUnavailable:
            return UNAVAILABLE
        return symbol_info(row, self._calendar) if row else UNKNOWN_SYMBOL

    async def symbol_info(self, call: Call) -> SymbolTable | Failure:
        """Return the instruments of an exchange, of all exchanges without one."""
        call.pay(SEARCH)
        group, found, after = call.values["group"], list[Snapshot](), ""
        try:
            with trio.fail_after(SEARCH_TIMEOUT):
                while len(found) < MAX_GROUP:
                    page = await self._store.page(after, BATCH_ROWS)
                    found += [row for row in page if group in ("", row.exchange)]
                    if len(page) < BATCH_ROWS:
                        break
                    after = page[-1].symbol
        except (StoreUnavailable, trio.TooSlowError):
            return UNAVAILABLE
        return symbol_table(found[:MAX_GROUP], self._calendar)

    async def search(self, call: Call) -> list[Match] | Failure:
        """Return the instruments that match, the best first."""
        call.pay(SEARCH)
        values = call.values
        text = "".join(c if c.isprintable() else " " for c in values["query"]).strip()
        kind, exchange = values["type"].lower(), values["exchange"]
        try:
            with trio.fail_after(SEARCH_TIMEOUT):
                if text:
                    rows = await self._store.search(text, MAX_RESULTS)
                else:
                    rows = await self._store.page("", MAX_RESULTS)
        except (StoreUnavailable, trio.TooSlowError):
            return UNAVAILABLE
        wanted = [
            match(row)
            for row in rows
            if kind in ("", TYPES[row.type]) and exchange in ("", row.exchange)
        ]
        return wanted[: values["limit"]]

    async def history(self, call: Call) -> Columns | NoData | Failure:
        """Return bars of one symbol."""
        try:
            given = call.values["resolution"].upper()
            timeframe = RESOLUTIONS.get(SPELLINGS.get(given, given))
            if timeframe is None:
                raise BadRequest(
                    f"resolution: {given[:20]!r} is not one of {', '.join(RESOLUTIONS)}"
                )
            end = _seconds(call, "to", default=int(time()) + 60)
            start = _seconds(call, "from", default=0)
            count = _seconds(call, "countback", default=0)
            if count == 0 and start > end:
                raise BadRequest("from: it is after `to`")
            row = await self._find(call)
            if row is None:
                return UNKNOWN_SYMBOL
            return await self._bars(call, row, timeframe, (start, end, min(count, MAX_BARS)))
        except BadRequest as bad:
            return Failure(str(bad))
        except (StoreUnavailable, trio.TooSlowError):
            return UNAVAILABLE

    async def _bars(
        self, call: Call, row: Snapshot, timeframe: Timeframe, wanted: tuple[int, int, int]
    ) -> Columns | NoData:
        """Return the bars of `wanted`: a start, an end, and the number that counts if it is not 0.

        Errors: StoreUnavailable.
        """
        start, end, count = wanted
        tz: tzinfo = self._calendar.zone or UTC
        begun = begun_us(row.adjustments) // MINUTE_US
        latest = time_ns() // MINUTE_US // 1000 + AHEAD
        stop = min(_minute(end, timeframe, tz), period_end(latest, timeframe, tz))
        # No table has minutes as far ahead as a chart may ask for.
        first = max(begun, min(_minute(0 if count else start, timeframe, tz), stop))
        most = count or MAX_BARS
        call.pay(most / BARS_A_LOOKUP)
        bars: Sequence[MinuteBar] = ()
        if first < stop:
            span = Span(row.symbol, timeframe, tz, first, stop, most, descending=True)
            bars = await self._store.bars.read(span)
        if not bars:
            before = await self._store.bars.before(row.symbol, begun, first)
            if before is None:
                return NoData()
            return NoData(_time(period_start(before.minute, timeframe, tz), timeframe, tz))
        return _columns(bars[::-1], timeframe, tz)

    async def _find(self, call: Call) -> Snapshot | None:
        """Return an instrument by its symbol, or by exchange and symbol. Errors: StoreUnavailable."""
        name = normalize_symbol(call.values["symbol"])
        for symbol in dict.fromkeys((name, name.partition(":")[2])):
            loaded = await self._store.loader.load([symbol] if symbol else [], payer=call.payer)
            if loaded.unavailable:
                raise StoreUnavailable(f"no answer about {symbol}")
            if symbol in loaded.found:
                return loaded.found[symbol]
        return None


def _seconds(call: Call, name: str, default: int) -> int:
    """Return a parameter that is a whole number. Errors: BadRequest."""
    text = call.values[name]
    if not text:
        return default
    if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) < 20):
        raise BadRequest(f"{name}: {text[:20]!r} is not a whole number")
    return min(max(0, int(text)), LATEST)


def _minute(moment: int, timeframe: Timeframe, tz: tzinfo) -> int:
    """Return the first minute of the first bar whose time is not before a moment in Unix seconds."""
    if timeframe not in ("1d", "1w"):
        minute = -(-moment // 60)
        start = period_start(minute, timeframe, tz)
        return minute if start == minute else period_end(minute, timeframe, tz)
    day = datetime.fromtimestamp(-(-moment // 86_400) * 86_400, UTC).date()
    if timeframe == "1w":
        day += timedelta(days=-day.weekday() % 7)
    return -(-int(datetime(day.year, day.month, day.day, tzinfo=tz).timestamp()) // 60)


def _time(minute: int, timeframe: Timeframe, tz: tzinfo) -> int:
    """Return a bar's time in Unix seconds. That of days and weeks is midnight UTC of their date."""
    if timeframe not in ("1d", "1w"):
        return minute * 60
    day = datetime.fromtimestamp(minute * 60, tz).date()
    return (day - date(1970, 1, 1)).days * 86_400


def _columns(bars: Sequence[MinuteBar], timeframe: Timeframe, tz: tzinfo) -> Columns:
    return Columns(
        t=[_time(bar.minute, timeframe, tz) for bar in bars],
        o=[bar.open for bar in bars],
        h=[bar.high for bar in bars],
        l=[bar.low for bar in bars],
        c=[bar.close for bar in bars],
        v=[bar.volume for bar in bars],
    )


def datafeed_endpoints(datafeed: Datafeed) -> list[Endpoint]:
    """Return the routes of the datafeed."""
    endpoint = partial(Endpoint, method="GET", token_in_url=True)
    symbol = _text("symbol", "A symbol, or exchange and symbol with a colon", "AAPL", 120)
    number = partial(_text, most=20)
    return [
        endpoint(
            path="/udf/config",
            handle=datafeed.config,
            result=Config,
            summary="TradingView's datafeed: what it can do",
        ),
        endpoint(
            path="/udf/time",
            handle=datafeed.time,
            result=int,
            summary="The server's time in Unix seconds",
        ),
        endpoint(
            path="/udf/symbols",
            handle=datafeed.symbols,
            result=SymbolInfo,
            others=[Failure],
            summary="One instrument",
            parameters=[symbol],
        ),
        endpoint(
            path="/udf/symbol_info",
            handle=datafeed.symbol_info,
            result=SymbolTable,
            others=[Failure],
            summary=f"The instruments of an exchange, up to {MAX_GROUP}",
            parameters=[_text("group", "An exchange, empty for all", "XNAS", 50)],
        ),
        endpoint(
            path="/udf/search",
            handle=datafeed.search,
            result=list[Match],
            others=[Failure],
            summary="Search by symbol or words of the name",
            parameters=[
                _text("query", "The beginning of a symbol, or words of the name", "micro", 100),
                _text("type", "A type of `/udf/config`, empty for all", "stock", 20),
                _text("exchange", "An exchange, empty for all", "XNAS", 50),
                limit(MAX_RESULTS, 30),
            ],
        ),
        endpoint(
            path="/udf/history",
            handle=datafeed.history,
            result=Columns,
            others=[NoData, Failure],
            summary=f"Bars of one symbol, the newest {MAX_BARS} of a range",
            parameters=[
                symbol,
                number("resolution", "Length of the bars, such as 1, 60, D or 1W", "5"),
                number("from", "The first time at which a bar begins, Unix seconds", "1764000000"),
                number("to", "The time before which bars begin, Unix seconds", "1764100000"),
                number("countback", "The number of bars before `to`; `from` is ignored", "300"),
            ],
        ),
    ]


def _text(name: str, text: str, example: str, most: int) -> Parameter:
    return Parameter(name, Annotated[str, Meta(max_length=most)], text, example, default="")
