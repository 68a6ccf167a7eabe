"""Scripts and channels of a real Redis: election, fencing, agreement, listening."""

import math

import msgspec
import pytest
import trio

from server.cluster.bus import open_bus
from server.cluster.errors import BusLost, Fenced
from server.cluster.queue import PriceStreams
from server.cluster.stats import ClusterStats
from server.cluster.steps import Record
from server.cluster.wire import WATCHED, Batch
from server.quotes.update import Move
from server.redis_link import BadRedisUrl
from tests.cluster.buses import LEASE, POLICY, buses, lead, snapshot
from tests.faults.proxy import Proxy


async def test_one_of_two_is_elected_and_the_next_after_its_lease(redis):
    """The loser learns how long the lease lasts; each new leader's epoch is higher."""
    async with buses(redis) as (one, other):
        first = await lead(one)
        assert first > 1_700_000_000_000
        assert await lead(one, first, first) == first
        lost = await other.acquire_lease(own=None, known=None)
        assert lost.epoch is None
        assert 0 < lost.taken_for <= LEASE
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


async def test_step_that_comes_again_pushes_no_older_one_out(redis):
    """If the answer about a step is lost, its leader publishes it once more."""
    async with buses(redis) as (one, _):
        epoch = await lead(one)
        for number, kept in enumerate([b"first", b"second", b"second", b"third"], 1):
            entries = {b"first": 1, b"second": 2, b"third": 3}[kept]
            record = Record({}, kept=kept, kept_entries=entries)
            await one.publish(Batch(epoch, number), [], record)
        log = (await PriceStreams(one).load_progress()).kept
        assert [kept for _, kept in log] == [b"first", b"second", b"third"]


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


async def test_address_that_is_none_is_refused():
    """The error names the variable."""
    with pytest.raises(BadRedisUrl, match="REDIS_URL"):
        async with open_bus("redis://x:y", "", POLICY, ClusterStats()):
            pass
