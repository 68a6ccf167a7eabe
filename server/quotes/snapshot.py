"""Snapshots: the data of an instrument that survive a restart, with its last price."""

from typing import Annotated

import msgspec
from msgspec import Meta

from server.quotes.instrument import (
    LARGEST_WHOLE,
    MAX_DECIMALS,
    MAX_NAME_LENGTH,
    MAX_PRICE,
    Instrument,
    Symbol,
)

STOCK, ETF = 1, 2
"""`market_data.category`."""

LATEST_US = 253_402_300_799_999_999
"""Microseconds since the Unix epoch at the end of the year 9999, the last one in RFC 3339."""

LARGEST_PRICE = 2 * MAX_PRICE
"""US dollars: a simulated price may be above its base price."""

MAX_ADJUSTMENTS = 1000
"""Characters of a list of adjustments: more than a hundred splits."""

# Every store and every JSON reader can hold these values. Postgres has no NUL, UTF-8 no surrogates.
Name = Annotated[str, Meta(max_length=MAX_NAME_LENGTH, pattern=r"^[^\x00\ud800-\udfff]*$")]
Price = Annotated[float, Meta(ge=0, le=LARGEST_PRICE)]
BasePrice = Annotated[float, Meta(gt=0, le=LARGEST_PRICE)]
Decimals = Annotated[int, Meta(ge=0, le=MAX_DECIMALS)]
Medium = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Whole = Annotated[int, Meta(ge=0, le=LARGEST_WHOLE)]
Version = Annotated[int, Meta(ge=1, le=LARGEST_WHOLE)]
Microseconds = Annotated[int, Meta(ge=0, le=LATEST_US)]
Adjustments = Annotated[
    str,
    Meta(
        max_length=MAX_ADJUSTMENTS,
        pattern=r"^(?:(?:[1-9][0-9]{0,6}:[1-9][0-9]{0,6}|fresh@[0-9]{1,18})(?: |\Z))*\Z",
    ),
]


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """One row of `market_data`, and as JSON one value of the cache. Other services read both.

    Prices are in US dollars, `market_cap` in whole US dollars, `volume` in shares. `version` is the
    quote's version, 1 before the first trade. `quoted_at` is the time of the last price in
    microseconds since the Unix epoch, 0 if nobody knows it. An instrument without a price has no
    `base_price`, and a `last_quote` of zero. `adjustments` lists the adjustments that the prices have
    had.
    """

    symbol: Symbol
    name: Name
    category: Medium
    last_quote: Price
    base_price: BasePrice | None
    market_cap: Whole | None = None
    price_decimals: Decimals = 2
    made_up_price: bool = False
    volume: Whole = 0
    version: Version = 1
    quoted_at: Microseconds = 0
    adjustments: Adjustments = ""

    @property
    def price(self) -> float | None:
        """Return the last price, None before the first."""
        return None if self.base_price is None else self.last_quote

    @property
    def instrument(self) -> Instrument:
        """Return the reference data."""
        return Instrument(
            symbol=self.symbol,
            name=self.name,
            type="ETF" if self.category == ETF else "STOCK",
            base_price=self.base_price,
            market_cap=self.market_cap,
            price_decimals=self.price_decimals,
            made_up_price=self.made_up_price,
            adjustments=self.adjustments,
        )


PRICE_FIELDS = ("last_quote", "volume", "version", "quoted_at")
"""Fields of a snapshot that trades change. The others are reference data."""


class LiveSnapshot(Snapshot, frozen=True, gc=False):
    """A snapshot as instances share it. `ts` is when a server received its price, in microseconds
    since the Unix epoch. `row` is the number of the last row that it includes, as in `Trade`.
    """

    ts: Whole = 0
    row: Whole = 0


def live(snapshot: Snapshot, ts: int, row: int = 0) -> LiveSnapshot:
    """Return `snapshot` with the time at which its price was received, and its row in a replay."""
    return LiveSnapshot(**msgspec.structs.asdict(snapshot), ts=ts, row=row)


def opening_snapshot(instrument: Instrument) -> Snapshot:
    """Return the snapshot before the first trade: at the base price, if there is one."""
    return Snapshot(
        symbol=instrument.symbol,
        name=instrument.name,
        category=ETF if instrument.type == "ETF" else STOCK,
        last_quote=instrument.base_price or 0.0,
        base_price=instrument.base_price,
        market_cap=instrument.market_cap,
        price_decimals=instrument.price_decimals,
        made_up_price=instrument.made_up_price,
        adjustments=instrument.adjustments,
    )
