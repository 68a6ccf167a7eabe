"""A catalogue that lasts as long as the process: for tests, and where no file can be written."""

from collections.abc import Callable, Iterable, Sequence
from time import monotonic

import msgspec

from server.quotes.instrument import Instrument
from server.quotes.snapshot import Snapshot, opening_snapshot
from server.store.catalogue import search_rank


class MemoryCatalogue:
    """See `Catalogue`."""

    name = "memory"

    def __init__(self, instruments: Iterable[Instrument] = ()) -> None:
        self._rows = {each.symbol: opening_snapshot(each) for each in instruments}
        self._watched: dict[str, float] = {}

    async def migrate(self) -> list[str]:
        return []

    async def find(self, symbols: Sequence[str]) -> list[Snapshot]:
        return [self._rows[symbol] for symbol in symbols if symbol in self._rows]

    async def page(self, after: str, limit: int) -> list[Snapshot]:
        above = sorted(symbol for symbol in self._rows if symbol > after)
        return [self._rows[symbol] for symbol in above[:limit]]

    async def search(self, query: str, limit: int) -> list[Snapshot]:
        ranks = ((search_rank(row, query), row) for row in self._rows.values())
        found = sorted((rank, row) for rank, row in ranks if rank is not None)
        return [row for _, row in found[:limit]]

    async def recently_watched(self, limit: int) -> list[str]:
        return sorted(self._watched, key=self._watched.__getitem__, reverse=True)[:limit]

    async def upsert(self, instruments: Sequence[Instrument], done: Callable[[int], None]) -> None:
        for instrument in instruments:
            row, old = opening_snapshot(instrument), self._rows.get(instrument.symbol)
            if old and old.version > 1:
                row = msgspec.structs.replace(
                    row, last_quote=old.last_quote, volume=old.volume,
                    version=old.version, quoted_at=old.quoted_at,
                )  # fmt: skip
            self._rows[row.symbol] = row
        done(len(instruments))

    async def save(self, snapshots: Sequence[Snapshot], watched: Sequence[str]) -> None:
        for snapshot in snapshots:
            row = self._rows.get(snapshot.symbol)
            if row is None:
                self._rows[snapshot.symbol] = snapshot
            elif snapshot.version > row.version:
                self._rows[snapshot.symbol] = msgspec.structs.replace(
                    row, last_quote=snapshot.last_quote, volume=snapshot.volume,
                    version=snapshot.version, quoted_at=snapshot.quoted_at,
                )  # fmt: skip
        self._watched |= dict.fromkeys(watched, monotonic())
