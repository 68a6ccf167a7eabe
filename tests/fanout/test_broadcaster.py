"""From the one channel to each symbol: a feed that can wait loses nothing, the trades of another
are merged.
"""

import json
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import msgspec
import trio

from server.fanout.broadcaster import BROADCAST_TRADES, run_broadcaster
from server.fanout.hub import Hub
from server.fanout.topic_task import ROUND_TRADES
from server.quotes.update import TopOfBook, Trade, Update, merged
from tests.fanout.peer import START_US, Peer, publish, trade
from tests.frames import take_frame

MANY = 4000
"""Connections that make a round longer than the trades of a round take to come."""


TIMEOUT = 5.0
"""Seconds in which everything has happened that happens at all."""


class Sink:
    """A socket that takes everything, for tests that do not look at what a client gets."""

    def send(self, data: bytes) -> int:
        return len(data)


async def run_feed(hub: Hub, trades: Sequence[Update], *, lossless: bool) -> None:
    """Send all trades through the broadcaster, as fast as the channel takes them."""
    send, receive = trio.open_memory_channel[Update](BROADCAST_TRADES)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_broadcaster, hub, receive, lossless=lossless))
        async with send:
            for each in trades:
                await send.send(each)


def walk(count: int, *symbols: str) -> list[Trade]:
    """Return trades of the symbols in turn, each of which moves the price."""
    return [
        trade(symbols[number % len(symbols)], 100 + number / 100, size=7) for number in range(count)
    ]


def crowd(hub: Hub) -> None:
    """Subscribe MANY to AAPL."""
    for _ in range(MANY):
        hub.subscribe(hub.attach(cast("Any", Sink())), hub.topics["AAPL"])


async def test_feed_that_can_wait_loses_nothing(hub):
    """Many clients hold the feed back; each trade makes a version, and all are published at the end."""
    crowd(hub)
    await run_feed(hub, walk(1500, "AAPL"), lossless=True)
    assert hub.topics["AAPL"].version == 1 + 1500
    assert hub.topics["AAPL"].quote.volume == 7 * 1500
    assert hub.stats.feed_waits > 0
    assert hub.stats.conflated == 0
    await trio.testing.wait_all_tasks_blocked()
    assert hub.stats.messages_sent == MANY * 1500


async def test_symbol_may_be_delisted_while_its_feed_waits(hub):
    """A trade that waits for room is dropped, and the feed goes on with the other symbols."""
    crowd(hub)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(run_feed, hub, [*walk(1500, "AAPL"), *walk(5, "MSFT")], lossless=True)
        )
        with trio.fail_after(TIMEOUT):
            while "AAPL" in hub.topics:
                await trio.lowlevel.checkpoint()
                if hub.stats.feed_waits:
                    hub.delist(["AAPL"])
    assert hub.topics["MSFT"].version == 6


async def test_feed_that_cannot_wait_is_merged_and_counted(hub):
    """Trades that find no room count with the newest price and the sum of shares; the others are
    counted.
    """
    crowd(hub)
    await run_feed(hub, walk(1500, "AAPL"), lossless=False)
    topic = hub.topics["AAPL"]
    assert topic.quote.current_price == 100 + 1499 / 100
    assert topic.quote.volume == 7 * 1500
    assert hub.stats.feed_waits == 0
    assert hub.stats.conflated == 1 + 1500 - topic.version > 0


async def test_unwatched_symbol_waits_for_nobody(hub):
    """Trades of a symbol that nobody watches move its quote at once, and nothing is encoded."""
    await run_feed(hub, walk(1500, "AAPL"), lossless=False)
    assert hub.topics["AAPL"].version == 1 + 1500
    assert hub.stats.updates_encoded == hub.stats.conflated == 0


async def test_unknown_symbol_is_listed_on_first_sight(hub, connect):
    """A symbol that no catalogue has is quoted from its first trade on."""
    await run_feed(hub, [trade("né/w~", 12.3456), trade("né/w~", 12.5)], lossless=True)
    peer = connect("né/w~")
    await peer.read()
    quote = peer.document["quotes"]["né/w~"]
    assert (quote["base_price"], quote["current_price"], quote["volume"]) == (12.3456, 12.5, 200)


async def test_first_quote_of_a_new_symbol_is_of_its_first_trade_s_moment(hub, connect):
    """Neither `ts` nor `last_updated` is later than the trade that made the symbol known."""
    everything = connect()
    hub.subscribe_everything(everything.outbox)
    await run_feed(hub, [trade("NEW", 5.0), trade("NEW", 6.0)], lossless=True)
    await everything.read()
    first, *moves = everything.messages
    (operation,) = first["operations"]
    assert operation["value"]["last_updated"] == "2025-11-24T19:25:45.678901Z"
    assert [first["ts"]] + [move["ts"] for move in moves] == 3 * [START_US]


class Reader(Sink):
    """A sink that keeps each write's versions of AAPL."""

    def __init__(self) -> None:
        self.writes: list[list[int]] = []

    def send(self, data: bytes) -> int:
        versions, rest = [], data
        while frame := take_frame(rest):
            _, payload, rest = frame
            versions.append(json.loads(payload)["versions"]["AAPL"])
        self.writes.append(versions)
        return len(data)


async def test_topic_waits_for_its_round(hub):
    """A topic waits for the round's flush after ROUND_TRADES."""
    reader = Reader()
    hub.subscribe(hub.attach(cast("Any", reader)), hub.topics["AAPL"])
    await trio.testing.wait_all_tasks_blocked()
    for each in walk(2 * ROUND_TRADES + 3, "AAPL"):
        hub.topics["AAPL"].inbox.offer(each)
    await trio.testing.wait_all_tasks_blocked()
    assert [len(versions) for versions in reader.writes] == [ROUND_TRADES, ROUND_TRADES, 3]


async def test_topic_s_next_task_waits_for_the_last(hub):
    """Trades given before a feed's end are published before those that come after it."""
    topic, trades = hub.topics["AAPL"], walk(200, "AAPL")
    hub.subscribe(hub.attach(cast("Any", Sink())), topic)
    for each in trades[:100]:
        topic.inbox.offer(each)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.topic_tasks.finish)
        await trio.lowlevel.checkpoint()
        for each in trades[100:]:
            topic.inbox.offer(each)
    await trio.testing.wait_all_tasks_blocked()
    assert topic.version == 201
    assert topic.quote.current_price == trades[-1].price


async def test_feed_s_end_does_not_wait_for_who_comes_meanwhile(hub, connect):
    """A client that subscribes while the last trades are published gets them, and does not delay
    the end.
    """
    symbols = ("AAPL", "MSFT")
    connect(*symbols)
    for each in walk(200, *symbols):
        hub.topics[each.symbol].inbox.offer(each)
    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.topic_tasks.finish)
            # One checkpoint may be over before the task's turn.
            for _ in range(2):
                await trio.lowlevel.checkpoint()
            assert hub.topics["MSFT"].version < 101
            late = connect(*symbols)
    await late.read()
    assert late.versions == {"AAPL": 101, "MSFT": 101}
    assert late.document["quotes"] == late.truth()


async def test_all_is_published_when_the_feed_has_ended(hub, connect):
    """The broadcaster ends once every subscriber was sent the last trade; later updates still come."""
    peer = connect("AAPL", "MSFT")
    await run_feed(hub, walk(500, "AAPL", "MSFT"), lossless=True)
    await peer.read()
    assert peer.versions == {"AAPL": 251, "MSFT": 251}
    assert peer.document["quotes"] == peer.truth()
    publish(hub, "AAPL", 5.0)
    await peer.read()
    assert peer.document["quotes"] == peer.truth()


async def test_fast_reader_sees_every_version_at_full_speed(hub):
    """A client that reads at once gets each version of a lossless feed in turn."""
    async with trio.open_nursery() as nursery:
        peer = Peer(hub)
        peer.subscribe("AAPL")
        nursery.start_soon(peer.read_on)
        await run_feed(hub, walk(1000, "AAPL"), lossless=True)
        await peer.read()
        nursery.cancel_scope.cancel()
    versions = [m["versions"]["AAPL"] for m in peer.messages if m["type"] == "quotes_patch"]
    assert versions[-1] == 1 + 1000
    peer.close()


async def test_symbol_that_is_not_listed_begins_with_a_price(hub):
    """Also if the price comes with a book, as in a replay. A book alone does not list a symbol."""
    book = TopOfBook("NEW", 9.0, 11.0, None, None, START_US, START_US)
    priced = merged(trade("NEW", 10.0, size=3), book)
    await run_feed(hub, [msgspec.structs.replace(book, symbol="OTHER"), priced], lossless=True)
    quote = hub.topics["NEW"].quote
    assert (quote.current_price, quote.volume, quote.bid, quote.ask) == (10.0, 3, 9.0, 11.0)
    assert "OTHER" not in hub.topics
