"""The driver for trio, on trio-websocket."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from quotestream.driver import Closed, Headers
from server.websocket_client import open_connection


class TrioSocket:
    """A connection of trio-websocket."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self._socket = socket
        self.subprotocol: str | None = socket.subprotocol

    async def send(self, data: str | bytes) -> None:
        """Send one message. Errors: Closed."""
        try:
            await self._socket.send_message(data)
        except ConnectionClosed as closed:
            raise _closed(closed) from None

    async def receive(self) -> str | bytes:
        """Return the next message. Errors: Closed."""
        try:
            return await self._socket.get_message()
        except ConnectionClosed as closed:
            raise _closed(closed) from None


class TrioBeside:
    """A nursery of one task. The block's own exceptions leave it as they are, not in a group."""

    def __init__(self) -> None:
        self._manager = trio.open_nursery()

    async def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Start the task."""
        self._nursery = await self._manager.__aenter__()
        self._nursery.start_soon(task)

    async def stop(self) -> None:
        """Cancel the task and wait for its end."""
        self._nursery.cancel_scope.cancel()
        # The block's exception is not the nursery's business: the block raises it by itself.
        await self._manager.__aexit__(None, None, None)


class TrioDriver:
    """The trio that runs the caller."""

    def now(self) -> float:
        """Return the seconds of trio's clock."""
        return trio.current_time()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await trio.sleep(seconds)

    def event(self) -> trio.Event:
        """Return a new event."""
        return trio.Event()

    def beside(self) -> TrioBeside:
        """Return a place for one task."""
        return TrioBeside()

    @asynccontextmanager
    async def open(
        self, url: str, headers: Headers, subprotocols: Sequence[str]
    ) -> AsyncIterator[TrioSocket]:
        """Connect until the block ends. Errors: ConnectionFailed, also for an unanswered ping."""
        async with open_connection(url, headers, subprotocols) as socket:
            yield TrioSocket(socket)


def _closed(closed: ConnectionClosed) -> Closed:
    if closed.reason is None:
        return Closed()
    return Closed(closed.reason.code, closed.reason.reason or "")
