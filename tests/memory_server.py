"""A WebSocket server in memory, for our clients on a clock that jumps."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, wrap_server_stream

Handler = Callable[[WebSocketRequest], Awaitable[None]]
"""Answers one connection of a server in memory."""


@pytest.fixture
def serve_in_memory(monkeypatch, nursery) -> Callable[[Handler], list[float]]:
    """Connect our WebSocket clients to a handler in memory. Return the times of its requests."""

    def serve_in_memory(handler: Handler) -> list[float]:
        came: list[float] = []

        async def open_stream(url: str) -> trio.abc.Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            came.append(trio.current_time())
            nursery.start_soon(answer, ours)
            return theirs

        async def answer(stream: trio.abc.Stream) -> None:
            try:
                async with trio.open_nursery() as tasks:
                    await handler(await wrap_server_stream(tasks, stream))
                    tasks.cancel_scope.cancel()
            except* ConnectionClosed:
                pass  # the client has seen enough

        monkeypatch.setattr("server.websocket_client._open_stream", open_stream)
        return came

    return serve_in_memory
