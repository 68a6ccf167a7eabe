"""What can be quoted: an instrument's identity and the reference values its quote starts from."""

from typing import Annotated, Literal

import msgspec

MAX_SYMBOL_LENGTH = 50
"""Characters: the width of `market_data.symbol` (varchar(50))."""

MAX_NAME_LENGTH = 200
"""Characters: the width of `market_data.name` (varchar(200))."""

MAX_DECIMALS = 12
"""Of a price. A float holds 15 digits, so of a price in thousands the last of twelve are not exact."""

LARGEST_WHOLE = 2**53 - 1
"""The largest integer that Postgres, SQLite, a Lua script and a JSON reader in JavaScript all hold."""

Symbol = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SYMBOL_LENGTH)]

CENT_DECIMALS = 2
"""US equities at or above one dollar are quoted in cents (SEC Regulation NMS, Rule 612)."""

SUB_DOLLAR_DECIMALS = 4
"""US equities below one dollar may be quoted in hundredths of a cent (the same rule)."""

FIRST_SEEN_DECIMALS = SUB_DOLLAR_DECIMALS
"""Precision of an instrument known only from its trades: the finest tick of Rule 612."""


MAX_PRICE = 1e9
"""US dollars: a thousand times the dearest share there has been, and exact to the finest tick."""


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """One listed instrument.

    `base_price` is in US dollars and is what `change` is counted from; `market_cap` is in
    whole US dollars, None where unknown; `price_decimals` is the tick precision no published
    price exceeds; `made_up_price` says that the source had no price and a fixed one was invented.
    """

    symbol: Symbol
    name: str
    type: Literal["STOCK", "ETF"] = "STOCK"
    base_price: Annotated[float, msgspec.Meta(gt=0)]
    market_cap: int | None = None
    price_decimals: int = CENT_DECIMALS
    made_up_price: bool = False


def first_seen(symbol: str, price: float) -> Instrument:
    """The instrument for a symbol that a feed traded before any catalogue named it."""
    return Instrument(
        symbol=symbol, name=symbol, base_price=price, price_decimals=FIRST_SEEN_DECIMALS
    )


def is_price(price: float, decimals: int) -> bool:
    """Whether an instrument with this tick precision can be traded at `price`, in US dollars."""
    return price <= MAX_PRICE and round(price, decimals) > 0  # NaN is neither


def normalize_symbol(text: str) -> str:
    """The one spelling of a symbol: without surrounding space, in upper case."""
    return text.strip().upper()


def is_symbol(text: str) -> bool:
    """Whether a normalized text can be an instrument's symbol at all."""
    return 0 < len(text) <= MAX_SYMBOL_LENGTH and text.isprintable() and text != "*"
