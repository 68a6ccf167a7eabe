"""Prices whose versions another instance made: what a follower's clients get."""

import msgspec
import trio

from server.fanout.broadcaster import give
from server.quotes.snapshot import live
from server.quotes.update import Move
from tests.fanout.peer import START_US, publish


def move(version: int, price: float, volume: int) -> Move:
    return Move("AAPL", version, price, volume, START_US, START_US + version)


async def test_next_version_is_a_patch_and_a_later_one_a_full_quote(hub, connect):
    """A move that is not newer changes nothing; `ts` is the leader's."""
    peer = connect("AAPL")
    await peer.read()
    topic = hub.topics["AAPL"]
    for each in (move(2, 101.0, 50), move(2, 7.0, 7), move(5, 103.0, 90), move(4, 102.0, 80)):
        topic.publish(each)
    await peer.read()
    kinds = [[each["op"] for each in message["operations"]] for message in peer.messages[1:]]
    # The first trade also makes open, high and low.
    assert kinds[0] == ["replace"] * 8
    assert kinds[1:] == [["add"]]
    assert [message["ts"] for message in peer.messages[1:]] == [START_US + 2, START_US + 5]
    quote = peer.document["quotes"]["AAPL"]
    assert (quote["current_price"], quote["volume"], peer.versions["AAPL"]) == (103.0, 90, 5)
    assert peer.document["quotes"] == peer.truth()


async def test_version_that_changes_nothing_is_a_full_quote(hub, connect):
    """A patch without operations would not be valid."""
    peer = connect("AAPL")
    await peer.read()
    for version in (2, 3):
        hub.topics["AAPL"].publish(Move("AAPL", version, 100.0, 0, START_US, START_US))
        await peer.read()
    assert [each["op"] for each in peer.messages[-1]["operations"]] == ["add"]
    assert peer.versions["AAPL"] == 3


async def test_flood_of_moves_ends_at_the_last(hub, connect):
    """Moves that an inbox has no room for are merged; the version jumps."""
    peer = connect("AAPL")
    topic = hub.topics["AAPL"]
    for version in range(2, 1000):
        if full := give(hub, topic, move(version, 100 + version / 100, version)):
            full.conflate(move(version, 100 + version / 100, version))
    await peer.read()
    assert peer.versions["AAPL"] == 999
    assert peer.document["quotes"] == peer.truth()


async def test_newer_state_is_adopted_and_shown(hub, connect):
    """An older state is adopted only if another epoch begins."""
    peer = connect("AAPL")
    publish(hub, "AAPL", 101.0)
    state = hub.topics["AAPL"].live_snapshot()
    for price in (102.0, 103.0):
        publish(hub, "AAPL", price)
    newer = hub.topics["AAPL"].live_snapshot()
    hub.adopt([state])
    assert hub.topics["AAPL"].version == 4
    hub.adopt([state], older=True)
    hub.begin_epoch("another")
    await peer.read()
    assert peer.versions["AAPL"] == 2
    assert peer.messages[-1]["epoch"] == "another"
    hub.adopt([newer])
    await peer.read()
    assert peer.versions["AAPL"] == 4
    assert peer.document["quotes"] == peer.truth()


async def test_symbol_that_others_list_is_the_same_here(hub):
    """A symbol that was never traded has the moment at which another instance listed it, and no time
    of a last price.
    """
    other = live(hub.topics["MSFT"].snapshot(), START_US)
    del hub.topics["MSFT"]
    hub.adopt([other])
    assert hub.topics["MSFT"].live_snapshot() == other
    later = msgspec.structs.replace(other, ts=START_US + 1_000_000)
    hub.topics["MSFT"].adopt(later)
    assert hub.topics["MSFT"].live_snapshot() == later
    assert hub.topics["MSFT"].quote.last_updated is None


async def test_what_waits_can_be_discarded(hub, connect):
    """Moves of an epoch that is over are not published any more."""
    peer = connect("AAPL")
    await peer.read()
    await trio.testing.wait_all_tasks_blocked()
    topic = hub.topics["AAPL"]
    # These are more than the inbox holds.
    for version in range(2, 500):
        if not topic.inbox.offer(move(version, 101.0, version)):
            topic.inbox.conflate(move(version, 101.0, version))
    hub.discard_waiting()
    await peer.read()
    # The task had taken one out of the inbox already.
    assert peer.versions["AAPL"] <= 2
