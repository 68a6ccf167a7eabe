"""The opening handshake: whether a request is let in, and trio-websocket's answer to it.

trio-websocket does the handshake and is then let go: kept for a connection's life it costs 20 KB
and two tasks (docs/performance.md). It talks to a small stream that gives it the request's head,
passes its one response on, and stays silent. A client may not send frames before that response,
so nothing is lost.
"""

import socket
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

import trio
from trio_websocket import wrap_server_stream

from server.fanout.topic import Topic
from server.gateway.auth import Authenticator, BadToken, Identity
from server.gateway.pool import Pool
from server.gateway.refusals import Refusal, Refused
from server.gateway.request import Request, require_websocket
from server.gateway.sockets import send_all
from server.quotes.instrument import normalize_symbol

PATH = "/ws/quotes"

EVERYTHING = "*"
"""Stands for all symbols, also those added later."""


class Selection(NamedTuple):
    """Names resolved to topics; each topic once, in the order of the names."""

    topics: list[Topic]
    unknown: list[str]
    everything: bool = False


class Admission(NamedTuple):
    """Who was let in and what they asked for."""

    identity: Identity
    selection: Selection


def select(names: Sequence[str], topics: dict[str, Topic]) -> Selection:
    """Resolve symbols as clients write them; any EVERYTHING stands for all of them."""
    symbols = dict.fromkeys(symbol for name in names if (symbol := normalize_symbol(name)))
    if EVERYTHING in symbols:
        return Selection([], [], everything=True)
    known = [topics[symbol] for symbol in symbols if symbol in topics]
    return Selection(known, [symbol for symbol in symbols if symbol not in topics])


class Doorkeeper(NamedTuple):
    """What decides whether a request becomes a connection."""

    authenticator: Authenticator
    pool: Pool
    topics: dict[str, Topic]
    max_symbols: int
    allowed_origins: Sequence[str]

    def admit(self, request: Request, undo: ExitStack) -> Admission:
        """Decide in the protocol's order; places taken on the way are given back by `undo`.

        Errors: Refusal.
        """
        if request.path != PATH:
            raise Refusal(Refused.NOT_FOUND, f"nothing here but {PATH}")
        require_websocket(request)
        self._check_origin(request.headers.get("origin"))
        self.pool.reserve()
        undo.callback(self.pool.release)
        identity = self._identify(request)
        self.pool.reserve_for(identity.user)
        undo.callback(self.pool.release_for, identity.user)
        return Admission(identity, self._select(request))

    def _check_origin(self, origin: str | None) -> None:
        if origin is not None and self.allowed_origins and origin not in self.allowed_origins:
            raise Refusal(Refused.ORIGIN_NOT_ALLOWED, "this origin may not connect")

    def _identify(self, request: Request) -> Identity:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            token = request.query.get("token", [""])[-1]
        if not token:
            raise Refusal(Refused.UNAUTHORIZED, "a token is required")
        try:
            return self.authenticator.verify(token.strip())
        except BadToken as error:
            raise Refusal(Refused.UNAUTHORIZED, str(error)) from None

    def _select(self, request: Request) -> Selection:
        given = request.query.get("symbols")
        if given is None:
            return Selection([], [])
        selection = select(",".join(given).split(","), self.topics)
        if not selection.topics and not selection.everything:
            raise Refusal(Refused.NO_VALID_SYMBOLS, "none of the symbols exists")
        if len(selection.topics) > self.max_symbols:
            raise Refusal(Refused.TOO_MANY_SYMBOLS, f"at most {self.max_symbols} symbols")
        return selection


async def accept_websocket(sock: socket.socket, head: bytes) -> None:
    """Answer the request with 101. Errors: OSError, trio_websocket.HandshakeError."""
    async with trio.open_nursery() as nursery:
        request = await wrap_server_stream(nursery, _HandshakeStream(sock, head))
        await request.accept()
        nursery.cancel_scope.cancel()


class _HandshakeStream(trio.abc.Stream):
    """Gives the head that was already read, passes the response on, then nothing more."""

    def __init__(self, sock: socket.socket, head: bytes) -> None:
        self._sock = sock
        self._head = head

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if not self._head:
            await trio.sleep_forever()
        part = self._head[:max_bytes]
        self._head = self._head[len(part) :]
        return part

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await send_all(self._sock, bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
