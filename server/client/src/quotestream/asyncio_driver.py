"""The driver for asyncio, on wsproto and asyncio's own streams."""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, ProtocolError

from quotestream.driver import Closed, Headers
from server.reconnecting import (
    CLOSE_TIMEOUT,
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
"""Bytes of a message, as in trio-websocket. A server's longest has a thousand quotes of 500 bytes."""

READ_SIZE = 64 * 1024

PING = b"quotestream"

NO_ANSWER = "the server does not answer"


class AsyncioSocket:
    """A WebSocket connection over asyncio's streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._events: deque[Event] = deque()
        self._failure: ConnectionFailed | None = None
        """The error of bytes that are not valid. The events of the bytes before them come first."""
        self.subprotocol: str | None = None

    async def shake_hands(self, url: str, headers: Headers, subprotocols: Sequence[str]) -> None:
        """Open the WebSocket. Errors: ConnectionFailed."""
        parts = urlsplit(url)
        resource = f"{parts.path or '/'}?{parts.query}".removesuffix("?")
        self._write(
            Request(
                host=parts.netloc,
                target=resource,
                subprotocols=[*subprotocols],
                extra_headers=[*headers()],
            )
        )
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                first = await self._next()
            if isinstance(first, RejectConnection):
                body = await self._body(first)
                raise refused_handshake(first.status_code, first.headers, body)
        except TimeoutError:
            raise ConnectionFailed(NO_ANSWER) from None
        except Closed:
            raise ConnectionFailed(ENDED) from None
        assert isinstance(first, AcceptConnection), "the only other event of a handshake"
        self.subprotocol = first.subprotocol

    def send(self, data: str | bytes) -> None:
        """Queue one message, which the transport sends."""
        self._write(TextMessage(data) if isinstance(data, str) else BytesMessage(data))

    async def receive(self) -> str | bytes:
        """Return the next message. Errors: Closed; ConnectionFailed if the server is silent."""
        parts: list[str | bytes] = []
        size = 0
        while True:
            event = await self._next()
            if isinstance(event, Ping):
                self._write(event.response())
                await self._drain()
            elif isinstance(event, CloseConnection):
                self._write(event.response())
                raise Closed(int(event.code), event.reason or "")
            elif isinstance(event, Message):
                parts.append(event.data)
                size += len(event.data)
                # Empty fragments count, too.
                if size > MAX_MESSAGE or len(parts) > MAX_MESSAGE:
                    raise ConnectionFailed(f"a message of more than {MAX_MESSAGE} bytes")
                if event.message_finished:
                    return _joined(parts)

    async def close(self) -> None:
        """Send a close frame if the connection is open, and close it."""
        self._write(CloseConnection(code=1000))
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._writer.wait_closed()
        except OSError:
            # It includes TimeoutError.
            pass
        finally:
            self._writer.transport.abort()

    def _write(self, event: Event) -> None:
        """Give an event to the transport. Without a connection nothing happens: `receive` tells."""
        with suppress(LocalProtocolError):
            self._writer.write(self._protocol.send(event))

    async def _drain(self) -> None:
        """Wait for a server that reads slowly, so that answers to its pings do not pile up."""
        try:
            async with asyncio.timeout(PING_TIMEOUT):
                await self._writer.drain()
        except TimeoutError:
            raise ConnectionFailed(NO_ANSWER) from None
        except OSError:
            raise Closed from None

    async def _body(self, refusal: RejectConnection) -> bytes:
        """Return the body of a refused handshake, or its beginning. Errors: ConnectionFailed."""
        body = b""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                while refusal.has_body and isinstance(part := await self._next(), RejectData):
                    body += part.data
                    if part.body_finished or len(body) > MAX_BODY:
                        break
        except (TimeoutError, Closed, ConnectionFailed):
            raise cut_refusal(refusal.status_code, refusal.headers) from None
        return body

    async def _next(self) -> Event:
        """Return the next event. Errors: Closed, ConnectionFailed."""
        while not self._events:
            if self._failure:
                raise self._failure
            data = await self._read()
            try:
                self._protocol.receive_data(data or None)
            except ProtocolError as error:
                if not data:
                    # The stream ended within the handshake.
                    raise Closed from None
                handshake = self._protocol.state is ConnectionState.CONNECTING
                self._failure = ConnectionFailed(
                    NOT_A_SERVER if handshake else f"the server breaks the protocol: {error}"
                )
            self._events.extend(self._protocol.events())
            if not data and not self._events:
                raise Closed
        return self._events.popleft()

    async def _read(self) -> bytes:
        """Return bytes, empty at the end. Ping a silent server. Errors: ConnectionFailed."""
        try:
            try:
                async with asyncio.timeout(PING_INTERVAL):
                    return await self._reader.read(READ_SIZE)
            except TimeoutError:
                self._write(Ping(PING))
                async with asyncio.timeout(PING_TIMEOUT):
                    return await self._reader.read(READ_SIZE)
        except TimeoutError:
            raise ConnectionFailed(NO_ANSWER) from None
        except OSError:
            return b""


class AsyncioBeside:
    """One task of asyncio."""

    async def start(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start the task."""
        self._task = asyncio.create_task(task())

    async def stop(self) -> None:
        """Cancel the task and wait for its end, also if this task is cancelled meanwhile."""
        self._task.cancel()
        try:
            await asyncio.wait([self._task])
        finally:
            if not self._task.done():
                # The second time cuts the connection without a goodbye.
                await self.stop()  # noqa: ASYNC102 (it waits for a cancelled task)
        if not self._task.cancelled():
            self._task.result()


class AsyncioDriver:
    """The asyncio that runs the caller."""

    def now(self) -> float:
        """Return the seconds of the loop's clock."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    def event(self) -> asyncio.Event:
        """Return a new event."""
        return asyncio.Event()

    def beside(self) -> AsyncioBeside:
        """Return a place for one task."""
        return AsyncioBeside()

    @asynccontextmanager
    async def open(
        self, url: str, headers: Headers, subprotocols: Sequence[str]
    ) -> AsyncIterator[AsyncioSocket]:
        """Connect until the block ends. Errors: ConnectionFailed, also for an unanswered ping."""
        socket = await _connected(url)
        try:
            await socket.shake_hands(url, headers, subprotocols)
            yield socket
        finally:
            await socket.close()


async def _connected(url: str) -> AsyncioSocket:
    """Connect to the server. Errors: ConnectionFailed."""
    parts = urlsplit(url)
    secure = parts.scheme == "wss"
    port = parts.port or (443 if secure else 80)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            reader, writer = await asyncio.open_connection(
                parts.hostname, port, ssl=ssl.create_default_context() if secure else None
            )
    except TimeoutError:
        raise ConnectionFailed(NO_ANSWER) from None
    except OSError as error:
        raise unreachable(parts.netloc, error) from None
    return AsyncioSocket(reader, writer)


def _joined(parts: Sequence[str | bytes]) -> str | bytes:
    """Return a message of one or more parts, which are all text or all bytes."""
    if isinstance(parts[0], str):
        return "".join(str(part) for part in parts)
    return b"".join(part for part in parts if not isinstance(part, str))
