"""The kept trades of one symbol, and the state before them.

The trades are rows in one flat byte array, in the order in which they would have come had none been
late. So the last row has the price. Rows that no longer fit are folded into the state before the
oldest row: its price, high and low.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import chain
from struct import Struct
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from server.quotes.traded import MINUTE_US, Traded, all_traded, traded

FOLDED_MINUTES = 6
"""Minutes of a symbol of which the trades without rows are known. Later ones have rows for all."""

_ROW = Struct("<qqqddH")
_ID = Struct("<q")
# The columns of a row that are read without the others, as a thousand rows take a millisecond.
_SOURCE = Struct("<40xH")
_ORDER = Struct("<8xqq16xH")
_PRICE = Struct("<8xq8xd10x")
ROW_BYTES = _ROW.size
NO_ID = 0
NO_SEQ = -1


class Row(NamedTuple):
    """One kept trade. `id` is a hash of its id, NO_ID without one; `source` is the source's number."""

    id: int
    time_us: int
    seq: int
    price: float
    size: float
    source: int

    @property
    def order(self) -> tuple[int, int]:
        """The place among the trades of its source."""
        return self.time_us, self.seq


class Values(NamedTuple):
    """A symbol's values at one moment; None if not known. `traded`: a trade made the price. `minutes`:
    the newest ones, for the bars.
    """

    price: float | None
    time_us: int
    high: float | None
    low: float | None
    traded: bool = True
    minutes: tuple[Traded, ...] = ()


class Kept(msgspec.Struct):
    """`adjustments`: those that the prices have had. `since`: the time of the last trade before the
    first one here, 0 if none. `unknown`: its minute, if the trades of that are not known.
    """

    before: Values
    adjustments: str
    since: int
    # The opening of the session, 0 if nobody knows it: the high and low are those of its trades.
    opened: int
    rows: bytearray = msgspec.field(default_factory=bytearray)
    # Trades that have no rows, of the newest minutes with such.
    minutes: tuple[Traded, ...] = ()
    unknown: int = -1
    # The high and low with the rows, None if they have to be counted anew.
    extremes: tuple[float, float] | None = None

    def values(self) -> Values:
        """Return the present values."""
        before = self.before
        if not self.rows:
            return before
        if self.extremes is None:
            rows = _PRICE.iter_unpack(self.rows)
            prices = [price for time_us, price in rows if time_us >= self.opened]
            prices += [each for each in (before.high, before.low) if each is not None]
            self.extremes = (max(prices), min(prices)) if prices else None
        newest = self._row_at(len(self.rows) - ROW_BYTES)
        return Values(newest.price, newest.time_us, *(self.extremes or (None, None)))

    def know_minutes(self, minutes: Sequence[Traded]) -> None:
        """Note all trades of the newest minutes before the first trade here."""
        self.minutes = tuple(minutes[-FOLDED_MINUTES:])
        last = self.before.time_us // MINUTE_US
        if self.before.traded and last not in {each.minute for each in self.minutes}:
            self.unknown = last

    def minute_of(self, row: Row) -> Traded | None:
        """Return all trades of the minute in which `row` is, or was; None if they are not known."""
        minute = row.time_us // MINUTE_US
        if minute == self.unknown:
            return None
        rows = map(Row._make, _ROW.iter_unpack(self.rows))
        found = (traded(*each[3:5], each.time_us) for each in rows)
        parts = [each for each in chain(self.minutes, found) if each.minute == minute]
        if parts:
            return replace(reduce(Traded.then, parts), restated=True)
        nothing = traded(row.price, 0, row.time_us)
        return replace(nothing, count=0, restated=True)

    def newest_of(self, source: int) -> tuple[int, int]:
        """Return the order of the newest kept trade of a source."""
        rows = _ORDER.iter_unpack(self.rows)
        orders = [(time_us, seq) for time_us, seq, number in rows if number == source]
        before = self.before.time_us if self.before.traded else 0
        return max(orders, default=(before, NO_SEQ))

    def last_price(self) -> float | None:
        """Return the present price, None if the symbol has not traded."""
        if not self.rows:
            return self.before.price if self.before.traded else None
        return self._row_at(len(self.rows) - ROW_BYTES).price

    def open(self, opening: int, *, anew: bool) -> None:
        """Note the opening of a session. `anew`: the high and low are of an earlier one."""
        self.opened = opening
        if anew:
            self.before = self.before._replace(high=None, low=None)
            self.extremes = None

    def place_of(self, late: Row) -> int:
        """Return where a late trade belongs: before the first newer trade of its source."""
        # The trades of one source are in their order, those of several are not.
        places = [
            place * ROW_BYTES
            for place, (source,) in enumerate(_SOURCE.iter_unpack(self.rows))
            if source == late.source
        ]
        older = bisect_left(places, late.order, key=lambda place: self._row_at(place).order)
        return places[older - 1] + ROW_BYTES if older else 0

    def opens(self, row: Row, place: int) -> bool:
        """Whether a late trade at this place is the first of the session, or of all."""
        if place == len(self.rows) or row.time_us < self.opened:
            return False
        if place:
            return self._row_at(place - ROW_BYTES).time_us < self.opened
        earlier = not self.before.traded or self.before.time_us < self.opened
        return earlier and row.order < self._row_at(0).order

    def insert(self, row: Row, place: int) -> None:
        """Put a trade at this place."""
        self.rows[place:place] = _ROW.pack(*row)
        self._widen(row)

    def find(self, key: int) -> Row | None:
        """Return the trade whose id has this hash, None if it is not kept."""
        place = self._place_of_id(key)
        return self._row_at(place) if place >= 0 else None

    def replace(self, key: int, row: Row | None) -> None:
        """Put `row` in the place of a kept trade, or take the trade out."""
        place = self._place_of_id(key)
        price = self._row_at(place).price
        if self.extremes is not None and price in self.extremes:
            # They may have been the values of this trade alone.
            self.extremes = None
        if row is not None:
            self._widen(row)
        self.rows[place : place + ROW_BYTES] = b"" if row is None else _ROW.pack(*row)

    def fold(self, rows: int) -> None:
        """Let the first `rows` be the state before the others."""
        size = rows * ROW_BYTES
        oldest = [*map(Row._make, _ROW.iter_unpack(self.rows[:size]))]
        self.before = _values(self.before, oldest, self.opened)
        self._fold_minutes(oldest)
        del self.rows[:size]

    def fold_late(self, row: Row, room: int) -> bool:
        """Fold a trade older than all rows if it is older than folded ones, or if the rows have `room`
        bytes already. Return whether it is folded.
        """
        before = self.before
        # Of equal ones without numbers, the later one to come has its place before the other.
        equal = row.time_us == before.time_us and row.seq == NO_SEQ
        older = before.traded and (row.time_us < before.time_us or equal)
        if not older and len(self.rows) < room:
            return False
        self.before = _values(before, [row], self.opened)
        self._fold_minutes([row])
        self._widen(row)
        if older:
            self.before = self.before._replace(price=before.price, time_us=before.time_us)
        return True

    def _row_at(self, place: int) -> Row:
        return Row(*_ROW.unpack_from(self.rows, place))

    def _place_of_id(self, key: int) -> int:
        """Return the place of the newest row with this id, -1 if there is none."""
        wanted, place = _ID.pack(key), len(self.rows)
        while (place := self.rows.rfind(wanted, 0, place + _ID.size - 1)) >= 0:
            if place % ROW_BYTES == 0:
                break
        return place

    def _widen(self, row: Row) -> None:
        """Count a trade that comes in."""
        if self.extremes is not None and row.time_us >= self.opened:
            high, low = self.extremes
            self.extremes = max(high, row.price), min(low, row.price)

    def _fold_minutes(self, rows: Iterable[Row]) -> None:
        """Let rows go, but not what their minutes had of them."""
        for row in rows:
            part = traded(row.price, row.size, row.time_us)
            minutes = self.minutes
            if minutes and minutes[-1].minute == part.minute:
                # Each trade of a busy symbol lets one go, nearly always of this minute.
                self.minutes = (*minutes[:-1], minutes[-1].then(part))
                continue
            found = sorted(all_traded(minutes, [part]), key=lambda each: each.minute)
            self.minutes = tuple(found[-FOLDED_MINUTES:])


def _values(before: Values, rows: Iterable[Row], opened: int) -> Values:
    """Return the values after `rows`, from those before them. `opened`: the session's opening."""
    price, time_us, high, low, *_ = before
    has_traded = before.traded
    for row in rows:
        price, time_us, has_traded = row.price, row.time_us, True
        if time_us < opened:
            continue
        high = price if high is None or price > high else high
        low = price if low is None or price < low else low
    return Values(price, time_us, high, low, has_traded)
