"""Clients learn that a symbol's market was halted or closed, and when it opens again."""

import pytest
import trio

from server.quotes.messages import MarketState
from server.quotes.snapshot import opening_snapshot
from tests.fanout.conftest import Connect
from tests.fanout.peer import Peer, instruments, publish
from tests.fanout.test_listing import watch_everything


def markets(peer: Peer) -> list[tuple[str, str, list[str]]]:
    """Return the statuses of markets so far."""
    return [
        (each["status"], each["reason"], each["symbols"])
        for each in peer.messages
        if each["type"] == "status"
    ]


async def test_subscribers_get_each_change_once(hub, connect: Connect):
    """Also subscribers to everything; others do not, and a repetition is no change."""
    one, other, everything = connect("AAPL"), connect("MSFT"), connect()
    hub.subscribe_everything(everything.outbox)
    changes: list[tuple[MarketState, str]] = [
        ("halted", "LUDP"),
        ("halted", "LUDP"),
        ("halted", "T1"),
        ("open", ""),
        ("open", ""),
    ]
    for status, reason in changes:
        hub.announce("AAPL", status, reason)
    told = [
        ("halted", "LUDP", ["AAPL"]),
        ("halted", "T1", ["AAPL"]),
        ("open", "", ["AAPL"]),
    ]
    for peer, expected in ((one, told), (everything, told), (other, [])):
        await peer.read()
        assert markets(peer) == expected


async def test_later_subscribers_get_what_lasts(hub, connect: Connect):
    """A halt is told behind the quote until the market is open, and forgotten with its symbol."""
    hub.announce("AAPL", "closed", "night")
    hub.announce("NONE", "closed", "night")
    for expected in ([("closed", "night", ["AAPL"])], []):
        peer = connect("AAPL", "MSFT")
        await peer.read()
        assert markets(peer) == expected
        hub.announce("AAPL", "open", "")
    hub.announce("AAPL", "halted", "")
    hub.delist(["AAPL"])
    hub.list_instrument(instruments("AAPL")[0])
    peer = connect("AAPL")
    await peer.read()
    assert markets(peer) == []


async def test_market_stays_halted_under_a_new_symbol(hub, connect: Connect):
    """Subscribers learn the symbol that is halted now. A publisher may open it under the old one."""
    before, everything = connect("AAPL"), connect()
    watch_everything(hub, everything)
    hub.announce("AAPL", "halted", "LUDP")
    hub.rename("AAPL", opening_snapshot(instruments("META")[0]))
    later = connect("META")
    hub.announce("AAPL", "open", "")
    told = [("halted", "LUDP", ["META"]), ("open", "", ["META"])]
    for peer in (before, everything):
        await peer.read()
        assert markets(peer) == [("halted", "LUDP", ["AAPL"]), *told]
    await later.read()
    assert markets(later)[-2:] == told


async def test_market_that_is_open_again_is_not_news_under_a_new_symbol(hub, connect: Connect):
    """A later status of the new symbol is one."""
    peer = connect("AAPL")
    hub.announce("AAPL", "halted", "")
    hub.announce("AAPL", "open", "")
    await peer.read()
    count = len(markets(peer))
    hub.rename("AAPL", opening_snapshot(instruments("META")[0]))
    await peer.read()
    assert len(markets(peer)) == count
    hub.announce("META", "closed", "")
    await peer.read()
    assert markets(peer)[count:] == [("closed", "", ["META"])]


@pytest.mark.parametrize("unsubscribes", [False, True])
async def test_slow_client_gets_the_last_status_only(hub, connect: Connect, unsubscribes):
    """While its socket is full, it misses the changes between. Without the symbol it gets none."""
    peer = connect("AAPL")
    while not peer.outbox.blocked:
        publish(hub, "AAPL", 100 + hub.topics["AAPL"].version)
        await trio.testing.wait_all_tasks_blocked()
    hub.announce("AAPL", "halted", "LUDP")
    hub.announce("AAPL", "open", "")
    await trio.testing.wait_all_tasks_blocked()
    if unsubscribes:
        peer.unsubscribe("AAPL")
    await peer.read()
    assert markets(peer) == ([] if unsubscribes else [("open", "", ["AAPL"])])
