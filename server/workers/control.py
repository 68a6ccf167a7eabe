"""Messages between a supervisor and a worker: JSON objects, one a line, over a socket pair.

After a roll, the two ends may be of different versions. So each end checks here what it receives. It
leaves out and logs a line that is not a valid message.
"""

import socket
from collections.abc import AsyncGenerator, Callable
from itertools import count
from typing import Annotated, Any, Generic, TypeVar

import msgspec
import structlog
import trio
from msgspec import Meta

MAX_LINE = 16 * 1024 * 1024
"""Bytes: more than the metrics of a hundred workers take, or the last hour of each."""

MAX_COUNT = 2**53
"""The largest count in a message. Shares of larger numbers do not fit a float."""

Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]

Incoming = TypeVar("Incoming")
Told = TypeVar("Told")

log = structlog.get_logger()

_encode = msgspec.json.Encoder().encode


class Sample(msgspec.Struct, frozen=True, kw_only=True, tag="sample"):
    """A worker's report, once a second. The first one says that the worker serves.

    `places` of the `capacity` are taken. `cpu`: processor time used since the last report, as a share
    of one core. `delivered`: frames since its start by delivery latency, in DELIVERY_BUCKETS.
    """

    places: Count
    capacity: Count
    cpu: Annotated[float, Meta(ge=0, le=MAX_COUNT)]
    delivered: list[Count]


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

    count: Count


class Collect(msgspec.Struct, frozen=True, tag="collect"):
    """To a worker: send your metrics."""

    id: int


class HostMetrics(msgspec.Struct, frozen=True, tag="host_metrics"):
    """To a worker: the answer to AskHost. If the worker that AskHost names does not exist, `page` is
    None. If that worker gives no answer, `page` is empty.
    """

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


class _Lines:
    """Splits a stream into lines, and leaves out those that are too long."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._is_too_long = False

    def split(self, data: bytes | bytearray) -> list[bytearray]:
        """Return the lines that end in the next piece of the stream."""
        self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        if lines and self._is_too_long:
            # The end of a line whose beginning was dropped.
            del lines[0]
            self._is_too_long = False
        if len(self._rest) > MAX_LINE:
            _log_left_out(f"a line is longer than {MAX_LINE} bytes")
            self._is_too_long = True
        if self._is_too_long:
            self._rest.clear()
        return lines


def _log_left_out(problem: str) -> None:
    log.warning("not understood on the control channel", problem=problem)


class Channel(Generic[Incoming]):
    """One end of the channel. `incoming` is the type of the messages that it receives.

    Resource handling: the code that made the channel closes it.
    """

    def __init__(self, sock: socket.socket, incoming: Any) -> None:
        sock.setblocking(False)
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._decoder = msgspec.json.Decoder(incoming)
        self._sending = trio.Lock()
        self._is_broken_off = False

    async def send(self, message: msgspec.Struct) -> None:
        """Send a message. If this is cancelled, the other end may get a part, which it leaves out.

        Errors: BrokenResourceError and ClosedResourceError if the other end is gone.
        """
        async with self._sending:
            line = _encode(message) + b"\n"
            # Half a line must not spoil the next one.
            data = b"\n" + line if self._is_broken_off else line
            self._is_broken_off = True
            await self._stream.send_all(data)
            self._is_broken_off = False

    async def receive(self) -> AsyncGenerator[Incoming, None]:
        """Yield all messages until the other end is gone.

        It leaves out lines that are not valid messages, or longer than MAX_LINE.
        """
        lines = _Lines()
        try:
            async for data in self._stream:
                for line in lines.split(data):
                    try:
                        message = self._decoder.decode(line)
                    except (ValueError, RecursionError) as error:
                        _log_left_out(str(error))
                    else:
                        yield message
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    def close(self) -> None:
        """Close this end. The other end notices."""
        self._stream.socket.close()


class Questions(Generic[Incoming, Told]):
    """Questions over a channel. Each waits `patience` seconds for the answer with its number, even if
    the other end is frozen and the channel is full.
    """

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
            with trio.fail_after(self._patience):
                await self._channel.send(question(number))
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
