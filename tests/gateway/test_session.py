"""A session on a pair of sockets, brought into states that a real network reaches now and then."""

import tracemalloc
from collections.abc import AsyncIterator

import h11
import pytest
import trio

from server.fanout.frame import close_frame
from server.fanout.hub import Hub
from server.gateway.closing import Close
from server.gateway.handshake import PATH, accept_websocket
from server.gateway.request import parse_head, read_request
from server.quotes.instrument import Instrument, first_seen
from server.quotes.messages import Subscribe, Unsubscribe
from server.quotes.snapshot import opening_snapshot
from tests.gateway.harness import READ_CUSHION, SessionHarness
from tests.gateway.wire import CONTINUATION, KEY, PING, PONG, TEXT, close, frame
from tests.processes import TIMEOUT


@pytest.fixture
async def harness(nursery: trio.Nursery) -> AsyncIterator[SessionHarness]:
    """A harness with one instrument."""
    hub = Hub([Instrument(symbol="AAPL", name="Apple", base_price=100.0)])
    await nursery.start(hub.run)
    harness = SessionHarness(hub)
    nursery.start_soon(harness.gateway.services.poller.run)
    yield harness
    harness.end()


async def test_unsubscribed_quote_does_not_come_back(harness):
    """A move that was queued when the client unsubscribed does not come after the removal."""
    harness.begin("AAPL")
    harness.fill_socket()
    harness.trade("AAPL", 101.0)
    harness.execute(Unsubscribe(symbols=["AAPL"]))
    assert harness.session.outbox.blocked
    assert await harness.peer.read() == {}


@pytest.mark.parametrize("name", ["AAPL", "*"])
async def test_unsubscribed_quote_is_not_released(harness, name):
    """A move that a throttle held back when the client unsubscribed does not come later."""
    harness.begin(name)
    harness.hub.throttle(harness.session.outbox, 1.0)
    harness.trade("AAPL", 101.0)
    harness.session.outbox.flush()
    harness.execute(Unsubscribe(symbols=[name]))
    harness.session.outbox.release()
    assert await harness.peer.read() == {}


async def test_quote_never_sent_is_not_removed(harness):
    """A symbol that was listed while the client did not read is not removed before it was added."""
    harness.begin("*")
    harness.fill_socket()
    harness.trade("AAPL", 101.0)
    harness.session.outbox.flush()
    harness.hub.list_instrument(first_seen("NEW", 5.0))
    assert harness.session.outbox.blocked
    async with trio.open_nursery() as nursery:
        unsubscribe = frame(TEXT, b'{"action":"unsubscribe","symbols":["*"]}')
        nursery.start_soon(harness.session._take, unsubscribe)
        await trio.testing.wait_all_tasks_blocked()
        assert await harness.peer.read() == {}


async def test_removal_of_everything_fits_the_throttled(harness):
    """A client with a pending new symbol can apply the removal that unsubscribing from `*` brings."""
    harness.begin("*")
    harness.hub.throttle(harness.session.outbox, 60.0)
    await harness.peer.read()
    harness.hub.list_instrument(first_seen("NEW", 5.0))
    await trio.testing.wait_all_tasks_blocked()
    harness.execute(Unsubscribe(symbols=["*"]))
    harness.session.outbox.release()
    assert await harness.peer.read() == {}


async def test_removal_of_everything_fits_a_full_socket(harness):
    """A client whose socket is found full when it unsubscribes can apply it as well."""
    harness.begin("*")
    harness.fill_socket()
    harness.hub.list_instrument(first_seen("NEW", 5.0))
    harness.execute(Unsubscribe(symbols=["*"]))
    assert harness.session.outbox.blocked
    assert await harness.peer.read() == {}


async def test_removal_of_everything_fits_while_many_are_listed(harness):
    """A client that unsubscribes while quotes of new symbols are on their way can, too."""
    harness.begin("*")
    await harness.peer.read()
    harness.hub.list_snapshots([opening_snapshot(first_seen("NEW", 5.0))])
    harness.execute(Unsubscribe(symbols=["*"]))
    assert await harness.peer.read() == {}


async def test_close_of_a_slow_client_is_echoed(harness, nursery):
    """A client that closes while its socket is full gets the answer behind what it had not read."""
    harness.begin("AAPL")
    harness.fill_socket()
    harness.trade("AAPL", 101.0)
    harness.session.outbox.flush()
    nursery.start_soon(harness.run)
    harness.client.send(close(1000))
    await trio.testing.wait_all_tasks_blocked()
    with trio.fail_after(TIMEOUT):
        received = b""
        while close_frame(1000) not in received:
            await trio.lowlevel.wait_readable(harness.client)
            received = received[-10:] + harness.client.recv(65536)


async def test_client_dropped_while_it_waits_is_let_go(harness):
    """A client that sent something, does not read, and is dropped, ends as any other."""
    harness.begin("AAPL")
    harness.fill_socket()
    harness.trade("AAPL", 101.0)
    harness.session.outbox.flush()
    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(harness.run)
            harness.client.send(frame(PING))
            await trio.testing.wait_all_tasks_blocked(READ_CUSHION)
            harness.session.drop(Close.NO_ANSWER)


async def test_garbage_after_the_close_takes_no_memory(harness, nursery):
    """Garbage from a client that was told to go is discarded."""
    harness.begin()
    harness.session.close(Close.GOING_AWAY)
    tracemalloc.start()
    for _ in range(1000):
        await harness.session._take(b"\xff" * 4096)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 100_000


async def test_moves_owed_are_not_lost_on_the_way_to_everything(harness):
    """A move that found the socket full still comes when `*` replaces the subscription."""
    harness.begin("AAPL")
    harness.fill_socket()
    harness.trade("AAPL", 101.0)
    harness.execute(Subscribe(symbols=["*"]))
    assert harness.session.outbox.blocked
    assert (await harness.peer.read())["AAPL"]["current_price"] == 101.0


async def test_slow_client_s_quotes_end_right(harness):
    """A client that did not read for a while gets the newest quote, and the moves after it."""
    harness.begin("AAPL")
    harness.fill_socket()
    for cents in range(50):
        harness.trade("AAPL", 101 + cents / 100)
    harness.session.outbox.flush()
    assert harness.session.outbox.blocked
    harness.trade("AAPL", 99.0)
    assert (await harness.peer.read())["AAPL"]["current_price"] == 99.0
    harness.trade("AAPL", 98.0)
    assert (await harness.peer.read())["AAPL"]["current_price"] == 98.0


async def test_empty_fragments_take_no_memory(harness):
    """Empty fragments take no memory, and the message can still be finished."""
    harness.begin()
    session = harness.session
    await session._take(frame(TEXT, b'{"action"', fin=False))
    await session._take(frame(CONTINUATION, b"", fin=False) * 50)
    assert session._protocol._message == b'{"action"'
    await session._take(frame(CONTINUATION, b':"ping"}'))
    await harness.peer.read()
    assert harness.gateway.pool.commands["ping", "ok"] == 1


async def test_command_in_tiny_pieces_is_one_command(harness):
    """A frame counts once, in any number of pieces."""
    harness.begin()
    session = harness.session
    symbols = ",".join(f'"S{number:03}"' for number in range(160))
    for byte in frame(TEXT, f'{{"action":"subscribe","symbols":["AAPL",{symbols}]}}'.encode()):
        await session._take(bytes([byte]))
    assert not session.closing
    assert set(await harness.peer.read()) == {"AAPL"}
    assert harness.gateway.pool.commands["subscribe", "ok"] == 1


@pytest.mark.parametrize("kind", [frame(PING), frame(PONG), frame(CONTINUATION, fin=False)])
async def test_frames_of_any_kind_can_be_too_many(harness, kind):
    """Pings, pongs and fragments count as commands, as they cost as much to read."""
    harness.begin()
    await harness.session._take(frame(TEXT, b"{", fin=False))
    await harness.session._take(kind * 1000)
    assert harness.session.close_code == 1008


async def test_client_that_left_breaks_the_handshake_with_an_os_error(harness):
    """If the peer is gone before the answer to the upgrade, that is an OSError."""
    head = (
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
    connection = h11.Connection(h11.SERVER)
    request = read_request(parse_head(head.encode(), connection), b"")
    harness.client.close()
    with pytest.raises(OSError, match=r"pipe|reset"):
        await accept_websocket(harness.sock, connection, request)
