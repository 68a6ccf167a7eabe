"""Messages about the flow of prices: of all prices, and of each symbol's."""

from time import time_ns
from typing import Literal

from msgspec import structs

from server.fanout.flusher import Flusher
from server.fanout.frame import Source, UpdateFrame, text_frame
from server.fanout.subscriber_set import SubscriberSet
from server.quotes.messages import MarketState, Status, encode


class FeedStatus(Source):
    """Whether prices are flowing at all, and how much they are conflated in an overload.

    It sends each change to all `outboxes`, which are the hub's.
    """

    def __init__(self, flusher: Flusher, outboxes: SubscriberSet) -> None:
        self.message = Status("live", "feed_started")
        self._flusher = flusher
        self._outboxes = outboxes

    @property
    def is_news(self) -> bool:
        """Whether a client that connects now needs this status."""
        return self.message.status == "stale" or bool(self.message.interval)

    def set(self, status: Literal["live", "stale"], reason: str) -> None:
        """Tell every connection whether prices are flowing, if that is news."""
        message = structs.replace(self.message, status=status, reason=reason)
        if message != self.message:
            self._announce(message)

    def set_interval(self, interval: float) -> None:
        """Tell every connection that each symbol is published at most once in `interval` seconds."""
        self._announce(structs.replace(self.message, interval=interval))

    def current_frame(self) -> UpdateFrame:
        """Return the status as one frame."""
        return UpdateFrame(text_frame(encode(self.message)), self)

    def _announce(self, message: Status) -> None:
        self.message = message
        self._flusher.queue(self.current_frame(), self._outboxes, time_ns() // 1000)


class MarketStatus(Source):
    """Whether one symbol's market is `open`, `halted` or `closed`, as its publisher says."""

    __slots__ = ("message",)

    def __init__(self, symbol: str) -> None:
        self.message = Status("open", "", symbols=[symbol])

    @property
    def is_news(self) -> bool:
        """Whether a client that subscribes now needs this status."""
        return self.message.status != "open"

    def set(self, status: MarketState, reason: str) -> bool:
        """Take over a status. Return whether it is another one than before."""
        before, self.message = (
            self.message,
            structs.replace(self.message, status=status, reason=reason),
        )
        return self.message != before

    def current_frame(self) -> UpdateFrame:
        """Return the status as one frame."""
        return UpdateFrame(text_frame(encode(self.message)), self)


class TopicStatus(Source):
    """Whether one symbol's prices are flowing."""

    __slots__ = ("quiet", "symbol")

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.quiet = False

    def current_frame(self) -> UpdateFrame:
        """Return the status as one frame."""
        message = (
            Status("stale", "quiet", symbols=[self.symbol])
            if self.quiet
            else Status("live", "traded", symbols=[self.symbol])
        )
        return UpdateFrame(text_frame(encode(message)), self)
