"""Snapshots: the data of an instrument that survive a restart, with its last price."""

from typing import Annotated

import msgspec
from msgspec import Meta

from server.quotes.instrument import (
    CATEGORIES,
    CATEGORY_OF,
    DEFAULT_CURRENCY,
    LARGEST_WHOLE,
    MAX_DECIMALS,
    MAX_NAME_LENGTH,
    MAX_PRICE,
    SIGNED_TYPES,
    Instrument,
    InstrumentType,
    Symbol,
    at_tick,
)
from server.quotes.traded import KeptMinute

MAX_CODE_LENGTH = 50
"""Characters of a currency's code and of an exchange's name: the widths of their columns."""

LATEST_US = 253_402_300_799_999_999
"""Microseconds since the Unix epoch at the end of the year 9999, the last one in RFC 3339."""

LARGEST_PRICE = 2 * MAX_PRICE
"""A simulated price may be above its base price."""

PRINTABLE = r"^[^\x00\ud800-\udfff]*$"

MAX_ADJUSTMENTS = 1000
"""Characters of a list of adjustments: more than a hundred splits."""

# Every store and every JSON reader can hold these values. Postgres has no NUL, UTF-8 no surrogates.
Name = Annotated[str, Meta(max_length=MAX_NAME_LENGTH, pattern=PRINTABLE)]
Code = Annotated[str, Meta(min_length=1, max_length=MAX_CODE_LENGTH, pattern=PRINTABLE)]
Isin = Annotated[str, Meta(pattern=r"^[A-Z]{2}[A-Z0-9]{9}[0-9]\Z")]
Price = Annotated[float, Meta(ge=-LARGEST_PRICE, le=LARGEST_PRICE)]
Decimals = Annotated[int, Meta(ge=0, le=MAX_DECIMALS)]
Medium = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Whole = Annotated[int, Meta(ge=0, le=LARGEST_WHOLE)]
Size = Whole | Annotated[float, Meta(ge=0, le=LARGEST_WHOLE)]
Version = Annotated[int, Meta(ge=1, le=LARGEST_WHOLE)]
Microseconds = Annotated[int, Meta(ge=0, le=LATEST_US)]
Adjustments = Annotated[
    str,
    Meta(
        max_length=MAX_ADJUSTMENTS,
        pattern=r"^(?:(?:[1-9][0-9]{0,6}:[1-9][0-9]{0,6}|[^\s\x00\ud800-\udfff]{1,150}@[0-9]{1,18})"
        r"(?: |\Z))*\Z",
    ),
]


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """One row of `market_data`, and as JSON one value of the cache. Other services read both.

    Prices are in `currency`, `market_cap` in whole units of it, `volume` in shares or units. `version`
    is the quote's version, 1 before the first update. `quoted_at` is the time of the last price in
    microseconds since the Unix epoch, 0 if nobody knows it. An instrument without a price has no
    `base_price`, and a `last_quote` of zero. `adjustments` lists the adjustments that the prices have
    had. `opened_at` is the opening of the session that the day's values, the base price and the
    previous close belong to, 0 before the first. None: not known.
    """

    symbol: Symbol
    name: Name
    category: Medium
    last_quote: Price
    base_price: Price | None
    market_cap: Whole | None = None
    price_decimals: Decimals = 2
    made_up_price: bool = False
    volume: Size = 0
    version: Version = 1
    quoted_at: Microseconds = 0
    adjustments: Adjustments = ""
    currency: Code = DEFAULT_CURRENCY
    exchange: Code | None = None
    isin: Isin | None = None
    size_decimals: Decimals = 0
    previous_close: Price | None = None
    open: Price | None = None
    high: Price | None = None
    low: Price | None = None
    bid: Price | None = None
    ask: Price | None = None
    bid_size: Size | None = None
    ask_size: Size | None = None
    opened_at: Microseconds = 0

    @property
    def type(self) -> InstrumentType:
        """Return the type that `category` stands for."""
        return CATEGORIES.get(self.category, "OTHER")

    @property
    def signed(self) -> bool:
        """Return whether prices of this type may be zero or negative."""
        return self.type in SIGNED_TYPES

    @property
    def price(self) -> float | None:
        """Return the last price, None before the first."""
        return None if self.base_price is None else at_tick(self.last_quote, self.price_decimals)

    @property
    def instrument(self) -> Instrument:
        """Return the reference data."""
        return Instrument(
            symbol=self.symbol,
            name=self.name,
            type=self.type,
            base_price=self.base_price,
            market_cap=self.market_cap,
            price_decimals=self.price_decimals,
            made_up_price=self.made_up_price,
            adjustments=self.adjustments,
            currency=self.currency,
            exchange=self.exchange,
            isin=self.isin,
            size_decimals=self.size_decimals,
            previous_close=self.previous_close,
            opened_at=self.opened_at,
        )


_DAY_FIELDS = ("open", "high", "low", "bid", "ask", "bid_size", "ask_size", "opened_at")

PRICE_FIELDS = ("last_quote", "volume", "version", "quoted_at", *_DAY_FIELDS)
"""Fields of a snapshot that updates change. The others are reference data."""


class LiveSnapshot(Snapshot, frozen=True, gc=False, omit_defaults=True):
    """A snapshot as instances share it, without the fields that have their default. `ts` is when a
    server received its price, in microseconds since the Unix epoch. `row` is the number of the last
    row that it includes, as in `Trade`. `minutes` are the newest ones of its bars.
    """

    ts: Whole = 0
    row: Whole = 0
    minutes: tuple[KeptMinute, ...] = ()


def live(
    snapshot: Snapshot, ts: int, row: int = 0, minutes: tuple[KeptMinute, ...] = ()
) -> LiveSnapshot:
    """Return `snapshot` with what instances share beside it (see `LiveSnapshot`)."""
    fields = msgspec.structs.astuple(snapshot)[: len(Snapshot.__struct_fields__)]
    return LiveSnapshot(*(*fields, ts, row, minutes))


def row_of(snapshot: Snapshot) -> int:
    """Return the last row of a replay that a state includes, 0 if the state is the catalogue's."""
    return snapshot.row if isinstance(snapshot, LiveSnapshot) else 0


def opening_snapshot(instrument: Instrument) -> Snapshot:
    """Return the snapshot before the first trade: at the base price, if there is one."""
    return Snapshot(
        symbol=instrument.symbol,
        name=instrument.name,
        category=CATEGORY_OF[instrument.type],
        last_quote=instrument.base_price or 0.0,
        base_price=instrument.base_price,
        market_cap=instrument.market_cap,
        price_decimals=instrument.price_decimals,
        made_up_price=instrument.made_up_price,
        adjustments=instrument.adjustments,
        currency=instrument.currency,
        exchange=instrument.exchange,
        isin=instrument.isin,
        size_decimals=instrument.size_decimals,
        previous_close=instrument.previous_close,
        opened_at=instrument.opened_at,
    )
