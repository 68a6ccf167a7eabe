"""Publishes prices to a server over one WebSocket, again after a lost connection, each of them once."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count, islice
from time import time_ns
from typing import BinaryIO, NamedTuple, Protocol
from urllib.parse import quote

import msgspec
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from quotestream.core import TOKEN_EXPIRED
from quotestream.credential import Credential
from quotestream.decoder import UNREADABLE, not_valid
from quotestream.errors import Refused
from quotestream.messages import Reconnect
from server.client.groups import first_of
from server.client.published import Entry, Object, Problem, read_batches
from server.reconnecting import (
    ENDED,
    Backoff,
    ConnectionFailed,
    asked_by_close,
    is_final,
    readable,
)
from server.websocket_client import open_connection

WINDOW = 32
"""Frames without an answer: half of what a server takes. A lost connection's are sent again."""

WINDOW_OBJECTS = 4000
"""Objects without an answer. They come again within the 4,096 numbers that a server knows in any order,
so it tells which of them it has counted.
"""

REFUSED_FOR_NOW = "store_unavailable"
"""The code of an object that the server could not judge: its database gave no answer."""

FINAL_CLOSES = {1002, 1003, 1007, 1008, 1009, TOKEN_EXPIRED}
"""Close codes (RFC 6455 §7.4.1) after which the same frames or token would fare no better."""

COUNTED = ("accepted", "duplicate", "late", "held")

Entries = trio.MemoryReceiveChannel[Sequence[Entry]]
"""The objects to publish; those of one sequence go out in one frame."""


class Listener(Protocol):
    """Hears how it goes."""

    def on_rejected(self, line: int, code: str, message: str) -> None:
        """Learn that an object does not count, by its line in the file."""

    def on_wait(self, problem: str, seconds: float) -> None:
        """Learn why a connection failed, and when the next one will be made."""


class Frame(NamedTuple):
    """Some objects as JSON, their lines, and the epoch of their numbers."""

    objects: list[str]
    lines: list[int]
    epoch: str = ""

    @property
    def text(self) -> str:
        """Return the message."""
        return f"[{','.join(self.objects)}]"


class Rejected(msgspec.Struct):
    """An object that does not count, by the number of its frame and its place in it, both from 1."""

    frame: int
    line: int
    code: str
    message: str


class Acknowledged(msgspec.Struct):
    """The server's answer to the first `frames` frames of a connection.

    The counts are of all these frames. `rejected` has the objects since the last answer.
    """

    frames: int
    accepted: int
    duplicate: int
    late: int
    held: int
    rejected: list[Rejected]


class Summary:
    """The outcome so far: how many objects counted in which way, and how many did not."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.rejected = 0

    @property
    def answered(self) -> int:
        """Return the number of objects that have an answer."""
        return self.counts.total() + self.rejected

    def __str__(self) -> str:
        counts = [f"{self.counts[name]:,} {name}" for name in COUNTED]
        return ", ".join([*counts, f"{self.rejected:,} rejected"])


async def publish(
    file: BinaryIO, url: str, token: str, source: str, summary: Summary, listener: Listener
) -> None:
    """Publish the objects of `file`, as soon as they are there, and wait for the last answer.

    Arguments:
        source: the name that the numbers in `seq` belong to; empty for the token's user.
        summary: grows meanwhile.

    Errors: Refused if the server refuses the request for good.
    """
    send, entries = trio.open_memory_channel[list[Entry]](1)

    def forward(batch: list[Entry]) -> None:
        trio.from_thread.run(send.send, batch)

    async def read() -> None:
        async with send:
            await trio.to_thread.run_sync(read_batches, file, forward, abandon_on_cancel=True)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await Publication(entries, source, summary, listener).run(url, token)
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # The connection or the reader failed; the other was only cancelled.
        raise first_of(group) from None


class Publication:
    """Objects on their way to a server."""

    def __init__(self, entries: Entries, source: str, summary: Summary, listener: Listener) -> None:
        self.summary = summary
        # Frames that were sent on this connection or an earlier one, in order.
        self.unanswered: deque[Frame] = deque()
        # Objects that the server could not judge. They are sent again before others.
        self.refused: deque[Frame] = deque()
        self._following: Frame | None = None
        self._numbers = count(1)
        self._entries = entries
        self._source = source
        # The next frame's epoch, None before the first. It is a part of the address.
        self._epoch: str | None = None
        self.epoch = ""
        """The epoch of the frames of this connection."""
        self._name = f"publish-{time_ns() // 1000}"
        self.listener = listener
        self.asked = 0.0
        """Seconds for which the server wants to be left alone after this connection."""

    async def run(self, url: str, token: str) -> None:
        """Publish everything, and wait for the answer to the last object. Errors: Refused."""
        credential = Credential(token)
        while (following := await self.following()) is not None:
            self.epoch = following.epoch
            target = f"{url}?source={quote(self._source)}&source_epoch={quote(self.epoch)}"
            await self._publish(target, credential)

    async def _publish(self, target: str, credential: Credential) -> None:
        """Publish the frames of one epoch. Errors: Refused."""
        backoff = Backoff()
        while True:
            problem, self.asked = ENDED, 0.0
            try:
                async with open_connection(target, credential.headers) as socket:
                    backoff.accepted(trio.current_time())
                    if await _Exchange(self, socket).run():
                        return
            except ConnectionFailed as failed:
                if is_final(failed.status):
                    raise Refused(failed.code, str(failed)) from None
                problem, self.asked = str(failed), max(self.asked, failed.retry_after)
            wait = backoff.next(trio.current_time(), self.asked)
            self.listener.on_wait(problem, wait)
            await trio.sleep(wait)

    async def following(self) -> Frame | None:
        """Return the next frame that was never sent, None at the end."""
        while self._following is None:
            try:
                self._following = self._frame(await self._entries.receive())
            except trio.EndOfChannel:
                return None
        return self._following

    def has_room(self, frame: Frame) -> bool:
        """Return whether a frame may be sent now."""
        waiting = sum(len(each.lines) for each in self.unanswered)
        return (
            not self.refused
            and len(self.unanswered) < WINDOW
            and waiting + len(frame.lines) <= WINDOW_OBJECTS
        )

    def sent(self, frame: Frame) -> None:
        """Note that a frame is sent."""
        self.unanswered.append(frame)
        if frame is self._following:
            self._following = None

    def answered(self, frames: int, rejected: Sequence[Rejected], first: int) -> None:
        """Note that the oldest `frames` are answered. `first` is the number of the oldest of all.

        Errors: ValueError for an answer to something that was not sent. It counts for nothing then.
        """
        sizes = [len(each.lines) for each in islice(self.unanswered, max(0, frames))]
        if len(sizes) != frames:
            raise ValueError(f"an answer to {frames} frames")
        for each in rejected:
            if not (
                first <= each.frame < first + frames and 1 <= each.line <= sizes[each.frame - first]
            ):
                raise ValueError(f"an answer to object {each.line} of frame {each.frame}")
        again: dict[int, Frame] = {}
        for each in rejected:
            place, at = each.frame - first, each.line - 1
            frame = self.unanswered[place]
            if each.code == REFUSED_FOR_NOW:
                refused = again.setdefault(place, Frame([], []))
                refused.objects.append(frame.objects[at])
                refused.lines.append(frame.lines[at])
            else:
                self._reject(frame.lines[at], each.code, each.message)
        self.refused.extend(again.values())
        for _ in range(frames):
            self.unanswered.popleft()

    def _frame(self, entries: Sequence[Entry]) -> Frame | None:
        """Return a frame of those entries that are objects, None if there is none."""
        lines, found = list[int](), list[Object]()
        for line, content in entries:
            if isinstance(content, Problem):
                self._reject(line, content.code, content.message)
            else:
                lines.append(line)
                found.append(content)
        if not found:
            return None
        if any(each.numbered for each in found):
            # From now on: numbers given here could be the same as those of the file.
            self._epoch = ""
        elif self._epoch is None:
            self._epoch = self._name
        return Frame([self._once(each) for each in found], lines, self._epoch)

    def _once(self, given: Object) -> str:
        """Return an object with a number or a name, so that it counts once though it is sent twice."""
        if self._epoch:
            return given.add(f'"seq":{next(self._numbers)}')
        if given.numbered or given.named:
            return given.text
        return given.add(f'"id":"{self._name}-{next(self._numbers)}"')

    def _reject(self, line: int, code: str, message: str) -> None:
        self.summary.rejected += 1
        self.listener.on_rejected(line, readable(code), readable(message))


class _Exchange:
    """One connection: frames go out, acknowledgements come in."""

    def __init__(self, publication: Publication, socket: WebSocketConnection) -> None:
        self._publication = publication
        self._socket = socket
        self._before = Counter(publication.summary.counts)
        self._acked = 0
        self._progress = trio.Event()

    async def run(self) -> bool:
        """Publish until all of the epoch is answered. Return False if the connection ended before.

        Errors: Refused if the server closed because of what it was sent; ConnectionFailed if it sends
        what is not an answer.
        """
        whole, failure = False, None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read)
                await self._write()
                whole = True
                nursery.cancel_scope.cancel()
        except* (ConnectionClosed, ConnectionFailed) as group:
            failure = first_of(group)
        if isinstance(failure, ConnectionFailed):
            raise failure
        if (reason := getattr(failure, "reason", None)) is not None:
            if reason.code in FINAL_CLOSES:
                said = readable(reason.reason or "")
                text = f"the server closed the connection: {reason.code} {said}"
                raise Refused(str(reason.code), text)
            self._publication.asked = max(self._publication.asked, asked_by_close(reason.code))
        return whole

    async def _write(self) -> None:
        publication = self._publication
        for frame in [*publication.unanswered]:
            await self._socket.send_message(frame.text)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send_refused)
            while following := await publication.following():
                if following.epoch != publication.epoch:
                    break
                await self._until(partial(publication.has_room, following))
                await self._send(following)
            await self._until(lambda: not publication.unanswered and not publication.refused)
            nursery.cancel_scope.cancel()

    async def _send_refused(self) -> None:
        """Send what the server could not judge again, after ever longer pauses."""
        publication, backoff = self._publication, Backoff()
        while True:
            await self._until(lambda: bool(publication.refused) and not publication.unanswered)
            wait = backoff.next(trio.current_time())
            objects = sum(len(frame.lines) for frame in publication.refused)
            publication.listener.on_wait(
                f"the server's database gives no answer about {objects:,} objects", wait
            )
            await trio.sleep(wait)
            while publication.refused:
                await self._send(publication.refused.popleft())
            await self._until(lambda: not publication.unanswered)
            if not publication.refused:
                backoff = Backoff()

    async def _send(self, frame: Frame) -> None:
        # Both at once: frames are answered in the order in which they are sent.
        self._publication.sent(frame)
        await self._socket.send_message(frame.text)

    async def _until(self, check: Callable[[], bool]) -> None:
        """Wait until `check` is true, after an answer."""
        while not check():
            await self._progress.wait()

    async def _read(self) -> None:
        while True:
            text = await self._socket.get_message()
            try:
                message = msgspec.json.decode(text)
                if message["type"] == "reconnect":
                    self._publication.asked = msgspec.convert(message, Reconnect).after_ms / 1000
                elif message["type"] == "ack":
                    self._acknowledged(msgspec.convert(message, Acknowledged))
            except UNREADABLE as error:
                raise ConnectionFailed(str(not_valid(error))) from None

    def _acknowledged(self, ack: Acknowledged) -> None:
        publication = self._publication
        publication.answered(ack.frames - self._acked, ack.rejected, self._acked + 1)
        counts = Counter({name: getattr(ack, name) for name in COUNTED})
        publication.summary.counts = self._before + counts
        self._acked = ack.frames
        self._progress.set()
        self._progress = trio.Event()
