"""Each instance reports its watched symbols, and the leader asks its feed for all of them."""

import trio

from server.cluster.interest import INTERVAL, LIFETIME, REFRESH
from tests.cluster.members.memory import Instance, MemoryRedis, instrument
from tests.fanout.peer import Peer

ASKED = 2 * INTERVAL + 0.1


def watched(instance: Instance) -> list[str]:
    return sorted(quote.symbol for quote in instance.member.interest.watched_quotes())


async def two(nursery) -> tuple[MemoryRedis, Instance, Instance]:
    """A leader, and an instance that follows it."""
    redis = MemoryRedis()
    leader, follower = (Instance(redis, name) for name in ("leader", "follower"))
    for instance in (leader, follower):
        await nursery.start(instance.run)
    return redis, leader, follower


async def test_leader_moves_what_is_watched_elsewhere(autojump_clock, nursery):
    """For as long as it is watched there, and a while after that; others ask for nothing."""
    _, leader, follower = await two(nursery)
    mine, theirs = Peer(leader.hub), Peer(follower.hub)
    mine.subscribe("MSFT")
    assert watched(leader) == ["MSFT"]
    theirs.subscribe("AAPL")
    await trio.sleep(ASKED)
    assert watched(leader) == ["AAPL", "MSFT"]
    assert watched(follower) == ["AAPL"]
    is_watched = leader.member.interest.is_watched
    assert (is_watched("AAPL"), is_watched("MSFT"), is_watched("NOPE")) == (True, True, False)
    await trio.sleep(4 * LIFETIME)
    assert watched(leader) == ["AAPL", "MSFT"]
    theirs.unsubscribe("AAPL")
    await trio.sleep(LIFETIME - REFRESH - 1)
    assert watched(leader) == ["AAPL", "MSFT"]
    await trio.sleep(2 * LIFETIME)
    assert watched(leader) == ["MSFT"]
    assert not is_watched("AAPL")
    mine.close()
    theirs.close()


async def test_reports_are_repeated_now_and_then(autojump_clock, nursery):
    """Every ten seconds, and at once where somebody comes back to a symbol."""
    _, _, follower = await two(nursery)
    peer = Peer(follower.hub)
    peer.subscribe("AAPL")
    await trio.sleep(ASKED)
    assert follower.bus.interests == [["AAPL"]]
    await trio.sleep(REFRESH - ASKED - INTERVAL)
    assert follower.bus.interests == [["AAPL"]]
    await trio.sleep(2 * INTERVAL + 0.1)
    assert follower.bus.interests == [["AAPL"]] * 2
    peer.subscribe("MSFT")
    await trio.sleep(ASKED)
    assert follower.bus.interests == [["AAPL"], ["AAPL"], ["MSFT"]]
    peer.unsubscribe("MSFT")
    await trio.sleep(ASKED)
    peer.subscribe("MSFT")
    await trio.sleep(ASKED)
    assert follower.bus.interests[3:] == [["MSFT"]]
    peer.close()


async def test_reports_are_repeated_where_they_may_be_lost(autojump_clock, nursery):
    """After a new connection, and after a command that failed; a lost bus is asked nothing."""
    redis, leader, follower = await two(nursery)
    peer = Peer(follower.hub)
    peer.subscribe("AAPL")
    await trio.sleep(ASKED)
    follower.bus.lose()
    asked = follower.bus.calls["share_interest"]
    await trio.sleep(ASKED)
    assert follower.bus.calls["share_interest"] == asked
    redis.watched.clear()
    follower.bus.come_back()
    await trio.sleep(ASKED)
    assert follower.bus.interests == [["AAPL"]] * 2
    follower.bus.unanswered.add("share_interest")
    peer.subscribe("MSFT")
    await trio.sleep(INTERVAL)
    follower.bus.unanswered.clear()
    await trio.sleep(ASKED)
    assert follower.bus.interests[-1] == ["AAPL", "MSFT"]
    assert watched(leader) == ["AAPL", "MSFT"]
    peer.close()


async def test_many_symbols_are_reported_page_by_page(autojump_clock, nursery):
    """A thousand in one step."""
    redis, leader, follower = await two(nursery)
    names = [f"S{number:04}" for number in range(2500)]
    for instance in (leader, follower):
        for name in names:
            instance.hub.list_instrument(instrument(name))
    peer = Peer(follower.hub)
    for name in names:
        follower.hub.subscribe(peer.outbox, follower.hub.topics[name])
    await trio.sleep(ASKED)
    assert [len(each) for each in follower.bus.interests] == [1000, 1000, 500]
    assert watched(leader) == names
    assert len(redis.watched) == 2500
    follower.hub.detach(peer.outbox, [follower.hub.topics[name] for name in names])
    peer.topics.clear()
    peer.close()


async def test_only_new_reports_are_asked_for(autojump_clock, nursery):
    """From a second before the last answer on: Redis' clock may be set. A new leader asks for all."""
    redis, leader, follower = await two(nursery)
    peer = Peer(follower.hub)
    peer.subscribe("AAPL")
    await trio.sleep(ASKED)
    redis.watched["AAPL"] = redis.now_ms - 2000
    redis.watched["MSFT"] = redis.now_ms - 800
    leader.member.interest._elsewhere.clear()
    await trio.sleep(INTERVAL)
    assert watched(leader) == ["MSFT"]
    leader.member.retire()
    await trio.sleep(ASKED)
    assert follower.member.leading
    assert watched(follower) == ["AAPL", "MSFT"]
    assert watched(leader) == []
    assert leader.bus.calls["share_interest"] > 0
    peer.close()


async def test_leader_lists_symbols_that_only_others_have(autojump_clock, nursery):
    """The store is asked for them, or the feed could not move them."""
    _, leader, follower = await two(nursery)
    follower.hub.list_instrument(instrument("NEW"))
    peer = Peer(follower.hub)
    peer.subscribe("NEW")
    await trio.sleep(ASKED)
    assert leader.listed == [["NEW"]]
    assert watched(leader) == ["NEW"]
    await trio.sleep(5)
    assert leader.listed == [["NEW"]]
    assert follower.listed == []
    peer.close()
