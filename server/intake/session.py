"""The opening of a session, as published trades see it: a trade's own time says to which it belongs."""

from server.intake.trades import KeptTrades, Row
from server.quotes.instrument import Instrument
from server.quotes.traded import traded
from server.quotes.update import Change, DayRange, NewSession, Opening


def begin_session(
    trades: KeptTrades, symbol: str, instrument: Instrument, opening: int, now: int
) -> NewSession | None:
    """Let the session that opened last begin, before the next trade counts.

    Returns the update that the quote needs for that, None if it has begun already.
    """
    opened, opening = trades.opened(symbol), max(instrument.opened_at, opening)
    if opened >= opening:
        return None
    values = trades.values(symbol)
    # If nobody knows the session of the day's values, the time of the price decides.
    due = opened > 0 or (values.traded and values.time_us < opening)
    trades.open(symbol, opening, anew=due)
    known = instrument.opened_at >= opening
    return NewSession(symbol, opening, now) if due and not known else None


def before_opening(trades: KeptTrades, symbol: str, row: Row, now: int, *, late: bool) -> Change:
    """Return the effect of a kept trade of before the opening that comes after it.

    If no trade of this session has come, it is the last one before the opening. Else it counts for its
    bar only. The day's values and the volume begin without it.
    """
    minutes = (traded(row.price, row.size, row.time_us, late=late),)
    if late or trades.values(symbol).high is not None:
        return Change(symbol, None, 0, 0, now, minutes=minutes)
    day = DayRange(opening=Opening(trades.opened(symbol), row.price))
    return Change(symbol, row.price, 0, row.time_us, now, day=day, minutes=minutes)
