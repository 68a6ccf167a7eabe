"""The frames and symbols that wait while a connection's socket is full or its client throttled."""

import trio

from server.fanout.frame import Source

DRAIN_BYTES = 16 * 1024
"""Bytes of one write to a socket that has drained. At this many unsent bytes the kernel calls a socket
writable (trio's TCP_NOTSENT_LOWAT).
"""


class Backlog:
    """Owned by its outbox.

    `unsent` holds frames that must arrive as they are: the rest of a cut frame, and answers. `pending`
    holds sources by key, so a connection has one entry for each symbol: its quote or its removal
    notice. The backlog keeps no updates. It makes a source's current frame when it sends it. `drained`
    is set when nothing waits any more, or the connection is over.
    """

    __slots__ = ("drained", "pending", "unsent")

    def __init__(self) -> None:
        self.unsent: list[bytes] = []
        self.pending: dict[object, Source] = {}
        self.drained = trio.Event()

    def add(self, source: Source) -> None:
        """Make `source` pending, in place of any other with its key."""
        self.pending[source.key] = source

    def discard(self, source: Source) -> None:
        """Take `source` out; harmless if it is not pending."""
        if source in self:
            del self.pending[source.key]

    def __contains__(self, source: Source) -> bool:
        return self.pending.get(source.key) is source

    def take(self) -> list[bytes]:
        """Take out the next write's frames: all unsent ones, then pending ones to about DRAIN_BYTES."""
        frames, self.unsent = self.unsent, []
        size = sum(map(len, frames))
        taken: list[Source] = []
        # They are deleted after the loop: to look for the first entry again after each deletion
        # takes quadratic time.
        for source in self.pending.values():
            if size >= DRAIN_BYTES:
                break
            frames.append(source.current_frame())
            size += len(frames[-1])
            taken.append(source)
        for source in taken:
            del self.pending[source.key]
        return frames
