"""Timestamps of replays: in any unit, out of order, and wrong ones that must not stall a replay."""

from typing import Any

import pytest
import structlog
import trio

from server.feeds.pace import LONGEST_GAP
from server.feeds.replay import Replay, ReplayError
from server.feeds.timestamps import BadTimestamp, parse_timestamp
from server.quotes.instrument import Instrument
from tests.feeds.test_replay import replay_all, write

SECOND = 1_700_000_000
"""In November 2023."""


def header(column: str) -> str:
    return f"{column},symbol,price,size"


async def times(path, speed: float = 0) -> list[int]:
    """Return the trades' times in microseconds."""
    moments, _ = await replay_all(path, speed)
    return [trade.time_us for _, trade in moments]


@pytest.mark.parametrize(
    ("column", "text", "time_us"),
    [
        ("timestamp_s", f"{SECOND}", SECOND * 10**6),
        ("timestamp_s", f"{SECOND}.123456789", SECOND * 10**6 + 123_456),
        ("timestamp_ms", f"{SECOND}123", SECOND * 10**6 + 123_000),
        ("timestamp_us", f"{SECOND}123456", SECOND * 10**6 + 123_456),
        ("timestamp_ns", f"{SECOND}123456789", SECOND * 10**6 + 123_456),
        ("timestamp", f"{SECOND}", SECOND * 10**6),
        ("timestamp", f"{SECOND}123", SECOND * 10**6 + 123_000),
        ("timestamp", f"{SECOND}123456", SECOND * 10**6 + 123_456),
        ("timestamp", f" {SECOND}123456789 ", SECOND * 10**6 + 123_456),
        ("timestamp", "2023-11-14T22:13:20.123456Z", SECOND * 10**6 + 123_456),
        ("timestamp_ms", "2023-11-14t17:13:20-05:00", SECOND * 10**6),
        ("timestamp_us", "2023-11-14 22:13:20.5+00:00", SECOND * 10**6 + 500_000),
        ("timestamp_us", "1000", 1000),
        ("timestamp_s", "1000", 1_000_000_000),
        ("timestamp_ns", "1000", 1),
    ],
)
async def test_every_unit_is_read(tmp_path, column, text, time_us):
    """The column's name gives the unit. Without it, the size of the number does."""
    path = write(tmp_path / "day.csv", [f"{text},AAPL,175.5,100"], header(column))
    with structlog.testing.capture_logs() as lines:
        assert await times(path) == [time_us]
    assert lines == []


@pytest.mark.parametrize(
    ("column", "text", "unit"),
    [
        ("timestamp_ms", f"{SECOND}", "s"),
        ("timestamp_ms", f"{SECOND}000000", "us"),
        ("timestamp_ms", f"{SECOND}000000000", "ns"),
        ("timestamp_s", f"{SECOND}000", "ms"),
        ("timestamp_us", f"{SECOND}000", "ms"),
    ],
)
async def test_unit_that_the_column_does_not_name_is_recognised(tmp_path, column, text, unit):
    """The first good row counts, if it has a time of our days in one unit only. The log says so."""
    rows = ["bad", "0,AAPL,1,1", f"{text},AAPL,175.5,100"]
    path = write(tmp_path / "day.csv", rows, header(column))
    with structlog.testing.capture_logs() as lines:
        assert (await times(path))[-1] == SECOND * 10**6
    [line] = [line for line in lines if line["event"] == "timestamps are in another unit"]
    assert line["unit"] == unit


@pytest.mark.parametrize("row", ["CLK0,-37.63,2", "SHIB,0.00001234,1", "BTC,1,0.000000000001"])
@pytest.mark.parametrize("column", ["timestamp", "timestamp_us"])
async def test_unit_shows_in_a_row_of_every_kind(tmp_path, column, row):
    """The catalogue may allow a price or size that a symbol that nobody knows cannot have."""
    path = write(tmp_path / "day.csv", [f"{SECOND}000,{row}", "1,AAPL,1,1"], header(column))
    send, receive = trio.open_memory_channel[Any](2)
    kind = Instrument(
        symbol="X", name="X", type="FUTURE", base_price=1.0, price_decimals=8, size_decimals=12
    )
    await Replay(path, 0, loop=False).run(send, lambda _: kind)
    assert (await receive.receive()).time_us == SECOND * 10**6


@pytest.mark.parametrize("rows", [["1000,AAPL,1,1"], ["bad", "0,AAPL,1,1", "77,AAPL,1,1"]])
def test_unit_that_nobody_can_tell_is_refused_at_the_start(tmp_path, rows):
    """One line names the file, the number, and the columns that give a unit."""
    path = write(tmp_path / "day.csv", rows, header("timestamp"))
    with pytest.raises(ReplayError, match=r"day\.csv .*'(1000|77)'.*timestamp_ms") as refused:
        Replay(path, 1, loop=False)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "-1", "1e9", "noon", "1_000", "٣", "0x10", "nan", "1.", "1" * 21,
                                  "2023-11-14T22:13:20", "2023-11-14", "1969-12-31T23:59:59Z",
                                  "2023-13-14T22:13:20Z", "10000-01-01T00:00:00Z"])  # table # fmt: skip
def test_text_that_is_not_a_timestamp(text):
    """A number has only digits; a time of RFC 3339 has an offset."""
    with pytest.raises(BadTimestamp, match="not a timestamp"):
        parse_timestamp(text, "ms")


def test_last_moment_and_the_one_after():
    """The wire cannot name a time after the year 9999."""
    assert parse_timestamp("253402300799999", "ms") == 253_402_300_799_999_000
    with pytest.raises(BadTimestamp):
        parse_timestamp("253402300800000", "ms")


YEAR = 365 * 24 * 3600


@pytest.mark.parametrize(
    ("seconds", "expected", "lines"),
    [
        # A first row of 0.
        ([-SECOND, 0, 1, 2], [0, 0, 1, 2], [3]),
        # A row ten years ahead.
        ([0, 1, 10 * YEAR, 2, 3], [0, 1, 1, 1, 2], [4, 5]),
        # A row ten years back.
        ([0, 1, -10 * YEAR, 2, 3], [0, 1, 1, 1, 2], [4, 5]),
        # Late prints, a little and a lot within the limit.
        ([0, 1, 0, 2, -300, 3], [0, 1, 1, 2, 2, 3], []),
        # Rows that are too late, and others between those and the newest one.
        ([0, -650, -100, 1], [0, 0, 0, 1], [3]),
        ([0, 1, -650, -100, 2], [0, 1, 1, 1, 2], [4]),
        ([0, 1, -650, -640, -50, 2], [0, 1, 1, 1, 1, 2], [4]),
        ([0, 1, -1300, -700, -650, -50, 2], [0, 1, 1, 1, 1, 1, 2], [4]),
        ([0, 1, -650, -1300, -750, 1, 2], [0, 1, 1, 1, 1, 1, 2], [4, 5, 7]),
        # The recording goes on at an earlier time, and comes to the newest one again.
        (
            [0, 1, *range(-650, -640), -640, -639, -100, 2],
            [0, 1, *[1] * 10, 2, 3, 542, 644],
            [4],
        ),
        # A night.
        ([0, 1, 17 * 3600, 17 * 3600 + 1], [0, 1, 1, 2], [4]),
        # The longest gap that counts, and the shortest that does not.
        ([0, LONGEST_GAP], [0, LONGEST_GAP], []),
        ([0, LONGEST_GAP + 1], [0, 0], [3]),
    ],
)
async def test_long_gap_is_skipped_and_named(
    tmp_path, autojump_clock, monkeypatch, seconds, expected, lines
):
    """The replay does not wait for it, and goes on at the recorded intervals behind it."""
    monkeypatch.setattr("server.feeds.replay.REPORT_INTERVAL", -1.0)
    rows = [f"{(SECOND + each) * 1000:.0f},AAPL,{n + 1},1" for n, each in enumerate(seconds)]
    path = write(tmp_path / "day.csv", rows)
    with structlog.testing.capture_logs() as logged:
        moments, _ = await replay_all(path, 1)
    assert [moment for moment, _ in moments] == pytest.approx(expected, abs=1e-6)
    gaps = [line for line in logged if line["event"] == "gap skipped"]
    assert [line["line"] for line in gaps] == lines
    assert all(line["longest"] == LONGEST_GAP for line in gaps)


async def test_gaps_are_logged_once_a_second(tmp_path):
    """A file whose times jump in each row gives one log line."""
    rows = [f"{SECOND + n % 2 * YEAR},AAPL,{n + 1},1" for n in range(1000)]
    path = write(tmp_path / "day.csv", rows, header("timestamp_s"))
    with structlog.testing.capture_logs() as logged:
        assert len(await times(path, 1)) == 1000
    assert [line["line"] for line in logged] == [3]


async def test_full_speed_has_no_gaps(tmp_path):
    """A replay that does not wait has nothing to skip."""
    rows = [f"{SECOND + n * YEAR},AAPL,1,1" for n in range(3)]
    path = write(tmp_path / "day.csv", rows, header("timestamp_s"))
    with structlog.testing.capture_logs() as logged:
        assert len(await times(path)) == 3
    assert logged == []
