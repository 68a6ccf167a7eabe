"""Periods without a trade get the close before, within the market's hours."""

from collections.abc import Sequence
from datetime import date
from zoneinfo import ZoneInfo

import pytest

from server.history.bar import MinuteBar
from server.history.filling import filled, periods
from server.quotes.traded import MINUTE_US
from server.sessions.calendar import Calendar, Session
from tests.store.test_bar_tables import bar

NEW_YORK = ZoneInfo("America/New_York")

MONDAY = 1_381_118_400 // 60
"""The minute of 2013-10-07 00:00 in New York."""

DAY = 1440


class Sessions(Calendar):
    """Some sessions, given by their minutes."""

    def __init__(self, *minutes: tuple[int, int]) -> None:
        super().__init__()
        self._all = [Session(date.min, a * MINUTE_US, b * MINUTE_US) for a, b in minutes]

    def last(self, now: int) -> Session | None:
        return next((each for each in reversed(self._all) if each.opening <= now), None)

    def next_opening(self, now: int) -> int | None:
        return next((each.opening for each in self._all if each.opening > now), None)


def fill(
    bars: Sequence[MinuteBar],
    first: int,
    end: int,
    *,
    hours: Calendar | None = None,
    before: MinuteBar | None = None,
) -> list[tuple[int, float, int]]:
    """Return each bar's minute behind `first`, close and count. Both orders give the same bars."""
    up, down = (
        [
            *filled(
                bars[::-1] if descending else bars,
                periods("1m", NEW_YORK, first, end, hours, descending=descending),
                before,
                end,
                descending=descending,
            )
        ]
        for descending in (False, True)
    )
    start = 0 if before else (bars[0].minute if bars else end)
    up = [each for each in up if each.minute >= start]
    assert up == down[::-1]
    return [(each.minute - first, each.close, each.count) for each in up]


def test_gaps_get_the_close_before():
    """From the first bar on, or from the one before the range, each minute has a bar."""
    bars = [bar(MONDAY + 2, close=10.0), bar(MONDAY + 5, close=11.0)]
    found = fill(bars, MONDAY, MONDAY + 7)
    assert found == [(2, 10.0, 1), (3, 10.0, 0), (4, 10.0, 0), (5, 11.0, 1), (6, 11.0, 0)]
    before = bar(MONDAY - 90, close=9.0)
    assert fill(bars, MONDAY, MONDAY + 3, before=before)[:2] == [(0, 9.0, 0), (1, 9.0, 0)]
    assert fill([], MONDAY, MONDAY + 2, before=before) == [(0, 9.0, 0), (1, 9.0, 0)]
    assert fill([], MONDAY, MONDAY + 2) == []


def test_a_filled_bar_has_no_trades():
    """Its prices are the close, its sizes zero. It is final when its time is over."""
    last = bar(MONDAY, open=8.0, close=9.0, high=12.0, low=7.0, rev=4)
    slots = periods("1m", NEW_YORK, MONDAY, MONDAY + 2, None)
    _, empty = filled([last], slots, None, MONDAY + 1)
    assert {empty.open, empty.high, empty.low, empty.close} == {9.0}
    assert (empty.volume, empty.count, empty.turnover, empty.rev) == (0, 0, 0.0, 0)
    assert not empty.final


def test_closed_times_are_left_out():
    """Sessions, half days and days without one: only the open minutes are filled."""
    hours = Sessions((MONDAY + 2, MONDAY + 5), (MONDAY + DAY, MONDAY + DAY + 2))
    bars = [bar(MONDAY + 3), bar(MONDAY + 9)]
    found = fill(bars, MONDAY, MONDAY + 3 * DAY, hours=hours, before=bar(MONDAY - 9))
    # The bar of the ninth minute was traded outside the hours.
    assert [minute for minute, *_ in found] == [2, 3, 4, 9, DAY, DAY + 1]
    assert fill([], MONDAY, MONDAY + 9, hours=Sessions(), before=bar(MONDAY - 9)) == []


@pytest.mark.parametrize("descending", [False, True])
def test_days_of_a_clock_change(descending):
    """Each day with a session is one period, and has 23 or 25 hours when clocks change."""
    first = MONDAY + 26 * DAY
    hours = Sessions(*((first + n * DAY + 600, first + n * DAY + 990) for n in (0, 1, 3)))
    found = [*periods("1d", NEW_YORK, first, first + 4 * DAY + 60, hours, descending=descending)]
    days = found[::-1] if descending else found
    assert [each.end - each.start for each in days] == [DAY, DAY + 60, DAY]
    assert [each.start - first for each in days] == [0, DAY, 3 * DAY + 60]
