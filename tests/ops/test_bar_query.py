"""The parameters of `GET /bars`: times, time zones, page tokens, and what is refused."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from server.ops.bar_query import Query, read_query
from server.ops.problems import ApiError

NEW_YORK = ZoneInfo("America/New_York")

NOW = 1_795_716_000_000_000
"""Thursday, 2026-11-26, 13:00 in New York."""

DEFAULTS = {
    "symbols": "IBM,AAPL",
    "timeframe": "1m",
    "start": "",
    "end": "",
    "limit": 1000,
    "page_token": "",
    "sort": "asc",
    "tz": "",
    "fill": "none",
}


def query(**values: Any) -> Query:
    return read_query(DEFAULTS | values, NEW_YORK, NOW)


def local(minute: int) -> str:
    return f"{datetime.fromtimestamp(minute * 60, NEW_YORK):%Y-%m-%d %H:%M}"


def ends(**values: Any) -> tuple[str, str]:
    """Return the first minute of a range, and the first one behind it."""
    found = query(**values)
    return local(found.first), local(found.end)


def test_today_is_the_default():
    """Without times, the range is today in `tz`, until now."""
    assert ends() == ("2026-11-26 00:00", "2026-11-26 13:01")
    assert ends(timeframe="1h", tz="UTC")[0] == "2026-11-25 19:00"


@pytest.mark.parametrize(
    "start",
    [
        "2026-11-25T14:30:00Z",
        "2026-11-25T09:30:00-05:00",
        "2026-11-25T15:30:00+01:00",
        "2026-11-25T15:30:00 01:00",
        "2026-11-25t14:29:00.000001z",
        "1795617000000000",
    ],
)
def test_times_of_every_form(start):
    """A time is RFC 3339 with any offset, or microseconds. A bar that began before it is left out."""
    assert ends(start=start)[0] == "2026-11-25 09:30"


def test_both_ends_are_inclusive():
    """A bar that begins at `end` is the last one. A day as `end` means all of it."""
    assert ends(end="2026-11-26T14:30:00Z")[1] == "2026-11-26 09:31"
    assert ends(start="2026-11-25", end="2026-11-25") == ("2026-11-25 00:00", "2026-11-26 00:00")
    assert ends(start="2026-11-25", end="2026-11-25T14:29:00Z", timeframe="30m")[1].endswith(
        "09:30"
    )


@pytest.mark.parametrize(
    ("timeframe", "start", "end", "first", "behind"),
    [
        ("1d", "2026-03-08", "2026-03-08", "2026-03-08 00:00", "2026-03-09 00:00"),
        ("1d", "2026-03-07T12:00:00Z", "2026-03-09", "2026-03-08 00:00", "2026-03-10 00:00"),
        ("1d", "2025-11-02", "2025-11-02", "2025-11-02 00:00", "2025-11-03 00:00"),
        ("1w", "2025-10-29", "2025-11-05", "2025-11-03 00:00", "2025-11-10 00:00"),
        ("4h", "2025-11-02", "2025-11-02", "2025-11-02 00:00", "2025-11-03 03:00"),
    ],
)
def test_days_and_weeks_begin_in_the_zone(timeframe, start, end, first, behind):
    """Days of 23 and 25 hours are one bar. Weeks begin on Monday."""
    found = query(timeframe=timeframe, start=start, end=end)
    assert (local(found.first), local(found.end)) == (first, behind)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"tz": "../../etc/passwd"}, "tz: '../../etc/passwd' is not a time zone"),
        ({"tz": "/etc/passwd"}, "tz: '/etc/passwd' is not a time zone"),
        ({"tz": "America"}, "tz: 'America' is not a time zone"),
        ({"tz": "Mars/Olympus\0"}, "tz: "),
        ({"start": "yesterday"}, "start: 'yesterday' is not a time such as"),
        ({"start": "2026-02-30"}, "start: '2026-02-30' is not"),
        ({"start": "-1"}, "start: '-1' is not"),
        ({"start": "²"}, "start: '²' is not"),
        ({"end": "2026-11-25T14:30:00"}, "end: '2026-11-25T14:30:00' is not"),
        ({"end": "20261125T1430Z"}, "end: '20261125T1430Z' is not"),
        ({"start": "2026-11-25", "end": "2026-11-24"}, "end: it is before `start`"),
        ({"end": "2026-11-24"}, "end: it is before the beginning of today"),
        ({"start": "2026-11-27"}, "end: it is before `start`; it is now, as no `end` is given"),
        ({"start": "1965-01-01", "end": "1960-01-01"}, "end: it is before `start`"),
        ({"page_token": "x"}, "page_token: it is not a `next_page_token`"),
        ({"page_token": "ÿ" * 8}, "page_token: it is not a `next_page_token`"),
        ({"page_token": urlsafe_b64encode(b"\x95").decode()}, "page_token: it is not"),
    ],
)
def test_bad_values_are_named(values, problem):
    """The error names the parameter and tells what is allowed, in one line."""
    with pytest.raises(ApiError) as error:
        query(**values)
    assert error.value.status_code == 400
    assert error.value.detail.startswith(problem)
    assert "\n" not in error.value.detail


@pytest.mark.parametrize("timeframe", ["1m", "4h", "1d", "1w"])
def test_huge_ranges_end_soon_after_now(timeframe):
    """From the first year to the last one is a range like others."""
    found = query(timeframe=timeframe, start="0001-01-01", end="9999-12-31")
    assert -10_000 < found.first < 10_000
    assert found.end < NOW // 60_000_000 + 20_000
    empty = query(start="9999-12-31T23:59:59.999999-23:59", end="9999-12-31")
    assert empty.first >= empty.end - 1
    assert query(start="0", end="999999999999999999").first == 0 == query(start="0").first


@pytest.mark.parametrize("timeframe", ["1m", "4h", "1d", "1w"])
@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("1960-01-01", "1961-01-01"),
        ("1969-12-31", "1969-12-31"),
        ("0001-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z"),
    ],
)
def test_nothing_is_before_1970(timeframe, start, end):
    """Such a range is empty. One that goes on until later begins with 1970."""
    empty = query(start=start, end=end, timeframe=timeframe, tz="Asia/Kolkata")
    assert empty.first >= empty.end
    assert 0 <= query(start=start, timeframe=timeframe, tz="Asia/Kolkata").first < 7 * 1440


def test_a_page_goes_on_where_the_last_one_ended():
    """A token keeps the range of the first page, though the present time has moved on."""
    first = query(end="")
    token = first.token("IBM", first.first + 7)
    later = read_query(DEFAULTS | {"page_token": token, "limit": 3}, NEW_YORK, NOW + 3_600_000_000)
    assert later.rest_of("AAPL") == (first.end, first.end)
    assert later.rest_of("IBM") == (first.first + 8, first.end)
    assert later.rest_of("MSFT") == (first.first, first.end)
    down = query(sort="desc")
    down = query(sort="desc", page_token=down.token("IBM", down.first + 7))
    assert down.rest_of("IBM") == (down.first, down.first + 7)


@pytest.mark.parametrize("timeframe", ["1m", "1d", "1w"])
def test_a_page_goes_on_after_midnight(timeframe):
    """A range without `start` begins today. The next page still has the day or week of the first."""
    monday = datetime(2026, 11, 23, 23, 59, tzinfo=NEW_YORK).timestamp()
    values = DEFAULTS | {"timeframe": timeframe}
    first = read_query(values, NEW_YORK, int(monday * 1e6))
    token = first.token("IBM", first.first)
    later = read_query(values | {"page_token": token}, NEW_YORK, int((monday + 120) * 1e6))
    assert (later.first, later.end) == (first.first, first.end)
    assert later.rest_of("MSFT") == (first.first, first.end)


@pytest.mark.parametrize("start", ["2026-11-25T14:30:00Z", "1795617000000000"])
def test_start_and_end_may_be_one_moment(start):
    """The bar that begins then is in the range. Within a minute there is none."""
    assert ends(start=start, end=start) == ("2026-11-25 09:30", "2026-11-25 09:31")
    within = query(start="2026-11-25T14:30:01Z", end="2026-11-25T14:30:59Z")
    assert within.first >= within.end


@pytest.mark.parametrize(
    "other",
    [
        {"symbols": "IBM"},
        {"timeframe": "5m"},
        {"start": "2026-11-26"},
        {"sort": "desc"},
        {"tz": "UTC"},
        {"fill": "previous"},
    ],
)
def test_a_token_belongs_to_its_query(other):
    """With any other parameter than `limit`, the token is refused. The order of symbols is free."""
    token = query().token("IBM", query().first)
    assert query(symbols="aapl, ibm,AAPL", page_token=token).behind
    assert query(symbols="aapl,,ibm,", page_token=token).behind
    with pytest.raises(ApiError, match="page_token: it belongs to other parameters"):
        query(**other, page_token=token)


@pytest.mark.parametrize("sort", ["asc", "desc"])
def test_a_damaged_token_is_refused(sort):
    """Each letter counts. Without a check, many others would name another place of the range."""
    found = query(start="2026-11-20", sort=sort)
    token = found.token("IBM", found.first + 7)
    for place in range(len(token)):
        for letter in "AQgw-_9":
            damaged = token[:place] + letter + token[place + 1 :]
            if urlsafe_b64decode(damaged + "==") != urlsafe_b64decode(token + "=="):
                with pytest.raises(ApiError, match="page_token"):
                    query(start="2026-11-20", sort=sort, page_token=damaged)
    for shorter in range(len(token)):
        with pytest.raises(ApiError, match="page_token"):
            query(start="2026-11-20", sort=sort, page_token=token[:shorter] or "-")


def test_a_made_up_token_reaches_nothing_else():
    """A token with the right fingerprint and another range is refused."""
    found = query()
    for first, end, minute in ((-(2**40), found.end, 0), (found.first, 2**40, found.first)):
        token = found._replace(first=first, end=end).token("IBM", minute)
        with pytest.raises(ApiError, match="page_token"):
            query(page_token=token)
