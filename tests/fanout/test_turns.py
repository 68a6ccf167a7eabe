"""How much is done before others have their turn, and what throttled clients get when."""

import socket
from itertools import pairwise

import pytest
import trio

from server.fanout import throttle
from server.fanout.blocked_writers import _unsent
from server.fanout.broadcaster import give, run_broadcaster
from server.fanout.inbox import Inbox
from server.fanout.topic_task import ROUND_TRADES
from server.quotes.update import Trade
from tests.fanout.peer import Peer, publish, trade


async def test_round_ends_after_sixteen_trades(hub, connect):
    """Then it is flushed: that much a fast client's socket takes at once."""
    connect("AAPL")
    await trio.testing.wait_all_tasks_blocked()
    topic = hub.topics["AAPL"]
    for number in range(5 * ROUND_TRADES):
        assert give(hub, topic, trade("AAPL", 100 + number / 100)) is None
    versions = [topic.version]
    for _ in range(50):
        await trio.lowlevel.checkpoint()
        versions.append(topic.version)
    steps = {later - version for version, later in pairwise(versions)}
    assert steps == {0, ROUND_TRADES}
    assert versions[-1] == versions[0] + 5 * ROUND_TRADES


async def test_task_begins_when_the_one_before_it_has_ended(autojump_clock, hub, connect, nursery):
    """Trades of the task before it come first."""
    connect("AAPL")
    hub.set_conflation(1.0)
    topic = hub.topics["AAPL"]
    for price in (101.0, 102.0):
        give(hub, topic, trade("AAPL", price))
        await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(hub.topic_tasks.finish)
    await trio.testing.wait_all_tasks_blocked()
    give(hub, topic, trade("AAPL", 103.0))
    await trio.testing.wait_all_tasks_blocked()
    assert topic.quote.current_price == 101.0
    await trio.sleep(5)
    assert topic.quote.current_price == 103.0
    assert topic.version == 4


async def test_waits_of_the_feed_are_counted(hub, connect, monkeypatch):
    """Each trade that met a full inbox, and every trade that came in."""
    waited = []
    put = Inbox.put

    async def note(inbox, update):
        waited.append(update)
        await put(inbox, update)

    monkeypatch.setattr(Inbox, "put", note)
    connect("AAPL")
    send, receive = trio.open_memory_channel[Trade](1000)
    for number in range(600):
        send.send_nowait(trade("AAPL", 100 + number / 100))
    send.close()
    with trio.fail_after(10):
        await run_broadcaster(hub, receive, lossless=True)
    assert hub.stats.feed_updates == 600
    assert len(waited) > 1
    assert hub.stats.feed_waits == len(waited)
    assert hub.topics["AAPL"].version == 601


async def test_all_throttled_clients_are_released(autojump_clock, hub, monkeypatch):
    """However many they are, each gets one quote when its interval is over."""
    monkeypatch.setattr(throttle, "CHECKPOINT_EVERY", 4)
    peers = [Peer(hub) for _ in range(10)]
    for peer in peers:
        peer.subscribe("AAPL")
        peer.receive()
        assert hub.throttle(peer.outbox, 0.7) == 1.0
    for number in range(1, 41):
        publish(hub, "AAPL", 100 + number / 100)
        await trio.sleep(0.1)
    for peer in peers:
        while peer.receive():
            pass
        assert 4 <= len(peer.messages) <= 6
        assert peer.versions["AAPL"] > 30
        peer.close()


async def test_longer_interval_takes_the_place_of_a_shorter(autojump_clock, hub, connect):
    """The old timer releases it no more; without a throttle every update comes."""
    peer = connect("AAPL")
    hub.throttle(peer.outbox, 0.25)
    hub.throttle(peer.outbox, 30)
    await peer.read()
    received = len(peer.messages)
    for number in range(10):
        publish(hub, "AAPL", 101 + number)
        await trio.sleep(0.3)
        await peer.read()
    assert len(peer.messages) <= received + 1
    assert hub.throttle(peer.outbox, 0) == 0
    received = len(peer.messages)
    for number in range(5):
        publish(hub, "AAPL", 201 + number)
        await peer.read()
    assert len(peer.messages) >= received + 5
    assert peer.document["quotes"] == peer.truth()


def test_bytes_that_the_client_has_not_taken_are_counted():
    """Of a socket that is closed there are none to ask for."""
    sock, client = socket.socketpair()
    with sock, client:
        assert _unsent(sock) == 0
        sock.send(b"x" * 1000)
        assert 1000 <= _unsent(sock) < 100_000
        client.recv(1000)
        assert _unsent(sock) == 0
    with pytest.raises(trio.ClosedResourceError):
        _unsent(sock)


async def test_each_interval_is_kept(autojump_clock, hub, connect):
    """From the shortest to longer ones, a client gets one quote in each, however often prices move."""
    intervals = (0.25, 0.5, 1.0, 2.0)
    peers = {interval: connect("AAPL") for interval in intervals}
    for interval, peer in peers.items():
        assert hub.throttle(peer.outbox, interval) == interval
        await peer.read()
        peer.messages.clear()
    for number in range(160):
        await trio.sleep(0.05)
        publish(hub, "AAPL", 100 + number / 100)
        for peer in peers.values():
            peer.receive()
    for interval, peer in peers.items():
        assert abs(len(peer.messages) - 8 / interval) <= 1
