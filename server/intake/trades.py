"""Keeps the last trades of each symbol, so that they can be cancelled and corrected."""

from collections.abc import Mapping

import msgspec

from server.intake.kept import NO_ID, ROW_BYTES, Kept, Row, Values

TRADES_A_SYMBOL = 1000
"""Trades kept of one symbol."""

TRADES_MEMORY = 64 * 1024 * 1024
"""Bytes of all kept trades."""

SYMBOL_BYTES = 500
"""Bytes of a symbol without its rows: the state before them, and its place in the tables."""


class TradeNews(msgspec.Struct, array_like=True, gc=False):
    """One kept trade that came (`replaces` is NO_ID), that was replaced, or taken out (no `row`).

    Or a session's `opening`; then `late` says whether the high and low begin anew.
    """

    replaces: int
    row: Row | None
    late: bool = False
    opening: int = 0


class SymbolNews(msgspec.Struct, array_like=True):
    """Changes of a symbol's kept trades. `before`: the values before them, None if the symbol is gone.
    `anew`: trades of before are forgotten.
    """

    before: Values | None
    adjustments: str = ""
    opened: int = 0
    anew: bool = False
    events: list[TradeNews] = msgspec.field(default_factory=list)


class KeptTrades:
    """`memory`: bytes of all rows and tables, approximately. `most`: trades of one symbol.

    `news`: if it is a dict, each change goes there, too, by symbol. The caller takes them out.
    """

    def __init__(self, memory: int = TRADES_MEMORY, most: int = TRADES_A_SYMBOL) -> None:
        self._memory = memory
        self._most = most * ROW_BYTES
        self._row_bytes = 0
        self._symbols: dict[str, Kept] = {}
        # The symbols with rows. The one to shorten next comes first.
        self._rotation: dict[str, None] = {}
        self.news: dict[str, SymbolNews] | None = None

    def __len__(self) -> int:
        """Return the number of kept trades."""
        return self._row_bytes // ROW_BYTES

    @property
    def used(self) -> int:
        """The bytes of all rows and tables, approximately."""
        return self._row_bytes + SYMBOL_BYTES * len(self._symbols)

    def __contains__(self, symbol: str) -> bool:
        """Whether a symbol has begun."""
        return symbol in self._symbols

    def __getitem__(self, symbol: str) -> Kept:
        """Return what is kept of a symbol that has begun. Its trades change by the methods here."""
        return self._symbols[symbol]

    def begin(self, symbol: str, values: Values, adjustments: str = "", opened: int = 0) -> None:
        """Note the values of a symbol before its first trade here. Forget trades of before.

        `opened`: the opening of the session that they belong to, 0 if nobody knows it.
        """
        since = values.time_us if values.traded else 0
        if kept := self._symbols.get(symbol):
            since = kept.since
            self._row_bytes -= len(kept.rows)
            self._rotation.pop(symbol, None)
        kept = Kept(values._replace(minutes=()), adjustments, since, opened)
        kept.know_minutes(values.minutes)
        self._symbols[symbol] = kept
        if self.news is not None:
            self.news[symbol] = SymbolNews(values, adjustments, opened, anew=True)

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
            self.begin(symbol, news.before, news.adjustments, news.opened)
        for each in news.events:
            if each.opening:
                self.open(symbol, each.opening, anew=each.late)
                continue
            row = each.row and each.row._replace(source=numbers.get(each.row.source, 0))
            if each.replaces == NO_ID and row:
                self.add(symbol, row, late=each.late)
            elif self.find(symbol, each.replaces):
                self.replace(symbol, each.replaces, row)
            else:
                # A trade from before all news. The values without it come with the next news.
                self.forget(symbol)
                return

    def _note(
        self, symbol: str, replaces: int, row: Row | None, *, late: bool = False, opening: int = 0
    ) -> None:
        """Note a change before it is made."""
        if self.news is not None:
            if symbol not in self.news:
                kept = self._symbols[symbol]
                self.news[symbol] = SymbolNews(kept.values(), kept.adjustments, kept.opened)
            self.news[symbol].events.append(TradeNews(replaces, row, late, opening))

    def open(self, symbol: str, opening: int, *, anew: bool) -> None:
        """Note the opening of a session. `anew`: the high and low are of an earlier one."""
        self._note(symbol, NO_ID, None, late=anew, opening=opening)
        self._symbols[symbol].open(opening, anew=anew)

    def add(self, symbol: str, row: Row, *, late: bool) -> bool:
        """Keep a trade of a symbol that has begun. Return whether it is late and the first of all."""
        self._note(symbol, NO_ID, row, late=late)
        kept = self._symbols[symbol]
        place = kept.place_of(row) if late else len(kept.rows)
        if late and not place and kept.fold_late(row, self._most):
            return False
        first = late and kept.opens(row, place)
        kept.insert(row, place)
        self._row_bytes += ROW_BYTES
        self._rotation.setdefault(symbol)
        if len(kept.rows) > self._most:
            self._fold(kept, 1)
        while self.used > self._memory and self._rotation:
            self._shorten_next()
        return first

    def find(self, symbol: str, key: int) -> Row | None:
        """Return the trade whose id has this hash, None if it is not kept."""
        kept = self._symbols.get(symbol)
        return kept.find(key) if kept else None

    def replace(self, symbol: str, key: int, row: Row | None) -> None:
        """Put `row` in the place of a kept trade, or take the trade out."""
        self._note(symbol, key, row)
        self._symbols[symbol].replace(key, row)
        self._row_bytes -= ROW_BYTES if row is None else 0

    def _shorten_next(self) -> None:
        """Fold half of the next symbol's rows."""
        symbol = next(iter(self._rotation))
        del self._rotation[symbol]
        kept = self._symbols[symbol]
        self._fold(kept, (len(kept.rows) // ROW_BYTES + 1) // 2)
        if kept.rows:
            self._rotation[symbol] = None

    def _fold(self, kept: Kept, rows: int) -> None:
        """Let the first `rows` be the state before the others."""
        kept.fold(rows)
        self._row_bytes -= rows * ROW_BYTES
