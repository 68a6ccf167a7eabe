"""Openings of sessions: what they do to a quote's reference data, and that each counts once."""

import msgspec

from server.quotes.instrument import LARGEST_WHOLE, Instrument
from server.quotes.quote import Quote, quote_after, resumed_quote, snapshot_of
from server.quotes.snapshot import Snapshot
from server.quotes.update import Move, NewSession, Opening, Update


def opening_of(update: Update) -> Opening | None:
    """Return the opening that an update makes, None for most updates."""
    if isinstance(update, Move):
        return update.day_range.opening
    return update.change.day.opening


def opened(instrument: Instrument, opening: Opening, new: Quote) -> Instrument:
    """Return the reference data after an opening, which made the quote `new`."""
    return msgspec.structs.replace(
        instrument,
        base_price=new.base_price,
        previous_close=new.previous_close,
        opened_at=opening.time_us,
    )


def begun_once(change: Update, instrument: Instrument) -> Update:
    """Return an update without the opening of a session that the quote has begun already."""
    opening = opening_of(change)
    begun = Opening(instrument.opened_at) if instrument.opened_at else None
    if isinstance(change, Move) or opening is None or opening.replaces(begun):
        return change
    day = msgspec.structs.replace(change.change.day, opening=None)
    return msgspec.structs.replace(change.change, day=day)


def is_due(opened_at: int, version: int, quoted_at: int, opening: int) -> bool:
    """Whether a quote's day values are those of a session before the one that begins at `opening`.

    A quote without an update has none. If nobody knows the session, the time of the price decides.
    """
    return opened_at < opening and version > 1 and (opened_at > 0 or quoted_at < opening)


def in_session(snapshot: Snapshot, opening: int) -> Snapshot:
    """Return a state after the opening of the session, if that is due. All instances and readers do
    it alike, so a symbol that nobody has in memory has the same quote everywhere.
    """
    due = is_due(snapshot.opened_at, snapshot.version, snapshot.quoted_at, opening)
    if not due or snapshot.price is None:
        return snapshot
    update, instrument = NewSession(snapshot.symbol, opening, 0), snapshot.instrument
    old, decimals = resumed_quote(snapshot), instrument.price_decimals
    new = quote_after(old, update, decimals, instrument.size_decimals)
    version = min(snapshot.version + (new != old), LARGEST_WHOLE)
    return snapshot_of(opened(instrument, Opening(opening), new), new, version)
