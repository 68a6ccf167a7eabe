"""The driver for asyncio, on wsproto and asyncio's own streams."""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from wsproto import ConnectionType, WSConnection
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
from wsproto.utilities import ProtocolError

from quotestream.driver import Closed, Headers
from server.reconnecting import (
    CONNECT_TIMEOUT,
    PING_INTERVAL,
    PING_TIMEOUT,
    ConnectionFailed,
    refused_handshake,
)

MAX_MESSAGE = 1024 * 1024
"""Bytes of a message, as in trio-websocket. A server's longest has a thousand quotes of 500 bytes."""

READ_SIZE = 64 * 1024

CLOSE_TIMEOUT = 1.0
"""Seconds for the last bytes to leave; then the connection is cut."""

PING = b"quotestream"


class AsyncioSocket:
    """A WebSocket connection over asyncio's streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._events: deque[Event] = deque()
        self.subprotocol: str | None = None

    async def shake_hands(self, url: str, headers: Headers, subprotocols: Sequence[str]) -> None:
        """Open the WebSocket. Errors: ConnectionFailed, Closed."""
        parts = urlsplit(url)
        resource = f"{parts.path or '/'}?{parts.query}".removesuffix("?")
        await self._send(
            Request(
                host=parts.netloc,
                target=resource,
                subprotocols=[*subprotocols],
                extra_headers=[*headers()],
            )
        )
        first = await self._next()
        if isinstance(first, AcceptConnection):
            self.subprotocol = first.subprotocol
        elif isinstance(first, RejectConnection):
            body, status = b"", first.status_code
            while first.has_body and isinstance(part := await self._next(), RejectData):
                body += part.data
                if part.body_finished or len(body) > MAX_MESSAGE:
                    break
            raise refused_handshake(status, first.headers, body)

    async def send(self, data: str | bytes) -> None:
        """Send one message. Errors: Closed."""
        await self._send(TextMessage(data) if isinstance(data, str) else BytesMessage(data))

    async def receive(self) -> str | bytes:
        """Return the next message. Errors: Closed; ConnectionFailed if the server is silent."""
        parts: list[str | bytes] = []
        size = 0
        while True:
            event = await self._next()
            if isinstance(event, Ping):
                await self._send(event.response())
            elif isinstance(event, CloseConnection):
                with suppress(Closed):
                    await self._send(event.response())
                raise Closed(int(event.code), event.reason or "")
            elif isinstance(event, Message):
                parts.append(event.data)
                size += len(event.data)
                if size > MAX_MESSAGE:
                    raise ConnectionFailed(f"a message of more than {MAX_MESSAGE} bytes")
                if event.message_finished:
                    return _joined(parts)

    async def close(self) -> None:
        """Say goodbye if the server listens, and close the connection."""
        with suppress(OSError, ProtocolError):
            self._writer.write(self._protocol.send(CloseConnection(code=1000)))
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._writer.wait_closed()
        except (OSError, TimeoutError):
            pass
        finally:
            self._writer.transport.abort()

    async def _send(self, event: Event) -> None:
        try:
            self._writer.write(self._protocol.send(event))
            await self._writer.drain()
        except (OSError, ProtocolError):
            raise Closed from None

    async def _next(self) -> Event:
        """Return the next event. Errors: Closed, ConnectionFailed."""
        while not self._events:
            data = await self._read()
            try:
                self._protocol.receive_data(data or None)
                self._events.extend(self._protocol.events())
            except ProtocolError as error:
                raise ConnectionFailed(f"the server breaks the protocol: {error}") from None
            if not data and not self._events:
                raise Closed
        return self._events.popleft()

    async def _read(self) -> bytes:
        """Return bytes, empty at the end. Ping a server that sends nothing."""
        try:
            try:
                async with asyncio.timeout(PING_INTERVAL):
                    return await self._reader.read(READ_SIZE)
            except TimeoutError:
                async with asyncio.timeout(PING_TIMEOUT):
                    await self._send(Ping(PING))
                    return await self._reader.read(READ_SIZE)
        except TimeoutError:
            raise ConnectionFailed("the server does not answer") from None
        except OSError:
            return b""


class AsyncioBeside:
    """One task of asyncio."""

    async def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Start the task."""

        # A coroutine of its own, as create_task takes no other awaitable.
        async def run() -> None:
            await task()

        self._task = asyncio.create_task(run())

    async def stop(self) -> None:
        """Cancel the task and wait for its end."""
        self._task.cancel()
        await asyncio.wait([self._task])
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
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await socket.shake_hands(url, headers, subprotocols)
            except TimeoutError:
                raise ConnectionFailed("the server does not answer") from None
            except Closed:
                raise ConnectionFailed("the connection ended") from None
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
        raise ConnectionFailed("the server does not answer") from None
    except OSError as error:
        raise ConnectionFailed(str(error) or "the connection ended") from None
    return AsyncioSocket(reader, writer)


def _joined(parts: Sequence[str | bytes]) -> str | bytes:
    """Return a message of one or more parts, which are all text or all bytes."""
    if isinstance(parts[0], str):
        return "".join(str(part) for part in parts)
    return b"".join(part for part in parts if not isinstance(part, str))
