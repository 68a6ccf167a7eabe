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
from server.gateway.ghosts import Ghosts
from server.gateway.limits import TokenBucket
from server.gateway.pool import Pool
from server.gateway.refusals import Refusal, Refused
from server.gateway.request import Request, require_websocket
from server.gateway.sockets import send_all
from server.quotes.duration import parse_duration
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
    """Who was let in and what they asked for; `interval` in seconds if updates are to be conflated."""

    identity: Identity
    selection: Selection
    interval: float | None


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
    handshakes: TokenBucket
    ghosts: Ghosts
    topics: dict[str, Topic]
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
        if not self.handshakes.take():
            raise Refusal(Refused.AT_CAPACITY, "connections come too fast")
        identity = self._identify(request)
        if self.pool.is_full_for(identity.user):
            await self.ghosts.evict(identity.user)
        self.pool.reserve_for(identity.user)
        undo.callback(self.pool.release_for, identity.user)
        return Admission(identity, self._select(request), _interval(request))

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


def _interval(request: Request) -> float | None:
    given = request.query.get("interval")
    try:
        return parse_duration(given[-1]) if given else None
    except ValueError as error:
        raise Refusal(Refused.BAD_REQUEST, f"interval: {error}") from None


async def accept_websocket(
    sock: socket.socket, request: Request, extension: str | None = None
) -> None:
    """Answer with 101 a request that `require_websocket` let pass; `extension`: what is negotiated.

    Errors: OSError.
    """
    stream = _HandshakeStream(request.headers["sec-websocket-key"])
    async with trio.open_nursery() as nursery:
        websocket_request = await wrap_server_stream(nursery, stream)
        headers = [(b"Sec-WebSocket-Extensions", extension.encode())] if extension else None
        await websocket_request.accept(extra_headers=headers)
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
