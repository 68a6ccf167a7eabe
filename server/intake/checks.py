"""Checks an object's fields against its instrument and its publisher's token."""

from collections.abc import Sequence

from server.intake.answer import Refused
from server.intake.objects import Published
from server.quotes.instrument import MAX_PRICE, NOISE, Instrument, at_tick
from server.quotes.messages import MarketState

Sides = tuple[float | None, float | None, int | float | None, int | float | None]
"""Bid, ask, and their sizes. None: nobody bids or asks."""

MAX_SIZE = 10**12
"""Units of one trade: more shares than any company has issued."""


def require_allowed(symbols: Sequence[str] | None, symbol: str) -> None:
    """Errors: Refused, unless `symbols`, names or prefixes ending in `*`, contain `symbol`."""
    if symbols is not None and not any(
        symbol.startswith(each[:-1]) if each.endswith("*") else symbol == each for each in symbols
    ):
        raise Refused("not_allowed", f"this token may not publish {symbol}")


def at_price(price: float | None, instrument: Instrument, field: str) -> float:
    """Return a price rounded to the instrument's tick. Errors: Refused."""
    if price is None:
        raise Refused("bad_price", f"{field} is missing")
    rounded = round(price, instrument.price_decimals) + 0.0
    if abs(rounded) > MAX_PRICE:
        raise Refused("bad_price", f"{field} {price} is beyond {MAX_PRICE:.0f}")
    if rounded <= 0 and not instrument.signed:
        raise Refused("bad_price", f"{field} {price} is not above zero at the tick of this symbol")
    return rounded


def at_size(size: float, instrument: Instrument, field: str) -> int | float:
    """Return a size, whole if the instrument's sizes are. Errors: Refused."""
    if not 0 <= size <= MAX_SIZE:
        raise Refused("bad_size", f"{field} {size} is not from 0 to {MAX_SIZE}")
    decimals = instrument.size_decimals
    # Without the sign of a negative zero, which JSON would show.
    rounded = at_tick(abs(size), decimals)
    if abs(rounded - size) > NOISE * size:
        unit = f"has at most {decimals} decimals" if decimals else "is a whole number"
        raise Refused("bad_size", f"{field} {size}: a size of {instrument.symbol} {unit}")
    return rounded


def trade_of(given: Published, instrument: Instrument) -> tuple[float, int | float]:
    """Return a trade's price and size. Errors: Refused."""
    price = at_price(given.price, instrument, "price")
    return price, at_size(given.size or 0, instrument, "size")


def book_of(given: Published, instrument: Instrument) -> Sides:
    """Return the best bid and ask of a quote. Errors: Refused."""
    if given.bid is None and given.ask is None:
        raise Refused("bad_price", "bid and ask are missing")
    bid = None if given.bid is None else at_price(given.bid, instrument, "bid")
    ask = None if given.ask is None else at_price(given.ask, instrument, "ask")
    bid_size, ask_size = (
        None if size is None else at_size(size, instrument, name)
        for name, size in (("bid_size", given.bid_size), ("ask_size", given.ask_size))
    )
    return bid, ask, bid_size, ask_size


def corrected(given: Published, instrument: Instrument) -> tuple[float | None, int | float | None]:
    """Return the price and size of a `correct`, None for one that stays. Errors: Refused."""
    price = None if given.price is None else at_price(given.price, instrument, "price")
    size = None if given.size is None else at_size(given.size, instrument, "size")
    return price, size


def required_status(given: MarketState | None) -> MarketState:
    """Return the market's status. Errors: Refused without one."""
    if given is None:
        raise Refused("bad_json", "status is missing: open, halted or closed")
    return given


def required_id(given: str | int | None) -> str | int:
    """Return the id. Errors: Refused without one."""
    if given is None:
        raise Refused("bad_json", "id is missing: it names the trade")
    return given
