"""The quote of one instrument, and the trades that move it."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from server.quotes.instrument import LARGEST_WHOLE, Instrument
from server.quotes.snapshot import Microseconds, Price, Snapshot, Version, Whole

_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)

PERCENT_DECIMALS = 4
"""A hundredth of a basis point: finer than one cent's worth on a 10,000-dollar share."""


class FeedPosition(NamedTuple):
    """Where a replay's present lap begins.

    `file` identifies the file by its content. `row` is the number of its first row in this lap. A
    replay numbers all rows that it reads, and goes on counting in the next lap.
    """

    file: Whole
    row: Whole


NOWHERE = FeedPosition(0, 0)
"""The position before a replay begins, and that of a simulator."""


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One trade from a feed.

    `price` is in US dollars, `size` in shares. `time_us` is when the trade happened, `ts` is when the
    server received it, both in microseconds since the Unix epoch. `row` is the row's number in a replay
    (`FeedPosition`), 0 in a simulator.
    """

    symbol: str
    price: float
    size: int
    time_us: int
    ts: int
    row: int = 0

    def merged_with(self, later: "Trade") -> "Trade":
        """Conflate two trades: the later price, and the shares of both."""
        return msgspec.structs.replace(later, size=self.size + later.size)


class Move(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A change of a quote to which another instance, the leader, has given a version.

    `version` is the quote's version after the change, `volume` the shares traded until then.
    `adjustments` is the number of adjustments that the price has had. The other fields are as in
    `Trade`.
    """

    symbol: str
    version: Version
    price: Price
    volume: Whole
    time_us: Microseconds
    ts: Whole
    row: Whole = 0
    adjustments: Whole = 0

    def trade_after(self, quote: "Quote") -> Trade:
        """Return the trade that applies this move to `quote`."""
        size = self.volume - quote.volume
        return Trade(self.symbol, self.price, size, self.time_us, self.ts, self.row)


Update = Trade | Move
"""A change of a quote."""


def merged(earlier: Update, later: Update) -> Update:
    """Conflate two updates. A move replaces all updates before it, as it has the whole volume."""
    if isinstance(earlier, Trade) and isinstance(later, Trade):
        return earlier.merged_with(later)
    return later


class Quote(msgspec.Struct, frozen=True, gc=False):
    """An instrument's quote as clients see it, with the wire's fields in the wire's order.

    The prices are None before the first price. `last_updated` is None if nobody knows the price's time.
    """

    symbol: Annotated[str, Meta(description="Symbol in upper case")]
    name: Annotated[str, Meta(description="Name of the instrument")]
    type: Annotated[str, Meta(description="STOCK or ETF")]
    current_price: Annotated[
        float | None, Meta(description="Last price in US dollars, null before the first")
    ]
    base_price: Annotated[
        float | None, Meta(description="Price in US dollars from which `change` is counted")
    ]
    change: Annotated[
        float | None, Meta(description="`current_price` less `base_price`, in US dollars")
    ]
    change_percent: Annotated[
        float | None, Meta(description="The change in percent of the base price")
    ]
    last_updated: Annotated[
        Annotated[datetime, Meta(tz=True)] | None,
        Meta(description="Time of the price, to the microsecond; null if nobody knows it"),
    ]
    volume: Annotated[int, Meta(description="Shares traded since the server's first start")]
    market_cap: Annotated[
        int | None, Meta(description="Market capitalisation in whole US dollars, null if unknown")
    ]


def opening_quote(instrument: Instrument, time_us: int = 0) -> Quote:
    """Return the quote before the first trade: at the base price, with a volume of zero.

    Arguments:
        time_us: the time of this price in microseconds since the Unix epoch, 0 if nobody knows it.
    """
    base, change = instrument.base_price, None
    if base is not None:
        base, change = round(base, instrument.price_decimals), 0.0
    return Quote(
        symbol=instrument.symbol,
        name=instrument.name,
        type=instrument.type,
        current_price=base,
        base_price=base,
        change=change,
        change_percent=change,
        last_updated=from_microseconds(time_us) if time_us else None,
        volume=0,
        market_cap=instrument.market_cap,
    )


def resumed_quote(snapshot: Snapshot) -> Quote:
    """Return the quote that `snapshot` stands for."""
    opening = opening_quote(snapshot.instrument)
    if snapshot.base_price is None:
        return opening
    last = Trade(snapshot.symbol, snapshot.last_quote, snapshot.volume, snapshot.quoted_at, 0)
    quote = quote_after(opening, last, snapshot.price_decimals)
    return quote if snapshot.quoted_at else msgspec.structs.replace(quote, last_updated=None)


def quote_after(quote: Quote, trade: Trade, decimals: int) -> Quote:
    """Return the quote after `trade`, its prices rounded to `decimals` places.

    The first price becomes the base price. With a base price of zero, which a catalogue may hold, the
    percentage is zero. The volume stops at LARGEST_WHOLE.
    """
    price = round(trade.price, decimals)
    base = price if quote.base_price is None else quote.base_price
    volume = min(quote.volume + trade.size, LARGEST_WHOLE)
    change = price - base
    percent = change * 100 / base if base else 0.0
    return Quote(
        quote.symbol,
        quote.name,
        quote.type,
        price,
        base,
        round(change, decimals),
        # Adding zero turns -0.0 into 0.0.
        round(percent, PERCENT_DECIMALS) + 0.0,
        from_microseconds(trade.time_us),
        volume,
        quote.market_cap,
    )


def from_microseconds(time_us: int) -> datetime:
    """Return the UTC time, exact to the microsecond. A float of seconds would not be exact."""
    return _EPOCH + timedelta(microseconds=time_us)


def to_microseconds(moment: datetime) -> int:
    """Return the microseconds since the Unix epoch, exactly. A float would round 9999 up to 10000."""
    return (moment - _EPOCH) // _MICROSECOND
