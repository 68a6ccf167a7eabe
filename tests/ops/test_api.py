"""The API for other services: names, prices, search, quotes, and control of the cache."""

import json
import urllib.request

import pytest

from tests.gateway.wire import Client
from tests.processes import ServerProcess, make_token


def bearer(role: str = "user") -> str:
    return f"Bearer {make_token('service', role=role)}"


def test_market_data_is_the_protocol_s(server):
    """Rows have the protocol's fields, in the requested order. Unknown symbols are left out."""
    status, body = server.ask("/market-data?symbols=spy,NOPE,MMM,spy")
    assert status == 200
    assert [set(each) for each in body] == [{"symbol", "name", "category", "last_quote"}] * 2
    assert {each["symbol"]: each["category"] for each in body} == {"SPY": 2, "MMM": 1}
    assert next(each for each in body if each["symbol"] == "MMM")["name"] == "3M"


def test_streaming_symbols_are_answered_from_memory(server):
    """Price and version match a subscriber's quote at that moment, or the one before or after."""
    with Client(server, "AAPL") as client:
        client.receive()
        hits = server.metric('market_data_cache_requests_total{result="hit"}')
        client.move()
        _, [quote] = server.ask("/quotes?symbols=aapl")
        while client.versions["AAPL"] < quote["version"]:
            client.move()
        if client.versions["AAPL"] == quote["version"]:
            assert client.quotes["AAPL"] == quote["quote"]
        _, [data] = server.ask("/market-data?symbols=AAPL")
        assert 0 < data["last_quote"] < 1e6
        assert server.metric('market_data_cache_requests_total{result="hit"}') == hits
    assert server.metric("market_data_live_snapshots_total") >= 2


def test_second_request_is_a_hit_and_the_unknown_is_remembered(tmp_path):
    """The first request counts a miss, the second a hit. An unknown symbol is looked up once."""
    with ServerProcess(tmp_path) as server:
        results = ("hit", "miss", "negative", "error")
        for _ in range(3):
            server.ask("/market-data?symbols=IBM,NOPE")
        counts = {
            each: server.metric(f'market_data_cache_requests_total{{result="{each}"}}')
            for each in results
        }
        assert counts == {"hit": 2, "miss": 2, "negative": 2, "error": 0}
        assert server.metric("market_data_cache_hit_ratio") == 0.5
        assert server.metric('market_data_db_query_seconds_count{query="find"}') == 1


def test_quotes_of_what_nobody_watches(tmp_path):
    """A symbol without subscribers has its opening quote, in the clients' form."""
    with ServerProcess(tmp_path) as server:
        status, [quote] = server.ask("/quotes?symbols=ZTS")
    assert status == 200
    assert quote["version"] == 1
    assert quote["quote"]["symbol"] == "ZTS"
    assert quote["quote"]["current_price"] == quote["quote"]["base_price"]


@pytest.mark.parametrize(
    ("query", "first"),
    [("aapl", "AAPL"), ("A", "A"), ("micro", "AMD"), ("berkshire+hath", "BRK.B"), ("gold", "GLD")],
)
def test_search(server, query, first):
    """The exact symbol is first, then other symbols, then names."""
    status, found = server.ask(f"/instruments?query={query}")
    assert status == 200
    assert first in [each["symbol"] for each in found][: 1 if query != "gold" else 5]


def test_all_instruments_by_page(server):
    """By symbol; each page names where the next begins, the last one nothing."""
    symbols: list[str] = []
    path: str | None = "/instruments?limit=100"
    while path:
        request = urllib.request.Request(server.http_url + path)
        request.add_header("Authorization", bearer())
        with urllib.request.urlopen(request) as response:
            page = json.loads(response.read())
            token = response.headers["Next-Page-Token"]
        symbols += [each["symbol"] for each in page]
        path = f"/instruments?limit=100&page_token={token}" if token else None
    assert symbols == sorted(symbols)
    assert len(set(symbols)) == len(symbols) == 513
    assert [each["symbol"] for each in server.ask("/instruments")[1]] == symbols[:20]
    after = server.ask("/instruments?limit=2&page_token=AAPL")[1]
    assert [each["symbol"] for each in after] == symbols[symbols.index("AAPL") + 1 :][:2]
    assert server.ask("/instruments?page_token=ZZZZ") == (200, [])


def test_search_is_limited(server):
    """A search returns twenty instruments unless `limit` sets another number."""
    assert len(server.ask("/instruments?query=a")[1]) == 20
    assert len(server.ask("/instruments?query=a&limit=3")[1]) == 3


@pytest.mark.parametrize(
    "path", ["/instruments?query=%20%00", "/market-data?symbols=,,", "/quotes?symbols=%00,*"]
)
def test_nothing_is_found_for_nothing(server, path):
    """A query without symbol or word finds nothing, without an error."""
    assert server.ask(path) == (200, [])


def test_one_instrument(server):
    """An instrument has its reference data. An unknown symbol is 404."""
    status, body = server.ask("/instruments/brk.b")
    assert status == 200
    assert (body["symbol"], body["type"]) == ("BRK.B", "STOCK")
    status, body = server.ask("/instruments/A%2FB")
    assert (status, body["error"]["code"]) == (404, "unknown_symbol")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/market-data", "bad_request"),
        ("/market-data?symbols=", "bad_request"),
        ("/quotes", "bad_request"),
        ("/instruments?query=", "bad_request"),
        ("/instruments?query=a&limit=0", "bad_request"),
        ("/instruments?query=a&limit=101", "bad_request"),
        ("/instruments?query=a&limit=x", "bad_request"),
        ("/instruments?query=" + "a" * 101, "bad_request"),
        ("/market-data?symbols=" + ",".join(map(str, range(501))), "too_many_symbols"),
        (
            "/quotes?symbols=" + ",".join(f"SYM{number}" for number in range(2000)),
            "too_many_symbols",
        ),
    ],
)
def test_bad_parameters_are_named(server, path, code):
    """A bad parameter is 400 with a message that names the problem."""
    status, body = server.ask(path)
    assert (status, body["error"]["code"]) == (400, code)
    assert body["error"]["message"]


def test_as_many_symbols_as_long_as_there_are(server):
    """The number of symbols is limited, not that of characters."""
    symbols = ",".join(f"{number:A>50}" for number in range(499))
    assert [each["symbol"] for each in server.ask(f"/market-data?symbols={symbols},AAPL")[1]] == [
        "AAPL"
    ]


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer x", "Basic eDp5", "Bearer " + "a.b.c"])
def test_token_is_required(server, value):
    """Every route of the API answers 401 with a hint if there is no token."""
    for method, path in (
        ("GET", "/market-data?symbols=A"),
        ("GET", "/quotes?symbols=A"),
        ("GET", "/instruments?query=a"),
        ("GET", "/instruments/A"),
        ("DELETE", "/admin/market-data/cache/invalidate?symbols=A"),
        ("POST", "/admin/market-data/cache/warm?symbols=A"),
    ):
        status, body = server.request(method, path, Authorization=value)
        assert status == 401
        assert json.loads(body)["error"]["code"] == "unauthorized"


def test_administration_is_for_administrators(tmp_path):
    """Other users get 403. An administrator's command is done, and logged with the name."""
    with ServerProcess(tmp_path) as server:
        for method, path in (
            ("POST", "/admin/market-data/cache/warm?symbols=WMT,NOPE"),
            ("DELETE", "/admin/market-data/cache/invalidate?symbols=WMT,NOPE"),
        ):
            status, body = server.ask(path, method)
            assert (status, body["error"]["code"]) == (403, "forbidden")
            status, body = server.ask(path, method, role="admin")
            assert status == 200
            assert set(body) == {"message", "symbols", "count", "status"}
            assert (body["symbols"], body["count"]) == (["WMT", "NOPE"], 1)
        server.await_event("admin", 2)
        lines = server.events("admin")
        assert [line["action"] for line in lines] == ["warm", "invalidate"]
        assert all(line["user"] == "service" for line in lines)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/instruments/", "an empty symbol is not an instrument"),
        ("/trades?symbol=A%0aB%1b%5b2J", "A\ufffdB\ufffd[2J is not an instrument"),
    ],
)
def test_unknown_symbol_is_shown_in_one_line(server, path, shown):
    """No character of it can break the line or change an operator's terminal."""
    status, body = server.ask(path)
    assert (status, body["error"]["code"]) == (404, "unknown_symbol")
    assert body["error"]["message"].startswith(shown)


def test_etag_saves_the_body(server):
    """An unchanged instrument is answered with 304. Answers with prices are never stored."""
    request = urllib.request.Request(server.http_url + "/instruments/MMM")
    request.add_header("Authorization", bearer())
    with urllib.request.urlopen(request) as response:
        tag = response.headers["ETag"]
        assert "no-cache" in response.headers["Cache-Control"]
    for known in (tag, f'"other", W/{tag}', "*"):
        status, body = server.request(
            "GET", "/instruments/MMM", Authorization=bearer(), If_None_Match=known
        )
        assert (status, body) == (304, "")
    request = urllib.request.Request(server.http_url + "/market-data?symbols=MMM")
    request.add_header("Authorization", bearer())
    with urllib.request.urlopen(request) as response:
        assert response.headers["Cache-Control"] == "no-store"
