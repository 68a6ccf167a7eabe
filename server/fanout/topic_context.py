"""What a topic needs of the hub."""

from typing import NamedTuple

from server.fanout.flusher import Flusher
from server.fanout.journal import Journal
from server.fanout.stats import FanoutStats

NO_VERSION_LEFT = (
    "the version is the largest there is, so the quote cannot move: correct the stored one"
)
"""The log's words for a symbol that cannot move any more."""

NEGATIVE = "a move to a negative price, which an instrument of this type cannot have"
"""The log's words for such a move."""


class TopicContext(NamedTuple):
    """The objects that all topics share: counters, the journal, the flusher."""

    stats: FanoutStats
    journal: Journal
    flusher: Flusher
