"""A session on a pair of sockets, its client's end, and the hub between them and the prices."""

import socket
import time
from collections.abc import Sequence
from typing import Any, cast

import jsonpatch
import msgspec
import trio

from server.fanout.frame import pong_frame
from server.fanout.hub import Hub
from server.gateway.auth import Authenticator, Identity
from server.gateway.commands import Commands
from server.gateway.gateway import Gateway
from server.gateway.handshake import Admission
from server.gateway.pool import Pool
from server.gateway.selection import Selection, select
from server.gateway.session import Session
from server.gateway.subscriptions import LookUp, Publish
from server.quotes.messages import AnyCommand
from server.quotes.update import Trade
from tests.frames import take_frame

SECRET = "a secret that nobody needs to know"

READ_CUSHION = 0.01
"""Seconds in which a session notices that its socket is writable again."""


class Peer:
    """The client's end: `quotes` are the result of all that it received."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.document: dict[str, Any] = {"quotes": {}}

    async def read(self) -> dict[str, Any]:
        """Apply all that has come, and return the quotes."""
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


class Complete:
    """The directory of a hub that has every symbol: it finds no more."""

    complete = True

    async def list_symbols(self, symbols: Sequence[str], payer: object = None) -> Sequence[str]:
        return ()

    async def list_everything(self) -> None:
        pass


COMPLETE = cast("Any", Complete())


class SessionHarness:
    """A session, its client, and the hub between them and the prices."""

    def __init__(self, hub: Hub, **options: Any) -> None:
        """Open a session; `options` are the gateway's."""
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
            **options,
        )
        self.gateway = gateway
        gateway.pool.enter()
        gateway.pool.reserve()
        gateway.pool.reserve_for("ann")
        identity = Identity("ann", None, time.time() + 600)
        self.session = Session(gateway.services, self.sock, identity)
        gateway.pool.add(self.session)

    def begin(self, *names: str) -> None:
        """Open the session with these symbols."""
        selection = select(names, self.hub.topics) if names else Selection([], [])
        self.session.begin(Admission(self.session.identity, selection))

    async def run(self) -> None:
        """Serve the session to its end, as the gateway does."""
        await self.gateway._serve_session(self.session)
        await self.gateway.pool.wait_empty()

    def execute(self, command: AnyCommand) -> None:
        """Carry out a command, as if the client had sent it."""
        context = self.gateway.services.context
        for reply in Commands(context, "ann", self.session.subscriptions).execute(command):
            assert not isinstance(reply, LookUp | Publish)
            self.session.carry_out(reply)

    def fill_socket(self) -> None:
        """Write until the kernel takes no more, as if the client had stopped reading."""
        try:
            while True:
                self.sock.send(pong_frame(b"x" * 100))
        except BlockingIOError:
            pass

    def trade(self, symbol: str, price: float) -> None:
        """Move a quote. Its update waits for the end of the round."""
        now = time.time_ns() // 1000
        self.hub.topics[symbol].publish(Trade(symbol, price, 100, now, now))

    def end(self) -> None:
        """End the connection, as its task does."""
        self.session.end()
        if self.sock.fileno() != -1:
            trio.lowlevel.notify_closing(self.sock)
        self.sock.close()
        self.client.close()
