"""The cache in front of the catalogue: its interface, and a guard for any implementation."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import uniform
from time import perf_counter
from typing import Protocol, TypeVar

from server.quotes.snapshot import Snapshot
from server.store.component import Component
from server.store.stats import StoreStats
from server.store.ttl_lru import Kept

TTL_JITTER = 0.1
"""Largest part cut off from a TTL at random, so that values cached together do not expire together."""

T = TypeVar("T")


class Cache(Protocol):
    """Redis or memory. Each method may raise StoreUnavailable."""

    @property
    def name(self) -> str:
        """Return the cache's name for the log."""

    async def get_many(self, symbols: Sequence[str]) -> Mapping[str, Kept[Snapshot]]:
        """Return the cached snapshots of `symbols` that are within their TTL, in one operation."""

    async def set_many(self, snapshots: Sequence[Snapshot], ttl: float) -> None:
        """Cache each for up to `ttl` seconds (see `jittered`), in one operation."""

    async def delete_many(self, symbols: Sequence[str]) -> int:
        """Remove `symbols` and return how many of them were cached."""

    async def get_mark(self) -> int | None:
        """Return the mark that was set last and is within its TTL."""

    async def set_mark(self, mark: int, ttl: float) -> None:
        """Note that all changes of the catalogue before `mark` were removed, for `ttl` seconds."""


def jittered(ttl: float) -> float:
    """Return a random lifetime for one value, at most `ttl` seconds."""
    return ttl * uniform(1 - TTL_JITTER, 1)


class GuardedCache:
    """Puts a breaker and timers in front of a cache: a failing cache is not asked."""

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

    async def get_mark(self) -> int | None:
        return await self._component.ask(self._cache.get_mark)

    async def set_mark(self, mark: int, ttl: float) -> None:
        await self._component.ask(lambda: self._cache.set_mark(mark, ttl))

    async def _ask(self, operation: str, call: Callable[[], Awaitable[T]]) -> T:
        async def timed() -> T:
            start = perf_counter()
            try:
                return await call()
            finally:
                self._stats.operations[operation].observe(perf_counter() - start)

        return await self._component.ask(timed)
