"""Messages between a supervisor and a worker: JSON objects, one a line, over a socket pair."""

import socket
from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import Any, Generic, TypeVar

import msgspec
import structlog
import trio

MAX_LINE = 16 * 1024 * 1024
"""Bytes: more than the metrics of a hundred workers take, or the last hour of each."""

Incoming = TypeVar("Incoming")
Told = TypeVar("Told")

log = structlog.get_logger()

_encode = msgspec.json.Encoder().encode


class Sample(msgspec.Struct, frozen=True, kw_only=True, tag="sample"):
    """A worker's report, once a second. The first one says that the worker serves.

    `places` of the `capacity` are taken. `cpu`: processor time used since the last report, as a share
    of one core. `delivered`: frames since its start by delivery latency, in DELIVERY_BUCKETS.
    """

    places: int
    capacity: int
    cpu: float
    delivered: list[int]


class Metrics(msgspec.Struct, frozen=True, tag="metrics"):
    """From a worker: its own metrics, the answer to Collect."""

    id: int
    page: str


class AskHost(msgspec.Struct, frozen=True, tag="ask_host"):
    """From a worker that is scraped: send the metrics of all workers, or of one."""

    id: int
    worker: str | None


class AskWorkers(msgspec.Struct, frozen=True, tag="ask_workers"):
    """From a worker: pass a question on to all workers, also to this one. Only workers read it."""

    id: int
    text: str


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """From a worker: the answer to Question."""

    id: int
    text: str


class Retire(msgspec.Struct, frozen=True, tag="retire"):
    """To a worker: take no new connections, and end when the last one is gone."""


class SendAway(msgspec.Struct, frozen=True, tag="send_away"):
    """To a worker: tell `count` clients to reconnect, which brings them to another worker."""

    count: int


class Collect(msgspec.Struct, frozen=True, tag="collect"):
    """To a worker: send your metrics."""

    id: int


class HostMetrics(msgspec.Struct, frozen=True, tag="host_metrics"):
    """To a worker: the answer to AskHost; None if the worker that it names does not exist."""

    id: int
    page: str | None


class Question(msgspec.Struct, frozen=True, tag="question"):
    """To a worker: another one's question."""

    id: int
    text: str


class WorkersAnswers(msgspec.Struct, frozen=True, tag="workers_answers"):
    """To a worker: the answers to AskWorkers by the number of the worker, None if one gave none."""

    id: int
    answers: dict[int, str | None]


FromWorker = Sample | Metrics | AskHost | AskWorkers | Answer
ToWorker = Retire | SendAway | Collect | HostMetrics | Question | WorkersAnswers


class Channel(Generic[Incoming]):
    """One end of the channel. `incoming` is the type of the messages that it receives.

    Resource handling: the code that made the channel closes it.
    """

    def __init__(self, sock: socket.socket, incoming: Any) -> None:
        sock.setblocking(False)
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._decoder = msgspec.json.Decoder(incoming)
        self._sending = trio.Lock()

    async def send(self, message: msgspec.Struct) -> None:
        """Send a message. Cancel it only when the channel ends: half a line would spoil the next line.

        Errors: BrokenResourceError and ClosedResourceError if the other end is gone.
        """
        async with self._sending:
            await self._stream.send_all(_encode(message) + b"\n")

    async def receive(self) -> AsyncIterator[Incoming]:
        """Yield all messages until the other end is gone.

        After a roll the other end may be of another version, so this skips messages of unknown types.
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
        """Close this end. The other end notices."""
        self._stream.socket.close()


class Questions(Generic[Incoming, Told]):
    """Questions over a channel. Each waits `patience` seconds for the answer with its number."""

    def __init__(self, channel: Channel[Incoming], patience: float) -> None:
        self._channel = channel
        self._patience = patience
        self._numbers = count()
        self._waiting: dict[int, tuple[trio.Event, list[Told]]] = {}

    async def ask(self, question: Callable[[int], msgspec.Struct]) -> Told:
        """Return the answer. Errors: TooSlowError, and those of `Channel.send`."""
        number = next(self._numbers)
        answered, answer = self._waiting[number] = trio.Event(), []
        try:
            await self._channel.send(question(number))
            with trio.fail_after(self._patience):
                await answered.wait()
        finally:
            del self._waiting[number]
        return answer[0]

    def answer(self, number: int, told: Told) -> None:
        """Pass an answer on, unless its question was given up."""
        if number in self._waiting:
            answered, answer = self._waiting[number]
            answer.append(told)
            answered.set()
