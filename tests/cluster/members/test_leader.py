"""A leader tells the others its moves and its state, on a clock that jumps."""

from itertools import pairwise

import msgspec
import pytest
import trio
import trio.testing

from server.cluster.errors import BusLost
from server.cluster.leader import HANDOVER_TIMEOUT
from server.cluster.steps import Step
from server.cluster.wire import Batch, Mark
from server.quotes.snapshot import live, opening_snapshot
from server.quotes.update import NOWHERE
from tests.cluster.members.memory import (
    LEASE,
    SOON,
    Instance,
    instrument,
    until,
)


async def test_leader_that_stops_publishes_all_it_has(autojump_clock, leader, follower, redis):
    """Also more than one batch, and the lease's end with the last."""
    for number in range(2500):
        leader.trade("AAPL", 100 + number / 100)
    leader.stop()
    await trio.sleep(2 * SOON)
    assert follower.version() == 2501
    assert follower.member.leading
    assert [batch.handover for batch in redis.published].count("leader") == 1


async def test_last_batch_gives_the_lease_up(autojump_clock, leader, follower, redis):
    """Also one that is full."""
    leader.trade("MSFT", 101.0)
    await trio.testing.wait_all_tasks_blocked()
    before = len(redis.published)
    for number in range(1000):
        leader.trade("AAPL", 100 + number / 100)
    leader.stop()
    await trio.sleep(0.02)
    [batch] = [batch for batch in redis.published[before:] if batch.moves]
    assert (len(batch.moves), batch.handover) == (1000, "leader")


async def test_followers_hear_of_a_status_behind_the_prices_before_it(
    autojump_clock, leader, follower, redis
):
    """Also if these are more than one batch: a follower's client may stop at the feed's end."""
    before = len(redis.published)
    for number in range(2500):
        leader.trade("AAPL", 100 + number / 100)
    leader.hub.set_status("stale", "feed_ended")
    await trio.sleep(1.1 + SOON)
    told = [(len(batch.moves), batch.stale) for batch in redis.published[before:]]
    assert told[:3] == [(1000, ""), (1000, ""), (500, "feed_ended")]
    assert (follower.version(), follower.status) == (2501, ("stale", "feed_ended"))


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
    numbers = [batch.seq for batch in redis.published]
    assert {later - number for number, later in pairwise(numbers)} == {2}


async def test_symbol_is_told_of_with_its_first_move_only(autojump_clock, leader, follower, redis):
    """Or with none, where its state was written to the hash."""
    leader.hub.list_instrument(instrument("ONE"))
    leader.hub.list_instrument(instrument("TWO"))
    leader.hub.journal.lose(["TWO"])
    await trio.sleep(1)
    for price in (101.0, 102.0):
        leader.trade("ONE", price)
        leader.trade("TWO", price)
        leader.trade("AAPL", price)
        await trio.sleep(SOON)
    listed = [[each.symbol for each in batch.listed] for batch in redis.published if batch.moves]
    assert listed == [["ONE"], []]
    assert follower.state == leader.state


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


async def test_step_is_written_once_and_whole(autojump_clock, leader, follower, redis):
    """States of other symbols, which go before it, have nothing of it: a leader that is killed then
    leaves no trade counted that nobody has. Its entry in the log of kept trades pushes no other out.
    """
    leader.trade("AAPL", 101.0)
    await trio.sleep(SOON)
    del redis.records[:]
    steps = leader.member.steps
    steps.begin()
    leader.hub.journal.lose(["MSFT"])
    leader.trade("AAPL", 102.0)
    await steps.finish(Step({"AAPL": b"state"}, b"8 bytes.", (), {"key": "7-0"}, "key", b"kept", 1))
    of_step = [each for each in redis.records if each.ids or each.read_to or each.kept]
    assert [(each.ids, each.read_to, each.kept) for each in of_step] == [
        (b"8 bytes.", "7-0", b"kept")
    ]
    assert of_step[0].states["position:key"] == b"7-0"
    others = redis.records[: redis.records.index(of_step[0])]
    assert others
    assert not any("position:key" in each.states or "AAPL" in each.states for each in others)


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
    redis.mark = Mark(redis.epoch, 7)
    redis.quotes["AAPL"] = msgspec.structs.replace(leader.state["AAPL"], ts=9)
    leader.trade("AAPL", 101.0)
    await trio.sleep(0.05)
    assert not leader.member.leading
    await trio.sleep(SOON)
    assert leader.state["AAPL"] == redis.quotes["AAPL"]


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


@pytest.mark.parametrize("lost", [False, True])
async def test_leader_that_could_not_ask_begins_a_new_epoch(
    autojump_clock, leader, follower, redis, lost
):
    """It listed a symbol that others may know better: with them it agrees afterwards."""
    opening = opening_snapshot(instrument("NEW"))
    redis.quotes["NEW"] = live(
        msgspec.structs.replace(opening, last_quote=50.0, version=9, quoted_at=1), 2
    )
    epoch = leader.member.epoch
    if lost:
        leader.bus.lose()
    leader.bus.failing.add("claim")
    await leader.member.agree([opening, opening_snapshot(instrument("ONLY"))])
    assert leader.version("NEW") == 1
    leader.bus.failing.clear()
    if lost:
        leader.bus.come_back()
    await trio.sleep(LEASE)
    assert leader.member.leading
    assert leader.member.epoch > epoch
    assert leader.positions == [NOWHERE]
    assert leader.stats.elections == 2
    assert leader.version("NEW") == 9
    assert redis.quotes["ONLY"].version == 1
    leader.trade("NEW", 101.0)
    await trio.sleep(SOON)
    assert follower.version("NEW") == 10
    assert follower.state == leader.state


async def test_lease_is_renewed_thrice_in_its_time(autojump_clock, leader):
    """So that it survives two failures."""
    asked = leader.bus.calls["acquire_lease"]
    await trio.sleep(4 * LEASE)
    assert 11 <= leader.bus.calls["acquire_lease"] - asked <= 12


async def test_leader_that_comes_back_after_another_leads_on_from_its_prices(
    autojump_clock, leader, follower, redis
):
    """Nobody holds the lease any more: its feed begins anew after the other's newest trade."""
    leader.bus.lose()
    await trio.sleep(LEASE + 1)
    follower.trade("AAPL", 101.0, row=1000)
    await trio.sleep(0.02)
    leader.trade("AAPL", 55.0)
    follower.bus.lose()
    await trio.sleep(LEASE + 1)
    leader.bus.come_back()
    await trio.sleep(1)
    assert leader.member.leading
    assert leader.hub.topics["AAPL"].quote.current_price == 101.0
    assert len(leader.positions) == 2
    follower.bus.come_back()
    await trio.sleep(1)
    assert not follower.member.leading
    assert leader.state == follower.state


async def test_deposed_leader_publishes_nothing_more(autojump_clock, leader, follower):
    """There is no lease that it could give up."""
    leader.bus.lose()
    await trio.sleep(LEASE + 1)
    leader.trade("AAPL", 55.0)
    leader.bus.come_back()
    published = leader.bus.calls["publish"]
    await trio.sleep(1)
    assert not leader.member.leading
    assert leader.bus.calls["publish"] == published


async def test_candidate_that_has_missed_an_epoch_begins_with_its_prices(
    autojump_clock, leader, follower, redis
):
    """It was elected before it noticed that another had led: that one's prices win."""
    follower.bus.deaf = True
    await trio.sleep(SOON)
    redis.epoch += 1000
    theirs = msgspec.structs.replace(
        leader.state["AAPL"], last_quote=50.0, version=1, quoted_at=0, ts=9
    )
    redis.quotes["AAPL"] = theirs
    between = redis.epoch
    redis.mark = Mark(between, 7)
    leader.stop()
    redis.lease_end = 0.0
    await until(lambda: follower.member.leading)
    assert follower.member.epoch > between
    assert follower.state["AAPL"].ts == 9


async def test_price_that_was_never_published_survives_a_pause(
    autojump_clock, leader, follower, redis
):
    """The leader gave its lease up without being able to publish; it leads again in the end."""
    follower.bus.failing.add("acquire_lease")
    leader.bus.failing.update(["publish", "write"])
    leader.trade("AAPL", 101.0)
    leader.member.hand_over()
    await trio.sleep(2)
    leader.bus.failing.clear()
    await trio.sleep(2 * LEASE)
    assert leader.member.leading
    assert leader.version() == 2
    assert follower.state == leader.state


async def test_instance_that_is_elected_in_vain_does_not_lead(
    autojump_clock, redis, nursery, monkeypatch
):
    """It cannot read the hash, and asks again when its lease is over."""
    instance = Instance(redis, "only")
    load = instance.bus.load
    loads = iter([True, False])

    async def fail_second():
        if next(loads, True):
            return await load()
        raise BusLost("no answer")

    monkeypatch.setattr(instance.bus, "load", fail_second)
    await nursery.start(instance.run)
    await trio.sleep(SOON)
    assert not instance.member.leading
    assert instance.positions == []
    await trio.sleep(LEASE + 1)
    assert instance.member.leading
    assert instance.member.epoch == redis.epoch
    assert instance.stats.elections == 1


async def test_first_price_is_the_base_price_on_every_instance(autojump_clock, leader, follower):
    """Followers get the state with the first move, also if they take several moves as one."""
    waiting = msgspec.structs.replace(instrument("NEW"), base_price=None)
    for member in (leader, follower):
        await member.member.agree([opening_snapshot(waiting)])
    await trio.sleep(SOON)
    for price in (5.0, 6.0, 7.0):
        leader.trade("NEW", price)
    await trio.sleep(SOON)
    assert follower.hub.topics["NEW"].quote.base_price == 5.0
    assert follower.state == leader.state
    batches = leader.stats.batches_published
    leader.trade("NEW", 8.0)
    await trio.sleep(SOON)
    assert follower.version("NEW") == leader.version("NEW") == 5
    assert leader.stats.batches_published > batches
