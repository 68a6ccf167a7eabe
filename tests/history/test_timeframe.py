"""Bars of several minutes: where they begin and end, and what they are made of."""

from datetime import UTC, datetime, tzinfo
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.history.bar import MinuteBar
from server.history.timeframe import TIMEFRAMES, period_end, period_start, roll_up
from server.quotes.traded import LAST_MINUTE, Timeframe

NEW_YORK = ZoneInfo("America/New_York")
ZONES = [
    UTC,
    NEW_YORK,
    *map(ZoneInfo, ("Asia/Kolkata", "America/Santiago", "Africa/Cairo", "Africa/Monrovia")),
]


def minute_of(text: str) -> int:
    """Return the minute of a time with its offset."""
    return int(datetime.fromisoformat(text).timestamp()) // 60


def bar(minute: int, price: float = 10.0, **fields: object) -> MinuteBar:
    """Return a final bar of one trade."""
    us = minute * 60_000_000
    values = {"volume": 5, "count": 1, "turnover": price * 5, "final": True} | fields
    ohlc = (price, price, price, price)
    return MinuteBar("AAPL", minute, *ohlc, first_us=us, last_us=us, **values)  # type: ignore[arg-type] # fields are the struct's own


def check_period(moment: str, timeframe: Timeframe, tz: tzinfo, start: str, end: str) -> None:
    """The minute of `moment` is in the period from `start` to `end`."""
    minute = minute_of(moment)
    assert period_start(minute, timeframe, tz) == minute_of(start)
    assert period_end(minute, timeframe, tz) == minute_of(end)


@pytest.mark.parametrize(
    ("timeframe", "start", "end"),
    [
        ("1m", "2026-11-26T14:37:00Z", "2026-11-26T14:38:00Z"),
        ("5m", "2026-11-26T14:35:00Z", "2026-11-26T14:40:00Z"),
        ("30m", "2026-11-26T14:30:00Z", "2026-11-26T15:00:00Z"),
        ("4h", "2026-11-26T12:00:00Z", "2026-11-26T16:00:00Z"),
        ("1d", "2026-11-26T00:00:00-05:00", "2026-11-27T00:00:00-05:00"),
        ("1w", "2026-11-23T00:00:00-05:00", "2026-11-30T00:00:00-05:00"),
    ],
)
def test_period(timeframe: Timeframe, start: str, end: str) -> None:
    """Minutes and hours count from midnight UTC, days and weeks from midnight in the zone."""
    check_period("2026-11-26T14:37:00Z", timeframe, NEW_YORK, start, end)


@pytest.mark.parametrize(("day", "hours"), [("2026-03-08", 23), ("2026-11-01", 25)])
def test_day_of_dst(day: str, hours: int) -> None:
    """A day on which the clocks change is an hour shorter or longer."""
    noon = int(datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=NEW_YORK).timestamp()) // 60
    start, end = period_start(noon, "1d", NEW_YORK), period_end(noon, "1d", NEW_YORK)
    assert end - start == hours * 60


@pytest.mark.parametrize(
    ("zone", "moment", "start", "end"),
    [
        # The clocks go from 00:00 to 01:00, so the day begins at 01:00.
        ("America/Sao_Paulo", "2018-11-04T12:00Z", "2018-11-04T03:00Z", "2018-11-05T02:00Z"),
        ("Africa/Cairo", "2025-04-25T12:00Z", "2025-04-24T22:00Z", "2025-04-25T21:00Z"),
        # They go from 24:00 back to 23:00, or from 01:00 back to midnight.
        ("America/Sao_Paulo", "2018-02-18T02:30Z", "2018-02-17T02:00Z", "2018-02-18T03:00Z"),
        ("Africa/Cairo", "2025-10-30T21:30Z", "2025-10-29T21:00Z", "2025-10-30T22:00Z"),
        ("America/Havana", "2025-11-02T12:00Z", "2025-11-02T04:00Z", "2025-11-03T05:00Z"),
        # Offsets of 30 and 45 minutes, and a change of clocks by 30 minutes.
        ("Asia/Kolkata", "2026-01-01T18:29Z", "2025-12-31T18:30Z", "2026-01-01T18:30Z"),
        ("Asia/Kathmandu", "2026-01-01T18:15Z", "2026-01-01T18:15Z", "2026-01-02T18:15Z"),
        ("Pacific/Chatham", "2026-01-01T12:00Z", "2026-01-01T10:15Z", "2026-01-02T10:15Z"),
        ("Australia/Lord_Howe", "2025-10-05T00:00Z", "2025-10-04T13:30Z", "2025-10-05T13:00Z"),
        # A day that the calendar left out, and midnights in the middle of a minute.
        ("Pacific/Apia", "2011-12-30T11:00Z", "2011-12-30T10:00Z", "2011-12-31T10:00Z"),
        ("Africa/Monrovia", "1971-06-02T00:44Z", "1971-06-01T00:45Z", "1971-06-02T00:45Z"),
        ("Africa/Monrovia", "1971-06-02T00:45Z", "1971-06-02T00:45Z", "1971-06-03T00:45Z"),
    ],
)
def test_days_of_zones(zone: str, moment: str, start: str, end: str) -> None:
    """A day begins with the first minute that has its date in the zone."""
    check_period(moment, "1d", ZoneInfo(zone), start, end)


@pytest.mark.parametrize(
    ("moment", "start", "end"),
    [
        ("2025-12-31T12:00Z", "2025-12-29T00:00-05:00", "2026-01-05T00:00-05:00"),
        ("2026-01-01T12:00Z", "2025-12-29T00:00-05:00", "2026-01-05T00:00-05:00"),
        ("2026-01-05T04:59Z", "2025-12-29T00:00-05:00", "2026-01-05T00:00-05:00"),
        ("2026-01-05T05:00Z", "2026-01-05T00:00-05:00", "2026-01-12T00:00-05:00"),
        ("2021-01-03T12:00Z", "2020-12-28T00:00-05:00", "2021-01-04T00:00-05:00"),
        # A week of a clock change has an hour less.
        ("2026-03-08T12:00Z", "2026-03-02T00:00-05:00", "2026-03-09T00:00-04:00"),
    ],
)
def test_weeks(moment: str, start: str, end: str) -> None:
    """A week goes on over the end of a year."""
    check_period(moment, "1w", NEW_YORK, start, end)


@pytest.mark.parametrize("timeframe", TIMEFRAMES)
@pytest.mark.parametrize("tz", [UTC, NEW_YORK, ZoneInfo("Pacific/Kiritimati")])
@pytest.mark.parametrize("minute", [0, 1, LAST_MINUTE - 1, LAST_MINUTE, LAST_MINUTE + 1])
def test_ends_of_the_calendar(timeframe: Timeframe, tz: tzinfo, minute: int) -> None:
    """The first and the last minutes that a trade can have belong to a period, too."""
    start, end = period_start(minute, timeframe, tz), period_end(minute, timeframe, tz)
    assert start <= minute < end


@given(st.integers(0, 32_000_000), st.sampled_from(TIMEFRAMES), st.sampled_from(ZONES))
def test_periods_meet(minute: int, timeframe: Timeframe, tz: ZoneInfo) -> None:
    """Each minute is in exactly one period."""
    start, end = period_start(minute, timeframe, tz), period_end(minute, timeframe, tz)
    assert start <= minute < end
    assert period_start(start, timeframe, tz) == period_start(end - 1, timeframe, tz) == start
    assert period_start(end, timeframe, tz) == end


def test_roll_up() -> None:
    """A bar has its first minute's open, its last one's close, and the sums of all."""
    minutes = [bar(10, 5.0), bar(12, 9.0, rev=2), bar(14, 3.0), bar(15, 4.0, final=False)]
    first, second = roll_up(minutes, "5m", 15)
    assert (first.minute, first.open, first.high, first.low, first.close) == (10, 5, 9, 3, 3)
    assert (first.volume, first.count, first.turnover) == (15, 3, 85.0)
    assert (first.final, first.rev) == (True, 2)
    assert (second.minute, second.count, second.final) == (15, 1, False)


def test_roll_up_open() -> None:
    """A bar is open until its period is closed, though all its minutes are final."""
    (only,) = roll_up([bar(10), bar(11)], "5m", 12)
    assert not only.final


def test_roll_up_without_trades() -> None:
    """A minute of which all trades were cancelled counts for nothing but the revision."""
    cancelled = bar(11, 99.0, volume=0, count=0, turnover=0.0, rev=1)
    (only,) = roll_up([bar(10), cancelled], "5m", 15)
    assert (only.high, only.close, only.count, only.rev) == (10.0, 10.0, 1, 1)
    (only,) = roll_up([cancelled, bar(12)], "5m", 15)
    assert (only.minute, only.open, only.count, only.rev) == (10, 10.0, 1, 1)


@given(st.sets(st.integers(0, 3000), min_size=1), st.sampled_from(TIMEFRAMES))
def test_roll_up_keeps_all(minutes: set[int], timeframe: Timeframe) -> None:
    """No minute is lost or counted twice, and the bars come in order."""
    rolled = roll_up([bar(each) for each in sorted(minutes)], timeframe, 0)
    assert sum(each.count for each in rolled) == len(minutes)
    assert all(one.minute < other.minute for one, other in pairwise(rolled))
