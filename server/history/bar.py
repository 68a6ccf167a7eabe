"""The bars of history: one minute as it is kept, and a bar as clients see it."""

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import astuple

from server.quotes.instrument import MAX_DECIMALS, at_tick
from server.quotes.traded import Traded


class MinuteBar(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One symbol's trades of one minute.

    `minute` counts from the Unix epoch. The trades' own times decide in which minute they are, and
    which is its first and last: `first_us` and `last_us`, in microseconds. `turnover` is the sum of
    price times size, in the instrument's currency. A `final` bar may change once more; then its `rev`
    grows by one.
    """

    symbol: str
    minute: int
    open: float
    high: float
    low: float
    close: float
    volume: int | float
    count: int
    turnover: float
    first_us: int
    last_us: int
    final: bool = False
    rev: int = 0


class Bar(msgspec.Struct, frozen=True, gc=False):
    """A bar as `GET /bars` and the stream send it."""

    t: Annotated[datetime, Meta(description="Time at which it begins (RFC 3339)")]
    o: Annotated[float, Meta(description="Price of its first trade")]
    h: Annotated[float, Meta(description="Highest price")]
    l: Annotated[float, Meta(description="Lowest price")]  # noqa: E741 - the contract's name
    c: Annotated[float, Meta(description="Price of its last trade")]
    v: Annotated[int | float, Meta(description="Volume: the sum of the trades' sizes")]
    n: Annotated[int, Meta(description="Number of trades")]
    vw: Annotated[float | None, Meta(description="Price averaged by volume, null without a volume")]
    final: Annotated[
        bool, Meta(description="True if its time is over and all its trades have come")
    ]
    rev: Annotated[int, Meta(description="Number of changes since it became final")]


def trades_in(bar: MinuteBar) -> Traded:
    """Return the trades that made a bar."""
    # Both have the same fields, from `minute` to `last_us`.
    return Traded(*astuple(bar)[1:11])


def minute_bar(symbol: str, trades: Traded, *, final: bool, rev: int) -> MinuteBar:
    """Return the bar that trades make."""
    return MinuteBar(*(symbol, *astuple(trades)[:10], final, rev))


def exact(volume: float) -> int | float:
    """Return a volume as the store gives it back: whole, or without a sum's noise."""
    return int(volume) if float(volume).is_integer() else round(volume, MAX_DECIMALS)


def bar_of(minute: MinuteBar, price_decimals: int) -> Bar:
    """Return a kept minute as clients see it. Prices have the instrument's decimals."""
    average = minute.turnover / minute.volume if minute.volume else None
    return Bar(
        t=datetime.fromtimestamp(minute.minute * 60, UTC),
        o=minute.open,
        h=minute.high,
        l=minute.low,
        c=minute.close,
        v=minute.volume,
        n=minute.count,
        vw=None if average is None else at_tick(average, price_decimals),
        final=minute.final,
        rev=minute.rev,
    )
