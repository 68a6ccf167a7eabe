"""The end of a replay, and what clients get then."""

import gzip
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from server.quotes.instrument import LARGEST_WHOLE
from tests.gateway.wire import Client
from tests.processes import ServerProcess, eventually

ROOT = Path(__file__).parents[2]

DAY = "timestamp_ms,symbol,price,size\n1000,AAPL,{},100\n1000,AAPL,175.92,100\nbad\n1001,NEW,5.1234,7\n"


@pytest.fixture
def day(tmp_path):
    """Write a short day with a bad row and a symbol that no catalogue has."""
    path = tmp_path / "day.csv"
    path.write_text(DAY.format("175.50"))
    return path


def test_end_of_the_feed_is_told_also_to_those_who_come_later(tmp_path, day):
    """Clients get `status` stale with the reason `feed_ended`. Quotes stay, and commands work."""
    with ServerProcess(tmp_path, FEED=f"replay:{day}") as server:
        for late in (False, True):
            with Client(server, "AAPL,NEW" if late else "AAPL") as client:
                message = client.receive()
                while message["type"] != "status":
                    message = client.receive()
                assert message == {"type": "status", "status": "stale", "reason": "feed_ended"}
                assert client.quotes["AAPL"]["current_price"] == 175.92
                assert not late or client.quotes["NEW"]["current_price"] == 5.1234
                assert client.is_answered()
        assert server.metric("market_data_feed_bad_rows_total") == 1
        ended = server.await_event("feed ended")
        assert server.events("feed ended") == [ended]
        assert [line["line"] for line in server.events("bad row skipped")] == [4]
        assert (ended["trades"], ended["bad_rows"]) == (3, 1)
        assert server.get("/readyz")[0] == 200


@pytest.mark.parametrize("row", ["1002,TINY,0.00001,1", "1002,AAPL,0.001,1", "1002,AAPL,1e308,1"])
def test_price_that_cannot_be_is_a_bad_row(tmp_path, day, row):
    """A price below the tick or above all bounds neither ends the server nor becomes a quote."""
    with day.open("a") as rows:
        rows.write(f"{row}\n1003,AAPL,175.93,100\n")
    with ServerProcess(tmp_path, FEED=f"replay:{day}") as server:
        with Client(server, "AAPL") as client:
            while client.receive()["type"] != "status":
                pass
            assert client.quotes["AAPL"]["current_price"] == 175.93
            assert client.ask("subscribe", symbols=["TINY"])["code"] == "unknown_symbol"
        assert server.metric("market_data_feed_bad_rows_total") == 2


def test_loop_goes_on(tmp_path, day):
    """With REPLAY_LOOP the replay starts over, and clients get no `status` about an end."""
    variables = {"FEED": f"replay:{day}", "REPLAY_SPEED": "0.005", "REPLAY_LOOP": "1"}
    with ServerProcess(tmp_path, **variables) as server, Client(server, "AAPL") as client:
        client.receive()
        for _ in range(8):
            assert client.receive()["type"] == "quotes_patch"
        assert client.versions["AAPL"] >= 8


def test_archive_that_breaks_off_is_a_failed_feed(tmp_path, day):
    """Clients get a `status`, the log has the reason, and the server keeps the last quotes."""
    packed = tmp_path / "day.csv.gz"
    data = gzip.compress((DAY.format("1.0") + "9,AAPL,2.0,1\n" * 50_000).encode())
    packed.write_bytes(data[: len(data) - 20])
    with ServerProcess(tmp_path, FEED=f"replay:{packed}", REPLAY_SPEED="0") as server:
        with Client(server, "AAPL") as client:
            message = client.receive()
            while message["type"] != "status":
                message = client.receive()
            assert message["reason"] == "feed_failed"
            assert client.is_answered()
        server.await_event("feed failed")
        failed = server.events("feed failed")
        assert len(failed) == 1
        assert "day.csv.gz" in failed[0]["problem"]


@pytest.mark.parametrize(
    "rows",
    [
        "0,AAPL,1,1\n1700000000000,AAPL,2,1",
        "1700000000,AAPL,1,1\n1700000001,AAPL,2,1",
        "1700000000000,AAPL,1,1\n2015360000000,AAPL,3,1\n1700000001000,AAPL,2,1",
    ],
    ids=["first row 0", "seconds", "ten years ahead"],
)
def test_wrong_timestamp_does_not_stall_a_replay(tmp_path, rows):
    """At the recorded speed the replay comes to its end, and the log names the row or the unit."""
    day = tmp_path / "day.csv"
    day.write_text(f"timestamp_ms,symbol,price,size\n{rows}\n")
    with ServerProcess(tmp_path, FEED=f"replay:{day}") as server, Client(server, "AAPL") as client:
        while client.receive()["type"] != "status":
            pass
        assert client.quotes["AAPL"]["current_price"] == 2.0
        told = ("gap skipped", "timestamps are in another unit")
        eventually(lambda: any(map(server.events, told)))


def test_longest_gap_is_a_setting(tmp_path):
    """REPLAY_LONGEST_GAP says for which gaps a replay waits."""
    day = tmp_path / "day.csv"
    day.write_text("timestamp_ms,symbol,price,size\n1000,AAPL,1,1\n9000,AAPL,2,1\n")
    variables = {"FEED": f"replay:{day}", "REPLAY_LONGEST_GAP": "7s"}
    with ServerProcess(tmp_path, **variables) as server:
        assert server.await_event("gap skipped")["line"] == 3


def test_long_wait_is_named_at_once(tmp_path):
    """A wrong time less than REPLAY_LONGEST_GAP ahead. The log has the row and the moment it comes."""
    day = tmp_path / "day.csv"
    day.write_text("timestamp_ms,symbol,price,size\n1000,AAPL,1,1\n301000,AAPL,2,1\n")
    with ServerProcess(tmp_path, FEED=f"replay:{day}") as server:
        line = server.await_event("replay waits")
        assert line["line"] == 3
        assert line["seconds"] == pytest.approx(300, abs=1)
        until, now = (datetime.fromisoformat(line[key]) for key in ("until", "timestamp"))
        assert (until - now).total_seconds() == pytest.approx(300, abs=2)
    fast = tmp_path / "fast"
    fast.mkdir()
    with ServerProcess(fast, FEED=f"replay:{day}", REPLAY_SPEED="300") as server:
        server.await_event("feed ended")
        assert not server.events("replay waits")


@pytest.mark.parametrize("speed", ["1e-10", "5e-324"])
def test_wait_beyond_all_dates_does_not_end_the_server(tmp_path, speed):
    """The slowest replays would go on after the year 9999. The log tells a century."""
    day = tmp_path / "day.csv"
    day.write_text("timestamp_ms,symbol,price,size\n1000,AAPL,1,1\n301000,AAPL,2,1\n")
    with ServerProcess(tmp_path, FEED=f"replay:{day}", REPLAY_SPEED=speed) as server:
        assert server.await_event("replay waits")["seconds"] == pytest.approx(3e9)
        assert server.get("/healthz")[0] == 200
        assert server.stop() == 0


def test_sample_is_played_as_the_readme_says(tmp_path):
    """The file is as its script writes it. Each of its rows is a trade of a shipped instrument."""
    written = subprocess.run(
        [sys.executable, "scripts/sample.py"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    rows = (ROOT / "examples/trades.csv").read_text()
    assert rows == written.stdout
    variables = {"FEED": f"replay:{ROOT / 'examples/trades.csv'}", "REPLAY_SPEED": "0"}
    with ServerProcess(tmp_path, **variables) as server, Client(server, "AAPL") as client:
        while client.receive()["type"] != "status":
            pass
        assert client.quotes["AAPL"]["name"] == "Apple Inc."
        ended = server.await_event("feed ended")
        assert (ended["trades"], ended["bad_rows"]) == (rows.count("\n") - 1, 0)


def test_largest_volume_does_not_end_the_server(tmp_path):
    """The sizes are legal, and their sum is more than a 64-bit number holds. The volume stops at the
    largest number that every reader holds, is saved, and prices go on.
    """
    day = tmp_path / "day.csv"
    rows = [f"{n},AAPL,{n % 977 + 1},1000000000000" for n in range(12_000)]
    day.write_text("\n".join(["timestamp_ms,symbol,price,size", *rows, ""]))
    variables = {"FEED": f"replay:{day}", "REPLAY_SPEED": "0", "PRICE_WRITE_INTERVAL": "100ms"}
    with ServerProcess(tmp_path, **variables, REPLAY_LOOP="1") as server:
        eventually(lambda: server.metric("market_data_feed_updates_total") > 3 * len(rows))
        with Client(server, "AAPL") as client:
            client.receive()
            assert client.quotes["AAPL"]["volume"] == LARGEST_WHOLE
            client.move()
        eventually(lambda: server.metric("market_data_prices_saved_total") > 0)
        assert server.metric("market_data_db_errors_total") == 0
        assert server.stop() == 0
    with ServerProcess(tmp_path) as server, Client(server, "AAPL") as client:
        assert client.receive()["operations"][0]["value"]["volume"] == LARGEST_WHOLE
