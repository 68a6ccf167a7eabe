"""The updates of one symbol that are not published yet: a bounded channel and an overflow.

A feed that cannot wait finds a full channel. Its updates are then merged into one, the overflow.
"""

from collections.abc import Iterator
from contextlib import suppress

import trio

from server.fanout.stats import FanoutStats
from server.quotes.update import Update, merged

INBOX_TRADES = 256
"""Trades waiting for one symbol. On a real day the busiest of three symbols had 743 in a second."""


class Inbox:
    """Filled by the broadcaster, emptied by one topic task, which sets `finished` at its end.

    `previous` are the inboxes before it, whose tasks have to end first: the topic's own, and that of a
    topic in whose place this one came.
    """

    __slots__ = ("_overflow", "_receive", "_send", "_stats", "finished", "previous")

    def __init__(self, stats: FanoutStats, *previous: "Inbox | None") -> None:
        self.finished = trio.Event()
        self.previous = tuple(each for each in previous if each and not each.finished.is_set())
        self._send, self._receive = trio.open_memory_channel[Update](INBOX_TRADES)
        self._overflow: Update | None = None
        self._stats = stats

    @property
    def waiting(self) -> bool:
        """Whether it holds any update."""
        return self._overflow is not None or self._send.statistics().current_buffer_used > 0

    @property
    def idle(self) -> bool:
        """Whether its task has published all updates that it ever took, and waits for the next."""
        return self._overflow is None and self._send.statistics().tasks_waiting_receive > 0

    def offer(self, update: Update) -> bool:
        """Take `update` unless the inbox is full or has an overflow; return whether it was taken."""
        if self._overflow is not None:
            return False
        try:
            self._send.send_nowait(update)
        except trio.WouldBlock:
            return False
        return True

    async def put(self, update: Update) -> None:
        """Take `update` once there is room. Errors: ClosedResourceError."""
        await self._send.send(update)

    def conflate(self, update: Update) -> None:
        """Merge `update` into the overflow."""
        self._stats.conflated += 1 if self._overflow else 0
        self._overflow = merged(self._overflow, update) if self._overflow else update

    def take_nowait(self) -> Update | None:
        """Take out the next update: from the channel, then the overflow, else None."""
        try:
            return self._receive.receive_nowait()
        except (trio.WouldBlock, trio.EndOfChannel):
            overflow, self._overflow = self._overflow, None
            return overflow

    def drain(self) -> Iterator[Update]:
        """Take out one update after another until there is none."""
        while (update := self.take_nowait()) is not None:
            yield update

    async def take(self) -> Update:
        """Take out the next update, once there is one. Errors: EndOfChannel once closed and empty."""
        return self.take_nowait() or await self._receive.receive()

    def discard(self) -> None:
        """Forget all updates in it, and in the inboxes before it."""
        for each in self.previous:
            each.discard()
        self._overflow = None
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                self._receive.receive_nowait()

    def close(self) -> None:
        """Take no more updates. The updates in it can still be taken out."""
        self._send.close()
