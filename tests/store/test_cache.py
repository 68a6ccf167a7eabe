"""The contract of the cache, for memory and Redis, and the foreign values that Redis may hold."""

import json

import pytest
import trio
import trio_asyncio

from server.quotes.snapshot import opening_snapshot
from server.store.cache_memory import MemoryCache
from server.store.cache_redis import open_redis
from tests.store.conftest import instrument

AAPL, ODD = (opening_snapshot(instrument(symbol)) for symbol in ("AAPL", "A/É B"))


@pytest.fixture(params=["memory", "redis"])
async def cache(request):
    """Open each implementation, empty."""
    if request.param == "memory":
        yield MemoryCache(100)
    else:
        url = request.getfixturevalue("redis").url
        async with trio_asyncio.open_loop(), open_redis(url) as made:
            yield made


async def test_what_is_set_is_got(cache):
    """Values come back unchanged with about their lifetime. Missing symbols are left out."""
    await cache.set_many([AAPL, ODD], 100)
    found = await cache.get_many(["AAPL", ODD.symbol, "NOPE"])
    assert {symbol: kept.value for symbol, kept in found.items()} == {"AAPL": AAPL, ODD.symbol: ODD}
    assert all(89 < kept.lifetime <= 110 for kept in found.values())


async def test_deleted_is_gone(cache):
    """Deleting returns the number of deleted values."""
    await cache.set_many([AAPL, ODD], 100)
    assert await cache.delete_many(["AAPL", "NOPE"]) == 1
    assert set(await cache.get_many(["AAPL", ODD.symbol])) == {ODD.symbol}


async def test_expired_is_gone(cache):
    """A value is gone after its lifetime, and not before."""
    await cache.set_many([AAPL], 0.2)
    assert await cache.get_many(["AAPL"])
    await trio.sleep(0.25)
    assert not await cache.get_many(["AAPL"])


async def test_values_are_for_others_to_read_and_not_to_spoil(redis):
    """A value is JSON with the protocol's names. A value that is not a snapshot is a miss."""
    async with trio_asyncio.open_loop(), open_redis(redis.url) as cache:
        await cache.set_many([AAPL], 100)
        value = json.loads(redis.command("GET", "market_data:AAPL"))
        assert (value["symbol"], value["name"], value["category"]) == ("AAPL", "AAPL Inc.", 1)
        assert value["last_quote"] == 100
        for spoilt in ("", "{}", "null", "[1]", '{"symbol":"AAPL"}', "\xff"):
            redis.command("SET", "market_data:AAPL", spoilt)
            assert not await cache.get_many(["AAPL"])


@pytest.mark.parametrize(
    ("field", "beyond"),
    [
        ("quoted_at", 10**18),
        ("version", 2**63),
        ("volume", 2**63),
        ("market_cap", 2**63),
        ("base_price", 1e308),
        ("base_price", 0),
        ("last_quote", -1),
        ("price_decimals", -1),
        ("category", 2**31),
        ("name", "x" * 201),
        ("name", "x\0"),
    ],
)
async def test_value_beyond_what_a_quote_can_be_is_a_miss(redis, field, beyond):
    """Times, numbers and prices out of bounds are misses."""
    async with trio_asyncio.open_loop(), open_redis(redis.url) as cache:
        await cache.set_many([AAPL], 100)
        value = json.loads(redis.command("GET", "market_data:AAPL"))
        redis.command("SET", "market_data:AAPL", json.dumps(value | {field: beyond}))
        assert not await cache.get_many(["AAPL"])
