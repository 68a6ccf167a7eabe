"""The opening handshake: whether a request is let in, and trio-websocket's answer to it.

trio-websocket does the handshake and is then let go: kept for a connection's life it costs 20 KB
and two tasks (docs/performance.md). It never sees the socket: it is given a request with nothing in
it but the client's key, so that no other header can confuse it, and what it answers is sent on.
"""

import socket
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

import trio
from trio_websocket import wrap_server_stream

from server.fanout.topic import Topic
from server.gateway.auth import Authenticator, BadToken, Identity
from server.gateway.directory import Directory
from server.gateway.pool import Pool
from server.gateway.refusals import Refusal, Refused
from server.gateway.request import Request, require_websocket
from server.gateway.sockets import send_all
from server.quotes.instrument import normalize_symbol
from server.store.catalogue import StoreUnavailable

PATH = "/ws/quotes"

EVERYTHING = "*"
"""Stands for all symbols, also those added later."""


STORE_UNAVAILABLE = "the catalogue cannot be asked at the moment, try again"


class Selection(NamedTuple):
    """Names resolved to topics; each topic once, in the order of the names.

    `unavailable` may exist or not: the store could not say.
    """

    topics: list[Topic]
    unknown: list[str]
    everything: bool = False
    unavailable: Sequence[str] = ()

    def without(self, unavailable: Sequence[str]) -> "Selection":
        """Of the unknown ones, those in `unavailable` are not known to be unknown."""
        unknown = [symbol for symbol in self.unknown if symbol not in unavailable]
        return self._replace(unknown=unknown, unavailable=unavailable)


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
    directory: Directory
    max_symbols: int
    allowed_origins: Sequence[str]

    async def admit(self, request: Request, undo: ExitStack) -> Admission:
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
        return Admission(identity, await self._select(request))

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

    async def _select(self, request: Request) -> Selection:
        given = request.query.get("symbols")
        if given is None:
            return Selection([], [])
        names = ",".join(given).split(",")
        selection = select(names, self.topics)
        try:
            if selection.everything:
                await self.directory.list_everything()
            elif selection.unknown:
                unavailable = await self.directory.list_symbols(selection.unknown)
                selection = select(names, self.topics).without(unavailable)
        except StoreUnavailable as error:
            raise Refusal(Refused.STORE_UNAVAILABLE, STORE_UNAVAILABLE) from error
        if selection.unavailable and not selection.topics:
            raise Refusal(Refused.STORE_UNAVAILABLE, STORE_UNAVAILABLE)
        if not selection.topics and not selection.everything:
            raise Refusal(Refused.NO_VALID_SYMBOLS, "none of the symbols exists")
        if len(selection.topics) > self.max_symbols:
            raise Refusal(Refused.TOO_MANY_SYMBOLS, f"at most {self.max_symbols} symbols")
        return selection


async def accept_websocket(sock: socket.socket, request: Request) -> None:
    """Answer with 101 a request that `require_websocket` let pass. Errors: OSError."""
    stream = _HandshakeStream(request.headers["sec-websocket-key"])
    async with trio.open_nursery() as nursery:
        websocket_request = await wrap_server_stream(nursery, stream)
        await websocket_request.accept()
        nursery.cancel_scope.cancel()
    await send_all(sock, stream.response)


class _HandshakeStream(trio.abc.Stream):
    """Gives a handshake's request, keeps the response, and is silent from then on."""

    def __init__(self, key: str) -> None:
        self._request = (
            f"GET {PATH} HTTP/1.1\r\nHost: server\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        ).encode("ascii")
        self.response = b""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        if not self._request:
            await trio.sleep_forever()
        part = self._request[:max_bytes]
        self._request = self._request[len(part) :]
        return part

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.response += data

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
