"""The cache in Redis, which instances share: one key for each symbol, its snapshot as JSON."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from time import time
from typing import Annotated, TypeVar

import msgspec
import trio
from msgspec import Meta

from server.quotes.record import Decoder, filed_under
from server.quotes.snapshot import LATEST_US, Snapshot, Whole
from server.redis_link import RedisLink, RedisLost, open_link
from server.store.cache import jittered
from server.store.catalogue import StoreUnavailable
from server.store.deadline_calls import DeadlineCalls
from server.store.stats import StoreStats
from server.store.ttl_lru import Kept

KEY = "market_data:"
"""The beginning of each key; the symbol follows."""

MARK_KEY = "quotestream:catalogue_mark"
"""The key of `Cache.get_mark`. A server that starts removes what changed while none was running."""

OPERATION_TIMEOUT = 0.25
"""Seconds of one operation, which takes one millisecond; then the database is asked instead."""

CONNECTIONS = 16
"""To Redis: the loader's lookups and as many other operations."""

WAITING_CALLS = 64
"""Operations in progress; further ones are refused at once."""

T = TypeVar("T")


class _Cached(Snapshot, frozen=True, gc=False):
    """`expires_at`: Unix seconds, when Redis deletes the key. Readers do not know it otherwise."""

    expires_at: Annotated[float, Meta(ge=0, le=LATEST_US / 1e6)] = 0.0


class RedisCache:
    """See `Cache`. Made by `open_redis`."""

    name = "redis"

    def __init__(self, link: RedisLink, stats: StoreStats) -> None:
        self.link = link
        self.redis = link.redis
        self.stats = stats
        self.calls = DeadlineCalls(WAITING_CALLS)

    async def get_many(self, symbols: Sequence[str]) -> Mapping[str, Kept[Snapshot]]:
        keys = [KEY + symbol for symbol in symbols]
        values = await self.run(lambda: self.redis.mget(keys))
        now, found = time(), {}
        for symbol, value in zip(symbols, values, strict=True):
            if value is not None and (cached := self._read(symbol, value)):
                found[symbol] = Kept[Snapshot](_plain(cached), cached.expires_at - now)
        return found

    async def set_many(self, snapshots: Sequence[Snapshot], ttl: float) -> None:
        await self.run(partial(self._set, snapshots, ttl))

    async def delete_many(self, symbols: Sequence[str]) -> int:
        return await self.run(lambda: self.redis.delete(*(KEY + each for each in symbols)))

    async def get_mark(self) -> int | None:
        value = await self.run(lambda: self.redis.get(MARK_KEY))
        if value is None:
            return None
        return self.stats.invalid.read("cache", MARK_KEY, lambda: _mark_decoder.decode(value))

    async def set_mark(self, mark: int, ttl: float) -> None:
        await self.run(lambda: self.redis.set(MARK_KEY, mark, px=max(1, int(ttl * 1e3))))

    def _read(self, symbol: str, value: bytes | str) -> _Cached | None:
        """Return the cached value, None if it is not a record: a good value then replaces it."""
        reading = partial(_decode, symbol, value)
        return self.stats.invalid.read("cache", KEY + symbol, reading)

    async def _set(self, snapshots: Sequence[Snapshot], ttl: float) -> None:
        async with self.redis.pipeline(transaction=False) as pipeline:
            for snapshot in snapshots:
                lifetime = jittered(ttl)
                cached = _Cached(**msgspec.structs.asdict(snapshot), expires_at=time() + lifetime)
                pipeline.set(KEY + snapshot.symbol, _encode(cached), px=max(1, int(lifetime * 1e3)))
            await pipeline.execute()

    async def run(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Return the result of an operation of redis-py, in time. Errors: StoreUnavailable."""
        return await self.calls.call(OPERATION_TIMEOUT, partial(self._attempt, operation))

    async def _attempt(self, operation: Callable[[], Awaitable[T]]) -> T:
        try:
            return await self.link.call(operation)
        except RedisLost as error:
            raise StoreUnavailable(f"Redis: {error}") from error


@asynccontextmanager
async def open_redis(url: str, stats: StoreStats | None = None) -> AsyncIterator[RedisCache]:
    """Open a cache that connects when it is used. Errors: BadRedisUrl.

    Arguments:
        stats: counts the values that are left out. A command needs none.
    """
    async with (
        open_link(url, connections=CONNECTIONS, patience=OPERATION_TIMEOUT) as link,
        trio.open_nursery() as nursery,
    ):
        cache = RedisCache(link, stats or StoreStats())
        await nursery.start(cache.calls.run)
        yield cache
        nursery.cancel_scope.cancel()


_encode = msgspec.json.Encoder().encode
_decoder = Decoder(_Cached, "json")
_mark_decoder = Decoder(Whole, "json")


def _decode(symbol: str, value: bytes | str) -> _Cached:
    """Errors: BadRecord."""
    return filed_under(symbol, _decoder.decode(value))


def _plain(cached: _Cached) -> Snapshot:
    return Snapshot(*(getattr(cached, field) for field in Snapshot.__struct_fields__))
