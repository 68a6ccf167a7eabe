"""What clients are told about the flow of prices: of all of them, and of each symbol's."""

from server.fanout.frame import UpdateFrame, text_frame
from server.quotes.messages import Status, encode


class FeedStatus:
    """Whether prices are flowing at all, and how much they are conflated in an overload.

    A source: a slow client is owed it.
    """

    def __init__(self) -> None:
        self.message = Status("live", "feed_started")

    @property
    def is_news(self) -> bool:
        """Whether somebody who connects now has to be told."""
        return self.message.status == "stale" or bool(self.message.interval)

    def current_frame(self) -> UpdateFrame:
        """The status as one frame."""
        return UpdateFrame(text_frame(encode(self.message)), self)


class TopicStatus:
    """Whether one symbol's prices are flowing; a source, too."""

    __slots__ = ("quiet", "symbol")

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.quiet = False

    def current_frame(self) -> UpdateFrame:
        """The status as one frame."""
        message = (
            Status("stale", "quiet", symbols=[self.symbol])
            if self.quiet
            else Status("live", "traded", symbols=[self.symbol])
        )
        return UpdateFrame(text_frame(encode(message)), self)
