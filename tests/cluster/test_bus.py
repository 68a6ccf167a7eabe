"""Scripts and channels of a real Redis: election, fencing, agreement, listening."""

import gc
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from functools import partial

import msgspec
import pytest
import trio
import trio_asyncio
from redis import Redis

from server.cluster.bus import Bus, open_bus
from server.cluster.errors import BusLost, Fenced
from server.cluster.state import Policy
from server.cluster.stats import ClusterStats
from server.cluster.wire import EPOCH, LEADER, MAX_BATCH_BYTES, QUOTES, WATCHED, Batch, Mark
from server.quotes.instrument import LARGEST_WHOLE
from server.quotes.snapshot import LiveSnapshot
from server.quotes.update import Move
from server.redis_link import BadRedisUrl
from tests.faults.proxy import Proxy

LEASE = 1.5
"""Seconds: a command may take a third of it, and takes some milliseconds on a busy machine."""

TIMEOUT = 30.0

POLICY = Policy(lease=LEASE, stale_after=2.0, candidate=True, local=False)


@pytest.fixture(scope="module", autouse=True)
def small_collections() -> Iterator[None]:
    """Freeze pytest's objects: a full collection takes as long as a command may here."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@asynccontextmanager
async def buses(server, count: int = 2) -> AsyncIterator[list[Bus]]:
    with trio.fail_after(TIMEOUT):
        async with trio_asyncio.open_loop(), AsyncExitStack() as stack:
            url = f"redis://127.0.0.1:{server.port}/0"
            yield [
                await stack.enter_async_context(open_bus(url, f"i{n}", POLICY, ClusterStats()))
                for n in range(count)
            ]


def snapshot(symbol: str, version: int) -> LiveSnapshot:
    return LiveSnapshot(symbol, symbol, 1, 10.0, 10.0, version=version, quoted_at=1, ts=2)


async def lead(bus: Bus, own: int | None = None, known: int | None = None) -> int:
    """Get the lease, and return the epoch to lead in."""
    epoch = (await bus.acquire_lease(own=own, known=known)).epoch
    assert epoch is not None
    return epoch


async def test_one_of_two_is_elected_and_the_next_after_its_lease(redis):
    """The loser learns how long the lease lasts; each new leader's epoch is higher."""
    async with buses(redis) as (one, other):
        first = await lead(one)
        assert first > 1_700_000_000_000
        lost = await other.acquire_lease(own=None, known=None)
        assert lost.epoch is None
        assert 0 < lost.taken_for <= LEASE
        assert await lead(one, first, first) == first
        await trio.sleep(lost.taken_for + 0.1)
        assert await lead(other, known=first + 5) > first + 5
        assert (await one.acquire_lease(own=first, known=first)).epoch is None


async def test_lapsed_lease_goes_on_in_its_epoch_unless_somebody_stood(redis):
    """A slow leader is the only instance that can have made versions."""
    async with buses(redis) as (one, other):
        first = await lead(one)
        await trio.sleep(LEASE + 0.05)
        assert await one.acquire_lease(own=first, known=first) == (first, 0, False)
        await trio.sleep(LEASE + 0.05)
        second = await lead(other)
        await trio.sleep(LEASE + 0.05)
        assert await lead(one, first, first) > second


async def test_epoch_grows_though_redis_has_forgotten_everything(redis):
    """The leader goes on in its epoch; another takes one above all known ones."""
    async with buses(redis) as (one, other):
        first = await lead(one)
        redis.command("FLUSHALL")
        assert await one.acquire_lease(own=first, known=first) == (first, 0, True)
        redis.command("FLUSHALL")
        assert await lead(other, known=first + 10**9) > first + 10**9


async def test_old_leader_is_refused(redis):
    """A paused leader's batches reach neither the hash nor a listener."""
    async with buses(redis) as (one, other):
        first = await lead(one)
        await one.publish(Batch(first, 1), [snapshot("AAPL", 5)])
        await trio.sleep(LEASE + 0.05)
        second = await lead(other, known=first)
        await other.publish(Batch(second, 1), [snapshot("AAPL", 6)])
        with pytest.raises(Fenced):
            await one.publish(Batch(first, 2), [snapshot("AAPL", 7)])
        with pytest.raises(Fenced):
            await one.write(first, [snapshot("AAPL", 7)])
        stored = await one.load()
        assert stored.mark is not None
        assert (stored.mark.epoch, stored.mark.seq) == (second, 1)
        assert stored.snapshots == {"AAPL": snapshot("AAPL", 6)}
        assert stored.led


async def test_batch_is_heard_and_the_last_one_frees_the_lease(redis):
    """All listeners get it; then any instance may lead."""
    async with buses(redis) as (one, other), trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel(10)
        nursery.start_soon(other.listen, send)
        assert await receive.receive() is None
        assert other.connection == 1
        epoch = await lead(one)
        move = Move("AAPL", 6, 175.92, 300, 1, 2)
        batch = Batch(epoch, 1, [move], [snapshot("AAPL", 6)], "", "i0")
        await one.publish(batch, [snapshot("AAPL", 6)], release=True)
        assert await receive.receive() == batch
        assert await lead(other) > epoch
        nursery.cancel_scope.cancel()


async def test_first_who_lists_a_symbol_is_agreed_with(redis):
    """Many symbols at once; the hash is read whole."""
    async with buses(redis) as (one, other):
        mine = [snapshot(f"S{n}", 2) for n in range(2500)]
        assert await one.claim(mine) == mine
        theirs = [snapshot("S7", 9), snapshot("T", 9)]
        assert await other.claim(theirs) == [snapshot("S7", 2), snapshot("T", 9)]
        stored = await one.load()
        assert stored.mark is None
        assert not stored.led
        assert len(stored.snapshots) == 2501


async def test_interest_is_heard_from_where_one_asked_last(redis):
    """Only reports since then, of any instance, and none that is too old."""
    async with buses(redis) as (one, other):
        before, heard = await one.share_interest(["AAPL"], 0, 60)
        assert heard == ["AAPL"]
        await trio.sleep(0.01)
        await other.share_interest(["MSFT"], None, 60)
        _, heard = await one.share_interest([], before + 1, 60)
        assert heard == ["MSFT"]
        no_text = r"redis.call('ZADD', KEYS[1], ARGV[1], '\255')"
        redis.command("EVAL", no_text, "1", WATCHED, str(before + 1))
        _, heard = await one.share_interest([], before + 1, 60)
        # Not a symbol, and no harm.
        assert set(heard) == {"MSFT", "\ufffd"}
        await trio.sleep(0.01)
        _, heard = await one.share_interest([], 0, 0.001)
        assert heard == []


@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_bus_is_lost_and_comes_back(redis, fault):
    """The reader of the batches is told of both; each connection has a number of its own."""
    async with buses(redis, 1) as (bus,), trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel(10)
        nursery.start_soon(bus.listen, send)
        await receive.receive()
        getattr(redis, fault)()
        await receive.receive()
        assert bus.connection is None
        assert bus.problem
        with pytest.raises(BusLost):
            await bus.load()
        assert bus.refusal
        redis.start() if fault == "kill" else redis.thaw()
        while not bus.connection:
            await receive.receive()
        assert bus.connection == 2
        await bus.load()
        assert not bus.refusal
        nursery.cancel_scope.cancel()


async def test_probe_that_does_not_come_back_is_noticed(redis):
    """Publishing works but nothing is received: a new connection takes the place of the old one."""
    with Proxy(redis.port) as proxy:
        async with buses(proxy, 1) as (bus,), trio.open_nursery() as nursery:
            send, receive = trio.open_memory_channel(10)
            nursery.start_soon(bus.listen, send)
            await receive.receive()
            proxy.mute_oldest()
            await receive.receive()
            assert bus.problem == "no probe came back"
            assert await lead(bus)
            await receive.receive()
            assert bus.connection == 2
            nursery.cancel_scope.cancel()


async def test_what_others_write_is_left_out(redis):
    """No value of the hash and no message breaks anything."""
    async with buses(redis, 1) as (bus,), trio.open_nursery() as nursery:
        await bus.claim([snapshot("AAPL", 2)])
        # The year 33658.
        beyond = msgspec.structs.replace(snapshot("Z", 2), quoted_at=10**18)
        far = msgspec.json.encode(beyond).decode()
        for field, value in (("X", "{"), ("Y", '{"symbol":"Y"}'), ("Z", far), ("meta", "[]")):
            redis.command("HSET", "quotestream:quotes", field, value)
        stored = await bus.load()
        assert stored.mark is None
        assert list(stored.snapshots) == ["AAPL"]
        send, receive = trio.open_memory_channel(10)
        nursery.start_soon(bus.listen, send)
        await receive.receive()
        redis.command("PUBLISH", "price_updates", "hello")
        for move in (
            Move("AAPL", 3, math.nan, 1, 1, 1),
            Move("AAPL", 3, 1e300, 1, 1, 1),
            Move("AAPL", 3, 1.0, 1, 10**18, 1),
            Move("AAPL", 2**63, 1.0, 1, 1, 1),
        ):
            redis.publish("price_updates", msgspec.msgpack.encode(Batch(7, 1, [move])))
        redis.publish("price_updates", msgspec.msgpack.encode([7, 1]))
        assert await receive.receive() == Batch(7, 1)
        nursery.cancel_scope.cancel()


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
    [1, 1, [["AAPL", 3, 3e9, 1, 1, 1]]],
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


async def test_address_that_is_none_is_refused():
    """The error names the variable."""
    with pytest.raises(BadRedisUrl, match="REDIS_URL"):
        async with open_bus("redis://x:y", "", POLICY, ClusterStats()):
            pass
