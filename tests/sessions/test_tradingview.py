"""The hours of a market as TradingView's charts read them."""

import pytest

from server.ops.udf_messages import symbol_info, symbol_table
from server.quotes.instrument import Instrument
from server.quotes.snapshot import opening_snapshot
from server.sessions.calendar import Calendar
from server.sessions.tradingview import (
    corrections_text,
    holidays_text,
    session_text,
    splits_days,
    zone_name,
)


@pytest.mark.parametrize(
    ("session", "whole"),
    [
        ("always", True),
        ("09:30-16:00 America/New_York", True),
        ("00:00-24:00 UTC", True),
        ("18:00-17:00 America/New_York", False),
        ("18:00-24:00 America/New_York", True),
        ("18:00-18:00 America/New_York", False),
    ],
)
def test_chart_makes_the_days_of_a_session_over_midnight(session, whole):
    """The server's days begin at midnight, those of a chart with the session."""
    calendar = Calendar.parse(session)
    assert splits_days(calendar) is not whole
    row = opening_snapshot(Instrument(symbol="ES", name="ES", base_price=1.0))
    info, table = symbol_info(row, calendar), symbol_table([row], calendar)
    for each in (info, table):
        assert each.has_daily is each.has_weekly_and_monthly is whole
        assert each.has_intraday


@pytest.mark.parametrize(
    ("session", "text", "zone"),
    [
        ("always", "24x7", "Etc/UTC"),
        ("09:30-16:00 America/New_York", "0930-1600", "America/New_York"),
        ("18:00-17:00 America/New_York", "1800-1700", "America/New_York"),
        ("00:00-24:00 UTC", "0000-0000", "Etc/UTC"),
    ],
)
def test_hours_and_zone(session, text, zone):
    """A chart knows the hours by their minutes without a colon."""
    calendar = Calendar.parse(session)
    assert (session_text(calendar), zone_name(calendar)) == (text, zone)
    assert holidays_text(calendar) == corrections_text(calendar) == ""


def test_holidays_and_half_days(tmp_path):
    """Days without a session, and days with other hours, are two lists."""
    file = tmp_path / "holidays"
    file.write_text("2026-11-26\n2026-11-27 13:00\n2026-12-25 Christmas\n2026-12-24 10:00-13:00\n")
    calendar = Calendar.parse(f"09:30-16:00 America/New_York {file}")
    assert holidays_text(calendar) == "20261126,20261225"
    assert corrections_text(calendar) == "0930-1300:20261127;1000-1300:20261224"
