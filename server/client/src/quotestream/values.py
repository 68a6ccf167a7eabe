"""The values that applications get: quotes, changes, bars and states. All are immutable."""

from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

State = Literal["connecting", "live", "stale", "closed", "waiting", "refused", "ended"]
"""The state of a client.

- `connecting`: it has no connection yet.
- `live`: connected, and prices flow.
- `stale`: connected, but prices do not flow. `closed`: the market is closed.
- `waiting`: the connection was lost. The client comes back by itself.
- `refused`: the server refuses it for good.
- `ended`: the application has left the block, or its token's function raised an error.
"""


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """The newest quote of a symbol.

    Prices are in `currency`, `volume` and sizes in shares, contracts or coins. `change` counts from
    `base_price`, and `change_percent` is in percent. A value is None if it is not known, or if `fields`
    leaves it out.
    """

    symbol: str
    name: str | None = None
    type: str | None = None
    current_price: float | None = None
    base_price: float | None = None
    change: float | None = None
    change_percent: float | None = None
    last_updated: datetime | None = None
    volume: int | float | None = None
    market_cap: int | float | None = None
    currency: str | None = None
    open: float | None = None
    high: float | None = None
    low: float | None = None
    previous_close: float | None = None
    bid: float | None = None
    ask: float | None = None
    bid_size: int | float | None = None
    ask_size: int | float | None = None


class Change(NamedTuple):
    """A symbol's quote has changed, once or several times since the application took the last change.

    `quote` is the newest one, None if the symbol was taken away. `version` is its number in the
    server's sequence. `fields` are the names of the fields that have another value.
    """

    symbol: str
    quote: Quote | None
    version: int
    fields: frozenset[str]


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """A bar: open, high, low and close, volume, number of trades and average price by volume.

    `t` is when it begins. A bar that is not `final` still changes. A higher `rev` replaces a lower one.
    """

    symbol: str
    timeframe: str
    t: datetime
    o: float | None = None
    h: float | None = None
    l: float | None = None  # noqa: E741  # the protocol's name
    c: float | None = None
    v: int | float = 0
    n: int = 0
    vw: float | None = None
    final: bool = False
    rev: int = 0


class Market(NamedTuple):
    """The state of one symbol's market: `stale`, `halted` or `closed`, and why."""

    status: str
    reason: str
