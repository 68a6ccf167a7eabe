"""Keeps the last trades of each symbol, so that they can be cancelled and corrected.

The trades of a symbol are rows in one flat byte array, in the order in which they would have come had
none been late. So the last row has the price. Rows that no longer fit are folded into the state before
the oldest row: its price, high and low.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from struct import Struct
from typing import NamedTuple

import msgspec

TRADES_A_SYMBOL = 1000
"""Trades kept of one symbol."""

TRADES_MEMORY = 64 * 1024 * 1024
"""Bytes of all kept trades."""

SYMBOL_BYTES = 500
"""Bytes of a symbol without its rows: the state before them, and its place in the tables."""

_ROW = Struct("<qqqddH")
_ID = Struct("<q")
# The columns of a row that are read without the others, as a thousand rows take a millisecond.
_SOURCE = Struct("<40xH")
_ORDER = Struct("<8xqq16xH")
_PRICE = Struct("<24xd10x")
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
    """A symbol's values at one moment; None if not known. `traded`: a trade made the price."""

    price: float | None
    time_us: int
    high: float | None
    low: float | None
    traded: bool = True


class TradeNews(msgspec.Struct, array_like=True, gc=False):
    """One kept trade that came (`replaces` is NO_ID), that was replaced, or taken out (no `row`)."""

    replaces: int
    row: Row | None
    late: bool = False


class SymbolNews(msgspec.Struct, array_like=True):
    """Changes of a symbol's kept trades. `before`: the values before them, None if the symbol is gone.
    `anew`: trades of before are forgotten.
    """

    before: Values | None
    adjustments: str = ""
    anew: bool = False
    events: list[TradeNews] = msgspec.field(default_factory=list)


class _Kept(msgspec.Struct):
    before: Values
    adjustments: str
    since: int
    rows: bytearray = msgspec.field(default_factory=bytearray)
    # The high and low with the rows, None if they have to be counted anew.
    extremes: tuple[float, float] | None = None

    def widen(self, price: float) -> None:
        """Count a price that comes in."""
        if self.extremes is not None:
            high, low = self.extremes
            self.extremes = max(high, price), min(low, price)

    def without(self, price: float) -> None:
        """Count anew if the price that goes was the highest or lowest."""
        if self.extremes is not None and price in self.extremes:
            self.extremes = None


class KeptTrades:
    """`memory`: bytes of all rows and tables, approximately. `most`: trades of one symbol.

    `news`: if it is a dict, each change goes there, too, by symbol. The caller takes them out.
    """

    def __init__(self, memory: int = TRADES_MEMORY, most: int = TRADES_A_SYMBOL) -> None:
        self._memory = memory
        self._most = most * _ROW.size
        self._row_bytes = 0
        self._symbols: dict[str, _Kept] = {}
        # The symbols with rows. The one to shorten next comes first.
        self._rotation: dict[str, None] = {}
        self.news: dict[str, SymbolNews] | None = None

    def __len__(self) -> int:
        """Return the number of kept trades."""
        return self._row_bytes // _ROW.size

    @property
    def used(self) -> int:
        """The bytes of all rows and tables, approximately."""
        return self._row_bytes + SYMBOL_BYTES * len(self._symbols)

    def __contains__(self, symbol: str) -> bool:
        """Whether a symbol has begun."""
        return symbol in self._symbols

    def begin(self, symbol: str, values: Values, adjustments: str = "") -> None:
        """Note the values of a symbol before its first trade here. Forget trades of before."""
        since = values.time_us if values.traded else 0
        if kept := self._symbols.get(symbol):
            since = kept.since
            self._row_bytes -= len(kept.rows)
            self._rotation.pop(symbol, None)
        self._symbols[symbol] = _Kept(values, adjustments, since)
        if self.news is not None:
            self.news[symbol] = SymbolNews(values, adjustments, anew=True)

    def symbols(self) -> list[str]:
        """Return the symbols that have begun."""
        return [*self._symbols]

    def rename(self, symbol: str, new: str) -> None:
        """Go on with a symbol's trades under its new name. If that has begun, keep those it has."""
        kept, news = self._symbols.get(symbol), (self.news or {}).pop(symbol, None)
        self.forget(symbol)
        if self.news is not None:
            # Earlier entries count for the new name.
            del self.news[symbol]
        if kept and new not in self._symbols:
            self._symbols[new] = kept
            self._row_bytes += len(kept.rows)
            if kept.rows:
                self._rotation[new] = None
            if self.news is not None and news:
                self.news[new] = news

    def forget(self, symbol: str) -> None:
        """Forget a symbol that was delisted."""
        if kept := self._symbols.pop(symbol, None):
            self._row_bytes -= len(kept.rows)
            self._rotation.pop(symbol, None)
        if self.news is not None:
            self.news[symbol] = SymbolNews(None)

    def replay(self, symbol: str, news: SymbolNews, numbers: Mapping[int, int]) -> None:
        """Repeat changes that another instance made. `numbers`: the sources' own here, by those there.

        Errors: ValueError, struct.error.
        """
        if news.before is None:
            self.forget(symbol)
            return
        if news.anew or symbol not in self:
            self.forget(symbol)
            self.begin(symbol, news.before, news.adjustments)
        for each in news.events:
            row = each.row and each.row._replace(source=numbers.get(each.row.source, 0))
            if each.replaces == NO_ID and row:
                self.add(symbol, row, late=each.late)
            elif self.find(symbol, each.replaces):
                self.replace(symbol, each.replaces, row)
            else:
                # A trade from before all news. The values without it come with the next news.
                self.forget(symbol)
                return

    def _note(self, symbol: str, replaces: int, row: Row | None, *, late: bool = False) -> None:
        """Note a change before it is made."""
        if self.news is not None:
            if symbol not in self.news:
                values, kept = self.values(symbol), self._symbols[symbol]
                self.news[symbol] = SymbolNews(values, kept.adjustments)
            self.news[symbol].events.append(TradeNews(replaces, row, late))

    def since(self, symbol: str) -> int:
        """Return the time of the last trade before the first one here, 0 if there was none."""
        return self._symbols[symbol].since

    def adjustments(self, symbol: str) -> str:
        """Return the adjustments that the prices of a symbol have had."""
        return self._symbols[symbol].adjustments

    def add(self, symbol: str, row: Row, *, late: bool) -> bool:
        """Keep a trade of a symbol that has begun. Return whether it is late and the first of all."""
        self._note(symbol, NO_ID, row, late=late)
        kept = self._symbols[symbol]
        place = _place(kept, row) if late else len(kept.rows)
        if late and not place and self._is_folded(kept, row):
            return False
        first = late and not place and not kept.before.traded and _opens(kept, row)
        kept.rows[place:place] = _ROW.pack(*row)
        kept.widen(row.price)
        self._row_bytes += _ROW.size
        self._rotation.setdefault(symbol)
        if len(kept.rows) > self._most:
            self._fold(kept, 1)
        while self.used > self._memory and self._rotation:
            self._shorten_next()
        return first

    def find(self, symbol: str, key: int) -> Row | None:
        """Return the trade whose id has this hash, None if it is not kept."""
        kept = self._symbols.get(symbol)
        place = _find(kept.rows, key) if kept else -1
        return Row(*_ROW.unpack_from(kept.rows, place)) if kept and place >= 0 else None

    def replace(self, symbol: str, key: int, row: Row | None) -> None:
        """Put `row` in the place of a kept trade, or take the trade out."""
        self._note(symbol, key, row)
        kept = self._symbols[symbol]
        place = _find(kept.rows, key)
        kept.without(Row(*_ROW.unpack_from(kept.rows, place)).price)
        if row is not None:
            kept.widen(row.price)
        kept.rows[place : place + _ROW.size] = b"" if row is None else _ROW.pack(*row)
        self._row_bytes -= _ROW.size if row is None else 0

    def values(self, symbol: str) -> Values:
        """Return the present values of a symbol that has begun."""
        kept = self._symbols[symbol]
        before = kept.before
        if not kept.rows:
            return before
        if kept.extremes is None:
            prices = [price for (price,) in _PRICE.iter_unpack(kept.rows)]
            prices += [each for each in (before.high, before.low) if each is not None]
            kept.extremes = max(prices), min(prices)
        newest = Row(*_ROW.unpack_from(kept.rows, len(kept.rows) - _ROW.size))
        return Values(newest.price, newest.time_us, *kept.extremes)

    def newest_of(self, symbol: str, source: int) -> tuple[int, int]:
        """Return the order of the newest kept trade of a source."""
        kept = self._symbols[symbol]
        rows = _ORDER.iter_unpack(kept.rows)
        orders = [(time_us, seq) for time_us, seq, number in rows if number == source]
        before = kept.before.time_us if kept.before.traded else 0
        return max(orders, default=(before, NO_SEQ))

    def last_price(self, symbol: str) -> float | None:
        """Return the present price of a symbol that has begun, None if it has not traded."""
        kept = self._symbols[symbol]
        if not kept.rows:
            return kept.before.price if kept.before.traded else None
        return Row(*_ROW.unpack_from(kept.rows, len(kept.rows) - _ROW.size)).price

    def _is_folded(self, kept: _Kept, row: Row) -> bool:
        """Fold a trade older than all rows if it is older than folded ones, or has no room."""
        before = kept.before
        # Of equal ones without numbers, the later one to come has its place before the other.
        equal = row.time_us == before.time_us and row.seq == NO_SEQ
        older = before.traded and (row.time_us < before.time_us or equal)
        if not older and len(kept.rows) < self._most:
            return False
        kept.before = _values(before, [row])
        kept.widen(row.price)
        if older:
            kept.before = kept.before._replace(price=before.price, time_us=before.time_us)
        return True

    def _shorten_next(self) -> None:
        """Fold half of the next symbol's rows."""
        symbol = next(iter(self._rotation))
        del self._rotation[symbol]
        kept = self._symbols[symbol]
        self._fold(kept, (len(kept.rows) // _ROW.size + 1) // 2)
        if kept.rows:
            self._rotation[symbol] = None

    def _fold(self, kept: _Kept, rows: int) -> None:
        """Let the first `rows` be the state before the others."""
        size = rows * _ROW.size
        oldest = map(Row._make, _ROW.iter_unpack(kept.rows[:size]))
        kept.before = _values(kept.before, oldest)
        del kept.rows[:size]
        self._row_bytes -= size


def _values(before: Values, rows: Iterable[Row]) -> Values:
    """Return the values after `rows`, from those before them."""
    price, time_us, high, low, traded = before
    for row in rows:
        price, time_us, traded = row.price, row.time_us, True
        high = price if high is None or price > high else high
        low = price if low is None or price < low else low
    return Values(price, time_us, high, low, traded)


def _opens(kept: _Kept, row: Row) -> bool:
    """Whether a trade is older than the first that is kept."""
    return bool(kept.rows) and row.order < Row(*_ROW.unpack_from(kept.rows, 0)).order


def _place(kept: _Kept, late: Row) -> int:
    """Return where a late trade belongs: before the first newer trade of its source."""
    # The trades of one source are in their order, those of several are not.
    places = [
        place
        for place, (source,) in enumerate(_SOURCE.iter_unpack(kept.rows))
        if source == late.source
    ]
    older = bisect_left(places, late.order, key=lambda place: _order_at(kept, place))
    return (places[older - 1] + 1) * _ROW.size if older else 0


def _order_at(kept: _Kept, place: int) -> tuple[int, int]:
    return Row(*_ROW.unpack_from(kept.rows, place * _ROW.size)).order


def _find(rows: bytearray, key: int) -> int:
    """Return the place of the newest row with this id, -1 if there is none."""
    wanted, place = _ID.pack(key), len(rows)
    while (place := rows.rfind(wanted, 0, place + _ID.size - 1)) >= 0:
        if place % _ROW.size == 0:
            break
    return place
