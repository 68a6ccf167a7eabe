"""Brings a returning client up to date: nothing, missed updates or a full quote for each symbol."""

from typing import NamedTuple

from server.fanout.frame import UpdateFrame
from server.fanout.topic import Topic
from server.quotes.messages import Recovered
from server.quotes.position import Position
from server.quotes.view import JSON, View


class Recovery(NamedTuple):
    """`recovered`: the way by symbol. `quotes`: the topics whose full quote is needed. `held`: the
    other topics. `patches`: the frames that the client missed of these.
    """

    recovered: dict[str, Recovered]
    quotes: list[Topic]
    held: list[Topic]
    patches: list[UpdateFrame]


def recover(topics: list[Topic], position: Position | None, view: View = JSON) -> Recovery:
    """Return what a client at `position` lacks of `topics` in its `view`; it may not have them all, or
    any.
    """
    if position is None:
        return Recovery({}, topics, [], [])
    epoch, versions = position
    recovery = Recovery({}, [], [], [])
    for topic in topics:
        missed = topic.missed_since(epoch, versions.get(topic.symbol), view)
        if missed is None and not topic.waiting:
            recovery.quotes.append(topic)
            recovery.recovered[topic.symbol] = "quote"
        else:
            recovery.held.append(topic)
            recovery.patches.extend(missed or ())
            recovery.recovered[topic.symbol] = "patches" if missed else "current"
    return recovery
