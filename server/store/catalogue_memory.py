"""A catalogue in memory, lost with the process: for tests, and if no file can be written."""

from collections.abc import Callable, Iterable, Sequence
from itertools import count, islice
from time import monotonic

import msgspec

from server.quotes.instrument import Instrument
from server.quotes.snapshot import PRICE_FIELDS, Snapshot, opening_snapshot
from server.store.catalogue import Change
from server.store.search import CANDIDATES, Groups, WordIndex, search, symbol_key


class MemoryCatalogue:
    """See `Catalogue`."""

    name = "memory"

    def __init__(self, instruments: Iterable[Instrument] = ()) -> None:
        self._rows = {each.symbol: opening_snapshot(each) for each in instruments}
        self._watched: dict[str, float] = {}
        self._delisted: set[str] = set()
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

    async def upsert(self, instruments: Sequence[Instrument], done: Callable[[int], None]) -> None:
        for instrument in instruments:
            row, old = opening_snapshot(instrument), self._rows.get(instrument.symbol)
            if old and (row.base_price is None or (old.base_price is not None and old.version > 1)):
                row = _with_price_of(old, row)
            if old and row.base_price is None:
                row = msgspec.structs.replace(
                    row, base_price=old.base_price, price_decimals=old.price_decimals
                )
            self._delisted.discard(row.symbol)
            self._rows[row.symbol] = row
            self._words.put(row.symbol, row.name)
            self._changes[row.symbol] = next(self._marks)
        done(len(instruments))

    async def delist(self, symbols: Sequence[str]) -> list[str]:
        missing = [each for each in symbols if each not in self._rows or each in self._delisted]
        if not missing:
            self._delisted |= set(symbols)
            self._changes |= {each: next(self._marks) for each in symbols}
        return missing

    async def changes(self, since: int | None) -> tuple[int, list[Change]]:
        return next(self._marks), [
            Change(symbol, symbol in self._delisted, changed)
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
            elif snapshot.version > row.version:
                base_price = snapshot.base_price if row.base_price is None else row.base_price
                row = msgspec.structs.replace(row, base_price=base_price)
                self._rows[snapshot.symbol] = _with_price_of(snapshot, row)
        self._watched |= dict.fromkeys(watched, monotonic())


def _with_price_of(priced: Snapshot, row: Snapshot) -> Snapshot:
    return msgspec.structs.replace(row, **{field: getattr(priced, field) for field in PRICE_FIELDS})
