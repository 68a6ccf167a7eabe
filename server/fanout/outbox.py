"""The frames that one connection is sent, and their order.

The states are the table in outbox_state.py. An open outbox has a `queue` of frames, which a flush
hands to the kernel in one write. A blocked or throttled outbox has a `Backlog` instead. It keeps
symbols, not updates, so its size is bounded by the subscriptions, however long it stays blocked.

Rejected: a channel per connection, as each frame would cost a task switch for each client. Also
rejected: a bounded queue of frames, as prices in a queue are old when they are sent.
"""

import socket
from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol

from server.fanout.backlog import DRAIN_BYTES, Backlog
from server.fanout.breaker import BreakerState
from server.fanout.frame import Source, UpdateFrame
from server.fanout.outbox_state import TRANSITIONS, Event, State
from server.fanout.stats import FanoutStats
from server.quotes.view import JSON, View

WRITE_FRAMES = 192
"""Frames joined into one write: 12 KB of compact quotes, 80 KB of patches. If a round has more frames,
writes of 64 take a fifth longer for patches, and a third longer for compact quotes.
"""

Join = Callable[[list[bytes]], bytes]
"""Joins frames into the bytes of one write."""

_join: Join = b"".join

# An enum's member takes 60 ns to look up, half the time of `conflate`.
_CLOSING = State.CLOSING


class Owner(Protocol):
    """The connection an outbox belongs to."""

    def on_breaker(self, state: BreakerState) -> None:
        """Take note that the outbox's breaker changed; GIVEN_UP asks the connection to end."""

    # Any stands for Topic: topics know outboxes, so an outbox cannot name their type.
    def on_delisted(self, topic: Any) -> None:
        """Forget the subscription to `topic`, whose symbol was delisted."""

    def on_renamed(self, old: Any, new: Any) -> None:
        """Go on with a subscription to the topic `new` in place of `old`."""


class Outbox:
    """Owned by its connection, which closes `sock`. `throttle` is in seconds, 0 for none.

    The outbox calls `start_writing` when it becomes blocked. The callee then calls `write_backlog`
    whenever the socket has room, until the outbox is not blocked any more.
    """

    __slots__ = (
        "_backlog",
        "_start_writing",
        "_stats",
        "owner",
        "queue",
        "sock",
        "state",
        "throttle",
        "view",
    )

    def __init__(
        self,
        sock: socket.socket,
        stats: FanoutStats,
        start_writing: Callable[["Outbox"], None],
        view: View = JSON,
    ) -> None:
        """`view` is the form and the fields of all that it sends."""
        self.state = State.OPEN
        self.queue: list[bytes] | None = []
        self.sock = sock
        self.view = view
        self.owner: Owner | None = None
        self.throttle = 0.0
        self._stats = stats
        self._start_writing = start_writing
        self._backlog: Backlog | None = None

    @property
    def blocked(self) -> bool:
        """Whether the socket has to drain before anything else goes out."""
        return self.state in (State.BLOCKED, State.CLOSING)

    @property
    def owed(self) -> int:
        """The number of updates and answers that wait for the client or its throttle."""
        if self._backlog is not None:
            return self._backlog.size
        return len(self.queue) if self.queue is not None else 0

    def send(self, frame: bytes) -> None:
        """Send a frame that must arrive: an answer, a pong. Never waits."""
        if self.queue is not None:
            self.queue.append(frame)
            self.flush()
        elif self.state is State.THROTTLED:
            self._write([frame])
        elif self.state is State.BLOCKED and self._backlog is not None:
            self._backlog.unsent.append(frame)

    def send_updates(self, frames: list[UpdateFrame]) -> None:
        """Send updates in one write. If they have to wait, make their sources pending. Never waits."""
        if self.queue is not None:
            self.queue += frames
            self.flush()
        else:
            self._add(frame.source for frame in frames)

    def send_many(self, sources: Collection[Source]) -> None:
        """Send the current frames of `sources` as fast as the client reads. Each frame is made when the
        socket has room for it. Never waits.
        """
        self.flush()
        if self.state is State.OPEN and sources:
            self._on(Event.HELD)
        self._add(sources)
        self._send_pending()

    def send_current(self, source: Source) -> None:
        """Send the current frame of `source`: now, or when the socket has drained. If it trails, send
        what is held for a throttled client first. Never waits.
        """
        if source.trails:
            self.release()
        if self._backlog is not None and (source.trails or self.state is not State.BLOCKED):
            self._backlog.discard_key(source.key)
        if self.state is State.BLOCKED:
            self._add([source])
        else:
            self.send(source.current_frame(self.view))

    def conflate(self, source: Source) -> None:
        """Make `source` pending in place of an update of it that is dropped, and count that."""
        backlog = self._backlog
        if backlog is not None and self.state is not _CLOSING:
            key = source.key
            if source.trails:
                backlog.discard_key(key)
                backlog.waiting[key] = source
            elif key in backlog.pending:
                backlog.pending[key] = source
            else:
                backlog.waiting[key] = source
            self._stats.conflated += 1

    def is_pending(self, source: Source) -> bool:
        """Return whether `source` is still to be sent."""
        return self._backlog is not None and source in self._backlog

    def forget(self, sources: Iterable[Source]) -> None:
        """Send the queued frames, then nothing more of `sources`: the client unsubscribed."""
        self.flush()
        if self._backlog is not None:
            for source in sources:
                self._backlog.discard(source)

    def close(self, frame: bytes) -> None:
        """Send the waiting frames, then the close frame, and nothing after it."""
        if self.state not in (State.CLOSING, State.CLOSED):
            self.send(frame)
        # The write may have found that the client has reset the connection.
        if self.state not in (State.CLOSING, State.CLOSED):
            self._on(Event.CLOSING)

    def abandon(self) -> None:
        """Forget everything: the connection is over."""
        self.owner = None
        self._on(Event.ENDED)

    async def wait_drained(self) -> None:
        """Return once nothing waits for the socket, or the connection is over."""
        while self.blocked and self._backlog is not None:
            await self._backlog.drained.wait()

    async def wait_answered(self) -> None:
        """Return once the socket took all answers, though quotes may still be pending."""
        while self.blocked and self._backlog is not None and self._backlog.unsent:
            await self._backlog.moved.wait()

    def set_throttle(self, interval: float) -> None:
        """Hold updates back until each `release`, which the caller calls every `interval` seconds.
        With 0, send what is held, and from now on each update as it comes.

        If the outbox is blocked, what is pending is held, too.
        """
        self.flush()
        self.release()
        self.throttle = interval
        if self.state in (State.OPEN, State.THROTTLED):
            self._on_nothing_waits()
        if self._backlog is not None:
            self._backlog.hold(throttled=interval > 0)

    def release(self) -> None:
        """Send what is held for a throttled client. Never waits."""
        if self._backlog is not None:
            self._backlog.release()
            self._send_pending()

    def write_backlog(self, limit: int = DRAIN_BYTES) -> None:
        """Write about `limit` bytes of the backlog to a socket with room."""
        backlog = self._backlog
        if backlog is None:
            return
        sent = self._write(backlog.take(limit, self.view))
        backlog.note_move()
        if sent and not backlog.pending:
            self._on_nothing_waits()

    def _send_pending(self) -> None:
        while self.state is State.THROTTLED and self._backlog and self._backlog.pending:
            self.write_backlog()

    def flush(self, join: Join = _join) -> None:
        """Hand the queued frames to the kernel; called at the end of a round. Never waits."""
        queue = self.queue
        if not queue:
            return
        if len(queue) <= WRITE_FRAMES:
            if not self._write(queue, join):
                return
        else:
            for start in range(0, len(queue), WRITE_FRAMES):
                if not self._write(queue[start : start + WRITE_FRAMES], join):
                    for source in self._keep(queue[start + WRITE_FRAMES :], 0):
                        self.conflate(source)
                    return
        queue.clear()

    def _write(self, frames: list[bytes], join: Join = _join) -> bool:
        """Hand `frames` to the kernel and keep the rest in the backlog. Return whether it took all."""
        data = frames[0] if len(frames) == 1 else join(frames)
        try:
            taken = self.sock.send(data)
        except BlockingIOError:
            taken = 0
        except OSError:
            # The connection's own task sees the same broken socket and ends the connection.
            self.abandon()
            return False
        self._stats.bytes_sent += taken
        if taken == len(data):
            self._stats.messages_sent += len(frames)
            return True
        from_backlog = self.queue is None
        if not self.blocked:
            self._on(Event.FILLED)
        kept = self._keep(frames, taken)
        if self._backlog is not None:
            if from_backlog:
                self._backlog.put_back(kept)
            else:
                for source in kept:
                    self.conflate(source)
        return False

    def _keep(self, frames: list[bytes], taken: int) -> list[Source]:
        """Keep in the backlog what is left of `frames` after `taken` bytes of them went out. Return the
        sources of the updates among them, whose current frames are sent instead.
        """
        sources: list[Source] = []
        for frame in frames:
            if taken >= len(frame):
                taken -= len(frame)
                self._stats.messages_sent += 1
            elif taken == 0 and isinstance(frame, UpdateFrame):
                sources.append(frame.source)
            elif self._backlog is not None:
                self._backlog.unsent.append(frame[taken:])
                taken = 0
        return sources

    def _add(self, sources: Iterable[Source]) -> None:
        """Make `sources` pending, unless the close frame was given."""
        if self._backlog is not None and self.state is not _CLOSING:
            for source in sources:
                self._backlog.add(source)

    def _on_nothing_waits(self) -> None:
        self._on(Event.HELD if self.throttle else Event.FREED)

    def _on(self, event: Event) -> None:
        """Change the state as the table says. Only an open outbox has a queue. An open or closed
        one has no backlog. A backlog outlasts two events: FILLED, and CLOSING of a blocked outbox.
        """
        self.state = TRANSITIONS[self.state, event]
        self.queue = [] if self.state is State.OPEN else None
        backlog = self._backlog
        if self.state in (State.OPEN, State.CLOSED):
            self._backlog = None
        elif backlog is None:
            self._backlog = Backlog()
        elif event is Event.CLOSING:
            backlog.pending.clear()
            backlog.held.clear()
        if backlog is not None and not self.blocked:
            backlog.note_drained()
        if event is Event.FILLED:
            self._start_writing(self)


class DeflatingOutbox(Outbox):
    """The outbox of a connection that negotiated compression. Updates go out in their compressed
    form, which all such connections share. A frame for one client only is sent as it is.
    """

    __slots__ = ()

    def _write(self, frames: list[bytes], join: Join = _join) -> bool:
        deflated = [frame.deflated if isinstance(frame, UpdateFrame) else frame for frame in frames]
        return super()._write(deflated, join)
