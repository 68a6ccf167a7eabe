"""The trades of one minute that an update has: what bars are made of."""

from collections.abc import Iterable
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from server.quotes.instrument import LARGEST_WHOLE, MAX_PRICE

MINUTE_US = 60_000_000
"""Microseconds of the shortest bar, the only one that is kept."""

Timeframe = Literal["1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w"]
"""The lengths of bars that clients can get."""

LAST_MINUTE = 253_402_300_799 // 60
"""The last minute of the year 9999, the last one in RFC 3339. They count from the Unix epoch."""

Minute = Annotated[int, Meta(ge=0, le=LAST_MINUTE)]

# A simulated price may be above its base price.
_Price = Annotated[float, Meta(ge=-2 * MAX_PRICE, le=2 * MAX_PRICE)]
_Whole = Annotated[int, Meta(ge=0, le=LARGEST_WHOLE)]


class Traded(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Some trades of one symbol and minute, at least one.

    The order of their times decides which is the `open` and which the `close`. Of equal times, the
    first to come opens and the last closes; a `late` trade does neither. `first_us` and `last_us` are
    the times of these two, `turnover` is the sum of price times size. If it is `restated`, these are
    all trades that the minute has now: one was cancelled or corrected. Then `count` may be 0, and it
    `hides_trades` if an overload merged it with new trades of the minute.
    """

    minute: Minute
    open: _Price
    high: _Price
    low: _Price
    close: _Price
    volume: _Whole | Annotated[float, Meta(ge=0)]
    count: _Whole
    turnover: float
    first_us: _Whole
    last_us: _Whole
    late: bool = False
    restated: bool = False
    hides_trades: bool = False

    def then(self, later: "Traded") -> "Traded":
        """Return both, which are of the same minute."""
        hides = self.hides_trades or later.hides_trades or self.restated != later.restated
        if later.restated or not self.count:
            restated = self.restated or later.restated
            return msgspec.structs.replace(later, restated=restated, hides_trades=hides)
        first_us, last_us = later.first_us, later.last_us
        opens = first_us < self.first_us
        closes = last_us > self.last_us or (last_us == self.last_us and not later.late)
        # Each trade comes here, and four calls of min and max would take a third of the time.
        rises, falls = later.high > self.high, later.low < self.low
        return Traded(
            self.minute,
            later.open if opens else self.open,
            later.high if rises else self.high,
            later.low if falls else self.low,
            later.close if closes else self.close,
            self.volume + later.volume,
            self.count + later.count,
            self.turnover + later.turnover,
            first_us if opens else self.first_us,
            last_us if closes else self.last_us,
            self.late and later.late,
            self.restated,
            hides,
        )

    @property
    def emptied(self) -> "Traded":
        """The same minute without its trades, as if all of them were cancelled."""
        return msgspec.structs.replace(self, volume=0, count=0, turnover=0.0, restated=False)


def traded(price: float, size: float, time_us: int, *, late: bool = False) -> Traded:
    """Return one trade."""
    minute, turnover = time_us // MINUTE_US, price * size
    return Traded(minute, price, price, price, price, size, 1, turnover, time_us, time_us, late)


def all_traded(earlier: tuple[Traded, ...], later: Iterable[Traded]) -> tuple[Traded, ...]:
    """Return the trades of both, one value for each minute."""
    minutes = {each.minute: each for each in earlier}
    for each in later:
        before = minutes.get(each.minute)
        minutes[each.minute] = each if before is None else before.then(each)
    return tuple(minutes.values())


class KeptMinute(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The trades of one minute so far. `rev` is the number of changes since it was final. `partial`:
    the store has others of the minute, and `rev` is the number of changes that these make.
    """

    trades: Traded
    rev: _Whole = 0
    partial: bool = False


class Closing(NamedTuple):
    """All minutes before `to` are final. Trades of minutes before `whole_from` revise the store's."""

    to: Minute = 0
    whole_from: Minute = 0
