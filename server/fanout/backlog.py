"""The frames and symbols that wait while a connection's socket is full or its client throttled."""

from collections.abc import Iterable

import trio

from server.fanout.frame import Source
from server.quotes.view import View

DRAIN_BYTES = 16 * 1024
"""Bytes of the largest write to a socket that has drained: trio's TCP_NOTSENT_LOWAT, at which the
kernel calls a socket writable.
"""


class Backlog:
    """Owned by its outbox.

    `unsent` holds frames that must arrive as they are: the rest of a cut frame, and answers.
    `pending` and `held` hold sources by key, so a connection has one entry for each symbol: its quote
    or its removal notice. No update is kept. The source's current frame is made when it is sent.

    Pending sources go out as the socket takes them, those that wait for longest first. Held ones wait
    for the next release of a throttled client. `waiting` is the one of both that updates go to.

    `moved` is set with each write, `drained` when nothing waits for the socket any more, or the
    connection is over.
    """

    __slots__ = ("drained", "held", "moved", "pending", "unsent", "waiting")

    def __init__(self) -> None:
        self.unsent: list[bytes] = []
        self.pending: dict[object, Source] = {}
        self.held: dict[object, Source] = {}
        self.waiting = self.pending
        self.moved = trio.Event()
        self.drained = trio.Event()

    @property
    def size(self) -> int:
        """The number of frames and sources that wait."""
        return len(self.unsent) + len(self.pending) + len(self.held)

    def add(self, source: Source) -> None:
        """Make `source` pending, in place of any other with its key."""
        self.held.pop(source.key, None)
        self.pending[source.key] = source

    def discard(self, source: Source) -> None:
        """Take `source` out; harmless if it does not wait."""
        for sources in (self.pending, self.held):
            if sources.get(source.key) is source:
                del sources[source.key]

    def discard_key(self, key: object) -> None:
        """Take out the source with `key`, whichever it is; harmless if none waits."""
        self.pending.pop(key, None)
        self.held.pop(key, None)

    def hold(self, *, throttled: bool) -> None:
        """Have all that waits for its turn, and all updates from now on, wait for the next release.
        If not `throttled`, make all of it pending.
        """
        if throttled:
            self.held = self.pending | self.held
            self.pending = {}
        else:
            self.release()
        self.waiting = self.held if throttled else self.pending

    def release(self) -> None:
        """Make what is held pending."""
        self.pending |= self.held
        self.held.clear()

    def put_back(self, sources: Iterable[Source]) -> None:
        """Make `sources` pending again that the socket did not take: before all others, in order."""
        self.pending = {source.key: source for source in sources} | self.pending
        if self.waiting is not self.held:
            self.waiting = self.pending

    def note_move(self) -> None:
        """Wake the tasks that wait for a write."""
        if self.moved.statistics().tasks_waiting:
            self.moved.set()
            self.moved = trio.Event()

    def note_drained(self) -> None:
        """Wake all tasks that wait for the socket."""
        self.moved.set()
        self.drained.set()
        self.moved, self.drained = trio.Event(), trio.Event()

    def __contains__(self, source: Source) -> bool:
        return source in (self.pending.get(source.key), self.held.get(source.key))

    def take(self, limit: int, view: View) -> list[bytes]:
        """Take out the frames of the next write: all unsent ones, then pending ones while they are
        less than `limit` bytes. The frames of sources are those of `view`.
        """
        frames, self.unsent = self.unsent, []
        size = sum(map(len, frames))
        taken: list[Source] = []
        # They are deleted after the loop: to look for the first entry again after each deletion
        # takes quadratic time.
        for source in self.pending.values():
            if size >= limit:
                break
            frames.append(source.current_frame(view))
            size += len(frames[-1])
            taken.append(source)
        for source in taken:
            del self.pending[source.key]
        return frames
