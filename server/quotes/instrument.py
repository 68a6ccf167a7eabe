"""Instruments: their identity, and the reference values that a quote starts from."""

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

import msgspec

MAX_SYMBOL_LENGTH = 50
"""Characters: the width of `market_data.symbol` (varchar(50))."""

MAX_NAME_LENGTH = 200
"""Characters: the width of `market_data.name` (varchar(200))."""

MAX_DECIMALS = 12
"""Decimals of a price or size. A float holds 15 digits: above 1,000 the last decimals are not exact."""

LARGEST_WHOLE = 2**53 - 1
"""The largest integer that Postgres, SQLite, a Lua script and a JSON reader in JavaScript all hold."""

NOISE = 1e-12
"""The part of a price that is a float's error after a few sums."""

Symbol = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SYMBOL_LENGTH)]

CENT_DECIMALS = 2
"""US equities at or above one dollar are quoted in cents (SEC Regulation NMS, Rule 612)."""

SUB_DOLLAR_DECIMALS = 4
"""US equities below one dollar may be quoted in hundredths of a cent (the same rule)."""

FIRST_SEEN_DECIMALS = SUB_DOLLAR_DECIMALS
"""Precision of an instrument without a price, or known only from its trades: the finest tick of Rule
612. A first price with more decimals makes it finer.
"""

FIRST_SEEN_SIZE_DECIMALS = 8
"""The same for its sizes, which may be fractions of a coin (a satoshi). Whole sizes stay integers."""

MAX_PRICE = 9e13
"""In any currency, exact to a cent: 2^53 cents. One bitcoin costs 1.5e9 rupiahs."""

InstrumentType = Literal[
    "STOCK", "ETF", "INDEX", "FUND", "CRYPTO", "FX", "FUTURE", "OPTION", "BOND", "OTHER"
]

CATEGORIES: Mapping[int, InstrumentType] = dict(enumerate(get_args(InstrumentType), 1))
"""The type of each `market_data.category`."""

CATEGORY_OF: Mapping[InstrumentType, int] = {kind: number for number, kind in CATEGORIES.items()}

SIGNED_TYPES = frozenset[InstrumentType]({"INDEX", "FUTURE", "OPTION", "BOND", "OTHER"})
"""Types whose prices may be zero or negative: oil closed at -37.63 dollars in April 2020."""

DEFAULT_CURRENCY = "USD"


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """One listed instrument.

    `base_price` is in `currency` (ISO 4217, or the code of a crypto currency); a quote's `change` is
    counted from it. It is None while the instrument waits for its first price. `market_cap` is in
    whole units of `currency`. `exchange` is a MIC or a name. `price_decimals` is the tick precision:
    published prices have no more decimals. `size_decimals` is the same for sizes and volumes.
    `made_up_price`: the source had no base price, so this one is invented. `adjustments` lists splits
    and new beginnings, oldest first (`quotes.adjustment`). None: not known.
    """

    symbol: Symbol
    name: str
    type: InstrumentType = "STOCK"
    base_price: float | None
    market_cap: int | None = None
    price_decimals: int = CENT_DECIMALS
    made_up_price: bool = False
    adjustments: str = ""
    currency: str = DEFAULT_CURRENCY
    exchange: str | None = None
    isin: str | None = None
    size_decimals: int = 0
    previous_close: float | None = None

    @property
    def signed(self) -> bool:
        """Return whether its prices may be zero or negative."""
        return self.type in SIGNED_TYPES


def first_seen(symbol: str, price: float) -> Instrument:
    """Return the instrument for a symbol that a feed traded but no catalogue has."""
    decimals = decimals_of(price, FIRST_SEEN_DECIMALS)
    return Instrument(
        symbol=symbol,
        name=symbol,
        base_price=round(price, decimals),
        price_decimals=decimals,
        size_decimals=FIRST_SEEN_SIZE_DECIMALS,
    )


def decimals_of(price: float, least: int) -> int:
    """Return the decimals that `price` has, `least` or more, up to MAX_DECIMALS.

    Digits beyond a float's precision are noise: 175.92000000000002 has two decimals.
    """
    noise = abs(price) * NOISE
    return next(
        (each for each in range(least, MAX_DECIMALS) if abs(round(price, each) - price) <= noise),
        max(least, MAX_DECIMALS),
    )


UNLISTED = first_seen("UNLISTED", 1.0)
"""The decimals and the type that a symbol gets that a feed trades first."""


def at_tick(value: float, decimals: int) -> float:
    """Return `value` rounded to its decimals; without decimals it is an integer."""
    return round(value, decimals) if decimals else round(value)


def known_at_tick(value: float | None, decimals: int) -> float | None:
    """Return `value` rounded to its decimals, None if it is not known."""
    return None if value is None else at_tick(value, decimals)


def is_price(price: float, decimals: int, *, signed: bool = False) -> bool:
    """Return whether an instrument with this tick precision can trade at `price`.

    `signed`: its prices may be zero or negative. NaN is not a price, as it fails all comparisons.
    """
    if signed:
        return abs(price) <= MAX_PRICE
    return price <= MAX_PRICE and round(price, decimals) > 0


def normalize_symbol(text: str) -> str:
    """Return the only spelling of a symbol: without surrounding space, in upper case."""
    return text.strip().upper()


def is_symbol(text: str) -> bool:
    """Return whether a normalized text can be an instrument's symbol.

    A comma separates symbols in a request, so a client could not ask for one that has it.
    """
    fits = 0 < len(text) <= MAX_SYMBOL_LENGTH
    return fits and text.isprintable() and text != "*" and "," not in text
