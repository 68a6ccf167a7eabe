"""Instances that lead, follow and go on alone in turn, on a clock that jumps."""

import re
import time

import pytest
import trio
import trio.testing

from server.cluster import follower as follower_module
from server.cluster import member as member_module
from server.quotes.snapshot import opening_snapshot
from server.quotes.update import NOWHERE, FeedPosition
from tests.cluster.members.memory import (
    LEASE,
    SOON,
    STALE_AFTER,
    Instance,
    instrument,
    until,
)

POSITION = FeedPosition(77, 1000)
"""Where a lap of a leader's replay begins."""


async def test_lost_leader_is_said_and_replaced(autojump_clock, leader, follower, redis, nursery):
    """Clients learn after `stale_after` that prices are stale. A candidate leads when the lease ends;
    an instance that is not a candidate never does.
    """
    spectator = Instance(redis, "spectator", candidate=False)
    await nursery.start(spectator.run)
    leader.hub.journal.reached = POSITION
    leader.trade("AAPL", 101.0, row=POSITION.row + 2)
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
    assert follower.positions == [POSITION]
    assert follower.hub.last_row("AAPL") == POSITION.row + 2
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


async def test_others_ask_a_little_apart(autojump_clock, leader, follower, redis, monkeypatch):
    """Up to a twentieth of a second after a leader's last batch, and after a lease's end."""
    for module in (follower_module, member_module):
        monkeypatch.setattr(module, "uniform", lambda _, longest: longest)
    leader.member.retire()
    await until(lambda: redis.published[-1].handover)
    begun = trio.current_time()
    await until(lambda: follower.member.leading)
    assert 0.04 < trio.current_time() - begun < 0.2
    third = Instance(redis, "third")
    async with trio.open_nursery() as nursery:
        await nursery.start(third.run)
        end = redis.lease_end
        follower.bus.lose()
        await until(lambda: third.member.leading)
        assert 0.04 < trio.current_time() - max(end, redis.lease_end - LEASE - 0.04) < 0.3
        third.stop()


async def test_instance_that_finds_no_leader_says_so(autojump_clock, redis, nursery):
    """One that may not lead itself does not wait for `stale_after`."""
    spectator = Instance(redis, "spectator", candidate=False)
    await nursery.start(spectator.run)
    await trio.sleep(SOON)
    assert spectator.status == ("stale", "leader_lost")
    late = Instance(redis, "late")
    await nursery.start(late.run)
    await trio.sleep(SOON)
    assert spectator.status == ("live", "bus_back")


async def test_redis_that_forgot_the_time_too_gets_a_higher_epoch(
    autojump_clock, leader, follower, redis
):
    """The candidate tells it which epochs there were."""
    last = leader.member.epoch
    leader.bus.lose()
    redis.forget_everything()
    redis.behind_ms = 10**11
    await until(lambda: follower.member.leading)
    assert follower.member.epoch == last + 1


async def test_candidate_that_came_back_waits_for_a_lease_once(
    autojump_clock, leader, follower, redis
):
    """Later it asks right after the lease's end, also if it has just read the hash."""
    follower.bus.lose()
    follower.bus.come_back()
    await trio.sleep(3 * LEASE)
    await until(lambda: redis.lease_end - trio.current_time() < LEASE - 0.9)
    follower.bus.deaf = True
    leader.trade("AAPL", 101.0)
    await trio.sleep(0.01)
    follower.bus.deaf = False
    leader.trade("AAPL", 102.0)
    await trio.sleep(0.01)
    end = redis.lease_end
    leader.bus.lose()
    await until(lambda: follower.member.leading)
    assert follower.stats.gaps == 1
    assert trio.current_time() - end < 0.3


async def test_candidates_ask_later_than_they_need_to(
    autojump_clock, leader, follower, monkeypatch
):
    """Each by a time of its own, so that they do not ask together."""
    monkeypatch.setattr(member_module, "ACQUIRE_JITTER", LEASE)
    monkeypatch.setattr(member_module, "uniform", lambda _, longest: longest)
    asked = follower.bus.calls["acquire_lease"]
    await trio.sleep(4 * LEASE)
    assert 2 <= follower.bus.calls["acquire_lease"] - asked <= 4


async def test_candidate_asks_thrice_a_lease(autojump_clock, leader, follower):
    """Whether another holds it or the command fails."""
    for fault in ((), ("acquire_lease",)):
        follower.bus.failing.update(fault)
        asked = follower.bus.calls["acquire_lease"]
        await trio.sleep(4 * LEASE)
        assert 9 <= follower.bus.calls["acquire_lease"] - asked <= 12
    assert leader.member.leading


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
    assert (leader.positions, follower.positions) == ([NOWHERE], [NOWHERE])


async def test_deposed_leader_reads_the_hash_at_once(autojump_clock, leader, follower):
    """It does not wait for the new leader's next batch."""
    leader.bus.lose()
    await trio.sleep(LEASE + 1)
    leader.trade("AAPL", 55.0)
    await trio.sleep(0.01)
    follower.trade("AAPL", 101.0)
    leader.bus.deaf = True
    leader.bus.come_back()
    await trio.sleep(1)
    assert leader.state == follower.state


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


async def test_alone_an_instance_makes_its_own_prices(autojump_clock, redis, nursery, leader):
    """After `stale_after` without the bus, in an epoch of its own; back on it, it follows."""
    local = Instance(redis, "local", local=True)
    await nursery.start(local.run)
    leader.hub.journal.reached = POSITION
    leader.trade("AAPL", 101.0, row=POSITION.row + 2)
    await trio.sleep(SOON)
    local.bus.lose()
    await trio.sleep(STALE_AFTER - SOON)
    assert (local.feeding, local.status) == (False, ("stale", "bus_lost"))
    await trio.sleep(3 * SOON)
    assert local.feeding
    assert local.status == ("live", "local")
    assert local.positions == [POSITION]
    assert re.fullmatch(rf"{leader.member.epoch}\.[0-9a-f]{{8}}", local.hub.epoch)
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


async def test_instance_may_be_alone_from_the_start(autojump_clock, redis, nursery):
    """It knows of no epoch yet."""
    local = Instance(redis, "local", local=True)
    local.bus.failing.update(["load", "acquire_lease"])
    nursery.start_soon(local.run)
    await trio.sleep(SOON)
    local.bus.lose()
    await trio.sleep(STALE_AFTER + SOON)
    assert local.feeding
    assert re.fullmatch(r"0\.[0-9a-f]{8}", local.hub.epoch)
    assert local.positions == [NOWHERE]


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
    assert redis.quotes["NEW"].ts == pytest.approx(time.time() * 1e6, abs=60e6)
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
