"""Brings a returning client up to date: nothing, missed updates or a full quote for each symbol."""

from collections.abc import Iterable
from typing import NamedTuple

from server.fanout.frame import UpdateFrame
from server.fanout.topic import Topic
from server.quotes.messages import Recovered
from server.quotes.position import Position


class Recovery(NamedTuple):
    """`recovered` names what each symbol gets. `quotes` are the topics of which the client needs the
    full quote, `held` the other topics. `patches` are the frames of `held` that the client missed.
    """

    recovered: dict[str, Recovered]
    quotes: list[Topic]
    held: list[Topic]
    patches: list[UpdateFrame]


def recover(topics: Iterable[Topic], position: Position | None) -> Recovery:
    """Return what a client at `position` needs of `topics`, of which it may have some or none."""
    if position is None:
        return Recovery({}, list(topics), [], [])
    epoch, versions = position
    recovery = Recovery({}, [], [], [])
    for topic in topics:
        missed = topic.missed_since(epoch, versions.get(topic.symbol))
        if missed is None:
            recovery.quotes.append(topic)
            recovery.recovered[topic.symbol] = "quote"
        else:
            recovery.held.append(topic)
            recovery.patches.extend(missed)
            recovery.recovered[topic.symbol] = "patches" if missed else "current"
    return recovery
