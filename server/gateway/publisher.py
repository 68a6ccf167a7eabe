"""A publisher's connection: its frames are batches of prices, and the server acknowledges them.

It is a session as a client's, with the same heartbeat, limits and end, but it gets no quotes.
"""

import socket
from functools import partial
from typing import Literal

import trio
from wsproto.frame_protocol import Frame

from server.fanout.frame import text_frame
from server.gateway.auth import Identity
from server.gateway.closing import Close
from server.gateway.handshake import Admission, Publisher
from server.gateway.pool import LATER_MS
from server.gateway.protocol import Protocol
from server.gateway.services import Services
from server.gateway.session import Session
from server.gateway.subscriptions import Answer as Replies
from server.gateway.subscriptions import LookUp, Publish
from server.intake.answer import Answer
from server.intake.batch import Batch, Desk
from server.intake.objects import MAX_BATCH_BYTES
from server.quotes.messages import encode

MAX_UNANSWERED = 64
"""Frames without an answer. Then the socket is left unread, as it is when they have MAX_BATCH_BYTES."""

MAX_BATCHES = 2
"""Batches of a connection without an answer: one is published, one waits. Until one is answered, the
socket is left unread. So the next batch has all that comes meanwhile, and frames share a round.
"""


class PricesAck(Answer, tag_field="type", tag="ack", kw_only=True):
    """Answers the first `frames` frames of a connection.

    The counts are of all these frames. `rejected` has the objects since the last acknowledgement.
    """

    action: Literal["publish"] = "publish"
    frames: int = 0


class PublisherProtocol(Protocol):
    """The protocol of a publisher: each text message is one batch."""

    __slots__ = ("_body",)

    def __init__(self, services: Services, user: str, session: "PublisherSession") -> None:
        super().__init__(services.context, user, session.subscriptions)
        self._body = bytearray()

    def on_data(self, data: bytes, frame: Frame) -> Replies:
        """Add a frame, or a part of it, to its message, and publish the message at its end."""
        self._body += data
        if len(self._body) > MAX_BATCH_BYTES:
            return self.fail(Close.TOO_BIG)
        if frame.message_finished:
            body, self._body = bytes(self._body), bytearray()
            return (Publish(body),)
        return self.count_flood() if frame.frame_finished and not self.limit.allows() else ()


class PublisherSession(Session):
    """One publisher's connection. Frames that were read together are one batch."""

    __slots__ = (
        "_acked",
        "_batches",
        "_bodies",
        "_bytes",
        "_desk",
        "_names",
        "_read",
        "_room",
        "_total",
    )

    def __init__(
        self,
        services: Services,
        sock: socket.socket,
        identity: Identity,
        received: bytes,
        desk: Desk,
    ) -> None:
        super().__init__(services, sock, identity, received)
        self._names = Publisher(identity.user, "")
        self._desk = desk
        self._bodies: list[bytes] = []
        self._bytes = 0
        self._batches = 0
        self._read = 0
        self._acked = 0
        self._total = PricesAck()
        self._room = trio.Event()

    def begin(self, admission: Admission) -> None:
        """Take the publisher's names. It gets no quotes."""
        self._names = admission.publisher or self._names
        self._services.heartbeat.start(self)
        if self._services.pool.draining:
            self.send_away(LATER_MS)

    def end(self) -> None:
        """Give back everything, and stop waiting."""
        super().end()
        self._room.set()

    async def _take(self, data: bytes) -> None:
        await super()._take(data)
        await self._put()
        while self._batches >= MAX_BATCHES and not self.over:
            await self._answered()

    async def _wait_for(self, reply: LookUp | Publish) -> None:
        """Note a frame. If no further one may go unanswered, wait for an answer."""
        if isinstance(reply, LookUp):
            return
        self._bodies.append(reply.body)
        self._bytes += len(reply.body)
        self._read += 1
        if self._is_full:
            await self._put()
        while self._is_full and not self.over:
            await self._answered()

    async def _answered(self) -> None:
        """Wait for the next answer, or the end."""
        self._room = trio.Event()
        await self._room.wait()

    @property
    def _is_full(self) -> bool:
        return self._read - self._acked >= MAX_UNANSWERED or self._bytes >= MAX_BATCH_BYTES

    async def _put(self) -> None:
        """Publish the frames that were read."""
        bodies, self._bodies = self._bodies, []
        if bodies:
            source, epoch = self._names
            first = self._read - len(bodies) + 1
            batch = Batch(bodies, source, epoch, self.identity.symbols, first)
            size = sum(len(body) for body in bodies)
            self._batches += 1
            await self._desk.put(batch, partial(self._on_answer, self._read, size))

    def _on_answer(self, frames: int, size: int, answer: Answer) -> None:
        """Acknowledge all frames up to one. Batches are answered in their order."""
        self._bytes -= size
        self._batches -= 1
        self._acked = self._total.frames = frames
        self._total.add(answer)
        if not self.closing:
            self.outbox.send(text_frame(encode(self._total)))
        self._total.rejected = []
        self._room.set()

    def _make_protocol(self) -> Protocol:
        self._protocol = protocol = PublisherProtocol(self._services, self.identity.user, self)
        if self.closing:
            protocol.close()
        return protocol
