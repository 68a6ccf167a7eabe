"""Ends each round: every outbox that got frames hands them to the kernel in one write.

One task serves all connections. While it writes to ten thousand sockets, topics go on filling the
outboxes it has not reached yet. So the more there is to send, the more frames share a write.
"""

from collections.abc import Iterable
from time import perf_counter, time_ns

import trio

from server.fanout.frame import Source, UpdateFrame
from server.fanout.outbox import Outbox
from server.fanout.stats import FanoutStats
from server.fanout.subscriber_set import Audience
from server.pacing import CHECKPOINT_EVERY


class Joiner:
    """Joins the frames of each outbox in a round. Connections with the same subscriptions and form have
    the same frames, mostly one behind the other. So the last result serves the next outbox, too:
    joining twenty frames takes 1.2 µs, and comparing two such lists 0.05 µs.
    """

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._joined = b""

    def join(self, frames: list[bytes]) -> bytes:
        """Return the frames as the bytes of one write."""
        if frames != self._frames:
            self._frames, self._joined = [*frames], b"".join(frames)
        return self._joined


class Flusher:
    """The outboxes of the coming round. Publishers add to it, `run` empties it.

    `conflation`: seconds that each topic lets pass between two publications; 0 unless overloaded.
    """

    def __init__(self, stats: FanoutStats) -> None:
        self.conflation = 0.0
        self._stats = stats
        self._dirty: list[Outbox] = []
        self._oldest_ts = 0
        self._work = trio.Event()
        self._done = trio.Event()

    def queue(self, frame: UpdateFrame, outboxes: Iterable[Outbox], ts: int) -> None:
        """Give `frame` to all `outboxes`, to be sent at the end of the round.

        `ts`: when the feed gave the update, in microseconds since the epoch. The loop runs for every
        client and price. It does not yield: a subscriber that joined or drained half-way would get
        this version twice.
        """
        if not self._work.is_set():
            self._work.set()
            self._oldest_ts = ts
        dirty = self._dirty
        for outbox in outboxes:
            queue = outbox.queue
            if queue is None:
                outbox.conflate(frame.source)
            else:
                if not queue:
                    dirty.append(outbox)
                queue.append(frame)

    def send(self, source: Source, audience: Audience, ts: int) -> None:
        """Give the current frame of `source`, made once for each view, to all of `audience`."""
        for group in audience.groups:
            self.queue(source.current_frame(group.view), group, ts)

    async def wait_round(self) -> None:
        """Wait until all that was published before this call has been flushed."""
        if self._work.is_set():
            await self._done.wait()

    async def run(self) -> None:
        """Flush round after round until cancelled."""
        while True:
            await self._work.wait()
            dirty, self._dirty = self._dirty, []
            done, self._done = self._done, trio.Event()
            self._work = trio.Event()
            await self._flush(dirty, self._oldest_ts)
            # A connection may end before the next round, and must not be kept until then.
            del dirty
            done.set()

    async def _flush(self, dirty: list[Outbox], oldest_ts: int) -> None:
        """Flush each of `dirty`.

        Each chunk's delivery time counts from the round's oldest price, so it is never too short. It is
        at least 0, because the sum of all times is a counter. A clock that was set back would make it
        negative.
        """
        stats, join = self._stats, Joiner().join
        started = perf_counter()
        for start in range(0, len(dirty), CHECKPOINT_EVERY):
            before = stats.messages_sent
            for outbox in dirty[start : start + CHECKPOINT_EVERY]:
                outbox.flush(join)
            age = max(0.0, time_ns() / 1e9 - oldest_ts / 1e6)
            stats.delivery_latency.observe(age, stats.messages_sent - before)
            await trio.lowlevel.checkpoint()
        if dirty:
            burst = perf_counter() - started
            stats.fanout_burst.observe(burst)
            stats.longest_burst = max(stats.longest_burst, burst)
