"""The effects of kept trades that came late, belong to an earlier session, or were revised."""

from server.intake.kept import Row
from server.intake.trades import KeptTrades
from server.quotes.instrument import Instrument, at_tick
from server.quotes.traded import traded
from server.quotes.update import Change, DayRange, Opening, Restatement


def before_opening(trades: KeptTrades, symbol: str, row: Row, now: int, *, late: bool) -> Change:
    """Return the effect of a kept trade of before the opening that comes after it.

    If no trade of this session has come, it is the last one before the opening. Else it counts for its
    bar only. The day's values and the volume begin without it.
    """
    minutes = (traded(row.price, row.size, row.time_us, late=late),)
    if late or trades[symbol].values().high is not None:
        return Change(symbol, None, 0, 0, now, minutes=minutes)
    day = DayRange(opening=Opening(trades[symbol].opened, row.price))
    return Change(symbol, row.price, 0, row.time_us, now, day=day, minutes=minutes)


def late_trade(symbol: str, row: Row, now: int, *, first: bool) -> Change:
    """Return the effect of a late trade on the volume and the day's values. These do not depend on the
    order of trades.

    `first`: it is the first trade of the session, or of all.
    """
    price, size = row.price, row.size
    day = DayRange(price if first else None, price, price, reopened=first)
    minutes = (traded(price, size, row.time_us, late=True),)
    return Change(symbol, None, size, 0, now, day=day, minutes=minutes)


def restated(
    trades: KeptTrades, instrument: Instrument, row: Row, volume: float, now: int
) -> Change | Restatement:
    """Return a symbol's values as they would have been, after a revision of the trade `row`.

    `volume`: what the revision adds to the volume.
    """
    symbol = instrument.symbol
    if row.time_us < trades[symbol].opened:
        # The volume of an earlier session.
        volume = 0
    price, time_us, high, low, *_ = trades[symbol].values()
    minute = trades[symbol].minute_of(row)
    # Without the other trades of its minute, the bar stays: it would lose those.
    minutes = (minute,) if minute else ()
    added = at_tick(volume, instrument.size_decimals)
    if price is None:
        # Nobody knows what it costs, so the price stays that of the trade that was taken out.
        day = DayRange(None, high, low, restated=True, reopened=high is None)
        return Change(symbol, None, added, 0, now, day=day, minutes=minutes)
    return Restatement(symbol, price, added, high, low, time_us, now, minutes=minutes)
