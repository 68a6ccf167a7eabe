"""A stream of quotes that reconnects after a server's restart."""

import json
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn
from urllib.parse import quote, urlsplit

import h11
import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from server.client.document import Document

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
"""Seconds: the wait before a reconnection is random, below a limit that doubles up to the longest."""

CONNECT_TIMEOUT = 10.0
"""Seconds for the TCP connection, and again for the handshake."""

PING_INTERVAL, PING_TIMEOUT = 20.0, 10.0
"""Seconds between two pings, and for the answer. Without pings, a pulled cable goes unnoticed."""

TRY_AGAIN = {429, 503}
"""Statuses of temporary refusals. All others concern the request itself."""

TOKEN_EXPIRED = 4401
"""The close code for an expired token."""


class StreamRefused(Exception):
    """The server refuses this request for good. The message gives the reason."""


Listener = Callable[[Document, dict[str, Any]], None]


class Credential:
    """A token that no `repr`, traceback or log line shows."""

    __slots__ = ("_token",)

    def __init__(self, token: str) -> None:
        """Errors: ValueError if a header cannot hold the token. The message leaves it out."""
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise ValueError("a token is ASCII characters without spaces")
        self._token = token

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the request's `Authorization` header, or nothing without a token."""
        return [(b"Authorization", f"Bearer {self._token}".encode())] if self._token else []


async def follow(url: str, token: str, symbols: Sequence[str], listener: Listener) -> NoReturn:
    """Keep a document of `symbols` and call `listener(document, message)` after each message.

    After a lost connection, the client resumes from its position. It first waits as long as the server
    asks, or a random time (exponential backoff, full jitter). If a connection is lost or cannot be
    made, the listener gets a message of type `connection`. A redirection is a refusal, because the
    client sends the token to this address only.

    Errors: StreamRefused; ValueError for a token that cannot be sent.
    """
    credential = Credential(token)
    # A traceback with local variables would show the token in this frame.
    del token
    target = f"{url}?symbols={quote(','.join(symbols), safe=',*')}"
    document = Document()
    attempt = 0
    while True:
        wait: float | None = None
        problem = "the connection ended"
        try:
            async with await _open_stream(target) as stream:
                wait = await _follow_once(
                    stream, _resuming(target, document), credential, document, listener
                )
            attempt = 0
        except ConnectionRejected as rejection:
            if rejection.status_code not in TRY_AGAIN:
                raise StreamRefused(_message(rejection)) from None
            wait, problem = _retry_after(rejection), _message(rejection)
        # An OSError would come from the listener, as the network's errors are mapped below.
        except (HandshakeError, trio.BrokenResourceError) as error:
            problem = str(error.__cause__ or error) or problem
        except h11.ProtocolError:
            problem = "the server does not speak HTTP"
        except trio.TooSlowError:
            problem = "the server does not answer"
        if wait is None:
            wait = random.uniform(0, min(LONGEST_DELAY, FIRST_DELAY * 2**attempt))
            attempt = min(attempt + 1, 16)
        listener(document, {"type": "connection", "problem": problem, "retry_in": wait})
        await trio.sleep(wait)


def _resuming(url: str, document: Document) -> str:
    position = document.position
    return f"{url}&resume={quote(position, safe=',:=')}" if position else url


async def _open_stream(url: str) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    """Connect to the server. Errors: BrokenResourceError, TooSlowError."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        with trio.fail_after(CONNECT_TIMEOUT):
            if parts.scheme == "wss":
                return await trio.open_ssl_over_tcp_stream(host, parts.port or 443)
            return await trio.open_tcp_stream(host, parts.port or 80)
    except OSError as error:
        raise trio.BrokenResourceError from error


async def _follow_once(
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream],
    url: str,
    credential: Credential,
    document: Document,
    listener: Listener,
) -> float | None:
    """Follow quotes on one connection. Return the seconds to wait that the server asks for.

    The caller closes the stream, as trio-websocket leaves it open when the server closes first.
    """
    parts = urlsplit(url)
    resource = f"{parts.path or '/'}?{parts.query}"
    try:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(CONNECT_TIMEOUT):
                socket = await wrap_client_stream(
                    nursery, stream, parts.netloc, resource, extra_headers=credential.headers()
                )
            nursery.start_soon(_keep_asking, socket)
            wait = await _read(socket, document, listener)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # Our reader or trio-websocket's task failed; the other was only cancelled.
        raise group.exceptions[0] from None
    return wait


async def _read(
    socket: WebSocketConnection, document: Document, listener: Listener
) -> float | None:
    """Read until the connection ends. Return the seconds to wait that the server asks for."""
    wait: float | None = None
    try:
        while True:
            message = json.loads(await socket.get_message())
            if message["type"] == "quotes_patch":
                if missed := document.apply(message):
                    await socket.send_message(json.dumps({"action": "resync", "symbols": missed}))
            elif message["type"] == "ack" and message["action"] == "resume":
                document.keep(message["recovered"].keys())
            elif message["type"] == "reconnect":
                wait = message["after_ms"] / 1000
            listener(document, message)
    except ConnectionClosed as closed:
        if closed.reason is not None and closed.reason.code == TOKEN_EXPIRED:
            raise StreamRefused("the token expired") from None
        return wait


async def _keep_asking(socket: WebSocketConnection) -> None:
    """Ping until the connection ends. Errors: TooSlowError if the server does not answer."""
    with suppress(ConnectionClosed):
        while True:
            await trio.sleep(PING_INTERVAL)
            with trio.fail_after(PING_TIMEOUT):
                await socket.ping()


def _message(rejection: ConnectionRejected) -> str:
    try:
        return str(json.loads(rejection.body or b"")["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return f"the server answered with HTTP status {rejection.status_code}"


def _retry_after(rejection: ConnectionRejected) -> float | None:
    for name, value in rejection.headers or ():
        if name.lower() == b"retry-after" and value.isdigit():
            return float(value)
    return None
