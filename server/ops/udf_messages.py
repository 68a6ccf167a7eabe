"""The answers of TradingView's datafeed protocol (UDF), with the names that its documentation gives."""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from server.quotes.instrument import InstrumentType
from server.quotes.snapshot import Snapshot
from server.quotes.traded import Timeframe
from server.sessions.calendar import Calendar
from server.sessions.tradingview import (
    corrections_text,
    holidays_text,
    session_text,
    splits_days,
    zone_name,
)

RESOLUTIONS: dict[str, Timeframe] = {
    "1": "1m",
    "5": "5m",
    "15": "15m",
    "30": "30m",
    "60": "1h",
    "240": "4h",
    "1D": "1d",
    "1W": "1w",
}
"""The lengths of bars by TradingView's names."""

SPELLINGS = {"D": "1D", "W": "1W"}

INTRADAY = [each for each in RESOLUTIONS if each.isdigit()]

TYPES: dict[InstrumentType, str] = {
    "STOCK": "stock",
    "ETF": "etf",
    "INDEX": "index",
    "FUND": "fund",
    "CRYPTO": "crypto",
    "FX": "forex",
    "FUTURE": "futures",
    "OPTION": "option",
    "BOND": "bond",
    "OTHER": "other",
}
"""The types of instruments by TradingView's names."""

Zone = Annotated[str, Meta(description="Time zone of `session`")]

Text = Annotated[str, Meta(description="Text, empty if unknown")]


class Choice(msgspec.Struct, frozen=True):
    """A value by which a search can be narrowed."""

    value: Annotated[str, Meta(description="Value of the parameter, empty for all")]
    name: Annotated[str, Meta(description="Its name")]
    desc: Annotated[str, Meta(description="Its description")] = ""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The abilities of the datafeed."""

    supported_resolutions: Annotated[Sequence[str], Meta(description="Lengths of bars")]
    supports_search: Annotated[bool, Meta(description="`/udf/search` and `/udf/symbols` answer")]
    supports_group_request: Annotated[bool, Meta(description="Only `/udf/symbol_info` answers")]
    supports_marks: Annotated[bool, Meta(description="There are marks on bars")]
    supports_timescale_marks: Annotated[bool, Meta(description="There are marks on the time scale")]
    supports_time: Annotated[bool, Meta(description="`/udf/time` answers")]
    exchanges: Annotated[Sequence[Choice], Meta(description="Exchanges of `/udf/search`")]
    symbols_types: Annotated[Sequence[Choice], Meta(description="Types of `/udf/search`")]


class Failure(msgspec.Struct, frozen=True):
    """An error that a chart shows."""

    errmsg: Annotated[str, Meta(description="The problem")]
    s: Annotated[Literal["error"], Meta(description="Always `error`")] = "error"


class SymbolInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An instrument as a chart needs it."""

    name: Annotated[str, Meta(description="Symbol")]
    ticker: Annotated[str, Meta(description="Symbol for `/udf/history`")]
    full_name: Annotated[str, Meta(description="Symbol behind its exchange and a colon")]
    description: Annotated[str, Meta(description="Name of the instrument")]
    type: Annotated[str, Meta(description="Kind of instrument")]
    exchange: Text
    listed_exchange: Text
    currency_code: Annotated[str, Meta(description="Currency of its prices")]
    timezone: Zone
    session: Annotated[str, Meta(description="Trading hours")]
    session_holidays: Annotated[str, Meta(description="Days without a session, with commas")]
    corrections: Annotated[str, Meta(description="Days with other hours, with semicolons")]
    format: Annotated[str, Meta(description="Always `price`")] = "price"
    minmov: Annotated[int, Meta(description="Units of `pricescale` in one tick")] = 1
    pricescale: Annotated[int, Meta(description="One divided by the smallest unit of a price")]
    volume_precision: Annotated[int, Meta(description="Decimals of volumes")]
    has_intraday: Annotated[bool, Meta(description="There are bars of minutes")] = True
    has_daily: Annotated[
        bool, Meta(description="There are bars of days. If not, the chart makes them of minutes")
    ] = True
    has_weekly_and_monthly: Annotated[bool, Meta(description="There are bars of weeks")] = True
    intraday_multipliers: Annotated[Sequence[str], Meta(description="Lengths in minutes")]
    supported_resolutions: Annotated[Sequence[str], Meta(description="Lengths of bars")]
    data_status: Annotated[str, Meta(description="Always `streaming`")] = "streaming"


class SymbolTable(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """The instruments of an exchange, a list for each field. A field that is the same for all of them
    has one value.
    """

    symbol: Annotated[Sequence[str], Meta(description="Symbols")]
    ticker: Annotated[Sequence[str], Meta(description="Symbols for `/udf/history`")]
    description: Annotated[Sequence[str], Meta(description="Names of the instruments")]
    type: Annotated[Sequence[str], Meta(description="Kinds of instruments")]
    exchange_listed: Annotated[Sequence[str], Meta(description="Exchanges, empty if unknown")]
    exchange_traded: Annotated[Sequence[str], Meta(description="The same")]
    currency_code: Annotated[Sequence[str], Meta(description="Currencies of their prices")]
    pricescale: Annotated[Sequence[int], Meta(description="As in `/udf/symbols`")]
    volume_precision: Annotated[Sequence[int], Meta(description="Decimals of volumes")]
    timezone: Zone
    session_regular: Annotated[str, Meta(description="Trading hours")]
    session_holidays: Annotated[str, Meta(description="Days without a session, with commas")]
    corrections: Annotated[str, Meta(description="Days with other hours, with semicolons")]
    minmovement: Annotated[int, Meta(description="Units of `pricescale` in one tick")] = 1
    minmov: Annotated[int, Meta(description="The same")] = 1
    has_intraday: Annotated[bool, Meta(description="There are bars of minutes")] = True
    has_daily: Annotated[
        bool, Meta(description="There are bars of days. If not, the chart makes them of minutes")
    ] = True
    has_weekly_and_monthly: Annotated[bool, Meta(description="There are bars of weeks")] = True
    intraday_multipliers: Annotated[Sequence[str], Meta(description="Lengths in minutes")]
    supported_resolutions: Annotated[Sequence[str], Meta(description="Lengths of bars")]


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """An instrument that a search finds."""

    symbol: Annotated[str, Meta(description="Symbol")]
    full_name: Annotated[str, Meta(description="Symbol behind its exchange and a colon")]
    description: Annotated[str, Meta(description="Name of the instrument")]
    exchange: Text
    ticker: Annotated[str, Meta(description="Symbol for `/udf/symbols`")]
    type: Annotated[str, Meta(description="Kind of instrument")]


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """Bars, a list for each field, in the order of time."""

    s: Annotated[Literal["ok"], Meta(description="Always `ok`")] = "ok"
    t: Annotated[
        Sequence[int],
        Meta(description="Openings in Unix seconds; of days and weeks, midnight UTC of the date"),
    ]
    o: Annotated[Sequence[float], Meta(description="First prices")]
    h: Annotated[Sequence[float], Meta(description="Highest prices")]
    l: Annotated[Sequence[float], Meta(description="Lowest prices")]  # noqa: E741 (the protocol's name)
    c: Annotated[Sequence[float], Meta(description="Last prices")]
    v: Annotated[Sequence[float], Meta(description="Volumes")]


class NoData(msgspec.Struct, frozen=True, rename="camel"):
    """There are no bars in the range."""

    next_time: Annotated[
        int | UnsetType,
        Meta(description="Time of the last bar before the range, if there is one"),
    ] = UNSET
    s: Annotated[Literal["no_data"], Meta(description="Always `no_data`")] = "no_data"


def symbol_info(row: Snapshot, calendar: Calendar) -> SymbolInfo:
    """Return an instrument as a chart needs it."""
    exchange = row.exchange or ""
    return SymbolInfo(
        name=row.symbol,
        ticker=row.symbol,
        full_name=full_name(row),
        description=row.name,
        type=TYPES[row.type],
        exchange=exchange,
        listed_exchange=exchange,
        currency_code=row.currency,
        timezone=zone_name(calendar),
        session=session_text(calendar),
        session_holidays=holidays_text(calendar),
        corrections=corrections_text(calendar),
        pricescale=10**row.price_decimals,
        volume_precision=row.size_decimals,
        has_daily=not splits_days(calendar),
        has_weekly_and_monthly=not splits_days(calendar),
        intraday_multipliers=INTRADAY,
        supported_resolutions=list(RESOLUTIONS),
    )


def symbol_table(rows: Sequence[Snapshot], calendar: Calendar) -> SymbolTable:
    """Return instruments as lists."""
    symbols, exchanges = [row.symbol for row in rows], [row.exchange or "" for row in rows]
    return SymbolTable(
        symbol=symbols,
        ticker=symbols,
        description=[row.name for row in rows],
        type=[TYPES[row.type] for row in rows],
        exchange_listed=exchanges,
        exchange_traded=exchanges,
        currency_code=[row.currency for row in rows],
        pricescale=[10**row.price_decimals for row in rows],
        volume_precision=[row.size_decimals for row in rows],
        timezone=zone_name(calendar),
        session_regular=session_text(calendar),
        session_holidays=holidays_text(calendar),
        corrections=corrections_text(calendar),
        has_daily=not splits_days(calendar),
        has_weekly_and_monthly=not splits_days(calendar),
        intraday_multipliers=INTRADAY,
        supported_resolutions=list(RESOLUTIONS),
    )


def match(row: Snapshot) -> Match:
    """Return an instrument that a search finds."""
    return Match(
        symbol=row.symbol,
        full_name=full_name(row),
        description=row.name,
        exchange=row.exchange or "",
        ticker=row.symbol,
        type=TYPES[row.type],
    )


def full_name(row: Snapshot) -> str:
    """Return the symbol behind its exchange and a colon, if the exchange is known."""
    return f"{row.exchange}:{row.symbol}" if row.exchange else row.symbol
