"""The last word about a delisted symbol to a subscriber that cannot take it now."""

from typing import TYPE_CHECKING

from server.fanout.frame import UpdateFrame, text_frame
from server.quotes.messages import QuotesPatch, encode
from server.quotes.patch import Add, Operation, Remove

if TYPE_CHECKING:
    from server.fanout.topic import Topic


class Farewell:
    """A source, owed in place of the topic: gives the quote and takes it away, in whatever state the
    topic is then. It may be listed again, but its former subscribers are none any more.
    """

    __slots__ = ("_topic",)

    def __init__(self, topic: "Topic") -> None:
        self._topic = topic

    def current_frame(self) -> UpdateFrame:
        """Both as one frame."""
        topic = self._topic
        operations: list[Operation] = [Add(topic.pointer, topic.quote), Remove(topic.pointer)]
        message = QuotesPatch(topic.ts, {topic.symbol: topic.version}, operations, topic.epoch)
        return UpdateFrame(text_frame(encode(message)), self)
