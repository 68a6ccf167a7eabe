"""What is kept of an instrument between two runs: its reference data and its last price."""

import msgspec

from server.quotes.instrument import Instrument

STOCK, ETF = 1, 2
"""`market_data.category`."""


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """One row of `market_data`; as JSON, one value of the cache. Other services read both.

    Prices are in US dollars, `market_cap` in whole US dollars, `volume` in shares; `version` is the
    quote's, 1 as long as nothing was traded; `quoted_at` is the last trade's time in microseconds
    since the Unix epoch, 0 as long as there was none.
    """

    symbol: str
    name: str
    category: int
    last_quote: float
    base_price: float
    market_cap: int | None = None
    price_decimals: int = 2
    made_up_price: bool = False
    volume: int = 0
    version: int = 1
    quoted_at: int = 0

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

    ts: int = 0


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
