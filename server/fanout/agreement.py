"""Decides which state of a symbol counts: this instance's, another instance's or the catalogue's."""

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from server.fanout.topic import Topic
from server.quotes.adjustment import newest_reference, renamed, up_to_date
from server.quotes.identity import former_symbols, is_continued, same_instrument
from server.quotes.instrument import LARGEST_WHOLE
from server.quotes.snapshot import LiveSnapshot, Snapshot, live


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
    state = up_to_date(snapshot, topic.instrument)
    return live(state, snapshot.ts, snapshot.row, snapshot.minutes)


def take_over(topic: Topic, snapshot: LiveSnapshot, *, older: bool) -> None:
    """Take over another instance's price if it is newer; with `older`, also if it only differs."""
    state, minutes = agree_on_adjustments(topic, snapshot), topic.context.bars.minutes
    ahead = ahead_of(topic, state)
    if older and (topic.version, topic.ts) != (state.version, state.ts):
        topic.adopt(state)
    elif not older and ahead < 0:
        topic.adopt(state)
        topic.quote_due = topic.watched
    elif ahead == 0 and state.minutes and state.symbol not in minutes.restored:
        # The leader may have read the beginning of a minute from the store since.
        minutes.adopt(state.symbol, state.minutes)


def is_of(topic: Topic | None, row: Snapshot) -> bool:
    """Return whether a row, or another instance's state, belongs to the topic's instrument.

    It may be None: then no other instrument has the symbol.
    """
    return topic is None or same_instrument(
        row.symbol, topic.instrument.adjustments, row.adjustments
    )


def renames(topics: Mapping[str, Topic], rows: Iterable[Snapshot]) -> dict[str, Snapshot]:
    """Return which of `topics` have another symbol in `rows`: by old symbol, the new row.

    If one takes the symbol of another, that one's own rename is earlier, unless both exchange theirs.
    """
    found, ordered = dict[str, Snapshot](), dict[str, Snapshot]()
    for row in rows:
        for symbol, adjustments in former_symbols(row.adjustments):
            topic = topics.get(symbol)
            if topic and is_continued(topic.instrument.adjustments, adjustments):
                found |= {symbol: row} if symbol != row.symbol else {}
                break
    while found:
        free = [symbol for symbol, row in found.items() if row.symbol not in found]
        for symbol in free or [*found][:1]:
            ordered[symbol] = found.pop(symbol)
    return ordered


def renamed_state(old: Topic, row: Snapshot, former: int) -> LiveSnapshot:
    """Return the state of `old` under the symbol of `row`, the state that the store made of it.

    The row counts if the leader was ahead of this instance when it wrote the price. Otherwise the row's
    version may be larger only because the symbol had an earlier instrument. Then both versions are
    added: the instance with the newest price gets the highest version, and the others take it over.

    Arguments:
        former: the last version here of that earlier instrument, 1 without one.
    """
    mine = up_to_date(old.snapshot(), row.instrument)
    state = renamed(mine, row.symbol, 1, old.ts)
    if row.version <= state.version:
        state = renamed(mine, row.symbol, former, old.ts)
    elif row.quoted_at >= mine.quoted_at and row.volume >= mine.volume:
        state = row
    else:
        version = max(row.version + state.version, former + 1)
        state = replace(state, version=min(version, LARGEST_WHOLE))
    return live(state, old.ts, old.row, old.live_snapshot().minutes)


def state_after(former: Topic, row: Snapshot) -> Snapshot:
    """Return the state of an instrument whose new symbol belonged to a delisted one, `former`.

    Prices and adjustments of that one do not go on. The version goes on, so that no client takes it for
    one that it has.
    """
    if row.version > former.version:
        return row
    return renamed(row, row.symbol, former.version, former.ts)
