"""The quote of one instrument, and what updates make of it."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated

import msgspec
from msgspec import Meta

from server.quotes.instrument import (
    LARGEST_WHOLE,
    Instrument,
    InstrumentType,
    at_tick,
    known_at_tick,
)
from server.quotes.snapshot import Snapshot, opening_snapshot
from server.quotes.update import Book, Change, DayRange, Move, Opening, Trade, Update

_EPOCH = datetime.fromtimestamp(0, UTC)
_MICROSECOND = timedelta(microseconds=1)

PERCENT_DECIMALS = 4
"""A hundredth of a basis point: finer than one cent's worth on a 10,000-dollar share."""

FEW_DECIMALS = 6
"""Decimals to which the difference of two prices below 10^9 is exact. With more, a float's error shows
in it: 65000.12 - 64000.01 is 1000.1100000000006.
"""


class Quote(msgspec.Struct, frozen=True, gc=False):
    """An instrument's quote as clients see it, with the wire's fields in the wire's order.

    A value is None until it is known. `change_percent` is None if the base price is not above zero.
    `last_updated` is None if nobody knows the price's time.
    """

    symbol: Annotated[str, Meta(description="Symbol in upper case")]
    name: Annotated[str, Meta(description="Name of the instrument")]
    type: Annotated[InstrumentType, Meta(description="The kind of instrument")]
    current_price: Annotated[float | None, Meta(description="Last price, null before the first")]
    base_price: Annotated[float | None, Meta(description="Price from which `change` is counted")]
    change: Annotated[float | None, Meta(description="`current_price` less `base_price`")]
    change_percent: Annotated[
        float | None,
        Meta(description="The change in percent of the base price, null if that is not above zero"),
    ]
    last_updated: Annotated[
        Annotated[datetime, Meta(tz=True)] | None,
        Meta(description="Time of the price, to the microsecond; null if nobody knows it"),
    ]
    volume: Annotated[float, Meta(description="Sum of all sizes of the session")]
    market_cap: Annotated[
        int | None,
        Meta(description="Market capitalisation in whole units of `currency`, null if unknown"),
    ]
    currency: Annotated[
        str, Meta(description="Currency of its prices: ISO 4217, or the code of a crypto currency")
    ]
    open: Annotated[float | None, Meta(description="First price of the day, null before it")]
    high: Annotated[
        float | None, Meta(description="Highest price of the day, null before the first")
    ]
    low: Annotated[float | None, Meta(description="Lowest price of the day, null before the first")]
    previous_close: Annotated[
        float | None, Meta(description="Last price of the session before, null if unknown")
    ]
    bid: Annotated[float | None, Meta(description="Best bid, null if unknown or nobody bids")]
    ask: Annotated[float | None, Meta(description="Best ask, null if unknown or nobody asks")]
    bid_size: Annotated[float | None, Meta(description="Size of the best bid, null if unknown")]
    ask_size: Annotated[float | None, Meta(description="Size of the best ask, null if unknown")]


def opening_quote(instrument: Instrument, time_us: int = 0) -> Quote:
    """Return the quote before the first trade: at the base price, with a volume of zero.

    Arguments:
        time_us: the time of this price in microseconds since the Unix epoch, 0 if nobody knows it.
    """
    decimals = instrument.price_decimals
    base = known_at_tick(instrument.base_price, decimals)
    return Quote(
        symbol=instrument.symbol,
        name=instrument.name,
        type=instrument.type,
        current_price=base,
        base_price=base,
        change=None if base is None else at_tick(0.0, decimals),
        change_percent=None if base is None or base <= 0 else 0.0,
        last_updated=from_microseconds(time_us) if time_us else None,
        volume=0,
        market_cap=instrument.market_cap,
        currency=instrument.currency,
        open=None,
        high=None,
        low=None,
        previous_close=known_at_tick(instrument.previous_close, instrument.price_decimals),
        bid=None,
        ask=None,
        bid_size=None,
        ask_size=None,
    )


def resumed_quote(snapshot: Snapshot) -> Quote:
    """Return the quote that `snapshot` stands for."""
    instrument = snapshot.instrument
    day = DayRange(snapshot.open, snapshot.high, snapshot.low, restated=True)
    book = Book(snapshot.bid, snapshot.ask, snapshot.bid_size, snapshot.ask_size)
    price = snapshot.price
    state = Change(snapshot.symbol, price, snapshot.volume, snapshot.quoted_at, 0, 0, day, book)
    opening = opening_quote(instrument)
    return _changed(opening, state, instrument.price_decimals, instrument.size_decimals)


def snapshot_of(instrument: Instrument, quote: Quote, version: int) -> Snapshot:
    """Return the state of a quote, from which `resumed_quote` goes on."""
    opening, price = opening_snapshot(instrument), quote.current_price
    return msgspec.structs.replace(
        opening,
        last_quote=opening.last_quote if price is None else price,
        volume=quote.volume,
        version=version,
        quoted_at=to_microseconds(quote.last_updated) if quote.last_updated else 0,
        open=quote.open,
        high=quote.high,
        low=quote.low,
        bid=quote.bid,
        ask=quote.ask,
        bid_size=quote.bid_size,
        ask_size=quote.ask_size,
    )


def quote_after(quote: Quote, update: Update, decimals: int, size_decimals: int = 0) -> Quote:
    """Return the quote after `update`, its prices and sizes rounded to their decimals.

    The first price becomes the base price. The volume stops at LARGEST_WHOLE.
    """
    if not isinstance(update, Trade):
        return _changed(quote, update, decimals, size_decimals)
    # The common case, in one step.
    base, high, low = quote.base_price, quote.high, quote.low
    price = round(update.price, decimals) if decimals else round(update.price)
    if base is None:
        base = price
    volume = quote.volume + update.size
    if type(volume) is float:
        volume = at_tick(volume, size_decimals)
    change = price - base
    return Quote(
        quote.symbol,
        quote.name,
        quote.type,
        price,
        base,
        round(change, decimals if decimals <= FEW_DECIMALS else _shown_by(price, base)),
        # Adding zero turns -0.0 into 0.0.
        round(change * 100 / base, PERCENT_DECIMALS) + 0.0 if base > 0 else None,
        from_microseconds(update.time_us) if update.time_us else None,
        min(volume, LARGEST_WHOLE),
        quote.market_cap,
        quote.currency,
        price if quote.open is None else quote.open,
        price if high is None or price > high else high,
        price if low is None or price < low else low,
        quote.previous_close,
        quote.bid,
        quote.ask,
        quote.bid_size,
        quote.ask_size,
    )


def move_of(update: Update, version: int, new: Quote, adjustments: int = 0) -> Move:
    """Return the move that other instances make of `update`, which made the quote `new`.

    Arguments:
        adjustments: the number of adjustments that the prices have had.
    """
    if isinstance(update, Trade):
        price, volume = new.current_price, new.volume
        ts, row = update.ts, update.row
        size, time_us = update.size, update.time_us
        return Move(new.symbol, version, price, volume, time_us, ts, row, adjustments, size=size)
    change = update.change_after(new.volume) if isinstance(update, Move) else update.change
    return Move(
        new.symbol,
        version,
        None if change.price is None else new.current_price,
        new.volume,
        change.time_us,
        change.ts,
        change.row,
        adjustments,
        _with_close(change.day, new),
        change.book,
        minutes=change.minutes,
    )


def _with_close(day: DayRange, new: Quote) -> DayRange:
    """Return the effect on the day's values with the last price before an opening, which made `new`."""
    if day.opening is None:
        return day
    return msgspec.structs.replace(day, opening=Opening(day.opening.time_us, new.base_price))


def _begun(quote: Quote, opening: Opening, decimals: int) -> Quote:
    """Return the quote at the opening of a session, before its first trade."""
    close = quote.current_price if opening.close is None else at_tick(opening.close, decimals)
    if close is None or quote.current_price is None:
        return quote
    change = quote.current_price - close
    return msgspec.structs.replace(
        quote,
        base_price=close,
        previous_close=close,
        change=round(
            change, decimals if decimals <= FEW_DECIMALS else _shown_by(quote.current_price, close)
        ),
        change_percent=round(change * 100 / close, PERCENT_DECIMALS) + 0.0 if close > 0 else None,
        open=None,
        high=None,
        low=None,
        volume=0,
    )


def _changed(quote: Quote, update: Update, decimals: int, size_decimals: int) -> Quote:
    """Return the quote after an update of any kind."""
    if not isinstance(update, Move):
        change = update.change
    elif update.day is None and update.book is None and update.price is not None:
        size = update.volume - quote.volume
        trade = Trade(update.symbol, update.price, size, update.time_us, update.ts)
        return quote_after(quote, trade, decimals, size_decimals)
    else:
        change = update.change_after(quote.volume)
    if change.day.opening is not None:
        quote = _begun(quote, change.day.opening, decimals)
    day = DayRange(quote.open, quote.high, quote.low).then(change.day)
    volume = at_tick(quote.volume + change.volume, size_decimals)
    if change.price is not None:
        if quote.base_price is None:
            # Conflated trades: the first one's price, as if they had come one by one.
            base = known_at_tick(change.day.begins_at, decimals)
            quote = msgspec.structs.replace(quote, base_price=base)
        priced = Trade(change.symbol, change.price, 0, change.time_us, change.ts)
        quote = quote_after(quote, priced, decimals, size_decimals)
    book = change.book or Book(quote.bid, quote.ask, quote.bid_size, quote.ask_size)
    return msgspec.structs.replace(
        quote,
        volume=min(max(volume, 0), LARGEST_WHOLE),
        open=known_at_tick(day.open, decimals),
        high=known_at_tick(day.high, decimals),
        low=known_at_tick(day.low, decimals),
        bid=known_at_tick(book.bid, decimals),
        ask=known_at_tick(book.ask, decimals),
        bid_size=known_at_tick(book.bid_size, size_decimals),
        ask_size=known_at_tick(book.ask_size, size_decimals),
    )


def shown_decimals(price: float) -> int:
    """Return the number of decimals that a price shows."""
    exponent = Decimal(repr(price)).normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    return max(0, -exponent)


def _shown_by(price: float, base: float) -> int:
    """Return the number of decimals that the difference of two prices shows."""
    return max(shown_decimals(price), shown_decimals(base))


def from_microseconds(time_us: int) -> datetime:
    """Return the UTC time, exact to the microsecond. A float of seconds would not be exact."""
    return _EPOCH + timedelta(microseconds=time_us)


def to_microseconds(moment: datetime) -> int:
    """Return the microseconds since the Unix epoch, exactly. A float would round 9999 up to 10000."""
    return (moment - _EPOCH) // _MICROSECOND
