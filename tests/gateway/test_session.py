"""A session on a pair of sockets, brought into states that a real network reaches now and then."""

import socket
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import h11
import jsonpatch
import msgspec
import pytest
import trio

from server.fanout.frame import pong_frame
from server.fanout.hub import Hub
from server.gateway.auth import Authenticator, Identity
from server.gateway.commands import execute
from server.gateway.gateway import Gateway
from server.gateway.handshake import PATH, Selection, accept_websocket, select
from server.gateway.pool import Pool
from server.gateway.request import parse_request
from server.gateway.session import Session
from server.quotes.instrument import Instrument, first_seen
from server.quotes.messages import Subscribe, Unsubscribe
from server.quotes.quote import Trade
from tests.frames import take_frame
from tests.gateway.wire import CONTINUATION, KEY, PING, PONG, TEXT, frame

SECRET = "a secret that nobody needs to know"

READ_CUSHION = 0.01
"""Seconds in which a session notices that its socket is writable again."""


class Peer:
    """The client's end: what it receives amounts to `quotes`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.document: dict[str, Any] = {"quotes": {}}

    async def read(self) -> dict[str, Any]:
        """Apply all that comes until nothing more does; the quotes."""
        received = b""
        await trio.testing.wait_all_tasks_blocked(READ_CUSHION)
        while data := self._receive():
            received += data
            await trio.testing.wait_all_tasks_blocked(READ_CUSHION)
        while frame := take_frame(received):
            _, payload, received = frame
            message = msgspec.json.decode(payload) if payload.startswith(b"{") else {}
            operations = message.get("operations", [])
            jsonpatch.apply_patch(self.document, operations, in_place=True)
        quotes: dict[str, Any] = self.document["quotes"]
        return quotes

    def _receive(self) -> bytes:
        try:
            return self._sock.recv(65536)
        except BlockingIOError:
            return b""


COMPLETE = cast("Any", SimpleNamespace(complete=True))
"""The directory of a hub that has all there is: nobody asks it for more."""


class Scene:
    """A session, its client, and the hub between them and the prices."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.sock, client = socket.socketpair()
        for end in (self.sock, client):
            end.setblocking(False)
        self.client = client
        self.peer = Peer(client)
        gateway = Gateway(
            hub=hub,
            pool=Pool(10, 10),
            authenticator=Authenticator(secret=SECRET),
            directory=COMPLETE,
            max_symbols=10,
            command_rate=50,
        )
        identity = Identity("ann", None, time.time() + 600)
        self.session = Session(gateway, self.sock, identity, b"")

    def begin(self, *names: str) -> None:
        """Open the session with these symbols."""
        self.session.begin(select(names, self.hub.topics) if names else Selection([], []))

    def fill_socket(self) -> None:
        """Write until the kernel takes no more; the client has stopped reading."""
        try:
            while True:
                self.sock.send(pong_frame(b"x" * 100))
        except BlockingIOError:
            pass

    def trade(self, symbol: str, price: float) -> None:
        """Move a quote; its update waits for the round's end."""
        now = time.time_ns() // 1000
        self.hub.topics[symbol].publish(Trade(symbol, price, 100, now, now), self.hub._flusher)


@pytest.fixture
async def scene(nursery: trio.Nursery) -> AsyncIterator[Scene]:
    """A scene with one instrument."""
    hub = Hub([Instrument(symbol="AAPL", name="Apple", base_price=100.0)])
    await nursery.start(hub.run)
    scene = Scene(hub)
    yield scene
    scene.session.end()
    scene.sock.close()
    scene.client.close()


async def test_unsubscribed_quote_does_not_come_back(scene):
    """A move that was queued when the client unsubscribed is not owed to it after the removal."""
    scene.begin("AAPL")
    scene.fill_socket()
    scene.trade("AAPL", 101.0)
    execute(scene.session, Unsubscribe(symbols=["AAPL"]))
    assert scene.session.outbox.blocked
    assert await scene.peer.read() == {}


async def test_quote_never_sent_is_not_removed(scene):
    """Of what was listed while the client did not read, nothing is removed that it has not got."""
    scene.begin("*")
    scene.fill_socket()
    scene.trade("AAPL", 101.0)
    scene.session.outbox.flush()
    scene.hub.list_instrument(first_seen("NEW", 5.0))
    assert scene.session.outbox.blocked
    async with trio.open_nursery() as nursery:
        unsubscribe = frame(TEXT, b'{"action":"unsubscribe","symbols":["*"]}')
        nursery.start_soon(scene.session._take, unsubscribe)
        await trio.testing.wait_all_tasks_blocked()
        assert await scene.peer.read() == {}


async def test_moves_owed_are_not_lost_on_the_way_to_everything(scene):
    """A move that found the socket full still comes when `*` takes the subscription's place."""
    scene.begin("AAPL")
    scene.fill_socket()
    scene.trade("AAPL", 101.0)
    execute(scene.session, Subscribe(symbols=["*"]))
    assert scene.session.outbox.blocked
    assert (await scene.peer.read())["AAPL"]["current_price"] == 101.0


async def test_slow_client_s_quotes_end_right(scene):
    """A client that did not read for a while gets the newest quote, and the moves after it."""
    scene.begin("AAPL")
    scene.fill_socket()
    for cents in range(50):
        scene.trade("AAPL", 101 + cents / 100)
    scene.session.outbox.flush()
    assert scene.session.outbox.blocked
    scene.trade("AAPL", 99.0)
    assert (await scene.peer.read())["AAPL"]["current_price"] == 99.0
    scene.trade("AAPL", 98.0)
    assert (await scene.peer.read())["AAPL"]["current_price"] == 98.0


async def test_empty_fragments_take_no_memory(scene):
    """Fragments without content do not add up to anything; the message can still be finished."""
    scene.begin()
    session = scene.session
    await session._take(frame(TEXT, b'{"action"', fin=False))
    await session._take(frame(CONTINUATION, b"", fin=False) * 50)
    assert len(session._message) == 1
    await session._take(frame(CONTINUATION, b':"ping"}'))
    await scene.peer.read()
    assert session.gateway.pool.commands["ping", "ok"] == 1


@pytest.mark.parametrize("kind", [frame(PING), frame(PONG), frame(CONTINUATION, fin=False)])
async def test_frames_of_any_kind_can_be_too_many(scene, kind):
    """Pings, pongs and fragments cost as much to read as commands and count as such."""
    scene.begin()
    await scene.session._take(frame(TEXT, b"{", fin=False))
    await scene.session._take(kind * 1000)
    assert scene.session.close_code == 1008


async def test_client_that_left_breaks_the_handshake_with_an_os_error(scene):
    """A peer that is gone before the upgrade's answer is an OSError, which is nobody's fault."""
    head = (
        f"GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
    connection = h11.Connection(h11.SERVER)
    request = parse_request(head.encode(), b"", connection)
    scene.client.close()
    with pytest.raises(OSError, match=r"pipe|reset"):
        await accept_websocket(scene.sock, connection, request)
