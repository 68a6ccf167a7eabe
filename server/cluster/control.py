"""What the supervisor and a worker say to each other: JSON objects, one a line, over a socket pair."""

import socket
from collections.abc import AsyncIterator
from typing import Any, Generic, TypeVar

import msgspec
import trio

MAX_LINE = 8 * 1024 * 1024
"""Bytes: more than the metrics of a hundred workers take."""

Incoming = TypeVar("Incoming")

_encode = msgspec.json.Encoder().encode


class Sample(msgspec.Struct, frozen=True, kw_only=True, tag="sample"):
    """How a worker is doing, once a second; the first says that it serves.

    `places` of the `capacity` are taken.
    """

    places: int
    capacity: int


class Retire(msgspec.Struct, frozen=True, tag="retire"):
    """To a worker: take no new connections, and end when the last one is gone."""


class SendAway(msgspec.Struct, frozen=True, tag="send_away"):
    """To a worker: tell so many clients to come back, to whoever is there then."""

    count: int


FromWorker = Sample
ToWorker = Retire | SendAway


class Channel(Generic[Incoming]):
    """One end. `incoming` is the type of what comes in.

    Resource handling: who made it closes it.
    """

    def __init__(self, sock: socket.socket, incoming: Any) -> None:
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._decoder = msgspec.json.Decoder(incoming)
        self._sending = trio.Lock()

    async def send(self, message: msgspec.Struct) -> None:
        """Errors: BrokenResourceError and ClosedResourceError if the other end is gone."""
        async with self._sending:
            await self._stream.send_all(_encode(message) + b"\n")

    async def receive(self) -> AsyncIterator[Incoming]:
        """All messages until the other end is gone."""
        rest = bytearray()
        try:
            async for data in self._stream:
                rest += data
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    yield self._decoder.decode(line)
                if len(rest) > MAX_LINE:
                    raise ValueError("a line without end on the control channel")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    def close(self) -> None:
        """Close this end, which the other one sees."""
        self._stream.socket.close()
