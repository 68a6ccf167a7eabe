"""TradingView's datafeed, checked against the rules of its documentation."""

import csv
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest

from tests.processes import ServerProcess, eventually, make_token
from tests.publisher import post

NEW_YORK = ZoneInfo("America/New_York")

DAYS = 9

EVERYTHING = {"symbol": "AAPL", "resolution": "1", "from": 0}

RESOLUTIONS = {"1": 1, "5": 5, "15": 15, "30": 30, "60": 60, "240": 240}


def at_opening(days: int) -> datetime:
    """Return 09:30 in New York, some days ago."""
    day = datetime.now(NEW_YORK).date() - timedelta(days=days)
    return datetime(day.year, day.month, day.day, 9, 30, tzinfo=NEW_YORK)


def trades() -> list[dict[str, Any]]:
    """Return trades of nine days, a few each hour of the session, the oldest first."""
    found = []
    for days in range(DAYS, 0, -1):
        for number in range(40):
            moment = at_opening(days) + timedelta(minutes=9 * number, seconds=number)
            price = 170 + (number * 7 + days) % 13 / 4
            found.append(
                {
                    "symbol": "AAPL",
                    "price": price,
                    "size": number + 1,
                    "ts": int(moment.timestamp() * 1e6),
                    "id": f"{days}-{number}",
                }
            )
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Return a server with nine days of trades of AAPL."""
    folder = tmp_path_factory.mktemp("udf")
    (folder / "holidays").write_text("2026-12-25 Christmas\n2026-11-27 13:00\n")
    variables = {
        "FEED": "push",
        "SESSION": "09:30-16:00 America/New_York holidays",
        # A range without `countback` costs 500 look-ups.
        "USER_LOOKUP_RATE": "100000",
    }
    with ServerProcess(folder, **variables) as server:
        answer = post(server, trades())
        assert (answer.status, answer.body["rejected"]) == (200, [])
        # Bars of the past come when the store was asked what it has of them.
        eventually(lambda: len(udf(server, "history", **EVERYTHING).get("t", [])) == len(trades()))
        yield server


def udf(server: ServerProcess, path: str, **parameters: object) -> Any:
    """Return an answer of the datafeed."""
    query = "&".join(f"{name}={quote(str(value))}" for name, value in parameters.items())
    status, body = server.ask(f"/udf/{path}?{query}")
    assert status == 200
    return body


def history(server: ServerProcess, resolution: str, **parameters: object) -> Any:
    """Return bars of AAPL. Those that are there keep the rules of the documentation."""
    found = udf(server, "history", symbol="AAPL", resolution=resolution, **parameters)
    if found["s"] == "ok":
        check(found)
    return found


def check(found: dict[str, Any]) -> None:
    """Check the rules: lists of one length, times that grow, prices between low and high."""
    assert found.keys() == {"s", "t", "o", "h", "l", "c", "v"}
    assert len({len(found[name]) for name in "tohlcv"}) == 1
    assert found["t"] == sorted(set(found["t"]))
    for start, high, low, close in zip(*(found[name] for name in "ohlc"), strict=True):
        assert low <= min(start, close) <= max(start, close) <= high


def oracle(key: Any) -> dict[int, list[Any]]:
    """Return bars by their time: open, high, low, close and volume."""
    bars: dict[int, list[Any]] = {}
    for each in trades():
        price, size = each["price"], each["size"]
        bar = bars.setdefault(key(each["ts"] // 1_000_000), [price, price, price, price, 0])
        bar[1], bar[2], bar[3] = max(bar[1], price), min(bar[2], price), price
        bar[4] += size
    return bars


def rows(found: dict[str, Any]) -> dict[int, list[Any]]:
    """Return an answer's bars as the oracle's."""
    columns = (found[name] for name in "ohlcv")
    return dict(zip(found["t"], map(list, zip(*columns, strict=True)), strict=True))


def day_of(moment: int) -> int:
    """Return midnight UTC of the trading day."""
    day = datetime.fromtimestamp(moment, NEW_YORK).date()
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def week_of(moment: int) -> int:
    """Return midnight UTC of the week's Monday."""
    day = day_of(moment)
    return day - datetime.fromtimestamp(day, UTC).weekday() * 86_400


def test_configuration_says_what_the_feed_can(server):
    """Either search or groups must be supported; each resolution of the list has bars."""
    config = udf(server, "config")
    assert config["supports_search"] is not config["supports_group_request"]
    assert config["supported_resolutions"] == [*RESOLUTIONS, "1D", "1W"]
    assert config["supports_time"] is True
    assert config["supports_marks"] is config["supports_timescale_marks"] is False
    for group in ("exchanges", "symbols_types"):
        assert config[group][0]["value"] == ""
        assert all({"name", "value"} <= each.keys() for each in config[group])


def test_time_is_a_number_of_seconds(server):
    """Without milliseconds."""
    moment = udf(server, "time")
    assert isinstance(moment, int)
    assert abs(moment - datetime.now(UTC).timestamp()) < 60


def test_symbol_has_all_that_a_chart_needs(server):
    """Hours, zone, and the scale of prices; also by exchange and symbol, in lower case."""
    info = udf(server, "symbols", symbol="aapl")
    assert info == udf(server, "symbols", symbol="NASDAQ:AAPL")
    assert (info["name"], info["ticker"]) == ("AAPL", "AAPL")
    assert (info["timezone"], info["session"]) == ("America/New_York", "0930-1600")
    assert (info["session_holidays"], info["corrections"]) == ("20261225", "0930-1300:20261127")
    assert (info["minmov"], info["pricescale"], info["volume_precision"]) == (1, 100, 0)
    assert info["type"] == "stock"
    assert info["has_intraday"] is info["has_daily"] is info["has_weekly_and_monthly"] is True
    assert info["intraday_multipliers"] == [*RESOLUTIONS]
    assert info["data_status"] == "streaming"
    assert info["description"]


def test_errors_are_ones_that_a_chart_shows(server):
    """An unknown symbol and wrong parameters have `s: error` and a message."""
    unknown = {"s": "error", "errmsg": "unknown_symbol"}
    assert udf(server, "symbols", symbol="NOSUCH") == unknown
    assert udf(server, "symbols") == unknown
    assert udf(server, "history", symbol="NOSUCH", resolution="1", to=9, **{"from": 1}) == unknown
    for wrong in ({"resolution": "7"}, {"resolution": "1", "to": "soon"}, {"from": 9, "to": 1}):
        found = udf(server, "history", symbol="AAPL", **{"resolution": "1", **wrong})
        assert found["s"] == "error"
        assert found["errmsg"].split(":")[0] in wrong


def test_search_narrows_by_type(server):
    """Each match can be resolved."""
    found = udf(server, "search", query="apple", limit=5)
    assert found[0] == {
        "symbol": "AAPL",
        "full_name": "AAPL",
        "description": found[0]["description"],
        "exchange": "",
        "ticker": "AAPL",
        "type": "stock",
    }
    assert not udf(server, "search", query="apple", type="forex")
    assert not udf(server, "search", query="apple", exchange="XLON")
    assert len(udf(server, "search", query="", limit=7)) == 7


def test_group_is_a_table(server):
    """Each field is a value for all, or a list as long as the symbols."""
    table = udf(server, "symbol_info", group="")
    lists = [value for value in table.values() if isinstance(value, list)]
    symbols = len(table["symbol"])
    short = {"intraday-multipliers", "supported-resolutions"}
    assert {name for name, value in table.items() if value in lists and len(value) != symbols} == (
        short
    )
    place = table["symbol"].index("AAPL")
    assert (table["pricescale"][place], table["type"][place]) == (100, "stock")
    assert (table["session-regular"], table["timezone"]) == ("0930-1600", "America/New_York")
    assert udf(server, "symbol_info", group="XLON")["symbol"] == []


@pytest.mark.parametrize("resolution", [*RESOLUTIONS, "1D", "D", "1W", "W", "d"])
def test_bars_are_those_of_the_trades(server, resolution):
    """Of each resolution, against a dozen lines of Python; `from` is included and `to` is not."""
    if minutes := RESOLUTIONS.get(resolution):
        expected = oracle(lambda moment: moment - moment % (60 * minutes))
    else:
        expected = oracle(day_of if "D" in resolution.upper() else week_of)
    times = [*expected]
    found = history(server, resolution, **{"from": times[0], "to": times[-1] + 1})
    assert rows(found) == expected
    some = history(server, resolution, **{"from": times[1], "to": times[-1]})
    assert some.get("t", []) == times[1:-1]
    counted = history(server, resolution, **{"from": times[-1], "to": times[-1] + 1}, countback=2)
    assert [*rows(counted)] == times[-2:]


def test_same_bars_as_the_api(server):
    """`GET /bars` and the datafeed answer from the same place."""
    start, end = at_opening(2), at_opening(2) + timedelta(hours=7)
    found = history(server, "5", **{"from": int(start.timestamp()), "to": int(end.timestamp())})
    times = [f"{each.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" for each in (start, end)]
    query = f"symbols=AAPL&timeframe=5m&start={times[0]}&end={times[1]}"
    _, page = server.ask(f"/bars?{query}")
    bars = page["bars"]["AAPL"]
    assert [each["c"] for each in bars] == found["c"]
    moments = [datetime.fromisoformat(each["t"]).timestamp() for each in bars]
    assert moments == found["t"]


def test_empty_range_names_the_bar_before_it(server):
    """A chart then jumps to `nextTime`; before the first trade there is none."""
    night = int((at_opening(2) - timedelta(hours=3)).timestamp())
    last = int(trades()[-81]["ts"]) // 1_000_000
    found = history(server, "5", **{"from": night, "to": night + 3600})
    assert found == {"s": "no_data", "nextTime": last - last % 300}
    daily = history(server, "1D", **{"from": day_of(night), "to": day_of(night)})
    assert daily == {"s": "no_data", "nextTime": day_of(last)}
    assert history(server, "5", **{"from": 1, "to": 1000}) == {"s": "no_data"}
    assert history(server, "1D", to=1000, countback=10) == {"s": "no_data"}


@pytest.mark.parametrize("resolution", ["1", "240", "1D", "1W"])
@pytest.mark.parametrize("end", [253_402_300_799, 253_402_214_400, 99_999_999_999_999, 10**18])
def test_range_may_end_at_the_end_of_time(server, resolution, end):
    """Some charts ask so for all bars."""
    found = history(server, resolution, **{"from": -(10**12), "to": end})
    assert found == history(server, resolution, **{"from": 0, "to": int(time.time()) + 60})
    assert history(server, resolution, **{"from": end, "to": end})["s"] == "no_data"
    assert history(server, resolution, to=-5, **{"from": -9}) == {"s": "no_data"}


def test_token_may_stand_in_the_url(server):
    """A chart cannot set headers: its address of the datafeed holds the token."""
    token = make_token("chart")
    for path in (f"/udf/{token}/symbols?symbol=AAPL", f"/udf/symbols?symbol=AAPL&token={token}"):
        status, body = server.request("GET", path)
        assert (status, b'"ticker":"AAPL"' in body.encode()) == (200, True)
    for path in ("/udf/time", "/udf/time?token=wrong", "/udf/wrong/time", "/bars?token=" + token):
        assert server.request("GET", path)[0] == 401
    header = {"Authorization": "Bearer wrong"}
    assert server.request("GET", f"/udf/time?token={token}", **header)[0] == 401


def test_command_shows_the_same_bars(server, tmp_path):
    """`quotestream export bars` writes what the datafeed answers."""
    from tests.cli.command import run

    done = run(
        tmp_path,
        *["export", "bars", "--symbols", "AAPL", "--timeframe", "1d"],
        *["--start", f"{at_opening(DAYS).date()}", "--url", server.http_url],
        QUOTESTREAM_TOKEN=make_token("exporter"),
    )
    assert done.returncode == 0, done
    found = rows(history(server, "1D", countback=DAYS))
    lines = [*csv.DictReader(done.stdout.splitlines())]
    assert [[float(each[name]) for name in "ohlcv"] for each in lines] == [*found.values()]
    assert len(lines) == DAYS
