"""The lengths of bars, and the bars of several minutes that the kept minutes make."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache, reduce
from typing import get_args

from msgspec.structs import replace

from server.history.bar import MinuteBar
from server.quotes.instrument import MAX_DECIMALS
from server.quotes.traded import LAST_MINUTE, Timeframe

TIMEFRAMES: tuple[Timeframe, ...] = get_args(Timeframe)

MINUTES: dict[Timeframe, int] = {"1m": 1, "5m": 5, "15m": 15, "30m": 30, "1h": 60, "4h": 240}
"""Minutes of the lengths that do not depend on a time zone. They count from the Unix epoch."""

CALENDAR_END = LAST_MINUTE - 14 * 24 * 60
"""All minutes from here on are one day and one week: dates end with the year 9999."""

CACHED_DAYS = 2000
"""Days and weeks whose bounds are remembered: 5 µs each. A year of days asks thrice for 365."""


def period_start(minute: int, timeframe: Timeframe, tz: tzinfo = UTC) -> int:
    """Return the first minute of the bar that has `minute`. Days and weeks begin at midnight in `tz`,
    weeks on Monday.
    """
    if length := MINUTES.get(timeframe):
        return minute - minute % length
    return _days_of(minute, timeframe, tz)[0]


def period_end(minute: int, timeframe: Timeframe, tz: tzinfo = UTC) -> int:
    """Return the first minute after the bar that has `minute`. A day of DST has 23 or 25 hours."""
    if length := MINUTES.get(timeframe):
        return minute - minute % length + length
    return _days_of(minute, timeframe, tz)[1]


@lru_cache(CACHED_DAYS)
def _days_of(minute: int, timeframe: Timeframe, tz: tzinfo) -> tuple[int, int]:
    """Return the first minute of the day or week that has `minute`, and that of the next one."""
    if minute >= CALENDAR_END:
        return CALENDAR_END, 2 * LAST_MINUTE
    moment = datetime.fromtimestamp(minute * 60, tz)
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if timeframe == "1w":
        day -= timedelta(day.weekday())
    return _midnight(day), _midnight(day + timedelta(7 if timeframe == "1w" else 1))


def _midnight(day: datetime) -> int:
    """Return the first minute that begins at midnight or later. Liberia's midnights were at 44:30 past
    an hour of UTC until 1972.
    """
    return -(-int(day.timestamp()) // 60)


def roll_up(
    minutes: Iterable[MinuteBar], timeframe: Timeframe, closed_to: int, tz: tzinfo = UTC
) -> list[MinuteBar]:
    """Return the bars that one symbol's `minutes` make. These come in the order of time.

    A bar's `minute` is the first of its period. It is final if its period ends at or before the minute
    `closed_to`: all minutes before that are final. Its `rev` is the sum of its minutes' ones. Minutes
    without a trade, as all were cancelled, count for nothing but `rev`.
    """
    bars: list[MinuteBar] = []
    end = 0
    for each in minutes:
        if bars and each.minute < end:
            bars[-1] = joined(bars[-1], each)
        else:
            end = period_end(each.minute, timeframe, tz)
            start = period_start(each.minute, timeframe, tz)
            bars.append(replace(each, minute=start, final=end <= closed_to))
    return bars


def joined(bar: MinuteBar, other: MinuteBar) -> MinuteBar:
    """Return `bar` with the trades of another one. The times of trades decide the open and close."""
    rev = bar.rev + other.rev
    if not bar.count or not other.count:
        counted = bar if bar.count else other
        return replace(counted, minute=bar.minute, final=bar.final, rev=rev)
    volume = bar.volume + other.volume
    return MinuteBar(
        bar.symbol,
        bar.minute,
        other.open if other.first_us < bar.first_us else bar.open,
        max(bar.high, other.high),
        min(bar.low, other.low),
        other.close if other.last_us >= bar.last_us else bar.close,
        round(volume, MAX_DECIMALS) if type(volume) is float else volume,
        bar.count + other.count,
        bar.turnover + other.turnover,
        min(bar.first_us, other.first_us),
        max(bar.last_us, other.last_us),
        bar.final,
        rev,
    )


def joined_all(parts: Iterable[MinuteBar], period: int, *, final: bool = False) -> MinuteBar | None:
    """Return the bar of the period that `parts` are of; None without one."""
    bars = [replace(each, minute=period, final=final) for each in parts]
    return reduce(joined, bars) if bars else None
