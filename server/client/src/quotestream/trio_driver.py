"""The driver for trio, on trio-websocket."""

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from math import inf
from typing import Any

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection
from wsproto.events import CloseConnection
from wsproto.utilities import LocalProtocolError

from quotestream.driver import Closed, Headers
from server.reconnecting import CLOSE_TIMEOUT
from server.websocket_client import open_connection


class TrioSocket:
    """A connection of trio-websocket."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self._socket = socket
        # Applications wait for the answer to each command, so few messages wait here.
        self._outgoing, self._waiting = trio.open_memory_channel[str | bytes](inf)
        self.subprotocol: str | None = socket.subprotocol

    def send(self, data: str | bytes) -> None:
        """Queue one message for `run_sending`."""
        self._outgoing.send_nowait(data)

    async def run_sending(self) -> None:
        """Send what is queued, until the connection ends."""
        with suppress(ConnectionClosed):
            async for data in self._waiting:
                await self._socket.send_message(data)

    async def receive(self) -> str | bytes:
        """Return the next message. Errors: Closed."""
        try:
            return await self._socket.get_message()
        except ConnectionClosed as closed:
            raise _closed(closed) from None

    async def say_goodbye(self) -> None:
        """Send a close frame if the connection is open, also if this task is cancelled."""
        with (
            trio.move_on_after(CLOSE_TIMEOUT, shield=True),
            suppress(ConnectionClosed, LocalProtocolError),
        ):
            # aclose() would wait for an answer, and the task that reads it is cancelled by now.
            await self._socket._send(CloseConnection(code=1000))  # noqa: SLF001  # see above


class TrioBeside:
    """A nursery of one task. Exceptions leave it as they are, not in a group."""

    def __init__(self) -> None:
        self._manager = trio.open_nursery()

    async def start(self, task: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start the task."""
        self._nursery = await self._manager.__aenter__()
        self._nursery.start_soon(task)

    async def stop(self) -> None:
        """Cancel the task and wait for its end."""
        self._nursery.cancel_scope.cancel()
        try:
            # The nursery does not learn of the block's exception, which the block raises by itself.
            await self._manager.__aexit__(None, None, None)
        except BaseExceptionGroup as group:
            # An interrupt (Ctrl-C) counts more than the cancellation beside it.
            _, others = group.split(trio.Cancelled)
            raise (others or group).exceptions[0] from None


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
        async with open_connection(url, headers, subprotocols) as connection:
            socket, sending = TrioSocket(connection), self.beside()
            await sending.start(socket.run_sending)
            try:
                yield socket
            finally:
                await socket.say_goodbye()  # noqa: ASYNC102 (it is shielded, for a limited time)
                await sending.stop()  # noqa: ASYNC102 (it waits for a cancelled task)


def _closed(closed: ConnectionClosed) -> Closed:
    if closed.reason is None:
        return Closed()
    return Closed(closed.reason.code, closed.reason.reason or "")
