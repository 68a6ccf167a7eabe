"""The parts of the hub that a topic uses."""

from typing import NamedTuple

from server.fanout.bars import Bars
from server.fanout.flusher import Flusher
from server.fanout.journal import Journal
from server.fanout.stats import FanoutStats
from server.history.trades import RecentTrades


class TopicContext(NamedTuple):
    """The objects that all topics share: counters, the journal, the flusher, the bars, the trades."""

    stats: FanoutStats
    journal: Journal
    flusher: Flusher
    bars: Bars
    trades: RecentTrades
