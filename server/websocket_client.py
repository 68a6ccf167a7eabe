"""A WebSocket connection to another server, on trio: opened within a time limit, and kept alive."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import h11
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, HandshakeError, WebSocketConnection
from wsproto import ConnectionType, WSConnection
from wsproto.events import BytesMessage, RejectConnection, RejectData, TextMessage
from wsproto.utilities import ProtocolError

from server.reconnecting import (
    CONNECT_TIMEOUT,
    ENDED,
    MAX_BODY,
    NOT_A_SERVER,
    PING_INTERVAL,
    PING_TIMEOUT,
    ConnectionFailed,
    cut_refusal,
    refused_handshake,
    unreachable,
)

MAX_MESSAGE = 1024 * 1024
"""Bytes of a message, and its fragments."""

Headers = Callable[[], Sequence[tuple[bytes, bytes]]]
"""Returns a request's headers. A traceback with local variables does not show their secrets so."""


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
        raise refused_handshake(
            refused.status_code, refused.headers or (), refused.body or b""
        ) from refused
    except (HandshakeError, trio.BrokenResourceError) as error:
        raise ConnectionFailed(str(error.__cause__ or error) or "the connection ended") from error
    except h11.ProtocolError as error:
        raise ConnectionFailed(NOT_A_SERVER) from error
    except trio.TooSlowError as error:
        raise ConnectionFailed("the server does not answer") from error


class _Connection(WebSocketConnection):
    """A connection whose handshake ends with its stream.

    trio-websocket waits for the rest of an answer, which does not come if the server or a proxy
    closes: HTTP/1.0 ends a body so (RFC 9112 §6.3). It also takes a body of any size.
    """

    async def shake_hands(self, nursery: trio.Nursery) -> None:
        """Open the WebSocket, as `trio_websocket.wrap_client_stream` does.

        Errors: TooSlowError, ConnectionRejected; from the nursery also ConnectionFailed.
        """
        nursery.start_soon(self._reader_task)
        with trio.move_on_after(CONNECT_TIMEOUT):
            await self._open_handshake.wait()
            return
        self._check_cut()
        raise trio.TooSlowError

    async def _reader_task(self) -> None:
        is_valid = False
        # trio-websocket answers bytes that are not valid, and wsproto refuses to send the answer.
        with suppress(ProtocolError):
            await super()._reader_task()
            is_valid = True
        if self._open_handshake.is_set():
            if not is_valid:
                raise ConnectionFailed("the server breaks the protocol")
            return
        if not is_valid:
            await self._take_head()
            self._check_cut()
            raise ConnectionFailed(NOT_A_SERVER)
        with suppress(ProtocolError):
            self._wsproto.receive_data(None)
            for event in self._wsproto.events():
                if isinstance(event, RejectData):
                    await self._handle_reject_data_event(event)
        self._check_cut()
        raise ConnectionFailed(ENDED)

    async def _take_head(self) -> None:
        """Take a refusal's head that came in the same bytes as a body that is not valid."""
        for event in self._wsproto.events():
            if isinstance(event, RejectConnection):
                await self._handle_reject_connection_event(event)

    async def _handle_message_event(self, event: BytesMessage | TextMessage) -> None:
        await super()._handle_message_event(event)
        # Empty fragments have no bytes that trio-websocket counts.
        if len(self._message_parts) > MAX_MESSAGE:
            raise ConnectionFailed(f"a message of more than {MAX_MESSAGE} bytes")

    async def _handle_reject_data_event(self, event: RejectData) -> None:
        await super()._handle_reject_data_event(event)
        if len(self._reject_body) > MAX_BODY:
            raise ConnectionRejected(self._reject_status, self._reject_headers, self._reject_body)

    def _check_cut(self) -> None:
        """Raise ConnectionFailed if a refusal's head has come, without the end of its body."""
        if self._reject_status:
            raise cut_refusal(self._reject_status, self._reject_headers)


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
                socket = _Connection(
                    stream,
                    WSConnection(ConnectionType.CLIENT),
                    host=parts.netloc,
                    path=resource,
                    client_subprotocols=[*subprotocols],
                    client_extra_headers=[*headers()],
                    max_message_size=MAX_MESSAGE,
                )
                await socket.shake_hands(nursery)
                nursery.start_soon(_keep_asking, socket)
                yield socket
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            # The block or trio-websocket's task failed; the other was only cancelled.
            raise group.exceptions[0] from None


async def _open_stream(url: str) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    """Connect to the server. Errors: ConnectionFailed, TooSlowError."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        with trio.fail_after(CONNECT_TIMEOUT):
            if parts.scheme == "wss":
                return await _open_tls_stream(host, parts.port or 443)
            return await trio.open_tcp_stream(host, parts.port or 80)
    except OSError as error:
        raise unreachable(parts.netloc, error) from error
    except trio.BrokenResourceError as error:
        raise unreachable(parts.netloc, error.__cause__ or error) from error


async def _open_tls_stream(host: str, port: int) -> trio.SSLStream[trio.SocketStream]:
    """Connect, and shake hands at once: trio-websocket would wait in vain for a handshake that fails,
    as with a bad certificate. Errors: OSError, BrokenResourceError.
    """
    stream = await trio.open_ssl_over_tcp_stream(host, port)
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def _keep_asking(socket: WebSocketConnection) -> None:
    """Ping until the connection ends. Errors: TooSlowError if the server does not answer."""
    with suppress(ConnectionClosed):
        while True:
            await trio.sleep(PING_INTERVAL)
            with trio.fail_after(PING_TIMEOUT):
                await socket.ping()
