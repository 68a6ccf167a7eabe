"""`GET /bars` of live trades: open and late ones, pages, gaps, restarts, and a store that is away."""

import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import Any

import pytest

from bench.services import Postgres
from tests.ops.test_bars import fetched
from tests.processes import ServerProcess, eventually, make_token
from tests.publisher import post

FAST = {"FEED": "push", "PRICE_WRITE_INTERVAL": "100ms", "PUSH_LISTS_SYMBOLS": "1"}


def trade(server: ServerProcess, symbol: str, price: float, at: float, size: int = 100) -> None:
    """Publish a trade at a time in Unix seconds."""
    answer = post(server, [{"symbol": symbol, "price": price, "size": size, "ts": int(at * 1e6)}])
    assert answer.status == 200, answer
    assert not answer.body["rejected"], answer


def bars(server: ServerProcess, query: str) -> list[dict[str, Any]]:
    """Return the bars of IBM."""
    status, page = server.ask(f"/bars?symbols=IBM&{query}")
    assert status == 200, page
    found: list[dict[str, Any]] = page["bars"].get("IBM", [])
    return found


def minute(at: float) -> str:
    return f"{datetime.fromtimestamp(at // 60 * 60, UTC):%Y-%m-%dT%H:%M:%SZ}"


def conditional(server: ServerProcess, path: str, tag: str) -> tuple[int, dict[str, str]]:
    """Return status and headers of a request with If-None-Match."""
    headers = {"Authorization": f"Bearer {make_token()}", "If-None-Match": tag}
    request = urllib.request.Request(server.http_url + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, dict(response.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers)


@pytest.mark.parametrize("timeframe", ["1m", "1d"])
def test_trades_of_past_minutes_are_there_at_once(tmp_path, timeframe):
    """No reader waits for the next write to see the trades that a publisher sends of an hour ago."""
    with ServerProcess(tmp_path, **FAST | {"PRICE_WRITE_INTERVAL": "60s"}) as server:
        # Both trades are of one minute.
        then = time.time() // 60 * 60 - 3600
        query = f"timeframe={timeframe}&start={minute(then - 86400)}"
        for count in (1, 2):
            trade(server, "IBM", 180.0 + count, then + count / 1000)
            assert [bar["n"] for bar in bars(server, query)] == [count]


def test_a_bar_is_there_with_its_trade_and_goes_on_after_a_restart(tmp_path):
    """An open bar is answered at once. A restart in the middle of its minute loses no trade of it."""
    with ServerProcess(tmp_path, **FAST) as server:
        now = time.time()
        trade(server, "IBM", 180.0, now)
        [bar] = bars(server, "")
        wanted = {
            "t": minute(now),
            "o": 180.0,
            "h": 180.0,
            "l": 180.0,
            "c": 180.0,
            "v": 100,
            "n": 1,
        }
        assert bar | wanted == bar
        assert bar["vw"] == 180.0
        server.stop()
    with ServerProcess(tmp_path, **FAST) as server:
        assert bars(server, f"start={minute(now)}")[0]["n"] == 1
        trade(server, "IBM", 182.0, now + 0.001)
        eventually(lambda: bars(server, f"start={minute(now)}")[0]["n"] == 2)
        bar = bars(server, f"start={minute(now)}")[0]
        assert (bar["o"], bar["c"], bar["v"], bar["vw"]) == (180.0, 182.0, 200, 181.0)


def test_late_trades_revise_a_bar(tmp_path):
    """A trade of an hour ago makes or changes that bar, and its revision grows."""
    old = time.time() - 3600
    query = f"start={minute(old)}&end={minute(old)}"
    with ServerProcess(tmp_path, **FAST) as server:
        trade(server, "IBM", 180.0, time.time())
        trade(server, "IBM", 170.0, old)
        eventually(lambda: len(bars(server, query)) == 1)
        [first] = bars(server, query)
        assert first["final"]
        trade(server, "IBM", 171.0, old)
        eventually(lambda: bars(server, query)[0]["n"] == 2)
        [second] = bars(server, query)
        assert second["rev"] > first["rev"]
        eventually(lambda: server.metric("market_data_bars_unwritten") == 0)
        server.stop()
    with ServerProcess(tmp_path, **FAST) as server:
        assert bars(server, query) == [second]


def test_gaps_are_filled_from_the_first_bar_to_now(tmp_path):
    """`fill=previous` has each minute from the first trade on, in both orders and over pages."""
    now = time.time()
    first, last = now - 600, now - 300
    with ServerProcess(tmp_path, **FAST) as server:
        trade(server, "IBM", 170.0, first)
        trade(server, "IBM", 180.0, last)
        query = f"start={minute(first - 3600)}&fill=previous&end={minute(now)}"
        eventually(lambda: len(bars(server, f"start={minute(first)}")) == 2)
        found = bars(server, query)
        assert [each["t"] for each in found] == [minute(first + 60 * n) for n in range(11)]
        assert [each["n"] for each in found] == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]
        assert [each["c"] for each in found] == [170.0] * 5 + [180.0] * 6
        empty = {"o": 170.0, "h": 170.0, "l": 170.0, "c": 170.0, "v": 0, "n": 0, "vw": None}
        assert found[1] | empty == found[1]
        # The bar before the range gives the price.
        assert (
            bars(server, query.replace(minute(first - 3600), minute(first + 60)))[0]["c"] == 170.0
        )
        upwards = fetched(server, f"symbols=IBM&{query}&limit=3")["IBM"]
        downwards = fetched(server, f"symbols=IBM&{query}&limit=4&sort=desc")["IBM"]
        assert upwards == downwards[::-1]
        assert len(upwards) == 11


def test_pages_stay_right_while_bars_arrive(tmp_path):
    """A page goes on behind the last one, in either order, though new bars came in between."""
    begin = time.time() - 1200
    with ServerProcess(tmp_path, **FAST) as server:
        for symbol in ("IBM", "MSFT"):
            for n in range(0, 10, 2):
                trade(server, symbol, 100.0 + n, begin + 60 * n)
        query = f"/bars?symbols=MSFT,IBM,NOPE&start={minute(begin)}&limit=3"
        all_bars = f"symbols=MSFT,IBM&start={minute(begin)}"
        eventually(lambda: sum(map(len, fetched(server, all_bars).values())) == 10)
        for order, times in (("asc", [0, 2, 4, 6, 8]), ("desc", [8, 6, 4, 2, 0])):
            seen = []
            status, page = server.ask(f"{query}&sort={order}")
            while status == 200:
                seen += [
                    (symbol, bar["t"]) for symbol in page["bars"] for bar in page["bars"][symbol]
                ]
                assert sum(map(len, page["bars"].values())) <= 3
                trade(server, "IBM", 99.0, time.time())
                if page["next_page_token"] is None:
                    break
                token = page["next_page_token"]
                status, page = server.ask(f"{query}&sort={order}&page_token={token}")
            old = [each for each in seen if each[1] <= minute(begin + 600)]
            assert old == [(s, minute(begin + 60 * n)) for s in ("IBM", "MSFT") for n in times]
            assert len(seen) == len({*seen})


def test_final_bars_have_a_tag(tmp_path):
    """An answer of final bars may be asked for again with its ETag. An open bar is not stored."""
    old = time.time() - 3600
    with ServerProcess(tmp_path, **FAST) as server:
        trade(server, "IBM", 170.0, old)
        trade(server, "IBM", 180.0, time.time())
        path = f"/bars?symbols=IBM&start={minute(old)}&end={minute(old)}"
        eventually(lambda: bool(server.ask(path)[1]["bars"]))
        status, headers = conditional(server, path, '"x"')
        assert (status, headers["cache-control"]) == (200, "private, no-cache")
        assert conditional(server, path, headers["etag"])[0] == 304
        trade(server, "IBM", 171.0, old)
        eventually(lambda: conditional(server, path, headers["etag"])[0] == 200)
        status, headers = conditional(server, "/bars?symbols=IBM", '"x"')
        assert (status, headers["cache-control"]) == (200, "no-store")
        assert "etag" not in headers


def test_memory_answers_while_the_database_is_away(tmp_path, postgres: Postgres):
    """Newest bars are answered without the database, older ones with 503. None is lost by that."""
    old = time.time() - 3600
    with ServerProcess(tmp_path, **FAST, DATABASE_URL=postgres.url()) as server:
        trade(server, "IBM", 170.0, old)
        whole = f"start={minute(old)}"
        eventually(lambda: len(bars(server, whole)) == 1)
        trade(server, "IBM", 180.0, time.time())
        postgres.kill()
        now = time.time()
        trade(server, "IBM", 181.0, now)
        [bar] = bars(server, f"start={minute(now)}")
        assert bar["c"] == 181.0
        status, error = server.ask(f"/bars?symbols=IBM&{whole}")
        assert (status, error["error"]["code"]) == (503, "store_unavailable")
        postgres.start()
        eventually(lambda: server.ask(f"/bars?symbols=IBM&{whole}")[0] == 200, 30)
        found = bars(server, whole)
        assert (found[0]["c"], found[-1]["c"]) == (170.0, 181.0)
        assert sum(each["n"] for each in found) == 3


def test_trades_fill_a_gap(tmp_path):
    """`/trades` has each trade with its version. Trades from before the start are missing."""
    now = time.time()
    with ServerProcess(tmp_path, **FAST) as server:
        for n in range(4):
            trade(server, "IBM", 180.0 + n, now + n / 1000)
        _, [quote] = server.ask("/quotes?symbols=IBM")
        newest = quote["version"]
        status, page = server.ask(f"/trades?symbol=ibm&after_version={newest - 4}")
        assert (status, page["symbol"], page["complete"]) == (200, "IBM", True)
        assert [each["version"] for each in page["trades"]] == [*range(newest - 3, newest + 1)]
        assert [each["price"] for each in page["trades"]] == [180.0, 181.0, 182.0, 183.0]
        assert set(page["trades"][0]) == {"version", "price", "size", "t"}
        _, page = server.ask("/trades?symbol=IBM&limit=1")
        assert (len(page["trades"]), page["complete"]) == (1, newest - 4 == 0)
        assert server.ask("/trades?symbol=MSFT&after_version=1")[1]["complete"]
        assert server.ask("/trades?symbol=NOPE")[0] == 404
        for wrong in ("symbol=IBM&limit=0", "symbol=IBM&after_version=-1", "limit=3"):
            assert server.ask(f"/trades?{wrong}")[0] == 400


@pytest.mark.parametrize(
    ("query", "status", "problem"),
    [
        ("", 400, "symbols: missing"),
        ("symbols=IBM&limit=0", 400, "limit: "),
        ("symbols=IBM&limit=-1", 400, "limit: "),
        ("symbols=IBM&limit=1000000000", 400, "limit: "),
        ("symbols=IBM&limit=ten", 400, "limit: "),
        ("symbols=IBM&timeframe=7m", 400, "timeframe: not one of 1m, 5m, 15m, 30m, 1h, 4h, 1d, 1w"),
        ("symbols=IBM&timeframe=1m&limit=0", 400, "limit: not a whole number from 1 to 10000"),
        ("symbols=IBM&timeframe=1m&limit=x", 400, "limit: not a whole number from 1 to 10000"),
        (
            f"symbols=IBM&timeframe=1m&start={'9' * 100}",
            400,
            "start: not a text of 1 to 50 characters",
        ),
        ("symbols=IBM&sort=up", 400, "sort: not one of asc, desc"),
        ("symbols=IBM&fill=zero", 400, "fill: not one of none, previous"),
        ("symbols=IBM&tz=..%2F..%2Fetc%2Fpasswd", 400, "tz: "),
        ("symbols=IBM&page_token=AAAA", 400, "page_token: "),
        ("symbols=IBM&start=9999-12-31", 400, "end: it is before `start`"),
        ("symbols=" + ",".join(f"S{n}" for n in range(501)), 400, "at most 500 symbols"),
        ("symbols=NOPE", 200, ""),
        ("symbols=IBM&start=0001-01-01&end=9999-12-31&timeframe=1w&limit=10000", 200, ""),
        ("symbols=IBM&start=0001-01-01&end=9999-12-31&fill=previous&sort=desc", 200, ""),
    ],
)
def test_hostile_parameters(server, query, status, problem):
    """Each is answered with an error that names it, or with no bars."""
    answered, body = server.ask(f"/bars?{query}")
    assert answered == status
    if problem:
        assert body["error"]["message"].startswith(problem)
    else:
        assert body["next_page_token"] is None
