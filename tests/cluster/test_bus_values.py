"""Values in Redis, and messages on the bus, that no instance of ours wrote: the bus goes on."""

from contextlib import closing, suppress
from functools import partial

import msgspec
import pytest
import trio
from redis import Redis

from server.cluster.bus import Bus
from server.cluster.errors import Fenced
from server.cluster.wire import EPOCH, LEADER, MAX_BATCH_BYTES, QUOTES, WATCHED, Batch, Mark
from server.quotes.instrument import LARGEST_WHOLE
from tests.cluster.buses import buses, lead, snapshot

NO_EPOCHS = [
    "hello",
    "",
    "-1",
    "nan",
    "inf",
    "1e300",
    "0x7f",
    " 7 ",
    "7.5",
    str(2**53 - 1),
    str(2**63),
    "9" * 400,
]


async def test_epoch_that_is_no_number_is_forgotten(redis):
    """The leader goes on in its epoch and publishes all again; another takes one from the clock."""
    async with buses(redis) as (one, other):
        for junk in NO_EPOCHS:
            first = await lead(one)
            redis.command("SET", EPOCH, junk)
            with pytest.raises(Fenced):
                await one.publish(Batch(first, 1), [])
            assert await one.acquire_lease(own=first, known=first) == (first, 0, True)
            await one.publish(Batch(first, 2), [])
            redis.command("DEL", LEADER)
            redis.command("SET", EPOCH, junk)
            second = await lead(other, known=first)
            assert first < second < 10**13
            await other.publish(Batch(second, 1), [])
            redis.command("FLUSHALL")


async def test_epochs_begin_anew_after_the_largest(redis):
    """The largest is an epoch like any other; the one after it is the clock's."""
    async with buses(redis) as (one, other):
        redis.command("SET", EPOCH, str(LARGEST_WHOLE - 1))
        largest = await lead(one)
        assert largest == LARGEST_WHOLE
        assert await one.acquire_lease(own=largest, known=largest) == (largest, 0, False)
        await one.publish(Batch(largest, 1), [snapshot("AAPL", 2)])
        assert (await other.load()).mark == Mark(largest, 1)
        redis.command("DEL", LEADER)
        second = await lead(other, known=largest)
        assert 10**12 < second < 10**13
        await other.publish(Batch(second, 1), [])


async def test_lease_that_never_ends_is_nobody_s(redis):
    """Nor is one that lasts for years. An instance waits for one that ends soon."""
    async with buses(redis, 1) as (bus,):
        redis.command("SET", LEADER, "junk")
        first = await lead(bus)
        assert first
        redis.command("SET", LEADER, "junk", "EX", "100000000")
        assert await lead(bus, first, first) == first
        redis.command("SET", LEADER, "junk", "PX", "5000")
        assert 0 < (await bus.acquire_lease(own=first, known=first)).taken_for <= 5


TYPES = [["SET", "1"], ["ZADD", "1", "1"], ["HSET", "a", "1"]]


@pytest.mark.parametrize("key", [EPOCH, LEADER, QUOTES, WATCHED])
async def test_key_of_the_wrong_type_is_put_aside(redis, key):
    """Whichever key and type it is: each operation is done, and the leader goes on."""
    async with buses(redis, 1) as (bus,):
        for command in TYPES:
            own = await lead(bus)
            for operation in (
                partial(publish, bus, own),
                bus.load,
                partial(bus.claim, [snapshot("AAPL", 2)]),
                partial(bus.forget, ["AAPL"]),
                partial(bus.share_interest, ["AAPL"], 0, 60),
                partial(bus.acquire_lease, own=own, known=own),
            ):
                redis.command("DEL", key)
                redis.command(command[0], key, *command[1:])
                await operation()
                # The first time Redis may answer that it has forgotten everything.
                for _ in range(2):
                    own = await lead(bus, own, own)
                    await publish(bus, own)
                assert own
                assert list((await bus.load()).snapshots) == ["AAPL"]
                assert (await bus.share_interest(["AAPL"], 0, 60))[1] == ["AAPL"]


async def publish(bus: Bus, epoch: int) -> None:
    """Publish as a leader does; if it is refused, it asks for the lease again."""
    with suppress(Fenced):
        await bus.publish(Batch(epoch, 1), [snapshot("AAPL", 2)])


async def test_mended_hash_is_told_again(redis):
    """The old value is kept beside it, and counted."""
    async with buses(redis, 1) as (bus,):
        own = await lead(bus)
        redis.command("DEL", QUOTES)
        redis.command("SET", QUOTES, "somebody's")
        with pytest.raises(Fenced):
            await bus.publish(Batch(own, 1), [snapshot("AAPL", 2)])
        assert redis.command("GET", QUOTES + ":invalid") == "somebody's"
        assert (await bus.acquire_lease(own=own, known=own)).forgotten
        assert bus._stats.invalid.counts == {"redis_keys": 1}


async def test_claim_takes_the_place_of_what_is_no_snapshot(redis):
    """A symbol with junk in the hash is listed as the instance knows it; valid values stay."""
    async with buses(redis, 1) as (bus,):
        await bus.claim([snapshot("AAPL", 9)])
        for symbol, value in (("MSFT", "junk"), ("TSLA", '{"symbol":"AAPL"}'), ("IBM", "")):
            redis.command("HSET", QUOTES, symbol, value)
        mine = [snapshot(symbol, 2) for symbol in ("AAPL", "MSFT", "TSLA", "IBM", "MMM")]
        claimed = {each.symbol: each.version for each in await bus.claim(mine)}
        assert claimed == {"AAPL": 9, "MSFT": 2, "TSLA": 2, "IBM": 2, "MMM": 2}
        assert await bus.claim(mine[1:]) == mine[1:]


BAD_BATCHES = [
    [2**62, 1],
    [2**64 - 1, 1],
    [-1, 1],
    [1, 2**53],
    [1, -1],
    [1, 1, [], [], "", "", 10**18],
    ["1", 1],
    [1, 1, [["AAPL", 2**53, 1.0, 1, 1, 1]]],
    [1, 1, [["AAPL", 3, 1.0, 2**53, 1, 1]]],
    [1, 1, [["AAPL", 3, 1.0, 1, 1, 2**53]]],
    [1, 1, [["AAPL", 0, 1.0, 1, 1, 1]]],
    [1, 1, [["AAPL", 3, 3e14, 1, 1, 1]]],
    [1, 1, [], [], "x" * 41],
    [1, 1, [], [], "<script>"],
    [1, 1, [], [], "", "x" * 301],
    {},
    None,
    7,
    [],
]


async def test_batch_that_is_none_is_not_heard(redis):
    """Numbers beyond the bounds, other texts, forms and sizes are not batches."""
    async with buses(redis, 1) as (bus,), trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel(10)
        nursery.start_soon(bus.listen, send)
        await receive.receive()
        raw = [
            b"\x95\x01\x01\x90\x90\xa1\xff",
            b"\x92\x01" + b"\x91" * 100_000,
            b"\xdd\xff\xff\xff\xff",
            b"",
        ]
        raw += [msgspec.msgpack.encode([1, 1, [], [], "x" * MAX_BATCH_BYTES])]
        listed = [snapshot("AAPL", 2), snapshot("lower", 2), snapshot("*", 2)]
        with closing(Redis(port=redis.port)) as client:
            for data in [*map(msgspec.msgpack.encode, BAD_BATCHES), *raw]:
                client.publish("price_updates", data)
            client.publish("price_updates", msgspec.msgpack.encode(Batch(7, 1, listed=listed)))
        assert await receive.receive() == Batch(7, 1, [], listed[:1])
        assert bus._stats.invalid.counts == {"bus": len(BAD_BATCHES) + len(raw) + 2}
        nursery.cancel_scope.cancel()


async def test_interest_of_what_is_no_symbol_is_left_out(redis):
    """So are reports of the future; texts that are not UTF-8 do no harm."""
    async with buses(redis, 1) as (bus,):
        now, _ = await bus.share_interest(["AAPL"], 0, 60)
        for member in ("lower", "*", "A\nB", "x" * 51):
            redis.command("ZADD", WATCHED, str(now), member)
        for score in ("inf", "1e300", str(now + 3_600_000)):
            redis.command("ZADD", WATCHED, score, f"S{score}".upper())
        assert (await bus.share_interest([], 0, 60))[1] == ["AAPL"]
        redis.command("ZADD", WATCHED, "-inf", "MSFT")
        await bus.share_interest([], None, 60)
        assert redis.command("ZSCORE", WATCHED, "MSFT") == ""
