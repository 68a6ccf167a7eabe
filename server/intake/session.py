"""Begins a session of kept trades. A trade's own time says to which session it belongs."""

from server.intake.trades import KeptTrades
from server.quotes.instrument import Instrument
from server.quotes.update import NewSession


def begin_session(
    trades: KeptTrades, symbol: str, instrument: Instrument, opening: int, now: int
) -> NewSession | None:
    """Let the session that opened last begin, before the next trade counts.

    Returns the update that the quote needs for that, None if it has begun already.
    """
    opened, opening = trades[symbol].opened, max(instrument.opened_at, opening)
    if opened >= opening:
        return None
    values = trades[symbol].values()
    # If nobody knows the session of the day's values, the time of the price decides.
    due = opened > 0 or (values.traded and values.time_us < opening)
    trades.open(symbol, opening, anew=due)
    known = instrument.opened_at >= opening
    return NewSession(symbol, opening, now) if due and not known else None
