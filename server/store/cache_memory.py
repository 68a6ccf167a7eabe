"""The cache of a single instance: a bounded mapping in the process."""

from collections.abc import Mapping, Sequence

from server.quotes.snapshot import Snapshot
from server.store.cache import jittered
from server.store.ttl_lru import Kept, TtlLru


class MemoryCache:
    """See `Cache`. It holds at most `size` symbols and forgets the least recently used first."""

    name = "memory"

    def __init__(self, size: int) -> None:
        self._values: TtlLru[Snapshot] = TtlLru(size)

    async def get_many(self, symbols: Sequence[str]) -> Mapping[str, Kept[Snapshot]]:
        found = {symbol: self._values.get(symbol) for symbol in symbols}
        return {symbol: kept for symbol, kept in found.items() if kept and kept.lifetime > 0}

    async def set_many(self, snapshots: Sequence[Snapshot], ttl: float) -> None:
        for snapshot in snapshots:
            self._values.put(snapshot.symbol, snapshot, jittered(ttl))

    async def delete_many(self, symbols: Sequence[str]) -> int:
        return self._values.discard(symbols)

    async def get_mark(self) -> None:
        return None

    async def set_mark(self, mark: int, ttl: float) -> None:
        """Do nothing: the values end with the process, as does its own mark."""
