"""Messages about the flow of prices: of all prices, and of each symbol's."""

from collections import deque
from collections.abc import Callable
from datetime import datetime
from time import time_ns
from typing import Literal

import trio
from msgspec import UNSET, structs

from server.fanout.flusher import Flusher
from server.fanout.frame import Source, UpdateFrame, message_frame
from server.fanout.subscriber_set import Audience
from server.quotes.messages import MarketState, Status
from server.quotes.view import View


class FeedStatus(Source):
    """Whether prices are flowing at all, and how much they are conflated in an overload.

    It sends each change to all `outboxes`, which are the hub's, behind all prices that came before: a
    client may stop at the feed's end. `message` is the newest status, even if it is not sent yet. While
    the market is `closed`, clients get that in place of `live`. A problem of the feed is `stale` also
    then.
    """

    trails = True

    def __init__(
        self, flusher: Flusher, outboxes: Audience, cut: Callable[[], list[trio.Event]]
    ) -> None:
        """`cut` returns the events that are set once all present prices are published."""
        self.message = self._sent = Status("live", "feed_started")
        self._flusher = flusher
        self._outboxes = outboxes
        self._cut = cut
        self._closed: Status | None = None
        self._waiting: deque[tuple[Status, list[trio.Event]]] = deque()
        self._news = trio.Event()

    @property
    def is_news(self) -> bool:
        """Whether a client that connects now needs this status."""
        return self._shown.status != "live" or bool(self._sent.interval)

    @property
    def closed(self) -> bool:
        """Whether the market is outside its sessions."""
        return self._closed is not None

    def close(self, next_open: datetime | None) -> None:
        """Tell every connection that the market is closed, and when it opens, if that is known."""
        before = self._shown
        self._closed = Status("closed", "session_closed", next_open=next_open or UNSET)
        if self._shown != before:
            self._announce(self._sent)

    def open(self) -> None:
        """Tell every connection that the market is open, if it was closed."""
        before, self._closed = self._shown, None
        if before.status == "closed":
            if self.message.status == "live":
                self.message = structs.replace(self.message, reason="session_opened")
            self._announce(structs.replace(self._sent, reason="session_opened"))

    def set(self, status: Literal["live", "stale"], reason: str) -> None:
        """Tell every connection whether prices are flowing, if that is news."""
        message = structs.replace(self.message, status=status, reason=reason)
        if message == self.message:
            return
        self.message = message
        owed = self._cut()
        if owed or self._waiting:
            self._waiting.append((message, owed))
            self._news.set()
        else:
            self._announce(message)

    def set_interval(self, interval: float) -> None:
        """Tell every connection that each symbol is published at most once in `interval` seconds. This
        does not wait for prices, as an overload has too many of them.
        """
        self.message = structs.replace(self.message, interval=interval)
        self._announce(structs.replace(self._sent, interval=interval))

    async def run(self) -> None:
        """Send each status once the prices before it are published, until cancelled."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            while self._waiting:
                message, owed = self._waiting[0]
                for event in owed:
                    await event.wait()
                self._waiting.popleft()
                self._announce(structs.replace(message, interval=self.message.interval))

    def current_frame(self, view: View) -> UpdateFrame:
        return UpdateFrame(message_frame(view.encode(self._shown), view), self)

    @property
    def _shown(self) -> Status:
        if self._closed is None or self._sent.status != "live":
            return self._sent
        return structs.replace(self._closed, interval=self._sent.interval)

    def _announce(self, message: Status) -> None:
        self._sent = message
        self._flusher.send(self, self._outboxes, time_ns() // 1000)


class MarketStatus(Source):
    """Whether one symbol's market is `open`, `halted` or `closed`, as its publisher says."""

    __slots__ = ("message",)

    trails = True

    def __init__(self, symbol: str) -> None:
        self.message = Status("open", "", symbols=[symbol])

    @property
    def is_news(self) -> bool:
        """Whether a client that subscribes now needs this status."""
        return self.message.status != "open"

    def set(self, status: MarketState, reason: str) -> bool:
        """Take over a status. Return whether it is another one than before."""
        before = self.message
        self.message = structs.replace(before, status=status, reason=reason)
        return self.message != before

    def rename(self, symbol: str) -> None:
        """Take over the symbol's new name."""
        self.message = structs.replace(self.message, symbols=[symbol])

    def current_frame(self, view: View) -> UpdateFrame:
        return UpdateFrame(message_frame(view.encode(self.message), view), self)


class TopicStatus(Source):
    """Whether one symbol's prices are flowing."""

    __slots__ = ("quiet", "symbol")

    trails = True

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.quiet = False

    def current_frame(self, view: View) -> UpdateFrame:
        message = Status("stale", "quiet") if self.quiet else Status("live", "traded")
        message = structs.replace(message, symbols=[self.symbol])
        return UpdateFrame(message_frame(view.encode(message), view), self)
