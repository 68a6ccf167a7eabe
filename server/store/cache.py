"""The cache in front of the catalogue: its interface, and what guards whichever cache is used."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import uniform
from time import perf_counter
from typing import Protocol, TypeVar

from server.quotes.snapshot import Snapshot
from server.store.component import Component
from server.store.stats import StoreStats
from server.store.ttl_lru import Kept

TTL_JITTER = 0.1
"""Part of the TTL by which it may be shorter: what was cached together should not expire together."""

T = TypeVar("T")


class Cache(Protocol):
    """Redis or memory. Each method may raise StoreUnavailable."""

    @property
    def name(self) -> str:
        """What the log calls it."""

    async def get_many(self, symbols: Sequence[str]) -> Mapping[str, Kept[Snapshot]]:
        """What is cached of `symbols` and not past its TTL, in one operation."""

    async def set_many(self, snapshots: Sequence[Snapshot], ttl: float) -> None:
        """Cache each for up to `ttl` seconds (see `jittered`), in one operation."""

    async def delete_many(self, symbols: Sequence[str]) -> int:
        """Forget; how many there were."""


def jittered(ttl: float) -> float:
    """A lifetime for one value."""
    return ttl * uniform(1 - TTL_JITTER, 1)


class GuardedCache:
    """A cache that is not asked while it fails, and whose operations are timed."""

    def __init__(self, cache: Cache, component: Component, stats: StoreStats) -> None:
        self.name = cache.name
        self._cache = cache
        self._component = component
        self._stats = stats

    async def get_many(self, symbols: Sequence[str]) -> Mapping[str, Kept[Snapshot]]:
        return await self._ask("get", lambda: self._cache.get_many(symbols))

    async def set_many(self, snapshots: Sequence[Snapshot], ttl: float) -> None:
        await self._ask("set", lambda: self._cache.set_many(snapshots, ttl))

    async def delete_many(self, symbols: Sequence[str]) -> int:
        return await self._ask("delete", lambda: self._cache.delete_many(symbols))

    async def _ask(self, operation: str, call: Callable[[], Awaitable[T]]) -> T:
        async def timed() -> T:
            start = perf_counter()
            try:
                return await call()
            finally:
                self._stats.observe_operation(operation, perf_counter() - start)

        return await self._component.ask(timed)
