"""A catalogue in memory, lost with the process: for tests, and if no file can be written."""

from collections.abc import Callable, Iterable, Sequence
from itertools import count, islice
from time import monotonic

import msgspec

from server.quotes.adjustment import in_session_of, up_to_date
from server.quotes.instrument import Instrument
from server.quotes.snapshot import PRICE_FIELDS, Snapshot, opening_snapshot
from server.store.bars_memory import MemoryBars
from server.store.catalogue import Change, imported_rows
from server.store.renaming import Found, listed, rows_after
from server.store.search import CANDIDATES, Groups, WordIndex, search, symbol_key


class MemoryCatalogue:
    """See `Catalogue`."""

    name = "memory"

    def __init__(self, instruments: Iterable[Instrument] = ()) -> None:
        self._rows = {each.symbol: opening_snapshot(each) for each in instruments}
        self.bars = MemoryBars()
        self._watched: dict[str, float] = {}
        self._delisted: set[str] = set()
        self._renamed: dict[str, str] = {}
        self._changes: dict[str, int] = {}
        self._marks = count(1)
        self._words = WordIndex()
        for row in self._rows.values():
            self._words.put(row.symbol, row.name)

    def pool_use(self) -> None:
        return None

    async def migrate(self) -> list[str]:
        return []

    async def find(self, symbols: Sequence[str]) -> list[Snapshot]:
        return [
            self._rows[symbol]
            for symbol in symbols
            if symbol in self._rows and symbol not in self._delisted
        ]

    async def page(self, after: str, limit: int) -> list[Snapshot]:
        listed = self._rows.keys() - self._delisted
        above = sorted(symbol for symbol in listed if symbol > after)
        return [self._rows[symbol] for symbol in above[:limit]]

    async def search(self, query: str, limit: int) -> list[Snapshot]:
        return await search(self, query, limit)

    async def by_symbol(self, prefix: str, key: str, limit: int) -> list[Snapshot]:
        begins = [each for each in self._rows if each.startswith(prefix)]
        alike = [each for each in self._rows if symbol_key(each).startswith(key)]
        alike.sort(key=symbol_key)
        return await self.find([*self._first(sorted(begins), limit), *self._first(alike, limit)])

    async def by_words(self, groups: Groups, *, whole: bool) -> list[Snapshot]:
        return await self.find(
            self._first(sorted(self._words.find(groups, whole=whole)), CANDIDATES)
        )

    def _first(self, symbols: Iterable[str], limit: int) -> list[str]:
        return list(islice((each for each in symbols if each not in self._delisted), limit))

    async def recently_watched(self, limit: int) -> list[str]:
        watched = self._watched.keys() - self._delisted
        return sorted(watched, key=self._watched.__getitem__, reverse=True)[:limit]

    async def upsert(
        self, instruments: Sequence[Instrument], done: Callable[[int], None], *, anew: bool = False
    ) -> None:
        for new in imported_rows(instruments, anew=anew):
            old = self._rows.get(new.symbol)
            row = self._continued(old, new, anew=anew) if old else new
            self._delisted.discard(row.symbol)
            self._renamed.pop(row.symbol, None)
            self._rows[row.symbol] = row
            self._words.put(row.symbol, row.name)
            self._changes[row.symbol] = next(self._marks)
        done(len(instruments))

    def _continued(self, old: Snapshot, row: Snapshot, *, anew: bool) -> Snapshot:
        """Return an imported `row` with all that it keeps of the `old` one."""
        adjustments = f"{old.adjustments} {row.adjustments}".strip()
        row = msgspec.structs.replace(row, adjustments=adjustments)
        if anew:
            return up_to_date(old, row.instrument)
        its_own = row.symbol not in self._renamed and old.base_price is not None
        last_quote = old.last_quote if its_own else row.last_quote
        if row.base_price is None and row.symbol not in self._renamed:
            base = {"base_price": old.base_price, "price_decimals": old.price_decimals}
            return _with_price_of(old, row, **base)
        return _with_price_of(old, row, last_quote=last_quote) if old.version > 1 else row

    async def delist(self, symbols: Sequence[str]) -> list[str]:
        missing = [each for each in symbols if each not in self._rows or each in self._delisted]
        if not missing:
            self._delisted |= set(symbols)
            self._changes |= {each: next(self._marks) for each in symbols}
        return missing

    async def adjust(self, symbol: str, change: Callable[[Snapshot], Snapshot]) -> Snapshot:
        row = self._rows[symbol] = change(listed(symbol, self._found(symbol)))
        self._changes[symbol] = next(self._marks)
        return row

    async def rename(self, old: str, new: str) -> None:
        for row in rows_after(old, new, self._found(old, new)):
            self._rows[row.symbol] = row
            self._words.put(row.symbol, row.name)
            self._changes[row.symbol] = next(self._marks)
        self._delisted = self._delisted - {new} | {old}
        moved = {symbol: new for symbol, now in self._renamed.items() if now == old} | {old: new}
        self._renamed = {k: v for k, v in (self._renamed | moved).items() if k != new}

    def _found(self, *symbols: str) -> dict[str, Found]:
        rows = self._rows
        return {each: Found(each in self._delisted, rows[each]) for each in symbols if each in rows}

    async def changes(self, since: int | None) -> tuple[int, list[Change]]:
        return next(self._marks), [
            Change(
                symbol,
                symbol in self._delisted,
                changed,
                self._renamed.get(symbol),
                self._rows[symbol].adjustments,
            )
            for symbol, changed in self._changes.items()
            if (symbol in self._delisted if since is None else changed >= since)
        ]

    async def save(self, snapshots: Sequence[Snapshot], watched: Sequence[str]) -> None:
        for snapshot in snapshots:
            row = self._rows.get(snapshot.symbol)
            if row is None:
                self._rows[snapshot.symbol] = snapshot
                self._words.put(snapshot.symbol, snapshot.name)
                self._changes[snapshot.symbol] = next(self._marks)
            elif snapshot.version > row.version and snapshot.adjustments == row.adjustments:
                base_price = snapshot.base_price if row.base_price is None else row.base_price
                row = msgspec.structs.replace(row, base_price=base_price)
                if snapshot.opened_at > row.opened_at:
                    row = opening_snapshot(in_session_of(row.instrument, snapshot))
                self._rows[snapshot.symbol] = _with_price_of(snapshot, row)
        self._watched |= dict.fromkeys(watched, monotonic())


def _with_price_of(priced: Snapshot, row: Snapshot, **other: object) -> Snapshot:
    price = {field: getattr(priced, field) for field in PRICE_FIELDS}
    return msgspec.structs.replace(row, **(price | other))
