"""What the supervisor and a worker say to each other: JSON objects, one a line, over a socket pair."""

import socket
from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import Any, Generic, TypeVar

import msgspec
import structlog
import trio

MAX_LINE = 8 * 1024 * 1024
"""Bytes: more than the metrics of a hundred workers take."""

Incoming = TypeVar("Incoming")

log = structlog.get_logger()

_encode = msgspec.json.Encoder().encode


class Sample(msgspec.Struct, frozen=True, kw_only=True, tag="sample"):
    """How a worker is doing, once a second; the first says that it serves.

    `places` of the `capacity` are taken; `cpu`: the processor time it used since the last one, as a
    share of one core; `delivered`: frames since its start by delivery latency, in FanoutStats' buckets.
    """

    places: int
    capacity: int
    cpu: float
    delivered: list[int]


class Metrics(msgspec.Struct, frozen=True, tag="metrics"):
    """A worker's own metrics, as an answer to Collect."""

    id: int
    page: str


class AskHost(msgspec.Struct, frozen=True, tag="ask_host"):
    """A worker was asked for the metrics of all, or of one."""

    id: int
    worker: str | None


class Retire(msgspec.Struct, frozen=True, tag="retire"):
    """To a worker: take no new connections, and end when the last one is gone."""


class SendAway(msgspec.Struct, frozen=True, tag="send_away"):
    """To a worker: tell so many clients to come back, to whoever is there then."""

    count: int


class Collect(msgspec.Struct, frozen=True, tag="collect"):
    """To a worker: send your metrics."""

    id: int


class HostMetrics(msgspec.Struct, frozen=True, tag="host_metrics"):
    """To a worker: what it asked for; None if there is no such worker."""

    id: int
    page: str | None


FromWorker = Sample | Metrics | AskHost
ToWorker = Retire | SendAway | Collect | HostMetrics


class Channel(Generic[Incoming]):
    """One end. `incoming` is the type of what comes in.

    Resource handling: who made it closes it.
    """

    def __init__(self, sock: socket.socket, incoming: Any) -> None:
        sock.setblocking(False)
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._decoder = msgspec.json.Decoder(incoming)
        self._sending = trio.Lock()

    async def send(self, message: msgspec.Struct) -> None:
        """Not to be cancelled but by the channel's end: half a line would spoil the next one.

        Errors: BrokenResourceError and ClosedResourceError if the other end is gone.
        """
        async with self._sending:
            await self._stream.send_all(_encode(message) + b"\n")

    async def receive(self) -> AsyncIterator[Incoming]:
        """All messages until the other end is gone; those of another version, after a roll, are left
        out where they are not understood.
        """
        rest = bytearray()
        try:
            async for data in self._stream:
                rest += data
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    try:
                        message = self._decoder.decode(line)
                    except msgspec.MsgspecError as error:
                        log.warning("not understood on the control channel", problem=str(error))
                    else:
                        yield message
                if len(rest) > MAX_LINE:
                    raise ValueError("a line without end on the control channel")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    def close(self) -> None:
        """Close this end, which the other one sees."""
        self._stream.socket.close()


class Questions(Generic[Incoming]):
    """Asked over a channel, each waits `patience` seconds for the answer with its number."""

    def __init__(self, channel: Channel[Incoming], patience: float) -> None:
        self._channel = channel
        self._patience = patience
        self._numbers = count()
        self._waiting: dict[int, tuple[trio.Event, list[str | None]]] = {}

    async def ask(self, question: Callable[[int], msgspec.Struct]) -> str | None:
        """The answer. Errors: TooSlowError, and as `Channel.send`."""
        number = next(self._numbers)
        answered, answer = self._waiting[number] = trio.Event(), []
        try:
            await self._channel.send(question(number))
            with trio.fail_after(self._patience):
                await answered.wait()
        finally:
            del self._waiting[number]
        return answer[0]

    def answer(self, number: int, page: str | None) -> None:
        """What came in; who asked may have given up."""
        if number in self._waiting:
            answered, answer = self._waiting[number]
            answer.append(page)
            answered.set()
