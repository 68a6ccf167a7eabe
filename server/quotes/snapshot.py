"""What is kept of an instrument between two runs: its reference data and its last price."""

from typing import Annotated

import msgspec
from msgspec import Meta

from server.quotes.instrument import MAX_PRICE, Instrument, Symbol

STOCK, ETF = 1, 2
"""`market_data.category`."""

# What a cache or another instance says has to fit into the database and into a quote.
Name = Annotated[str, Meta(max_length=200, pattern=r"^[^\x00]*$")]  # Postgres has no NUL
LARGEST_PRICE = 2 * MAX_PRICE  # a simulated one may be above its base price
Price = Annotated[float, Meta(ge=0, le=LARGEST_PRICE)]
BasePrice = Annotated[float, Meta(gt=0, le=LARGEST_PRICE)]
Small = Annotated[int, Meta(ge=0, le=2**15 - 1)]
Medium = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Whole = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Microseconds = Annotated[int, Meta(ge=0, le=253_402_300_799_999_999)]  # to the end of the year 9999


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """One row of `market_data`; as JSON, one value of the cache. Other services read both.

    Prices are in US dollars, `market_cap` in whole US dollars, `volume` in shares; `version` is the
    quote's, 1 as long as nothing was traded; `quoted_at` is the last trade's time in microseconds
    since the Unix epoch, 0 as long as there was none.
    """

    symbol: Symbol
    name: Name
    category: Medium
    last_quote: Price
    base_price: BasePrice
    market_cap: Whole | None = None
    price_decimals: Small = 2
    made_up_price: bool = False
    volume: Whole = 0
    version: Whole = 1
    quoted_at: Microseconds = 0

    @property
    def instrument(self) -> Instrument:
        """The reference data."""
        return Instrument(
            symbol=self.symbol,
            name=self.name,
            type="ETF" if self.category == ETF else "STOCK",
            base_price=self.base_price,
            market_cap=self.market_cap,
            price_decimals=self.price_decimals,
            made_up_price=self.made_up_price,
        )


class LiveSnapshot(Snapshot, frozen=True, gc=False):
    """A snapshot as instances share it; `ts`: when the server took its price in, in microseconds
    since the Unix epoch.
    """

    ts: Microseconds = 0


def live(snapshot: Snapshot, ts: int) -> LiveSnapshot:
    """`snapshot` with the moment its price was taken in."""
    return LiveSnapshot(**msgspec.structs.asdict(snapshot), ts=ts)


def opening_snapshot(instrument: Instrument) -> Snapshot:
    """The snapshot before the first trade: at the base price."""
    return Snapshot(
        symbol=instrument.symbol,
        name=instrument.name,
        category=ETF if instrument.type == "ETF" else STOCK,
        last_quote=instrument.base_price,
        base_price=instrument.base_price,
        market_cap=instrument.market_cap,
        price_decimals=instrument.price_decimals,
        made_up_price=instrument.made_up_price,
    )
