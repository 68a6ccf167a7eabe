"""Clients learn that prices stopped: each message at its time, on a clock that jumps."""

import trio

from server.fanout.hub import Hub
from server.fanout.topic_task import RETIRE_INTERVAL, TOPIC_GRACE
from server.quotes.messages import encode
from tests.fanout.peer import Peer, instruments, publish, trade
from tests.fanout.test_listing import listed

QUIET = 10.0


def statuses(peer: Peer) -> list[tuple[str, str, list[str] | None]]:
    """Return the status messages so far: status, reason, symbols."""
    return [
        (message["status"], message["reason"], message.get("symbols"))
        for message in peer.messages
        if message["type"] == "status"
    ]


async def make_hub(nursery: trio.Nursery) -> Hub:
    hub = Hub(instruments("AAPL", "MSFT", "BRK.B"), quiet_after=QUIET)
    await nursery.start(hub.run)
    return hub


async def pass_time(hub: Hub, peers: list[Peer], seconds: float, *symbols: str) -> None:
    """Trade each symbol every second, while the clients read."""
    for _ in range(int(seconds)):
        await trio.sleep(1)
        for symbol in symbols:
            publish(hub, symbol, 100 + (trio.current_time() * 100 % 977) / 10)
        await trio.testing.wait_all_tasks_blocked()
        for peer in peers:
            peer.receive()


async def test_quiet_symbol_is_stale_until_it_trades(autojump_clock, nursery):
    """Its subscribers are told within a second of the set age, and when it trades again; others are
    not.
    """
    hub = await make_hub(nursery)
    both, other = Peer(hub), Peer(hub)
    both.subscribe("AAPL", "MSFT")
    other.subscribe("AAPL")
    await pass_time(hub, [both, other], 9, "AAPL")
    await both.read()
    assert statuses(both) == []
    await pass_time(hub, [both, other], 3, "AAPL")
    await both.read()
    assert statuses(both) == [("stale", "quiet", ["MSFT"])]
    late = Peer(hub)
    late.subscribe("MSFT")
    await late.read()
    assert statuses(late) == [("stale", "quiet", ["MSFT"])]
    await pass_time(hub, [both, other, late], 2, "AAPL", "MSFT")
    for peer in (both, late, other):
        await peer.read()
    assert statuses(both)[1:] == statuses(late)[1:] == [("live", "traded", ["MSFT"])]
    assert statuses(other) == []
    for peer in (both, late, other):
        peer.close()


async def test_renamed_symbol_keeps_the_age_of_its_price(autojump_clock, nursery):
    """A rename is not a pause: the new symbol is quiet once the old one would have been."""
    hub = await make_hub(nursery)
    peer = Peer(hub)
    peer.subscribe("AAPL", "MSFT")
    await pass_time(hub, [peer], 2 * QUIET, "AAPL", "MSFT")
    hub.rename("AAPL", listed("META"))
    await pass_time(hub, [peer], QUIET - 1, "MSFT")
    assert statuses(peer) == []
    await pass_time(hub, [peer], 2, "MSFT")
    await peer.read()
    assert statuses(peer) == [("stale", "quiet", ["META"])]
    hub.rename("META", listed("NEW"))
    await pass_time(hub, [peer], 2, "MSFT")
    assert statuses(peer)[1:] == [("stale", "quiet", ["NEW"])]
    await pass_time(hub, [peer], 2, "NEW", "MSFT")
    await peer.read()
    assert statuses(peer)[2:] == [("live", "traded", ["NEW"])]
    peer.close()


async def test_silent_feed_is_one_message(autojump_clock, nursery):
    """When nothing trades at all, each client gets one status, not one for each symbol."""
    hub = await make_hub(nursery)
    peer = Peer(hub)
    peer.subscribe("AAPL", "MSFT", "BRK.B")
    await pass_time(hub, [peer], 5, "AAPL", "MSFT", "BRK.B")
    await pass_time(hub, [peer], 3 * QUIET)
    await peer.read()
    assert statuses(peer) == [("stale", "feed_quiet", None)]
    await pass_time(hub, [peer], 3, "AAPL")
    await peer.read()
    assert statuses(peer)[1:] == [("live", "feed_resumed", None)]
    await pass_time(hub, [peer], 12, "AAPL")
    await peer.read()
    assert {tuple(status[2] or ()) for status in statuses(peer)[2:]} == {("MSFT",), ("BRK.B",)}
    peer.close()


async def test_feed_that_ended_stays_ended(autojump_clock, nursery):
    """A feed that is known to have ended is not called quiet, nor live again."""
    hub = await make_hub(nursery)
    peer = Peer(hub)
    peer.subscribe("AAPL")
    hub.set_status("stale", "feed_ended")
    await pass_time(hub, [peer], 5 * QUIET)
    await peer.read()
    assert statuses(peer) == [("stale", "feed_ended", None)]
    peer.close()


async def test_nobody_watching_is_no_silence(autojump_clock, nursery):
    """Unwatched symbols may rest; a client that comes then is told nothing for the set age."""
    hub = await make_hub(nursery)
    await pass_time(hub, [], 10 * QUIET)
    assert hub.status.message.status == "live"
    peer = Peer(hub)
    peer.subscribe("AAPL")
    await pass_time(hub, [peer], QUIET - 2)
    await peer.read()
    assert statuses(peer) == []
    peer.close()


async def test_unsubscribed_symbol_s_status_is_forgotten(autojump_clock, nursery):
    """A client that left a symbol gets no more of it, though its status was pending."""
    hub = await make_hub(nursery)
    peer = Peer(hub)
    peer.subscribe("AAPL", "MSFT")
    hub.throttle(peer.outbox, 60.0)
    await pass_time(hub, [peer], 13, "AAPL")
    peer.unsubscribe("MSFT")
    await pass_time(hub, [peer], 65)
    await peer.read()
    assert [status for status in statuses(peer) if status[2] == ["MSFT"]] == []
    assert encode(hub.topics["MSFT"].freshness.quiet) == b"true"
    peer.close()


async def leave_a_quiet_symbol(nursery: trio.Nursery) -> tuple[Hub, Peer, Peer]:
    """Return a hub, a subscriber to AAPL, and a client that has left the quiet MSFT for long."""
    hub = await make_hub(nursery)
    other, first = Peer(hub), Peer(hub)
    other.subscribe("AAPL")
    first.subscribe("MSFT")
    await pass_time(hub, [other, first], QUIET + 2, "AAPL")
    first.unsubscribe("MSFT")
    await pass_time(hub, [other], TOPIC_GRACE + 2 * RETIRE_INTERVAL, "AAPL")
    return hub, other, first


async def test_quiet_symbol_does_not_trade_by_being_watched(autojump_clock, nursery):
    """A client that subscribes to a quiet symbol is told so, and not a second later that it trades."""
    hub, other, first = await leave_a_quiet_symbol(nursery)
    assert not hub.topics["MSFT"].active
    for watch in (Peer.subscribe, watch_everything):
        late = Peer(hub)
        watch(late, "MSFT")
        await pass_time(hub, [late, other], 5, "AAPL")
        await late.read()
        assert ("stale", "quiet", ["MSFT"]) in statuses(late)
        assert "traded" not in {reason for _, reason, _ in statuses(late)}
        hub.unsubscribe_everything(late.outbox)
        late.close()
    for peer in (other, first):
        peer.close()


def watch_everything(peer: Peer, *_: str) -> None:
    peer.hub.subscribe_everything(peer.outbox)
    peer.hub.send_quotes(peer.outbox, list(peer.hub.topics.values()))


async def test_what_traded_unwatched_is_not_quiet(autojump_clock, nursery):
    """A symbol that was quiet and has traded since, unwatched, is not quiet for its next subscriber."""
    hub, other, first = await leave_a_quiet_symbol(nursery)
    hub.topics["MSFT"].absorb(trade("MSFT", 102.0))
    first.subscribe("MSFT")
    await first.read()
    assert statuses(first)[1:] == []
    for peer in (other, first):
        peer.close()


async def test_symbol_quiet_before_the_feed_stays_so(autojump_clock, nursery):
    """A symbol that was quiet before the feed stopped is still quiet when the feed is back."""
    hub = await make_hub(nursery)
    peer = Peer(hub)
    peer.subscribe("AAPL", "MSFT")
    await pass_time(hub, [peer], QUIET + 2, "AAPL")
    await pass_time(hub, [peer], QUIET + 2)
    await pass_time(hub, [peer], 3, "AAPL")
    await peer.read()
    assert statuses(peer) == [
        ("stale", "quiet", ["MSFT"]),
        ("stale", "feed_quiet", None),
        ("live", "feed_resumed", None),
    ]
    peer.close()
