"""When a market opens and closes: clock changes, holidays, half days, and sessions over midnight."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from server.config.environment import BadSetting
from server.config.loading import load_settings
from server.sessions.calendar import ALWAYS, BadSession, Calendar, LastOpening

NEW_YORK = "09:30-16:00 America/New_York"

MINUTE = 60_000_000


def at(text: str) -> int:
    """Return a time in UTC as microseconds: `2026-11-27 14:30`."""
    return int(datetime.fromisoformat(f"{text}+00:00").timestamp()) * 1_000_000


def told(time_us: int | None) -> str | None:
    """Return a moment as `at` takes it."""
    if time_us is None:
        return None
    return datetime.fromtimestamp(time_us // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M")


def holidays(folder: Path, text: str, hours: str = NEW_YORK) -> Calendar:
    """Return the calendar with a file of holidays."""
    path = folder / "the holidays.txt"
    path.write_text(text)
    return Calendar.parse(f"{hours} {path}")


def sessions(calendar: Calendar, begin: str, days: int) -> list[str]:
    """Return the changes of some days, as looking at each minute finds them."""
    found, was_open = [], calendar.is_open(at(begin) - MINUTE)
    for minute in range(days * 24 * 60):
        now = at(begin) + minute * MINUTE
        if calendar.is_open(now) is not was_open:
            was_open = not was_open
            found.append(f"{'open' if was_open else 'closed'} {told(now)}")
    return found


def test_market_without_hours_never_opens_or_closes():
    """`always` has no openings, so day values never begin anew."""
    calendar = Calendar.parse("always")
    assert calendar == ALWAYS
    assert calendar.is_open(at("2026-11-28 03:00"))
    assert calendar.last(at("2026-11-28 03:00")) is None
    assert calendar.next_opening(0) is None


def test_a_week_of_new_york():
    """Five sessions, and none on Saturday and Sunday."""
    calendar = Calendar.parse(NEW_YORK)
    days = ["2026-11-23", "2026-11-24", "2026-11-25", "2026-11-26", "2026-11-27"]
    expected = [each for day in days for each in (f"open {day} 14:30", f"closed {day} 21:00")]
    assert sessions(calendar, "2026-11-22 00:00", 7) == expected
    assert told(calendar.next_opening(at("2026-11-27 21:00"))) == "2026-11-30 14:30"


@pytest.mark.parametrize(
    ("friday", "before", "monday", "after"),
    [
        ("2026-03-06", "14:30", "2026-03-09", "13:30"),
        ("2026-10-30", "13:30", "2026-11-02", "14:30"),
    ],
)
def test_clock_changes_move_the_opening_in_utc(friday, before, monday, after):
    """The local time of the opening stays, in spring and in autumn."""
    calendar = Calendar.parse(NEW_YORK)
    assert told(calendar.next_opening(at(f"{friday} 00:00"))) == f"{friday} {before}"
    assert told(calendar.next_opening(at(f"{friday} 22:00"))) == f"{monday} {after}"
    last = calendar.last(at(f"{monday} {after}"))
    assert last is not None
    assert told(last.opening) == f"{monday} {after}"


def test_session_on_the_days_when_the_clocks_change(tmp_path):
    """A session over the change lasts an hour less or more. A skipped opening comes after the change,
    and a repeated one the first time.
    """
    spring = holidays(tmp_path, "2026-03-08 01:00-05:00", "01:00-05:00 America/New_York")
    assert sessions(spring, "2026-03-07 12:00", 1) == [
        "open 2026-03-08 06:00",
        "closed 2026-03-08 09:00",
    ]
    autumn = holidays(tmp_path, "2026-11-01 00:30-05:00", "00:30-05:00 America/New_York")
    assert sessions(autumn, "2026-10-31 12:00", 1) == [
        "open 2026-11-01 04:30",
        "closed 2026-11-01 10:00",
    ]
    skipped = holidays(tmp_path, "2026-03-08 02:30-05:00", "02:30-05:00 America/New_York")
    assert sessions(skipped, "2026-03-08 00:00", 1)[0] == "open 2026-03-08 07:30"
    repeated = holidays(tmp_path, "2026-11-01 01:30-05:00", "01:30-05:00 America/New_York")
    assert sessions(repeated, "2026-11-01 00:00", 1)[0] == "open 2026-11-01 05:30"


def test_holidays_and_half_days(tmp_path):
    """A holiday has no session, a half day an early closing, and any day may have hours of its own."""
    text = """# The end of 2026
2026-11-26 Thanksgiving

2026-11-27 13:00 the day after   # a half day
2026-11-28 10:00-11:00 a Saturday
2026-11-30 11:00-16:00
"""
    assert sessions(holidays(tmp_path, text), "2026-11-26 00:00", 5) == [
        "open 2026-11-27 14:30",
        "closed 2026-11-27 18:00",
        "open 2026-11-28 15:00",
        "closed 2026-11-28 16:00",
        "open 2026-11-30 16:00",
        "closed 2026-11-30 21:00",
    ]


def test_session_over_midnight(tmp_path):
    """A session belongs to the day on which it closes. Monday's opens on Sunday, and a holiday has none
    on the evening before.
    """
    calendar = holidays(
        tmp_path, "2026-11-26 Thanksgiving\n2026-11-27 13:00", "18:00-17:00 America/New_York"
    )
    assert sessions(calendar, "2026-11-22 00:00", 8) == [
        "open 2026-11-22 23:00",
        "closed 2026-11-23 22:00",
        "open 2026-11-23 23:00",
        "closed 2026-11-24 22:00",
        "open 2026-11-24 23:00",
        "closed 2026-11-25 22:00",
        "open 2026-11-26 23:00",
        "closed 2026-11-27 18:00",
        "open 2026-11-29 23:00",
    ]
    last = calendar.last(at("2026-11-22 23:00"))
    assert last is not None
    assert last.date.isoformat() == "2026-11-23"


@pytest.mark.parametrize("hours", ["00:00-24:00", "00:00-00:00"])
def test_whole_days_follow_one_another(hours):
    """At midnight a session closes and the next one opens at the same moment."""
    calendar = Calendar.parse(f"{hours} Asia/Tokyo")
    assert sessions(calendar, "2026-11-22 00:00", 7) == [
        "open 2026-11-22 15:00",
        "closed 2026-11-27 15:00",
    ]
    assert told(calendar.next_opening(at("2026-11-23 14:59"))) == "2026-11-23 15:00"


def test_market_closed_for_good(tmp_path):
    """If the file closes every day, there is no next opening."""
    first = datetime(2026, 11, 26, tzinfo=UTC)
    days = [(first + timedelta(days=number)).date() for number in range(600)]
    calendar = holidays(tmp_path, "\n".join(map(str, days)))
    assert calendar.next_opening(at("2026-11-26 12:00")) is None
    assert not calendar.is_open(at("2026-11-26 15:00"))


def test_last_opening_is_found_for_any_order_of_moments():
    """The answer that is kept never hides another one."""
    calendar = Calendar.parse(NEW_YORK)
    last = LastOpening(calendar)
    moments = [at(f"2026-11-{day} {hour}") for day in (23, 25, 24) for hour in ("14:30", "14:29")]
    for moment in moments:
        session = calendar.last(moment)
        assert session is not None
        assert last.at(moment) == session.opening
    assert LastOpening(ALWAYS).at(at("2026-11-23 14:30")) == 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("sometimes", "always, or hours and a time zone"),
        ("09:30-16:00", "always, or hours and a time zone"),
        ("9-16 UTC", "'9-16' is not hours such as 09:30-16:00"),
        ("09:60-16:00 UTC", "'09:60-16:00' is not hours"),
        ("24:00-25:00 UTC", "'24:00-25:00' is not hours"),
        ("09:30-16:00 America/New_Yorck", "there is no time zone 'America/New_Yorck'"),
        ("09:30-16:00 America", "there is no time zone 'America'"),
        ("09:30-16:00 ../../etc/passwd", "there is no time zone '../../etc/passwd'"),
        ("09:30-16:00 UTC /no/such/file", "cannot read the file of holidays '/no/such/file'"),
    ],
)
def test_wrong_value_stops_the_start_with_one_line(text, problem):
    """The line names the variable, its value, and what is wrong."""
    with pytest.raises(BadSetting) as error:
        load_settings({"SESSION": text})
    message = str(error.value)
    assert message.startswith(f"SESSION={text!r} is not allowed: ")
    assert problem in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("26.11.2026", "no date '26.11.2026'"),
        ("Thanksgiving", "a line begins with a date"),
        ("2026-02-30", "no date '2026-02-30'"),
        ("20261126", "a line begins with a date"),
        ("2026-11-25 again", "each date once"),
        ("2026-11-27 09:00", "'09:00' is neither a closing after the opening"),
        ("2026-11-27 25:00", "'25:00' is neither"),
        ("2026-11-27 09:30-", "'09:30-' is neither"),
    ],
)
def test_wrong_line_of_the_file_is_named(tmp_path, line, problem):
    """The message has the file and the line's number."""
    with pytest.raises(BadSession) as error:
        holidays(tmp_path, f"# holidays\n2026-11-25\n{line}\n")
    assert "the holidays.txt', line 3: " in str(error.value)
    assert problem in str(error.value)


def test_file_that_is_not_text_is_refused(tmp_path):
    """A file in another encoding is refused as a whole."""
    path = tmp_path / "holidays"
    path.write_bytes(b"2026-12-25 No\xebl\n")
    with pytest.raises(BadSession, match="it is not UTF-8"):
        Calendar.parse(f"{NEW_YORK} {path}")
