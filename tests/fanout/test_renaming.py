"""Symbols are renamed and split while clients are subscribed: fast, slow and throttled ones."""

from time import time_ns

import msgspec
import pytest
import trio
import trio.testing

from server.fanout.broadcaster import run_broadcaster
from server.fanout.topic import Topic
from server.quotes.adjustment import fresh, split
from server.quotes.position import Position
from server.quotes.snapshot import live
from server.quotes.update import Trade
from tests.fanout.peer import Peer, publish, trade
from tests.fanout.test_listing import fill, listed, watch_everything


class Owner:
    """A session's part: it knows its subscriptions."""

    def __init__(self, peer: Peer) -> None:
        self.moves: list[tuple[str, str]] = []
        self.gone: list[str] = []
        peer.outbox.owner = self

    def on_breaker(self, state):
        raise AssertionError("it reads")

    def on_delisted(self, topic: Topic) -> None:
        self.gone.append(topic.symbol)

    def on_renamed(self, old: Topic, new: Topic) -> None:
        self.moves.append((old.symbol, new.symbol))


def operations(peer: Peer) -> list[tuple[str, str]]:
    return [(each["op"], each["path"]) for each in peer.messages[-1]["operations"]]


MOVED = [("remove", "/quotes/AAPL"), ("add", "/quotes/META")]


async def test_subscribers_move_in_one_message(hub, connect):
    """Subscribers by name and to `*` lose the old symbol and get the new one, once, and the updates to
    come. A trade that the old symbol's task has in hand is not lost.
    """
    single, everything, other = connect("AAPL"), connect(), connect("MSFT")
    watch_everything(hub, everything)
    owner = Owner(single)
    await trio.testing.wait_all_tasks_blocked()
    hub.topics["AAPL"].inbox.offer(trade("AAPL", 110.0))
    hub.rename("AAPL", listed("META"))
    for peer in (single, everything):
        await peer.read()
        moves = [each for each in peer.messages if "renamed" in each]
        assert [each["renamed"] for each in moves] == [{"AAPL": "META"}]
        assert [(each["op"], each["path"]) for each in moves[0]["operations"]] == MOVED
        assert moves[0]["versions"].keys() == {"AAPL", "META"}
        assert peer.document["quotes"]["META"]["current_price"] == 110.0
        assert peer.document["quotes"]["META"]["volume"] == 100
    count = [len(single.messages), len(everything.messages)]
    publish(hub, "META", 111.0)
    for peer, before in zip((single, everything), count, strict=True):
        await peer.read()
        assert len(peer.messages) == before + 1
        assert peer.document["quotes"]["META"]["current_price"] == 111.0
    assert owner.moves == [("AAPL", "META")]
    assert hub.snapshot("AAPL") is None
    await other.read()
    assert set(other.document["quotes"]) == {"MSFT"}


async def test_slow_clients_move_when_they_read(hub, connect):
    """A blocked and a throttled client, and one that never got the old quote, end with the new one."""
    slow, late, throttled = connect("AAPL"), connect("AAPL"), connect("AAPL")
    everything = connect()
    watch_everything(hub, everything)
    await throttled.read()
    hub.throttle(throttled.outbox, 60.0)
    fill(hub, slow)
    late.subscribe("MSFT")
    hub.rename("AAPL", listed("META"))
    publish(hub, "META", 150.0)
    for peer in (slow, late, throttled, everything):
        await peer.read()
        peer.outbox.release()
        await peer.read()
        assert "AAPL" not in peer.document["quotes"]
        assert peer.document["quotes"]["META"]["current_price"] == 150.0


async def test_unsubscribed_while_the_move_waits(hub, connect):
    """A blocked client that leaves the new symbol before it reads has neither in the end."""
    slow = connect("AAPL")
    fill(hub, slow)
    hub.rename("AAPL", listed("META"))
    hub.unsubscribe(slow.outbox, hub.topics["META"])
    await slow.read()
    assert slow.document["quotes"] == {}


async def test_subscriber_of_both_gets_the_new_one_once(hub, connect):
    """Where the new symbol was listed already (another instance was faster), its quote is not sent
    again, and the newer price stays.
    """
    both, old, everything = connect("AAPL", "MSFT"), connect("AAPL"), connect()
    watch_everything(hub, everything)
    owner = Owner(both)
    for price in (50.0, 51.0, 52.0):
        publish(hub, "MSFT", price)
    for peer in (both, old, everything):
        await peer.read()
    hub.rename("AAPL", listed("MSFT"))
    for peer in (both, everything):
        await peer.read()
        assert operations(peer) == [("remove", "/quotes/AAPL")]
        assert peer.document["quotes"]["MSFT"]["current_price"] == 52.0
    await old.read()
    assert operations(old) == [("remove", "/quotes/AAPL"), ("add", "/quotes/MSFT")]
    assert owner.gone == ["AAPL"]


async def test_position_of_the_old_symbol_proves_nothing(hub, connect):
    """A client that comes back for the new symbol gets its full quote; its old version is another's."""
    peer = connect("AAPL")
    publish(hub, "AAPL", 101.0)
    await peer.read()
    hub.rename("AAPL", listed("META"))
    held = Position(hub.epoch, {"AAPL": 2, "META": 2})
    assert peer.come_back("META", position=held).recovered == {"META": "quote"}


async def test_trades_of_the_old_symbol_count_for_the_new_one(hub, connect):
    """A feed may go on with the old name, also over two renames; after a delisting nothing counts."""
    peer = connect("AAPL")
    hub.rename("AAPL", listed("META"))
    hub.rename("META", listed("MVRS"))
    send, receive = trio.open_memory_channel[Trade](10)
    for price in (101.0, 102.0):
        send.send_nowait(trade("AAPL", price))
    send.close()
    await run_broadcaster(hub, receive, lossless=True)
    await peer.read()
    assert peer.document["quotes"]["MVRS"]["current_price"] == 102.0
    assert peer.document["quotes"]["MVRS"]["volume"] == 200
    hub.delist(["MVRS"])
    send, receive = trio.open_memory_channel[Trade](10)
    send.send_nowait(trade("AAPL", 103.0))
    send.close()
    await run_broadcaster(hub, receive, lossless=True)
    assert "AAPL" not in hub.topics
    assert "MVRS" not in hub.topics


async def test_symbol_returns_to_its_instrument(hub, connect):
    """Renamed there and back, the version is above all that clients have had of both symbols."""
    peer = connect("AAPL")
    publish(hub, "AAPL", 101.0)
    hub.rename("AAPL", listed("META"))
    hub.rename("META", listed("AAPL"))
    await peer.read()
    assert set(peer.document["quotes"]) == {"AAPL"}
    assert peer.versions["AAPL"] == 4
    assert not hub.renamed.get("AAPL")


async def test_unwatched_symbol_keeps_its_price(hub):
    """The price in memory is newer than the catalogue's."""
    publish(hub, "AAPL", 101.0)
    hub.rename("AAPL", listed("META"))
    assert (hub.snapshot("META").last_quote, hub.snapshot("META").version) == (101.0, 3)
    hub.rename("NOPE", listed("NEW"))
    assert hub.snapshot("NEW") is None


async def test_split_is_one_full_quote(hub, connect):
    """Subscribers get price and volume after the split, once; trades of before it are adjusted."""
    peer = connect("AAPL")
    publish(hub, "AAPL", 104.0)
    await peer.read()
    waiting = trade("AAPL", 108.0)
    hub.topics["AAPL"].inbox.offer(waiting)
    row = split(listed("AAPL"), "4:1", again=False)
    hub.relist([row])
    await peer.read()
    assert {"add"} in [{each["op"] for each in one["operations"]} for one in peer.messages[-2:]]
    quote = peer.document["quotes"]["AAPL"]
    assert (quote["base_price"], quote["current_price"], quote["volume"]) == (25.0, 27.0, 800)
    assert peer.versions["AAPL"] == 4
    hub.topics["AAPL"].publish(trade("AAPL", 112.0))
    await peer.read()
    assert peer.document["quotes"]["AAPL"]["current_price"] == 28.0
    hub.relist([row, listed("AAPL")])
    assert hub.snapshot("AAPL").base_price == 25.0


async def test_split_comes_from_another_instance(hub, connect):
    """A follower takes over the leader's split with its price, or makes the split first; both give the
    same state, and a price of before the split changes nothing.
    """
    peer = connect("AAPL", "MSFT")
    for symbol in ("AAPL", "MSFT"):
        publish(hub, symbol, 104.0)
    rows = [split(listed(symbol), "4:1", again=False) for symbol in ("AAPL", "MSFT")]
    before = live(hub.snapshot("AAPL"), 9)
    hub.relist(rows[:1])
    moved = msgspec.structs.replace(hub.snapshot("AAPL"), symbol="MSFT", name="MSFT")
    hub.adopt([before, live(moved, 9)])
    await peer.read()
    for symbol in ("AAPL", "MSFT"):
        quote = peer.document["quotes"][symbol]
        assert (quote["base_price"], quote["current_price"], quote["volume"]) == (25.0, 26.0, 400)
        assert peer.versions[symbol] == 3


async def test_new_beginning_goes_on_in_versions(hub, connect):
    """A symbol of another instrument begins at its base price, without the old volume."""
    peer = connect("AAPL")
    publish(hub, "AAPL", 104.0)
    hub.relist([listed("AAPL", name="Other", base_price=10.0, adjustments=fresh(5))])
    await peer.read()
    quote = peer.document["quotes"]["AAPL"]
    assert (quote["current_price"], quote["volume"], quote["change"]) == (10.0, 0, 0.0)
    assert peer.versions["AAPL"] == 3


@pytest.mark.parametrize("moves", [1, 5])
async def test_symbol_of_a_delisted_instrument_is_taken_whole(hub, connect, moves):
    """The new owner is not in memory. The symbol's former prices and splits are not its own."""
    for _ in range(moves):
        publish(hub, "AAPL", 104.0)
    hub.relist([split(hub.snapshot("AAPL"), "2:1", again=False)])
    version = hub.topics["AAPL"].version
    hub.delist(["AAPL"])
    row = msgspec.structs.replace(listed("AAPL", name="Other", base_price=400.0), version=4)
    hub.rename("FB", row)
    peer = connect("AAPL")
    await peer.read()
    quote = peer.document["quotes"]["AAPL"]
    assert (quote["name"], quote["current_price"], quote["base_price"]) == ("Other", 400.0, 400.0)
    assert peer.versions["AAPL"] > version
    assert hub.snapshot("AAPL").adjustments == ""


@pytest.mark.parametrize("traded", [True, False])
async def test_new_beginning_without_a_price_shows_none(hub, connect, traded):
    """Neither clients nor the store keep the price of the company before."""
    peer = connect("AAPL")
    if traded:
        publish(hub, "AAPL", 104.0)
    version = hub.topics["AAPL"].version
    begun = listed("AAPL", name="Other", base_price=None, adjustments=fresh(5))
    hub.relist([begun])
    await peer.read()
    quote = peer.document["quotes"]["AAPL"]
    assert (quote["name"], quote["current_price"], quote["base_price"]) == ("Other", None, None)
    assert peer.versions["AAPL"] == version + 1
    assert hub.snapshot("AAPL").price is None
    hub.relist([begun])
    now = time_ns() // 1000
    hub.topics["AAPL"].publish(Trade("AAPL", 7.0, 100, now, now))
    await peer.read()
    quote = peer.document["quotes"]["AAPL"]
    assert (quote["current_price"], quote["base_price"], quote["volume"]) == (7.0, 7.0, 100)
    assert peer.versions["AAPL"] == version + 2
