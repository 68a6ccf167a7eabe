"""What one connection still has to be sent.

An outbox is in one of four states:

- *open*: `queue` collects the frames of a round; a flush hands them to the kernel in one write.
- *blocked*: the kernel took less than it was given. `queue` is None and a `Backlog` holds the rest
  of the frame that was cut, the frames nothing can stand in for (answers to commands), and *which*
  sources are owed. Updates of a source are not kept: once the socket drains, its current frame is
  sent instead. So a blocked outbox is bounded by its subscriptions, however long it stays so.
- *throttled*: as its client asked. Updates are owed as if it were blocked, until the next `release`;
  everything else goes out at once.
- *closing*: its last frame, the close frame, has been given; nothing more is taken.

Rejected: a channel per connection (a task switch for every frame and client), and a bounded queue
of frames (it holds prices that are stale by the time they are sent).
"""

import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING

import trio

from server.fanout.blocked_writers import BlockedWriters, Owner
from server.fanout.frame import Source, UpdateFrame
from server.fanout.stats import FanoutStats

if TYPE_CHECKING:
    from server.fanout.topic import Topic

WRITE_FRAMES = 64
"""Frames joined into one write: 20 KB of quotes, past which joining saves nothing."""

DRAIN_BYTES = 16 * 1024
"""One write to a socket that has drained: trio's TCP_NOTSENT_LOWAT, at which it becomes writable."""


class Backlog:
    """What a blocked or throttled outbox holds: frames cut or not replaceable, sources owed, who
    waits; `draining` while the socket is what it waits for.
    """

    __slots__ = ("drained", "draining", "owed", "unsent")

    def __init__(self) -> None:
        self.unsent: list[bytes] = []
        self.owed: dict[Source, None] = {}
        self.drained = trio.Event()
        self.draining = False


class Outbox:
    """Owned by its connection, which closes `sock`. `throttle` is in seconds, 0 for none."""

    __slots__ = (
        "_backlog",
        "_blocked_writers",
        "_closing",
        "_stats",
        "owner",
        "queue",
        "sock",
        "throttle",
    )

    def __init__(
        self, sock: socket.socket, stats: FanoutStats, blocked_writers: BlockedWriters
    ) -> None:
        self.queue: list[bytes] | None = []
        self.sock = sock
        self.owner: Owner | None = None
        self.throttle = 0.0
        self._stats = stats
        self._blocked_writers = blocked_writers
        self._backlog: Backlog | None = None
        self._closing = False

    @property
    def blocked(self) -> bool:
        """Whether the socket has to drain before anything else goes out."""
        return self._backlog is not None and self._backlog.draining

    def send(self, frame: bytes) -> None:
        """Send a frame that must arrive: an answer, a pong. Never waits."""
        if self.queue is not None:
            self.queue.append(frame)
            self.flush()
        elif self._backlog is None or self._closing:
            return
        elif self._backlog.draining:
            self._backlog.unsent.append(frame)
        else:
            self._write([frame])

    def send_updates(self, frames: list[UpdateFrame]) -> None:
        """Send updates in one write, or owe their sources where that has to wait. Never waits."""
        if self.queue is not None:
            self.queue += frames
            self.flush()
        else:
            for frame in frames:
                self.mark_pending(frame.source)

    def send_many(self, sources: Iterable[Source]) -> None:
        """Send what each of `sources` is, as fast as the client reads: what it has not read is owed,
        and kept nowhere. Never waits.
        """
        self.flush()
        if self._closing:
            return
        if self._backlog is None:
            self._backlog, self.queue = Backlog(), None
        self._backlog.owed |= dict.fromkeys(sources)
        self.release()

    def send_current(self, source: Source) -> None:
        """Send what `source` is now, or is by the time the socket has drained. Never waits."""
        if self.blocked:
            self.mark_pending(source)
        else:
            self.send(source.current_frame())

    def is_pending(self, source: Source) -> bool:
        """Whether `source` is still to be sent."""
        return self._backlog is not None and source in self._backlog.owed

    def mark_pending(self, source: Source) -> None:
        """Remember to send `source` once the socket has drained."""
        if self._backlog is not None and not self._closing:
            self._backlog.owed[source] = None

    def replace_pending(self, source: Source, other: Source) -> None:
        """Owe `other` if `source` is owed, and that no longer."""
        if self._backlog is not None and source in self._backlog.owed:
            del self._backlog.owed[source]
            self._backlog.owed[other] = None

    def conflate(self, source: Source) -> None:
        """Owe `source` in place of an update of it that is dropped, and count that."""
        if self._backlog is not None and not self._closing:
            self._backlog.owed[source] = None
            self._stats.conflated += 1

    def discard(self, source: Source) -> None:
        """Send what is queued, and owe `source` no longer: it was unsubscribed."""
        self.flush()
        self.cancel(source)

    def cancel(self, source: Source) -> None:
        """Owe `source` no longer; what is queued stays."""
        if self._backlog is not None:
            self._backlog.owed.pop(source, None)

    def flush_pending(self, source: Source) -> None:
        """Send what is owed of `source` if only a throttle holds it back."""
        if self.is_pending(source) and not self.blocked:
            self.discard(source)
            self.send(source.current_frame())

    def on_delisted(self, topic: "Topic") -> None:
        """Its connection is subscribed to `topic` no longer."""
        self.cancel(topic)
        if self.owner is not None:
            self.owner.on_delisted(topic)

    def close(self, frame: bytes) -> None:
        """Send the close frame, after what is already on its way, and then nothing more."""
        self.send(frame)
        self._closing = True
        self.queue = None
        if self._backlog is not None:
            self._backlog.owed.clear()

    def abandon(self) -> None:
        """Forget everything: the connection is over."""
        self._closing = True
        self.owner = None
        self.queue = None
        if self._backlog is not None:
            self._backlog.drained.set()
            self._backlog = None

    async def wait_drained(self) -> None:
        """Return once nothing is waiting for the socket, or the connection is over."""
        while self._backlog is not None and self._backlog.draining:
            await self._backlog.drained.wait()

    def set_throttle(self, interval: float) -> None:
        """Owe updates until `release` from now on; with 0 send what is owed and each one as it comes.

        Whoever calls this sees to it that `release` is called every `interval` seconds.
        """
        self.flush()
        self.release()
        self.throttle = interval
        if not self.blocked and not self._closing:
            self._open()

    def release(self) -> None:
        """Send what a throttled outbox owes. Never waits."""
        while self._backlog is not None and self._backlog.owed and not self._backlog.draining:
            self.write_backlog()

    def write_backlog(self) -> None:
        """Write as much of what is waiting as a socket with room takes at once."""
        backlog = self._backlog
        if backlog is None:
            return
        frames = backlog.unsent
        backlog.unsent = []
        size = sum(map(len, frames))
        sources: list[Source] = []
        for (
            source
        ) in backlog.owed:  # to look for the first again each time would take a square's time
            if size >= DRAIN_BYTES:
                break
            frames.append(source.current_frame())
            size += len(frames[-1])
            sources.append(source)
        for source in sources:
            del backlog.owed[source]
        if self._write(frames) and not backlog.owed:
            self._open()
            backlog.drained.set()

    def flush(self) -> None:
        """Hand the queued frames to the kernel; called at the end of a round. Never waits."""
        queue = self.queue
        if not queue:
            return
        if len(queue) == 1:
            self._write(queue)
        else:
            for start in range(0, len(queue), WRITE_FRAMES):
                if not self._write(queue[start : start + WRITE_FRAMES]):
                    self._keep(queue[start + WRITE_FRAMES :], 0)
                    break
        queue.clear()

    def _write(self, frames: list[bytes]) -> bool:
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        try:
            taken = self.sock.send(data)
        except BlockingIOError:
            taken = 0
        except OSError:
            self.abandon()  # the connection's own task sees the same broken socket and ends it
            return False
        self._stats.bytes_sent += taken
        if taken == len(data):
            self._stats.messages_sent += len(frames)
            return True
        self._block()
        self._keep(frames, taken)
        return False

    def _block(self) -> None:
        self.queue = None
        if self._backlog is None:
            self._backlog = Backlog()
        if not self._backlog.draining:
            self._backlog.draining = True
            self._blocked_writers.start(self)

    def _open(self) -> None:
        """Nothing waits for the socket: go on as the client asked."""
        self._backlog = Backlog() if self.throttle and not self._closing else None
        self.queue = None if self.throttle or self._closing else []

    def _keep(self, frames: list[bytes], taken: int) -> None:
        """Remember what is left of `frames` after `taken` bytes of them went out."""
        backlog = self._backlog
        if backlog is None:
            return
        for frame in frames:
            if taken >= len(frame):
                taken -= len(frame)
                self._stats.messages_sent += 1
            elif taken == 0 and isinstance(frame, UpdateFrame):
                self.conflate(frame.source)
            else:
                backlog.unsent.append(frame[taken:])
                taken = 0


class DeflatingOutbox(Outbox):
    """Of a connection that negotiated compression: updates go out in their compressed form, which
    all such connections share. What is for one client only is sent as it is.
    """

    __slots__ = ()

    def _write(self, frames: list[bytes]) -> bool:
        return super()._write(
            [frame.deflated if isinstance(frame, UpdateFrame) else frame for frame in frames]
        )
