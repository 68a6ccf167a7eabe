"""One connection whose client reads fast, slowly, not at all, or is gone."""

import socket

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from server.fanout.backlog import DRAIN_BYTES
from server.fanout.frame import close_frame, pong_frame
from server.fanout.hub import ONE_MESSAGE, Hub
from server.quotes.snapshot import opening_snapshot
from tests.fanout.peer import CUSHION, Peer, instruments, publish

SYMBOLS = ["AAPL", "MSFT", "BRK.B"]


def fill(peer: Peer) -> int:
    """Publish moves of AAPL until the socket is full; return the number it took."""
    for count in range(1, 10_000):
        publish(peer.hub, "AAPL", 100 + count / 100)
        peer.outbox.flush()
        if peer.outbox.blocked:
            return count
    raise AssertionError("the socket is never full")


async def test_frames_of_a_round_leave_in_one_write(hub, connect):
    """On a socket that keeps writes apart, all frames of a round are one packet."""
    peer = connect("AAPL", "MSFT", kind=socket.SOCK_SEQPACKET)
    await peer.read()
    peer.messages.clear()
    for symbol, price in (("AAPL", 101), ("MSFT", 102), ("AAPL", 103)):
        publish(hub, symbol, price)
    await trio.testing.wait_all_tasks_blocked(CUSHION)
    peer.receive()
    assert [list(message["versions"]) for message in peer.messages] == [
        ["AAPL"],
        ["MSFT"],
        ["AAPL"],
    ]
    assert peer.receive() == 0


async def test_full_socket_gets_symbols_not_frames(hub, connect):
    """A client that does not read a thousand moves then gets each symbol's newest quote once."""
    peer = connect(*SYMBOLS)
    taken = fill(peer)
    for count in range(1000):
        for symbol in SYMBOLS:
            publish(hub, symbol, 50 + count / 100)
    assert hub.stats.conflated >= 3000
    await peer.read()
    assert len(peer.messages) <= 1 + taken + len(SYMBOLS)
    assert [message["operations"][0]["op"] for message in peer.messages[-3:]] == ["add"] * 3
    assert peer.document["quotes"] == peer.truth()
    publish(hub, "MSFT", 77.0)
    await peer.read()
    assert peer.messages[-1]["operations"][0]["op"] == "replace"
    assert peer.document["quotes"] == peer.truth()


async def test_one_slow_client_slows_nobody(hub, connect):
    """Another client of the same symbol gets every version while one does not read."""
    slow, quick = connect("AAPL"), connect("AAPL")
    fill(slow)
    for count in range(200):
        publish(hub, "AAPL", 60 + count / 100)
        await quick.read()
    assert quick.versions["AAPL"] == hub.topics["AAPL"].version
    assert slow.outbox.blocked
    assert not slow.messages


async def test_answers_are_kept_in_order_when_the_socket_is_full(connect):
    """Answers wait for the socket, and come whole and in order."""
    peer = connect("AAPL")
    fill(peer)
    for number in range(100):
        peer.outbox.send(pong_frame(b"%d" % number))
    await peer.read()
    assert [payload for _, payload in peer.control] == [b"%d" % number for number in range(100)]


async def test_close_frame_is_the_last(hub, connect):
    """Nothing comes after the close frame, whether the socket is full or not."""
    for blocked in (False, True):
        peer = connect("AAPL")
        if blocked:
            fill(peer)
        publish(hub, "AAPL", 42.0)
        peer.outbox.close(close_frame(1001, "bye"))
        peer.outbox.send(pong_frame(b"late"))
        publish(hub, "AAPL", 43.0)
        await peer.read()
        assert peer.control == [(0x88, b"\x03\xe9bye")]


async def test_vanished_client_leaves_no_task(hub, connect):
    """A client that goes while its socket is full, or before a write, is forgotten."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    for blocked in (False, True):
        peer = connect()
        hub.subscribe(peer.outbox, hub.topics["AAPL"])
        if blocked:
            fill(peer)
        peer.vanish()
        publish(hub, "AAPL", 42.0 + blocked)
        await trio.testing.wait_all_tasks_blocked(CUSHION)
        assert not peer.outbox.blocked
        assert peer.outbox.queue is None
        await peer.outbox.wait_drained()
    # The one that is left is AAPL's topic.
    assert trio.lowlevel.current_statistics().tasks_living == tasks + 1


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("trade"), st.sampled_from(SYMBOLS), st.integers(100, 20_000)),
        st.tuples(st.just("read"), st.integers(1, 3000), st.none()),
        st.tuples(st.just("turn"), st.sampled_from(SYMBOLS), st.none()),
        st.tuples(st.just("rest"), st.none(), st.none()),
    ),
    max_size=60,
)


@settings(max_examples=150)
@given(STEPS)
def test_any_reader_s_document_ends_right(steps):
    """Trades, partial reads and changes of subscription come in any order. No `replace` skips a
    version, no missing quote is removed, and the document ends as the server's.
    """
    trio.run(play, steps)


async def play(steps):
    hub = Hub(instruments(*SYMBOLS))
    async with trio.open_nursery() as nursery:
        await nursery.start(hub.run)
        peer = Peer(hub)
        peer.subscribe("AAPL")
        for kind, subject, cents in steps:
            if kind == "trade":
                # As many fill the socket after a few steps.
                for extra in range(4):
                    publish(hub, subject, (cents + extra) / 100)
            elif kind == "read":
                peer.receive(subject)
            elif kind == "rest":
                await trio.testing.wait_all_tasks_blocked()
            else:
                await turn(peer, subject)
        await peer.read()
        assert peer.document["quotes"] == peer.truth()
        assert {symbol: peer.versions[symbol] for symbol in peer.truth()} == {
            topic.symbol: topic.version for topic in peer.topics
        }
        peer.close()
        nursery.cancel_scope.cancel()


async def turn(peer: Peer, symbol: str) -> None:
    """Change a subscription. As a session does, wait first until the outbox has drained."""
    while peer.outbox.blocked:
        await peer.read()
    if peer.hub.topics[symbol] in peer.topics:
        peer.unsubscribe(symbol)
    else:
        peer.subscribe(symbol)


@pytest.mark.parametrize("interval", [0.0, 60.0])
async def test_very_many_quotes_are_not_kept_for_one_client(hub, connect, interval):
    """A client that asks for a large catalogue and does not read gets the quotes as they are when
    it reads. Until then only their symbols are kept.
    """
    symbols = [f"S{number}" for number in range(2 * ONE_MESSAGE)]
    hub.list_snapshots([opening_snapshot(each) for each in instruments(*symbols)])
    peer = connect()
    hub.throttle(peer.outbox, interval)
    hub.subscribe_everything(peer.outbox)
    hub.send_quotes(peer.outbox, list(hub.topics.values()))
    assert peer.outbox.blocked
    assert sum(map(len, peer.outbox._backlog.unsent)) < 2 * DRAIN_BYTES
    publish(hub, symbols[-1], 101.0)
    await peer.read()
    assert set(peer.document["quotes"]) == set(hub.topics)
    assert peer.document["quotes"][symbols[-1]]["current_price"] == 101.0
    assert not peer.outbox.blocked


VERBS = {
    "send": lambda hub, outbox, topic: outbox.send(pong_frame(b"")),
    "update": lambda hub, outbox, topic: publish(hub, topic.symbol, 101.0),
    "flush": lambda hub, outbox, topic: outbox.flush(),
    "quotes": lambda hub, outbox, topic: hub.send_quotes(outbox, list(hub.topics.values())),
    "many": lambda hub, outbox, topic: outbox.send_many(list(hub.topics.values())),
    "throttle": lambda hub, outbox, topic: hub.throttle(outbox, 1.0),
    "unthrottle": lambda hub, outbox, topic: hub.throttle(outbox, 0.0),
    "release": lambda hub, outbox, topic: outbox.release(),
    "backlog": lambda hub, outbox, topic: outbox.write_backlog(),
    "unsubscribe": lambda hub, outbox, topic: hub.unsubscribe(outbox, topic),
    "close": lambda hub, outbox, topic: outbox.close(close_frame(1001, "")),
    "abandon": lambda hub, outbox, topic: outbox.abandon(),
}


@pytest.mark.parametrize("before", ["open", "throttled", "blocked"])
@pytest.mark.parametrize("first", VERBS)
@pytest.mark.parametrize("second", VERBS)
async def test_nothing_raises_after_the_client_reset_the_connection(
    hub, connect, before, first, second
):
    """Whatever the server does next with a connection that is gone, only that connection ends."""
    peer = connect(*SYMBOLS)
    if before == "throttled":
        hub.throttle(peer.outbox, 60.0)
    elif before == "blocked":
        fill(peer)
    peer.vanish()
    for verb in (first, second, "close"):
        VERBS[verb](hub, peer.outbox, hub.topics["AAPL"])
    await trio.testing.wait_all_tasks_blocked()
