"""A status comes behind all prices that came before it, for every kind of client."""

import json
from functools import partial
from typing import Any, cast

import pytest
import trio

from server.fanout.broadcaster import give, run_broadcaster
from server.fanout.hub import Hub
from server.fanout.inbox import INBOX_TRADES
from server.quotes.update import Trade
from tests.fanout.peer import Peer, instruments, publish, trade
from tests.frames import take_frame

QUIET = 10.0

ENDED = ("status", "feed_ended")


def give_all(hub: Hub, symbol: str, count: int) -> None:
    """Give trades to the symbol's inbox. The last one has the price 100 + count."""
    for number in range(count):
        assert give(hub, hub.topics[symbol], trade(symbol, 101.0 + number)) is None


def told_by(message: dict[str, Any]) -> list[tuple[str, str]]:
    if message["type"] == "status":
        return [("status", message["reason"])]
    return [("quote", symbol) for symbol in message["versions"]]


def order(peer: Peer) -> list[tuple[str, str]]:
    """Return the symbols of quotes and the reasons of statuses, in the order of their messages."""
    return [told for message in peer.messages for told in told_by(message)]


class Recorder:
    """A socket that takes everything. `order` is as `order` of a peer."""

    def __init__(self, hub: Hub, *symbols: str) -> None:
        self._data = b""
        outbox = hub.attach(cast("Any", self))
        for symbol in symbols:
            hub.subscribe(outbox, hub.topics[symbol])

    def send(self, data: bytes) -> int:
        self._data += data
        return len(data)

    @property
    def order(self) -> list[tuple[str, str]]:
        told, data = [], self._data
        while frame := take_frame(data):
            _, payload, data = frame
            told += told_by(json.loads(payload))
        return told


async def test_prices_that_wait_in_an_inbox_come_first(hub):
    """More trades than fit into a round are published before the status. Later ones follow it."""
    client = Recorder(hub, "AAPL", "MSFT")
    await trio.testing.wait_all_tasks_blocked()
    give_all(hub, "AAPL", INBOX_TRADES - 1)
    give_all(hub, "MSFT", 1)
    hub.set_status("stale", "feed_ended")
    assert hub.status.message.reason == "feed_ended"
    assert not hub.status.is_news
    give(hub, hub.topics["MSFT"], trade("MSFT", 500.0))
    await trio.testing.wait_all_tasks_blocked()
    before = client.order[: client.order.index(ENDED)]
    assert before.count(("quote", "AAPL")) == INBOX_TRADES - 1
    assert len(client.order) == INBOX_TRADES + 2
    assert hub.status.is_news


async def test_statuses_keep_their_order(hub):
    """A second status does not overtake the first, nor the prices between them."""
    client = Recorder(hub, "AAPL")
    await trio.testing.wait_all_tasks_blocked()
    give_all(hub, "AAPL", 20)
    hub.set_status("stale", "bus_lost")
    give_all(hub, "AAPL", 20)
    hub.set_status("live", "bus_back")
    hub.set_status("stale", "feed_ended")
    await trio.testing.wait_all_tasks_blocked()
    told = client.order
    assert told.index(("status", "bus_lost")) >= 20
    assert told[-2:] == [("status", "bus_back"), ENDED]
    assert len(told) == 43


async def test_feed_that_waits_for_room_loses_nothing_to_a_status(autojump_clock, hub):
    """The inbox closes while a trade waits for room in it. The trade goes into the next inbox."""
    client = Recorder(hub, "AAPL")
    topic = hub.topics["AAPL"]
    # The topic's task rests after the first price, so that its inbox fills.
    hub.set_conflation(3.0)
    give(hub, topic, trade("AAPL", 101.0))
    await trio.testing.wait_all_tasks_blocked()
    give_all(hub, "AAPL", INBOX_TRADES)
    send, receive = trio.open_memory_channel[Trade](2)
    for price in (501.0, 502.0):
        send.send_nowait(trade("AAPL", price))
    send.close()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_broadcaster, hub, receive, lossless=True))
        await trio.testing.wait_all_tasks_blocked()
        assert hub.stats.feed_waits == 1
        hub.set_status("stale", "feed_ended")
    assert topic.version == 1 + 1 + INBOX_TRADES + 2
    assert topic.quote.current_price == 502.0
    assert ENDED in client.order[-2:]


async def test_discarded_prices_are_gone_from_every_inbox(hub):
    """A leader that is deposed forgets also the prices that a status waits for."""
    client = Recorder(hub, "AAPL")
    await trio.testing.wait_all_tasks_blocked()
    give_all(hub, "AAPL", 50)
    hub.set_status("stale", "feed_ended")
    give_all(hub, "AAPL", 50)
    hub.discard_waiting()
    await trio.testing.wait_all_tasks_blocked()
    assert client.order in ([ENDED], [("quote", "AAPL"), ENDED])


async def test_full_quotes_that_are_due_come_first(hub, connect):
    """A follower's clients get the leader's state before they learn of the feed's end."""
    peer = connect("AAPL", "MSFT")
    await peer.read()
    hub.begin_epoch("7")
    hub.set_status("stale", "feed_ended")
    await peer.read()
    assert order(peer)[-1] == ENDED
    assert len(order(peer)) == 5


async def test_blocked_client_gets_what_it_is_owed_first(hub, connect):
    """A status that was pending before goes behind the prices that became pending meanwhile."""
    peer = connect("AAPL", "MSFT")
    while not peer.outbox.blocked:
        publish(hub, "AAPL", hub.topics["AAPL"].quote.current_price + 1)
        peer.outbox.flush()
    hub.set_status("stale", "bus_lost")
    publish(hub, "MSFT", 77.0)
    hub.set_status("live", "bus_back")
    publish(hub, "AAPL", 78.0)
    hub.set_status("stale", "feed_ended")
    await peer.read()
    assert order(peer)[-1] == ENDED
    assert order(peer).count(ENDED) == 1
    assert peer.document["quotes"] == peer.truth()


async def test_throttled_client_gets_what_is_held_first(autojump_clock, hub, connect):
    """The held prices and the status go out together, the status last."""
    peer = connect("AAPL", "MSFT")
    await peer.read()
    hub.throttle(peer.outbox, 5.0)
    hub.set_status("stale", "bus_lost")
    publish(hub, "MSFT", 77.0)
    publish(hub, "AAPL", 78.0)
    hub.set_status("stale", "feed_ended")
    await trio.sleep(6)
    await peer.read()
    assert order(peer)[-1] == ENDED
    assert order(peer).count(ENDED) == 1
    assert peer.document["quotes"] == peer.truth()


@pytest.mark.parametrize("throttled", [False, True])
async def test_market_s_status_comes_behind_what_is_owed(autojump_clock, hub, connect, throttled):
    """One was pending before. The next one goes behind the prices that became pending meanwhile."""
    peer = connect("AAPL", "MSFT")
    await peer.read()
    if throttled:
        hub.throttle(peer.outbox, 5.0)
    while not (throttled or peer.outbox.blocked):
        publish(hub, "MSFT", hub.topics["MSFT"].quote.current_price + 1)
        peer.outbox.flush()
    hub.announce("AAPL", "halted", "LUDP")
    publish(hub, "AAPL", 77.0)
    hub.announce("AAPL", "closed", "night")
    await trio.sleep(6)
    await peer.read()
    assert order(peer)[-2:] == [("quote", "AAPL"), ("status", "night")]


async def test_returning_throttled_client_gets_what_it_missed_first(hub, connect):
    """The updates that it missed are held for it, and the present status does not overtake them."""
    peer = connect("AAPL")
    await peer.read()
    hub.set_status("stale", "feed_ended")
    await peer.read()
    held = peer.position()
    publish(hub, "AAPL", 77.0)
    peer.messages.clear()
    peer.close()
    peer._connect(peer._kind)
    hub.throttle(peer.outbox, 60.0)
    topic = hub.topics["AAPL"]
    hub.subscribe(peer.outbox, topic)
    peer.topics = {topic}
    peer.outbox.send_updates(list(topic.missed_since(hub.epoch, held.versions["AAPL"]) or ()))
    peer.outbox.send_current(hub.status)
    await peer.read()
    assert order(peer)[-2:] == [("quote", "AAPL"), ENDED]
    assert peer.document["quotes"] == peer.truth()


async def test_symbol_with_prices_in_its_inbox_is_not_quiet(autojump_clock, nursery):
    """A price that has come but is not published yet keeps a symbol from being called quiet."""
    hub = Hub(instruments("AAPL", "MSFT"), quiet_after=QUIET)
    await nursery.start(hub.run)
    client = Recorder(hub, "AAPL", "MSFT")
    hub.set_conflation(3 * QUIET)
    for price in (101.0, 102.0):
        # The topic's task rests for three times QUIET after the first price.
        give(hub, hub.topics["AAPL"], trade("AAPL", price))
        await trio.sleep(1)
    for second in range(int(4.5 * QUIET)):
        publish(hub, "MSFT", 50.0 + second)
        await trio.sleep(1)
    quiet = client.order.index(("status", "quiet"))
    assert client.order[:quiet].count(("quote", "AAPL")) == 2
