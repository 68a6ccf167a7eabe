"""Bars for the periods without a trade, so that a chart has no gaps."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import tzinfo
from typing import NamedTuple

from msgspec.structs import replace

from server.history.bar import MinuteBar
from server.history.timeframe import period_end, period_start
from server.quotes.traded import MINUTE_US, Timeframe
from server.sessions.calendar import Calendar


class Period(NamedTuple):
    """A bar's first minute, and the first minute after it."""

    start: int
    end: int


def periods(
    timeframe: Timeframe,
    tz: tzinfo,
    first: int,
    end: int,
    hours: Calendar | None,
    *,
    descending: bool = False,
) -> Iterator[Period]:
    """Return the periods from the minute `first` to before `end`, both limits of bars.

    Periods in which the market is closed are left out; `hours` is None if it is always open.
    """
    while first < end:
        edge = end - 1 if descending else first
        period = Period(period_start(edge, timeframe, tz), period_end(edge, timeframe, tz))
        moment = period.end * MINUTE_US - 1
        session = hours.last(moment) if hours else None
        is_open = not hours or bool(session and session.closing > period.start * MINUTE_US)
        if is_open:
            yield period
        if descending:
            closed_since = session.closing if session and not is_open else 0
            end = period.start if is_open else min(period.start, -(-closed_since // MINUTE_US))
        else:
            opening = None if is_open or not hours else hours.next_opening(moment)
            next_minute = opening // MINUTE_US if opening else end
            first = period.end if is_open else period_start(next_minute, timeframe, tz)


def filled(
    bars: Sequence[MinuteBar],
    periods: Iterable[Period],
    before: MinuteBar | None,
    closed_to: int,
    *,
    descending: bool = False,
) -> Iterator[MinuteBar]:
    """Return one bar for each of the `periods`, from the first bar of all on.

    A bar without a trade has the close before it as its prices. It is final if it ends at or before
    the minute `closed_to`. Bars that are not in `periods`, as the market was closed, stay.

    Arguments:
        bars: one symbol's bars of these periods. If they are `descending`, so are the periods.
        before: its last minute before all of them; None if there is none.
    """
    fill = _backwards if descending else _forwards
    for bar, period in fill(bars, periods, before):
        yield bar if period is None else _empty(bar, period, closed_to)


_Step = tuple[MinuteBar, Period | None]
"""A bar, or a period without one behind the bar before it."""


def _forwards(
    bars: Sequence[MinuteBar], periods: Iterable[Period], before: MinuteBar | None
) -> Iterator[_Step]:
    last, coming = before, iter(bars)
    bar = next(coming, None)
    for period in periods:
        while bar and bar.minute <= period.start:
            yield bar, None
            last, bar = bar, next(coming, None)
        if last and last.minute != period.start:
            yield last, period
    while bar:
        yield bar, None
        bar = next(coming, None)


def _backwards(
    bars: Sequence[MinuteBar], periods: Iterable[Period], before: MinuteBar | None
) -> Iterator[_Step]:
    coming = iter(bars)
    bar = next(coming, None)
    done = None
    for period in periods:
        while bar and bar.minute >= period.start:
            yield bar, None
            done, bar = bar.minute, next(coming, None)
        last = bar or before
        if last is None:
            break
        if done != period.start:
            yield last, period
    while bar:
        yield bar, None
        bar = next(coming, None)


def _empty(last: MinuteBar, period: Period, closed_to: int) -> MinuteBar:
    return replace(
        last,
        minute=period.start,
        open=last.close,
        high=last.close,
        low=last.close,
        volume=0,
        count=0,
        turnover=0.0,
        final=period.end <= closed_to,
        rev=0,
    )
