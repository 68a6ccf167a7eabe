"""Instruments are listed, renamed and delisted while clients are subscribed."""

import msgspec
import pytest
import trio

from server.fanout.broadcaster import run_broadcaster
from server.fanout.hub import Hub
from server.quotes.instrument import Instrument
from server.quotes.snapshot import Snapshot, opening_snapshot
from tests.fanout.peer import Peer, instruments, publish, trade


def listed(symbol: str, **changes: object) -> Snapshot:
    """Return a row of the catalogue."""
    [instrument] = instruments(symbol)
    return opening_snapshot(msgspec.structs.replace(instrument, **changes))


def fill(hub: Hub, peer: Peer) -> None:
    """Move AAPL until the client's socket takes no more."""
    while not peer.outbox.blocked:
        publish(hub, "AAPL", (hub.topics["AAPL"].quote.current_price or 0.0) + 1)
        peer.outbox.flush()


def watch_everything(hub: Hub, peer: Peer) -> None:
    """Subscribe to `*` as a session does."""
    hub.subscribe_everything(peer.outbox)
    hub.send_quotes(peer.outbox, list(hub.topics.values()))


async def test_renamed_is_sent_in_full_once(hub, connect):
    """Subscribers get the new name and base price with the present price and version; others get
    nothing.
    """
    watcher, other = connect("AAPL"), connect("MSFT")
    publish(hub, "AAPL", 110.0)
    await watcher.read()
    hub.relist([listed("AAPL", name="Apple", base_price=50.0), listed("MSFT")])
    await watcher.read()
    await other.read()
    quote = watcher.document["quotes"]["AAPL"]
    assert (quote["name"], quote["current_price"], quote["base_price"]) == ("Apple", 110.0, 50.0)
    assert (quote["change"], quote["change_percent"], quote["volume"]) == (60.0, 120.0, 100)
    assert watcher.versions["AAPL"] == 2
    publish(hub, "AAPL", 111.0)
    await watcher.read()
    assert watcher.document["quotes"] == watcher.truth()
    assert [len(each.messages) for each in (watcher, other)] == [4, 1]
    assert hub.snapshot("AAPL").name == "Apple"


async def test_price_that_comes_with_a_rename_is_not_lost(hub, connect):
    """A trade that comes before the rename's quote is in that quote."""
    peer = connect("AAPL")
    hub.relist([listed("AAPL", name="Apple")])
    publish(hub, "AAPL", 101.0)
    await peer.read()
    assert peer.document["quotes"] == peer.truth()
    assert len(peer.messages) == 2


async def test_untraded_quote_follows_its_base_price(hub, connect):
    """Before the first trade the price is the base price, also a changed one."""
    peer = connect("AAPL")
    hub.relist([listed("AAPL", base_price=42.5)])
    await peer.read()
    quote = peer.document["quotes"]["AAPL"]
    assert (quote["current_price"], quote["base_price"], quote["change"]) == (42.5, 42.5, 0.0)
    assert peer.versions["AAPL"] == 1


async def test_delisted_is_taken_away_from_everybody(hub, connect):
    """Subscribers to the symbol and to `*` get one `remove`, and nothing of it later."""
    single, everything, other = connect("AAPL", "MSFT"), connect(), connect("MSFT")
    watch_everything(hub, everything)
    topic = hub.topics["AAPL"]
    topic.inbox.offer(trade("AAPL", 101.0))
    hub.delist(["AAPL", "NOPE"])
    for peer in (single, everything, other):
        await peer.read()
        assert "AAPL" not in peer.document["quotes"]
    assert [each["op"] for each in single.messages[-1]["operations"]] == ["remove"]
    assert single.messages[-1]["versions"] == {"AAPL": 1}
    assert len(other.messages) == 1
    assert not topic.active
    assert hub.snapshot("AAPL") is None
    assert hub.subscriptions == 4


async def test_full_socket_loses_what_is_delisted(hub, connect):
    """A client that did not read, and one that never got the quote, do not have it in the end."""
    peer = connect("AAPL")
    fill(hub, peer)
    peer.subscribe("MSFT")
    hub.delist(["MSFT", "AAPL"])
    await peer.read()
    assert peer.document == {"quotes": {}}
    kinds = [{each["op"] for each in message["operations"]} for message in peer.messages]
    assert kinds[-1] == {"add", "remove"}


async def test_relisted_is_not_sent_to_who_lost_it(hub, connect):
    """A client that was slow or throttled at the delisting is not subscribed any more. It does not
    get the quote if the symbol is listed again before it reads.
    """
    slow, filling, throttled = (connect("AAPL") for _ in range(3))
    hub.throttle(throttled.outbox, 60.0)
    fill(hub, slow)
    while filling.receive():
        pass
    # The socket of `filling` is full at the end of the round in which the symbol goes.
    for cents in range(20):
        publish(hub, "AAPL", 99 + cents / 100)
    hub.delist(["AAPL"])
    hub.list_snapshots([listed("AAPL")])
    publish(hub, "AAPL", 150.0)
    for peer in (slow, filling, throttled):
        await peer.read()
        peer.outbox.release()
        await peer.read()
        assert peer.document == {"quotes": {}}


async def test_relisted_comes_back_to_who_watches_everything(hub, connect):
    """Slow and throttled subscribers to `*` have the symbol in the end, also after losing it twice."""
    slow, throttled = connect(), connect()
    for peer in (slow, throttled):
        watch_everything(hub, peer)
    hub.throttle(throttled.outbox, 60.0)
    fill(hub, slow)
    for _ in range(2):
        hub.delist(["AAPL"])
        hub.list_snapshots([listed("AAPL")])
    for peer in (slow, throttled):
        await peer.read()
        peer.outbox.release()
        await peer.read()
        assert set(peer.document["quotes"]) == set(hub.topics)


async def test_throttled_client_loses_what_is_delisted_at_once(hub, connect):
    """A throttled subscriber to `*` does not keep the quote until its next release."""
    peer = connect()
    watch_everything(hub, peer)
    hub.throttle(peer.outbox, 60.0)
    publish(hub, "AAPL", 101.0)
    hub.delist(["AAPL"])
    await peer.read()
    assert set(peer.document["quotes"]) == {"MSFT", "BRK.B"}


@pytest.mark.parametrize("everything", [False, True])
async def test_relisted_is_sent_to_who_subscribes_again(hub, connect, everything):
    """A client whose socket was full when it lost a symbol gets it by subscribing again."""
    peer = connect("AAPL")
    await peer.read()
    for cents in range(20):
        publish(hub, "AAPL", 99 + cents / 100)
    hub.delist(["AAPL"])
    hub.list_snapshots([listed("AAPL")])
    peer.outbox.flush()
    assert peer.outbox.blocked
    if everything:
        watch_everything(hub, peer)
    else:
        peer.subscribe("AAPL")
    await peer.read()
    assert "AAPL" in peer.document["quotes"]


async def test_relisted_is_sent_to_who_watches_everything_now(hub, connect):
    """A client whose socket was full when it lost its one symbol gets it by subscribing to `*`."""
    peer = connect("AAPL")
    await peer.read()
    for cents in range(20):
        publish(hub, "AAPL", 99 + cents / 100)
    hub.delist(["AAPL"])
    peer.outbox.flush()
    assert peer.outbox.blocked
    watch_everything(hub, peer)
    hub.list_snapshots([listed("AAPL")])
    await peer.read()
    assert set(peer.document["quotes"]) == set(hub.topics)


async def test_relisted_is_not_sent_to_who_left_everything(hub, connect):
    """A client whose socket was full at the delisting, and that unsubscribed from `*`, loses the
    symbol.
    """
    peer = connect()
    watch_everything(hub, peer)
    await peer.read()
    for cents in range(20):
        publish(hub, "AAPL", 99 + cents / 100)
    hub.delist(["AAPL"])
    hub.unsubscribe_everything(peer.outbox)
    assert peer.outbox.blocked
    hub.list_snapshots([listed("AAPL")])
    await peer.read()
    assert "AAPL" not in peer.document["quotes"]


async def test_throttled_client_may_subscribe_again_to_what_was_delisted(hub, connect):
    """It loses the quote at once, not after its interval, when it has the new one already."""
    peer = connect("AAPL")
    hub.throttle(peer.outbox, 60.0)
    publish(hub, "AAPL", 101.0)
    hub.delist(["AAPL"])
    hub.list_snapshots([listed("AAPL")])
    peer.subscribe("AAPL")
    peer.outbox.release()
    await peer.read()
    assert set(peer.document["quotes"]) == {"AAPL"}


async def test_delisted_before_it_was_sent(hub, connect):
    """A subscriber to `*` that has not got a new symbol's quote yet can apply its removal."""
    peer = connect()
    watch_everything(hub, peer)
    hub.list_snapshots([listed("NEW")])
    hub.delist(["NEW"])
    await peer.read()
    assert set(peer.document["quotes"]) == set(hub.topics)


async def test_listed_while_everything_is_watched(hub, connect):
    """Subscribers to `*` get new symbols in full, and delisted ones that are listed again."""
    peer = connect()
    watch_everything(hub, peer)
    publish(hub, "AAPL", 99.0)
    hub.delist(["AAPL"])
    hub.list_snapshots([listed(f"NEW{number}") for number in range(40)] + [listed("AAPL")])
    hub.topics["NEW7"].publish(trade("NEW7", 101.0))
    await peer.read()
    assert set(peer.document["quotes"]) == set(hub.topics)
    assert len(hub.topics) == 43
    assert (peer.versions["AAPL"], hub.topics["AAPL"].quote.current_price) == (2, 99.0)
    assert peer.versions["NEW7"] == 2
    assert len([each for each in peer.messages if "NEW7" in each["versions"]]) == 1


async def test_trades_of_the_delisted_are_dropped(hub, connect):
    """A trade does not list the symbol again; once it is listed, its trades count."""
    peer = connect()
    watch_everything(hub, peer)
    hub.delist(["AAPL"])
    await feed(hub, "AAPL", 101.0)
    await feed(hub, "SEEN", 101.0)
    assert set(hub.topics) == {"MSFT", "BRK.B", "SEEN"}
    hub.list_instrument(Instrument(symbol="AAPL", name="AAPL", base_price=100.0))
    await feed(hub, "AAPL", 102.0)
    await peer.read()
    assert peer.document["quotes"]["AAPL"]["current_price"] == 102.0


async def feed(hub: Hub, symbol: str, price: float) -> None:
    """Send one trade through the broadcaster."""
    send, receive = trio.open_memory_channel(1)
    async with send:
        await send.send(trade(symbol, price))
    await run_broadcaster(hub, receive, lossless=False)
