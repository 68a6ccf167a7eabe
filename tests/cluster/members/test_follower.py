"""A follower gives its clients the leader's prices and status, on a clock that jumps."""

import trio
import trio.testing

from server.cluster.wire import Batch
from server.quotes.snapshot import live, opening_snapshot
from server.quotes.update import NOWHERE, Move
from tests.cluster.members.memory import (
    LEASE,
    SOON,
    Instance,
    instrument,
)
from tests.fanout.peer import Peer


async def test_prices_of_the_leader_arrive_at_once(autojump_clock, leader, follower, redis):
    """In the leader's version, with the leader's times; only the leader's feed runs."""
    for price in (101.0, 102.0):
        leader.trade("AAPL", price)
        await trio.sleep(0.02)
    assert follower.version() == 3
    assert follower.state == leader.state
    assert (leader.positions, leader.feeding, follower.positions) == ([NOWHERE], True, [])
    assert (leader.member.leading, follower.member.leading) == (True, False)
    assert (leader.member.authoritative, follower.member.authoritative) == (True, False)
    assert leader.member.epoch == follower.member.epoch
    assert leader.hub.epoch == follower.hub.epoch == str(leader.member.epoch)
    assert leader.stats.elections == 1
    assert leader.stats.moves_published == 2
    assert leader.stats.batches_published == len(redis.published) == 3
    assert [batch.seq for batch in redis.published] == [1, 2, 3]
    assert follower.stats.gaps == 0
    assert leader.member.unready() == follower.member.unready() == []
    assert leader.status[0] == follower.status[0] == "live"


async def test_all_that_trades_at_once_arrives(autojump_clock, leader, follower, redis):
    """More than one batch holds, and in more symbols than a follower routes without yielding."""
    for number in range(1200):
        leader.hub.list_instrument(instrument(f"S{number}"))
    for number in range(1200):
        leader.trade(f"S{number}", 101.0)
    await trio.sleep(SOON)
    assert follower.state == leader.state
    assert [len(batch.moves) for batch in redis.published if batch.moves] == [1000, 200]
    assert follower.stats.gaps == 0
    assert redis.quotes == leader.state


async def test_others_have_their_turn_while_a_batch_is_routed(autojump_clock, leader, follower):
    """A thousand moves are some milliseconds of work."""
    names = [f"S{number}" for number in range(1000)]
    for name in names:
        follower.hub.list_instrument(instrument(name))
    await trio.sleep(SOON)
    moves = [Move(name, 2, 101.0, 1, 1, 1) for name in names]
    follower.bus.hear(Batch(leader.member.epoch, 2, moves))
    seen = set()
    for _ in range(200):
        await trio.lowlevel.checkpoint()
        seen.add(sum(follower.version(name) == 2 for name in names))
    assert max(seen) == 1000
    assert 10 <= len(seen) <= 20


async def test_follower_that_misses_one_batch_reads_the_hash(autojump_clock, leader, follower):
    """A number is left out: that is a gap, whose moves it would never get."""
    follower.bus.deaf = True
    leader.trade("AAPL", 101.0)
    await trio.sleep(0.02)
    follower.bus.deaf = False
    leader.trade("MSFT", 99.0)
    await trio.sleep(0.02)
    assert follower.state == leader.state
    assert follower.stats.gaps == 1
    leader.trade("AAPL", 102.0)
    await trio.sleep(0.02)
    assert follower.state == leader.state
    assert follower.stats.gaps == 1


async def test_batches_that_the_hash_includes_are_dropped(autojump_clock, leader, follower, redis):
    """A batch that comes again within a second of reading the hash is old; later it shows that the hash
    named a wrong number.
    """
    await trio.sleep(SOON)
    loads = follower.bus.calls["load"]
    again = redis.published[-1]
    follower.bus.hear(again)
    await trio.sleep(SOON)
    assert (follower.bus.calls["load"], follower.stats.gaps) == (loads, 0)
    await trio.sleep(1)
    follower.bus.hear(again)
    await trio.sleep(SOON)
    assert (follower.bus.calls["load"], follower.stats.gaps) == (loads + 1, 1)
    await trio.sleep(1)
    follower.bus.hear(again)
    await trio.sleep(SOON)
    assert (follower.bus.calls["load"], follower.stats.gaps) == (loads + 2, 2)


async def test_heartbeat_shows_that_nothing_was_missed(autojump_clock, leader, follower, redis):
    """Without prices a batch is published each second, and the last lost one is noticed by it."""
    follower.bus.deaf = True
    leader.trade("AAPL", 101.0)
    await trio.sleep(0.02)
    follower.bus.deaf = False
    published = len(redis.published)
    await trio.sleep(1.1)
    assert len(redis.published) == published + 1
    assert follower.state == leader.state
    await trio.sleep(5)
    assert len(redis.published) == published + 6
    assert follower.status[0] == "live"


async def test_lost_bus_is_said_at_once_and_its_return_too(autojump_clock, leader, follower):
    """A new connection has missed what was published meanwhile."""
    follower.bus.lose()
    await trio.sleep(0.01)
    assert follower.status == ("stale", "bus_lost")
    leader.trade("AAPL", 101.0)
    await trio.sleep(0.1)
    assert follower.version() == 1
    follower.bus.come_back()
    await trio.sleep(SOON)
    assert follower.status == ("live", "bus_back")
    assert follower.state == leader.state


async def test_reconnection_between_two_looks_is_noticed(autojump_clock, leader, follower):
    """The connection's number tells that it is another."""
    follower.bus.deaf = True
    leader.trade("AAPL", 101.0)
    await trio.sleep(0.02)
    follower.bus.lose()
    follower.bus.come_back()
    await trio.sleep(0.02)
    assert follower.state == leader.state


async def test_hash_that_cannot_be_read_is_read_later(autojump_clock, leader, follower):
    """Until then prices are stale."""
    follower.bus.failing.add("load")
    follower.bus.lose()
    follower.bus.come_back()
    await trio.sleep(0.05)
    assert follower.status == ("stale", "bus_lost")
    leader.trade("AAPL", 101.0)
    await trio.sleep(1)
    assert follower.version() == 1
    follower.bus.failing.clear()
    await trio.sleep(SOON)
    assert follower.status == ("live", "bus_back")
    assert follower.state == leader.state


async def test_quiet_feed_is_each_instance_s_own_news(autojump_clock, redis, leader, follower):
    """One instance's symbols may be quiet while others' symbols trade. It does not tell the others, and
    their news does not end it.
    """
    quiet = Peer(follower.hub)
    quiet.subscribe("MSFT")
    leader.hub.set_status("stale", "feed_quiet")
    leader.trade("AAPL", 101.0)
    await trio.sleep(2)
    assert follower.status[0] == "live"
    await trio.sleep(60)
    assert follower.status == ("stale", "feed_quiet")
    leader.trade("AAPL", 102.0)
    await trio.sleep(2)
    assert follower.status == ("stale", "feed_quiet")
    quiet.close()
    assert follower.member.unready() == []


async def test_leader_without_prices_says_so_everywhere(autojump_clock, leader, follower):
    """And that they are back."""
    leader.hub.set_status("stale", "feed_lost")
    await trio.sleep(1.1 + SOON)
    assert follower.status == ("stale", "feed_lost")
    assert follower.member.unready() == []
    leader.hub.set_status("live", "feed_resumed")
    await trio.sleep(1.1 + SOON)
    assert follower.status == ("live", "bus_back")


async def test_what_waits_of_an_epoch_that_is_over_is_never_published(
    autojump_clock, leader, follower, redis
):
    """An overloaded follower holds moves back; the new leader never heard of them."""
    peer = Peer(follower.hub)
    peer.subscribe("AAPL")
    await peer.read()
    follower.hub.set_conflation(10.0)
    leader.trade("AAPL", 101.0)
    await trio.sleep(0.02)
    for price in (102.0, 103.0, 104.0):
        leader.trade("AAPL", price)
    await trio.sleep(0.02)
    assert follower.version() == 2
    redis.quotes["AAPL"] = live(opening_snapshot(instrument("AAPL")), 1)
    redis.epoch += 1000
    another = Instance(redis, "another")
    async with trio.open_nursery() as nursery:
        leader.stop()
        redis.lease_end = 0.0
        await nursery.start(another.run)
        await trio.sleep(2 * LEASE)
        current = another if another.member.leading else follower
        assert current.member.leading
        await trio.sleep(20)
        await peer.read()
        assert follower.state == another.state
        assert follower.version() <= 2
        another.stop()
    peer.close()
