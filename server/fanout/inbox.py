"""What came in for one symbol and is not published yet: a bounded channel, and for a feed that cannot
wait the newest of what found no room there.
"""

from contextlib import suppress

import trio

from server.fanout.stats import FanoutStats
from server.quotes.quote import Update, merged

INBOX_TRADES = 256
"""Trades waiting for one symbol; 743 a second was the busiest of three symbols' real day."""


class Inbox:
    """Filled by the broadcaster, emptied by the topic's task."""

    __slots__ = ("_overflow", "_receive", "_send", "_stats")

    def __init__(self, stats: FanoutStats) -> None:
        self._send, self._receive = trio.open_memory_channel[Update](INBOX_TRADES)
        self._overflow: Update | None = None
        self._stats = stats

    @property
    def waiting(self) -> bool:
        """Whether anything is in it."""
        return self._overflow is not None or self._send.statistics().current_buffer_used > 0

    def offer(self, update: Update) -> bool:
        """Take `update` unless the inbox, or what overflowed of it, is full."""
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
        """Keep only the newest of what there was no room for."""
        self._stats.conflated += 1 if self._overflow else 0
        self._overflow = merged(self._overflow, update) if self._overflow else update

    def take_nowait(self) -> Update | None:
        """The next update: from the channel, then what overflowed of it, then None."""
        try:
            return self._receive.receive_nowait()
        except (trio.WouldBlock, trio.EndOfChannel):
            overflow, self._overflow = self._overflow, None
            return overflow

    async def take(self) -> Update:
        """The next update, once there is one. Errors: EndOfChannel once it is closed and empty."""
        return self.take_nowait() or await self._receive.receive()

    def discard(self) -> None:
        """Forget what is in it."""
        self._overflow = None
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                self._receive.receive_nowait()

    def close(self) -> None:
        """Take nothing more; what is in it can still be taken out."""
        self._send.close()
