"""Publishes prices to a server over one WebSocket, again after a lost connection, each of them once."""

from collections import Counter, deque
from collections.abc import Sequence
from time import time_ns
from typing import Any, BinaryIO, NamedTuple, Protocol
from urllib.parse import quote

import msgspec
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from quotestream.core import TOKEN_EXPIRED
from quotestream.credential import Credential
from quotestream.errors import Refused
from server.client.published import Entry, Problem, read_batches
from server.reconnecting import Backoff, ConnectionFailed, is_final
from server.websocket_client import open_connection

WINDOW = 32
"""Frames without an answer: half of what a server takes. A lost connection's are sent again."""

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
    """One message and the lines of its objects."""

    text: str
    lines: list[int]


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
        raise group.exceptions[0] from None


class Publication:
    """Objects on their way to a server."""

    def __init__(self, entries: Entries, source: str, summary: Summary, listener: Listener) -> None:
        self.summary = summary
        # Frames that were sent on this connection or an earlier one, in order.
        self.unanswered: deque[Frame] = deque()
        self._entries = entries
        self._source = source
        self._epoch: str | None = None
        self._listener = listener

    async def run(self, url: str, token: str) -> None:
        """Publish everything, and wait for the answer to the last object. Errors: Refused."""
        credential, backoff = Credential(token), Backoff()
        # The first frame decides about the epoch, which is a part of the address.
        if await self.next_frame() is None:
            return
        target = f"{url}?source={quote(self._source)}&source_epoch={quote(self._epoch or '')}"
        while True:
            problem, asked = "the connection ended", 0.0
            try:
                async with open_connection(target, credential.headers) as socket:
                    backoff.accepted(trio.current_time())
                    if await _Exchange(self, socket).run():
                        return
            except ConnectionFailed as failed:
                if is_final(failed.status):
                    raise Refused(failed.code, str(failed)) from None
                problem, asked = str(failed), failed.retry_after
            wait = backoff.next(trio.current_time(), asked)
            self._listener.on_wait(problem, wait)
            await trio.sleep(wait)

    async def next_frame(self) -> Frame | None:
        """Return the next frame that was never sent, None at the end."""
        async for entries in self._entries:
            if frame := self._frame(entries):
                self.unanswered.append(frame)
                return frame
        return None

    def answered(self, frames: int, rejected: Sequence[dict[str, Any]], first: int) -> None:
        """Note that the oldest frames are answered. `first`: the number of the oldest of all."""
        for each in rejected:
            lines = self.unanswered[each["frame"] - first].lines
            self._reject(lines[each["line"] - 1], each["code"], each["message"])
        for _ in range(frames):
            self.unanswered.popleft()

    def _frame(self, entries: Sequence[Entry]) -> Frame | None:
        """Return a frame of those entries that are objects, None if there is none."""
        lines, objects = list[int](), list[str]()
        for line, content in entries:
            if isinstance(content, Problem):
                self._reject(line, content.code, content.message)
                continue
            if self._epoch is None:
                self._epoch = "" if content.numbered else f"publish-{time_ns() // 1000}"
            text = content.text
            if self._epoch and not content.numbered:
                # Thanks to its number, an object that is sent twice counts once.
                text = f'{{"seq":{line},{text[1:]}'
            lines.append(line)
            objects.append(text)
        return Frame(f"[{','.join(objects)}]", lines) if objects else None

    def _reject(self, line: int, code: str, message: str) -> None:
        self.summary.rejected += 1
        self._listener.on_rejected(line, code, message)


class _Exchange:
    """One connection: frames go out, acknowledgements come in."""

    def __init__(self, publication: Publication, socket: WebSocketConnection) -> None:
        self._publication = publication
        self._socket = socket
        self._before = Counter(publication.summary.counts)
        self._sent = 0
        self._acked = 0
        self._progress = trio.Event()

    async def run(self) -> bool:
        """Publish until everything is answered. Return False if the connection ended before.

        Errors: Refused if the server closed because of what it was sent.
        """
        whole, reason = False, None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read)
                await self._write()
                whole = True
                nursery.cancel_scope.cancel()
        except* ConnectionClosed as group:
            reason = getattr(group.exceptions[0], "reason", None)
        if reason is not None and reason.code in FINAL_CLOSES:
            text = f"the server closed the connection: {reason.code} {reason.reason}"
            raise Refused(str(reason.code), text)
        return whole

    async def _write(self) -> None:
        for frame in [*self._publication.unanswered]:
            await self._send(frame)
        while (following := await self._publication.next_frame()) is not None:
            await self._send(following)
        await self._until_waiting(0)

    async def _send(self, frame: Frame) -> None:
        await self._until_waiting(WINDOW - 1)
        self._sent += 1
        await self._socket.send_message(frame.text)

    async def _until_waiting(self, most: int) -> None:
        """Wait until `most` frames at most have no answer."""
        while self._sent - self._acked > most:
            self._progress = trio.Event()
            await self._progress.wait()

    async def _read(self) -> None:
        while True:
            message = msgspec.json.decode(await self._socket.get_message())
            if message["type"] != "ack":
                continue
            frames, publication = message["frames"], self._publication
            publication.answered(frames - self._acked, message["rejected"], self._acked + 1)
            counts = Counter({name: message[name] for name in COUNTED})
            publication.summary.counts = self._before + counts
            self._acked = frames
            self._progress.set()
