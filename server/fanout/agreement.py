"""Decides which state of a symbol counts: this instance's, another instance's or the catalogue's."""

from server.fanout.topic import Topic
from server.quotes.adjustment import newest_reference, up_to_date
from server.quotes.snapshot import LiveSnapshot, live


def ahead_of(topic: Topic, snapshot: LiveSnapshot) -> int:
    """Return a number above 0 if the topic is newer than another instance's state, below 0 if older.

    If no feed has moved the quote, the price that came last from a catalogue is the newest.
    """
    ahead = topic.version - snapshot.version
    mine, theirs = topic.quote.current_price, snapshot.price
    if ahead or topic.version > 1 or mine == theirs:
        return ahead
    if mine is None or theirs is None:
        return -1 if mine is None else 1
    return topic.ts - snapshot.ts


def agree_on_adjustments(topic: Topic, snapshot: LiveSnapshot) -> LiveSnapshot:
    """Return another instance's state after the adjustments made here. If it has further ones, make
    them here: the leader may have heard of them first.
    """
    if snapshot.adjustments == topic.instrument.adjustments:
        return snapshot
    newest = newest_reference(snapshot.instrument, topic.instrument)
    if newest != topic.instrument:
        topic.relist(up_to_date(topic.snapshot(), newest))
    return live(up_to_date(snapshot, topic.instrument), snapshot.ts, snapshot.row)
