"""Changes of quotes: from a feed, from a correction, or from the leader of a cluster.

Updates that find no room are conflated: `merged` makes one of two. It loses no volume, no high and no
low, so every split of a feed into updates gives the same quote.
"""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from server.quotes.snapshot import Microseconds, Price, Size, Version, Whole
from server.quotes.traded import Traded, all_traded, traded


class FeedPosition(NamedTuple):
    """Where a replay's present lap begins.

    `file` identifies the file by its content. `row` is the number of its first row in this lap. A
    replay numbers all rows that it reads, and goes on counting in the next lap.
    """

    file: Whole
    row: Whole


NOWHERE = FeedPosition(0, 0)
"""The position before a replay begins, and that of a simulator."""


class Opening(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The beginning of a session. `time_us` is its first moment, in microseconds since the Unix epoch.
    `close` is the last price before it, None for the price that the quote has.
    """

    time_us: Microseconds
    close: Price | None = None

    def replaces(self, earlier: "Opening | None") -> bool:
        """Whether it begins another session, or corrects the close before this one."""
        return earlier is None or self.close is not None or earlier.time_us < self.time_us


class DayRange(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The effect of prices on the day's values.

    `open` counts if the quote has none yet, or if it is `reopened`. `high` and `low` widen the quote's
    own. If they are `restated`, they replace the quote's own. None has no effect, unless it is
    restated. `first`: the first price of conflated trades, if `open` is not that. With an `opening` of
    a session, the quote's own do not count.
    """

    open: Price | None = None
    high: Price | None = None
    low: Price | None = None
    restated: bool = False
    reopened: bool = False
    first: Price | None = None
    opening: Opening | None = None

    @property
    def begins_at(self) -> float | None:
        """The first price, also if the trade was cancelled."""
        return self.open if self.first is None else self.first

    def then(self, later: "DayRange") -> "DayRange":
        """Return the effect of both."""
        if later.opening and later.opening.replaces(self.opening):
            return later
        start = later.open if self.open is None or later.reopened else self.open
        begins_at = later.begins_at if self.begins_at is None else self.begins_at
        reopened = self.reopened or later.reopened
        first = begins_at if reopened and begins_at != start else None
        if later.restated:
            return DayRange(start, later.high, later.low, True, reopened, first, self.opening)
        return DayRange(
            start,
            _extreme(max, self.high, later.high),
            _extreme(min, self.low, later.low),
            self.restated,
            reopened,
            first,
            self.opening,
        )


def _extreme(
    choose: Callable[[float, float], float], one: float | None, other: float | None
) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return choose(one, other)


NO_RANGE = DayRange()
"""The effect of an update without a price."""


class Book(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The best prices and sizes of a book's two sides. None: nobody bids or asks."""

    bid: Price | None
    ask: Price | None
    bid_size: Size | None
    ask_size: Size | None


class Change(msgspec.Struct, frozen=True, gc=False):
    """The effect of one or more updates on a quote.

    `price` is None if it does not change; `time_us` is then 0. `volume` is what they add, below zero
    after a cancelled trade. `row` is the last one's. If `day` has an opening, `volume` is that of
    the new session alone. `minutes` are the trades for the bars.
    """

    symbol: str
    price: float | None
    volume: int | float
    time_us: int
    ts: int
    row: int = 0
    day: DayRange = NO_RANGE
    book: Book | None = None
    minutes: tuple[Traded, ...] = ()

    @property
    def change(self) -> "Change":
        """Return the update's effect."""
        return self

    def then(self, later: "Change") -> "Change":
        """Return the effect of both."""
        moved = self if later.price is None else later
        volume, day = self.volume + later.volume, self.day.then(later.day)
        opening = later.day.opening
        if opening and opening.replaces(self.day.opening):
            volume = later.volume
            if opening.close is None:
                day = msgspec.structs.replace(day, opening=Opening(opening.time_us, self.price))
        return Change(
            later.symbol,
            moved.price,
            volume,
            moved.time_us,
            later.ts,
            later.row or self.row,
            day,
            later.book or self.book,
            minutes=all_traded(self.minutes, later.minutes),
        )


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One trade from a feed.

    `price` is in the instrument's currency, `size` in shares or units. `time_us` is when the trade
    happened, `ts` is when the server received it, both in microseconds since the Unix epoch. `row` is
    the row's number in a replay (`FeedPosition`), 0 in other feeds.
    """

    symbol: str
    price: float
    size: int | float
    time_us: int
    ts: int
    row: int = 0

    @property
    def change(self) -> Change:
        """Return the trade's effect."""
        price, minutes = self.price, (traded(self.price, self.size, self.time_us),)
        day = DayRange(price, price, price)
        size, time_us = self.size, self.time_us
        return Change(self.symbol, price, size, time_us, self.ts, self.row, day, minutes=minutes)


class TopOfBook(msgspec.Struct, frozen=True, gc=False):
    """The best bid and ask from a feed; None: nobody bids or asks. The times are as in `Trade`."""

    symbol: str
    bid: float | None
    ask: float | None
    bid_size: int | float | None
    ask_size: int | float | None
    time_us: int
    ts: int
    row: int = 0

    @property
    def change(self) -> Change:
        """Return the effect: a new book."""
        book = Book(self.bid, self.ask, self.bid_size, self.ask_size)
        return Change(self.symbol, None, 0, 0, self.ts, self.row, book=book)


class Restatement(msgspec.Struct, frozen=True, gc=False):
    """A quote's values after a trade was cancelled or corrected.

    `price`, `high` and `low` are the values as they would have been. `volume_change` is the difference
    of the volume. `time_us` is the time of the trade that made `price`, 0 if it is not known. `minutes`
    has all trades that are left of the revised trade's minute.
    """

    symbol: str
    price: float
    volume_change: int | float
    high: float | None
    low: float | None
    time_us: int
    ts: int
    row: int = 0
    minutes: tuple[Traded, ...] = ()

    @property
    def change(self) -> Change:
        # Without a high, no trade is left, and so no first one either.
        day = DayRange(None, self.high, self.low, restated=True, reopened=self.high is None)
        return Change(
            self.symbol,
            self.price,
            self.volume_change,
            self.time_us,
            self.ts,
            self.row,
            day,
            minutes=self.minutes,
        )


class NewSession(msgspec.Struct, frozen=True, gc=False):
    """A session of the market begins. It has no effect on a quote that has begun it already."""

    symbol: str
    time_us: int
    ts: int
    row: int = 0

    @property
    def change(self) -> Change:
        """Return the effect: the last price becomes the previous close, and the day's values go."""
        day = DayRange(opening=Opening(self.time_us))
        return Change(self.symbol, None, 0, 0, self.ts, self.row, day)


class Move(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A change of a quote to which another instance, the leader, has given a version.

    `version` and `volume` are the quote's after the change. `adjustments` is the number of adjustments
    that its prices have had. The other fields are as in `Change`.
    Without `day`, the move is one trade of `size`, and stays short: `price` alone decides its effect on
    the day's values, and `minutes` is empty.
    """

    symbol: str
    version: Version
    price: Price | None
    volume: Size
    time_us: Microseconds
    ts: Whole
    row: Whole = 0
    adjustments: Whole = 0
    day: DayRange | None = None
    book: Book | None = None
    size: Size = 0
    minutes: tuple[Traded, ...] = ()

    @property
    def trades(self) -> tuple[Traded, ...]:
        """Return the trades for the bars."""
        if self.day is not None or self.price is None or not self.time_us:
            return self.minutes
        return (traded(self.price, self.size, self.time_us),)

    @property
    def day_range(self) -> DayRange:
        """Return the effect on the day's values."""
        if self.day is not None:
            return self.day
        return NO_RANGE if self.price is None else DayRange(self.price, self.price, self.price)

    def change_after(self, volume: float) -> Change:
        """Return the change that applies this move to a quote with this `volume`."""
        added = self.volume - (0 if self.day_range.opening else volume)
        return Change(
            self.symbol,
            self.price,
            added,
            self.time_us,
            self.ts,
            self.row,
            self.day_range,
            self.book,
            minutes=self.trades,
        )

    def then(self, change: Change) -> "Move":
        """Return the move to the version after this one, which `change` makes."""
        both = self.change_after(0).then(change)
        return self.renewed(self.version + 1, both)

    def after(self, earlier: "Move") -> "Move":
        """Return this move with the effect of an `earlier` one.

        One of before an adjustment has none: the leader's state comes next, and includes it.
        """
        if earlier.adjustments != self.adjustments:
            return self
        both = earlier.change_after(earlier.volume).then(self.change_after(0))
        return self.renewed(self.version, msgspec.structs.replace(both, volume=self.volume))

    def renewed(self, version: int, change: Change) -> "Move":
        """Return the move that has the effect of `change`, with its volume as the quote's."""
        return Move(
            change.symbol,
            version,
            change.price,
            change.volume,
            change.time_us,
            change.ts,
            change.row,
            self.adjustments,
            change.day,
            change.book,
            minutes=change.minutes,
        )


Update = Trade | TopOfBook | Restatement | NewSession | Change | Move
"""A change of a quote."""


def changes_bar(update: Update) -> bool:
    """Whether an update that is not one trade changes a bar. This makes a version even if the quote
    stays the same: a trade too late for the quote or from before the opening, or a revision of one.
    """
    if not isinstance(update, Restatement | Change):
        return False
    return any(each.volume or each.late or each.restated for each in update.minutes)


def merged(earlier: Update, later: Update) -> Update:
    """Conflate two updates into one with the effect of both.

    A move after other updates replaces them: the leader's versions count, not this instance's own.
    """
    if isinstance(later, Move):
        return later.after(earlier) if isinstance(earlier, Move) else later
    if isinstance(earlier, Move):
        return earlier.then(later.change)
    return earlier.change.then(later.change)
