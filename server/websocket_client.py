"""A WebSocket connection to another server: opened within a time limit, kept alive, retried later."""

import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from email.utils import parsedate_to_datetime
from time import time
from urllib.parse import urlsplit

import h11
import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
"""Seconds: the wait before a reconnection is random, below a limit that doubles up to the longest."""

CONNECT_TIMEOUT = 10.0
"""Seconds for the TCP connection, and again for the handshake."""

PING_INTERVAL, PING_TIMEOUT = 20.0, 10.0
"""Seconds between two pings, and for the answer. Without pings, a pulled cable goes unnoticed."""

LASTING = 10.0
"""Seconds after which an accepted connection counts as one that lasted: the back-off starts over."""

LONGEST_ASKED = 3600.0
"""Seconds that a server may ask to be left alone. A larger number is taken for a mistake."""

Headers = Callable[[], Sequence[tuple[bytes, bytes]]]
"""Returns a request's headers. A traceback with local variables does not show their secrets so."""


class Backoff:
    """Draws the wait before the next connection: exponential, with full jitter."""

    def __init__(self) -> None:
        self._attempt = 0
        self._accepted_at: float | None = None

    def accepted(self) -> None:
        """Note that the server accepted the connection just now."""
        self._accepted_at = trio.current_time()

    def next(self, asked: float = 0.0) -> float:
        """Return the seconds to wait, at least the `asked` ones up to LONGEST_ASKED.

        The range doubles with each call and starts over only after a connection that lasted: a server
        that accepts and closes at once would otherwise be asked several times a second.
        """
        now = trio.current_time()
        if self._accepted_at is not None and now - self._accepted_at >= LASTING:
            self._attempt = 0
        self._accepted_at = None
        wait = random.uniform(0, min(LONGEST_DELAY, FIRST_DELAY * 2**self._attempt))
        self._attempt = min(self._attempt + 1, 16)
        return max(wait, min(asked, LONGEST_ASKED))


class ConnectionFailed(Exception):
    """A connection could not be made, or broke. The message gives the reason.

    `status` is the HTTP status of a refused handshake, else zero. `retry_after` is how long the other
    server asks to be left alone, in seconds.
    """

    def __init__(self, problem: str, status: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(problem)
        self.status = status
        self.retry_after = retry_after


@asynccontextmanager
async def open_connection(
    url: str, headers: Headers = tuple, subprotocols: Sequence[str] = ()
) -> AsyncIterator[WebSocketConnection]:
    """Connect to `url`, and ping until the block ends. A redirection is a refusal.

    Arguments:
        subprotocols: those to offer, the best one first.

    Errors: ConnectionFailed, also for a ping that is not answered; trio-websocket's ConnectionClosed
    from the block's own calls.
    """
    try:
        async with _connected(url, headers, subprotocols) as socket:
            yield socket
    except ConnectionRejected as refused:
        raise ConnectionFailed(
            _message(refused), refused.status_code, _retry_after(refused)
        ) from refused
    except (HandshakeError, trio.BrokenResourceError) as error:
        raise ConnectionFailed(str(error.__cause__ or error) or "the connection ended") from error
    except h11.ProtocolError as error:
        raise ConnectionFailed("the server does not speak HTTP") from error
    except trio.TooSlowError as error:
        raise ConnectionFailed("the server does not answer") from error


@asynccontextmanager
async def _connected(
    url: str, headers: Headers, subprotocols: Sequence[str]
) -> AsyncIterator[WebSocketConnection]:
    parts = urlsplit(url)
    resource = f"{parts.path or '/'}?{parts.query}".removesuffix("?")
    # The stream is closed here, as trio-websocket leaves it open when the server closes first.
    async with await _open_stream(url) as stream:
        try:
            async with trio.open_nursery() as nursery:
                with trio.fail_after(CONNECT_TIMEOUT):
                    socket = await wrap_client_stream(
                        nursery,
                        stream,
                        parts.netloc,
                        resource,
                        subprotocols=subprotocols,
                        extra_headers=[*headers()],
                    )
                nursery.start_soon(_keep_asking, socket)
                yield socket
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            # The block or trio-websocket's task failed; the other was only cancelled.
            raise group.exceptions[0] from None


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


def _retry_after(rejection: ConnectionRejected) -> float:
    """Return the seconds until the moment that the server names (RFC 9110 §10.2.3), 0 without one."""
    for name, value in rejection.headers or ():
        if name.lower() == b"retry-after":
            if value.isdigit():
                return float(value)
            with suppress(ValueError, OverflowError):
                moment = parsedate_to_datetime(value.decode("ascii", "replace"))
                return moment.timestamp() - time()
    return 0.0
