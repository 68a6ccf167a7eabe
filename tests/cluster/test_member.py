"""Instances that lead, follow and go on alone, with a Redis in memory and on a clock that jumps."""

import msgspec
import pytest
import trio

from server.cluster.leader import HANDOVER_TIMEOUT
from server.cluster.wire import Batch
from server.quotes.snapshot import live, opening_snapshot
from tests.cluster.memory import LEASE, SOON, STALE_AFTER, Instance, MemoryRedis, instrument
from tests.fanout.peer import Peer


@pytest.fixture
def redis():
    return MemoryRedis()


@pytest.fixture
async def leader(redis, nursery):
    instance = Instance(redis, "leader")
    await nursery.start(instance.run)
    await trio.sleep(SOON)
    assert instance.member.leading
    return instance


@pytest.fixture
async def follower(redis, leader, nursery):
    instance = Instance(redis, "follower")
    await nursery.start(instance.run)
    return instance


async def until(condition):
    """Wait for `condition`, to a hundredth of a second."""
    for _ in range(3000):
        if condition():
            return
        await trio.sleep(0.01)
    raise AssertionError("it did not happen within 30 seconds")


async def test_prices_of_the_leader_arrive_at_once(autojump_clock, leader, follower):
    """In the leader's version, with the leader's times; only the leader's feed runs."""
    leader.trade("AAPL", 101.0)
    leader.trade("AAPL", 102.0)
    await trio.sleep(0.02)
    assert follower.version() == 3
    assert follower.state == leader.state
    assert (leader.positions, leader.feeding, follower.positions) == ([0], True, [])
    assert (leader.member.leading, follower.member.leading) == (True, False)
    assert (leader.member.authoritative, follower.member.authoritative) == (True, False)
    assert leader.member.epoch == follower.member.epoch
    assert leader.hub.epoch == follower.hub.epoch == str(leader.member.epoch)
    assert leader.stats.elections == 1
    assert leader.stats.moves_published == 2
    assert leader.stats.batches_published >= 1
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


async def test_lost_leader_is_said_and_replaced(autojump_clock, leader, follower, redis, nursery):
    """Clients learn after `stale_after` that prices are stale. A candidate leads when the lease ends;
    an instance that is not a candidate never does.
    """
    spectator = Instance(redis, "spectator", candidate=False)
    await nursery.start(spectator.run)
    leader.trade("AAPL", 101.0, time_us=1_700_000_000_000_000)
    await trio.sleep(0.02)
    begun = trio.current_time()
    leader.bus.lose()
    follower.bus.failing.add("acquire_lease")
    await trio.sleep(STALE_AFTER - 0.5)
    assert spectator.status[0] == follower.status[0] == "live"
    await trio.sleep(0.5 + 2 * SOON)
    assert spectator.status == follower.status == ("stale", "leader_lost")
    assert spectator.member.unready() == ["prices are stale: leader_lost"]
    follower.bus.failing.clear()
    await until(lambda: follower.member.leading)
    assert trio.current_time() - begun < STALE_AFTER + LEASE / 3 + 1
    await trio.sleep(SOON)
    assert follower.positions == [1_700_000_000_000_000]
    assert spectator.status == follower.status == ("live", "bus_back")
    assert spectator.member.unready() == []
    follower.trade("AAPL", 102.0)
    await trio.sleep(0.02)
    assert spectator.state == follower.state
    assert spectator.member.epoch == follower.member.epoch > leader.member.epoch


async def test_next_leader_comes_right_after_the_lease(autojump_clock, leader, follower, redis):
    """It asks again at the very end of a lease that is not renewed."""
    await trio.sleep(LEASE)
    end = redis.lease_end
    leader.bus.lose()
    await until(lambda: follower.member.leading)
    assert 0 <= trio.current_time() - end < 0.25


async def test_paused_leader_follows_the_new_one(autojump_clock, leader, follower):
    """Its own prices after that are gone, its feed is stopped, and its clients get the other's."""
    leader.bus.lose()
    await trio.sleep(LEASE + 1)
    assert follower.member.leading
    leader.trade("AAPL", 55.0)
    leader.trade("AAPL", 56.0)
    follower.trade("AAPL", 101.0)
    assert leader.member.leading
    leader.bus.come_back()
    await trio.sleep(1)
    assert not leader.member.leading
    assert not leader.feeding
    assert leader.state == follower.state
    assert leader.version() == 2
    assert leader.hub.epoch == follower.hub.epoch
    follower.trade("AAPL", 103.0)
    await trio.sleep(0.02)
    assert leader.state == follower.state
    await trio.sleep(3 * LEASE)
    assert follower.member.leading
    assert (leader.positions, follower.positions) == ([0], [0])


async def test_deposed_leader_does_not_take_the_lease_back_at_once(
    autojump_clock, leader, follower, redis
):
    """Where nobody holds it any more, one lease passes before it asks."""
    leader.bus.lose()
    await trio.sleep(LEASE + 1)
    assert follower.member.leading
    follower.bus.lose()
    leader.bus.come_back()
    await trio.sleep(1)
    deposed = trio.current_time()
    await until(lambda: leader.member.leading)
    assert redis.leader == "leader"
    assert trio.current_time() - deposed > LEASE - 1.5


async def test_leader_whose_lease_lapsed_goes_on(autojump_clock, leader, follower, redis):
    """Redis is away for everybody longer than a lease: the leader, whose prices are newest, leads on in
    its epoch. Others do not ask for one lease after they are back.
    """
    epoch = leader.member.epoch
    redis.lose()
    await trio.sleep(LEASE * 2)
    assert (leader.member.leading, leader.feeding) == (True, True)
    assert follower.status == ("stale", "bus_lost")
    assert follower.member.unready() == ["prices are stale: bus_lost"]
    assert leader.member.unready() == []
    leader.trade("AAPL", 101.0)
    follower.bus.come_back()
    await trio.sleep(LEASE - 0.2)
    assert not follower.member.leading
    assert follower.bus.calls["acquire_lease"] <= 2
    leader.bus.come_back()
    await trio.sleep(1)
    assert leader.member.leading
    assert leader.member.epoch == epoch
    assert follower.state == leader.state
    assert follower.version() == 2
    assert follower.status == ("live", "bus_back")
    await trio.sleep(2 * LEASE)
    assert not follower.member.leading


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
    """What one watches may be quiet while others' symbols trade: neither is it told to others, nor does
    their news end it.
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


async def test_retired_leader_hands_over_at_once_and_never_leads_again(
    autojump_clock, leader, follower
):
    """Its last prices are published first."""
    leader.trade("AAPL", 101.0)
    leader.member.retire()
    await trio.sleep(2 * SOON)
    assert not leader.member.leading
    assert follower.member.leading
    assert follower.version() == 2
    follower.stop()
    await trio.sleep(3 * LEASE)
    assert not leader.member.leading
    assert leader.status == ("stale", "leader_lost")


async def test_leader_that_hands_over_may_lead_again_after_a_lease(
    autojump_clock, leader, follower
):
    """Where nobody else takes it, it does so itself."""
    follower.bus.failing.add("acquire_lease")
    leader.member.hand_over()
    await trio.sleep(2 * SOON)
    assert not leader.member.leading
    assert not leader.feeding
    await trio.sleep(LEASE - 3 * SOON)
    assert not leader.member.leading
    await trio.sleep(4 * SOON)
    assert leader.member.leading
    assert len(leader.positions) == 2


async def test_leader_that_stops_publishes_all_it_has(autojump_clock, leader, follower, redis):
    """Also more than one batch, and the lease's end with the last."""
    for number in range(2500):
        leader.trade("AAPL", 100 + number / 100)
    leader.stop()
    await trio.sleep(2 * SOON)
    assert follower.version() == 2501
    assert follower.member.leading
    assert [batch.handover for batch in redis.published].count("leader") == 1


async def test_handover_does_not_keep_a_leader_from_stopping(autojump_clock, leader, follower):
    """It gives up after a moment when Redis is slow or away."""
    leader.bus.delay = 100.0
    leader.trade("AAPL", 101.0)
    begun = trio.current_time()
    leader.stop()
    await trio.sleep(0.01)
    await until(lambda: not (leader.feeding or leader.member.leading))
    assert trio.current_time() - begun < HANDOVER_TIMEOUT + 0.1


async def test_price_whose_publication_failed_is_told_by_its_state(
    autojump_clock, leader, follower
):
    """Whether it arrived or not: a number is left out, and everybody reads the hash."""
    for fault in (leader.bus.failing, leader.bus.unanswered):
        fault.add("publish")
        leader.trade("AAPL", leader.hub.topics["AAPL"].quote.current_price + 1)
        await trio.sleep(0.3)
        fault.clear()
        await trio.sleep(1)
        assert follower.state == leader.state
    assert leader.member.leading
    assert follower.stats.gaps >= 1


async def test_batches_with_gaps_are_rare(autojump_clock, leader, follower, redis):
    """Everybody reads the hash for each: four a second at most, however often prices move."""
    for number in range(100):
        leader.hub.journal.lose(["AAPL"])
        leader.trade("AAPL", 100 + number)
        await trio.sleep(0.01)
    await trio.sleep(2 * SOON)
    assert follower.state == leader.state
    assert 2 <= follower.stats.gaps <= 6


async def test_overflowing_journal_is_told_by_its_state(autojump_clock, leader, follower, redis):
    """Thousands of symbols at once are written page by page."""
    for number in range(2500):
        leader.hub.list_instrument(instrument(f"S{number}"))
    for round_ in range(5):
        for number in range(2500):
            leader.trade(f"S{number}", 101.0 + round_)
    await trio.sleep(2)
    assert follower.state == leader.state
    assert redis.quotes == leader.state


async def test_redis_that_forgot_everything_is_told_again(
    autojump_clock, leader, follower, redis, nursery
):
    """Without a new epoch: clients do not notice."""
    epoch = leader.member.epoch
    leader.trade("AAPL", 101.0)
    leader.trade("MSFT", 101.0)
    await trio.sleep(SOON)
    redis.forget_everything()
    await trio.sleep(LEASE)
    assert redis.quotes == leader.state
    assert leader.member.epoch == follower.member.epoch == epoch
    late = Instance(redis, "late")
    await nursery.start(late.run)
    assert late.state == leader.state
    assert late.member.epoch == epoch


async def test_leader_that_is_refused_asks_at_once(autojump_clock, leader, follower, redis):
    """An epoch that begins elsewhere fences it: it does not wait for the lease's end."""
    redis.leader, redis.lease_end, redis.epoch = "other", trio.current_time() + 60, 10**15
    leader.trade("AAPL", 101.0)
    await trio.sleep(0.05)
    assert not leader.member.leading


async def test_leader_that_hears_another_asks_at_once(autojump_clock, leader, follower, redis):
    """A batch of a newer epoch is a reason, one of an older epoch is not."""
    asked = leader.bus.calls["acquire_lease"]
    leader.bus.hear(Batch(leader.member.epoch - 1, 7))
    leader.trade("AAPL", 101.0)
    await trio.sleep(0.02)
    assert leader.bus.calls["acquire_lease"] == asked
    leader.bus.hear(Batch(leader.member.epoch + 1, 7))
    leader.trade("AAPL", 102.0)
    await trio.sleep(0.02)
    assert leader.bus.calls["acquire_lease"] == asked + 1


async def test_another_s_newer_version_of_a_first_trade_makes_a_new_epoch(
    autojump_clock, leader, follower, redis
):
    """A leader that lists a symbol from a trade may not go back behind what others had."""
    theirs = live(opening_snapshot(instrument("NEW")), 1)
    redis.quotes["NEW"] = msgspec.structs.replace(theirs, last_quote=50.0, version=9, quoted_at=1)
    epoch = leader.member.epoch
    leader.hub.list_instrument(instrument("NEW"))
    leader.trade("NEW", 101.0)
    await trio.sleep(1)
    assert leader.member.leading
    assert leader.member.epoch > epoch
    assert leader.version("NEW") >= 9
    assert follower.state == leader.state
    leader.trade("NEW", 102.0)
    await trio.sleep(SOON)
    assert follower.state == leader.state


async def test_alone_an_instance_makes_its_own_prices(autojump_clock, redis, nursery, leader):
    """After `stale_after` without the bus, in an epoch of its own; back on it, it follows."""
    local = Instance(redis, "local", local=True)
    await nursery.start(local.run)
    leader.trade("AAPL", 101.0, time_us=1_700_000_000_000_000)
    await trio.sleep(SOON)
    local.bus.lose()
    await trio.sleep(STALE_AFTER - SOON)
    assert (local.feeding, local.status) == (False, ("stale", "bus_lost"))
    await trio.sleep(3 * SOON)
    assert local.feeding
    assert local.status == ("live", "local")
    assert local.positions == [1_700_000_000_000_000]
    assert local.hub.epoch.startswith(f"{leader.member.epoch}.")
    assert local.member.unready() == []
    assert not local.member.leading
    local.trade("AAPL", 55.0)
    local.trade("AAPL", 56.0)
    leader.trade("AAPL", 102.0)
    await trio.sleep(1)
    local.bus.come_back()
    await trio.sleep(2 * SOON)
    assert not local.feeding
    assert local.state == leader.state
    assert local.hub.epoch == leader.hub.epoch
    assert leader.member.leading
    local.bus.lose()
    await trio.sleep(STALE_AFTER - SOON)
    assert not local.feeding  # the time begins anew with each outage


async def test_instance_without_redis_from_the_start_is_settled(autojump_clock, redis, nursery):
    """It serves what it has, as stale, and says why."""
    instance = Instance(redis, "early")
    assert instance.member.unready() == ["not in the cluster yet"]
    nursery.start_soon(instance.run)
    instance.bus.failing.update(["load", "acquire_lease"])
    await trio.sleep(1)
    assert not instance.member.settled.is_set()
    instance.bus.lose()
    await trio.sleep(SOON)
    assert instance.member.settled.is_set()
    assert instance.status == ("stale", "bus_lost")
    instance.bus.failing.clear()
    instance.bus.come_back()
    await trio.sleep(LEASE + 1)
    assert instance.member.leading


async def test_symbols_are_listed_as_the_cluster_knows_them(
    autojump_clock, leader, follower, redis
):
    """The first instance that lists one decides, in the reference data of the catalogue."""
    snapshot = opening_snapshot(instrument("NEW"))
    await leader.member.agree([snapshot])
    leader.trade("NEW", 105.0)
    await trio.sleep(SOON)
    renamed = type(snapshot)("NEW", "Newer", 1, 100.0, 100.0)
    await follower.member.agree([renamed, opening_snapshot(instrument("AAPL"))])
    assert follower.version("NEW") == 2
    assert follower.hub.topics["NEW"].quote.name == "Newer"
    assert follower.hub.topics["NEW"].quote.current_price == 105.0
    await follower.member.forget(["NEW"])
    assert "NEW" not in redis.quotes


async def test_symbols_listed_while_redis_is_away_are_agreed_on_later(
    autojump_clock, leader, follower, redis
):
    """Whether the bus is lost or the one command fails."""
    leader.hub.list_instrument(instrument("ONE"))
    leader.hub.list_instrument(instrument("TWO"))
    leader.trade("ONE", 105.0)
    leader.trade("TWO", 105.0)
    follower.hub.delist(["ONE", "TWO"])
    await trio.sleep(SOON)
    follower.bus.failing.update(["claim", "forget"])
    await follower.member.agree([opening_snapshot(instrument("ONE"))])
    await follower.member.forget(["ONE"])
    assert "ONE" in follower.hub.topics
    follower.bus.failing.clear()
    await trio.sleep(2 * SOON)
    assert follower.version("ONE") == 2
    follower.bus.lose()
    await follower.member.agree([opening_snapshot(instrument("TWO"))])
    assert follower.version("TWO") == 1
    follower.bus.come_back()
    await trio.sleep(2 * SOON)
    assert follower.state == leader.state
