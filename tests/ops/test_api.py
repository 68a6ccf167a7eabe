"""The API for other services: names, prices, search, quotes, and control of the cache."""

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def test_description_and_page(server):
    """The document has every route and type. The page loads nothing from other sites."""
    status, text = server.get("/openapi.json")
    document = json.loads(text)
    assert status == 200
    assert set(document["paths"]) == {
        "/asyncapi.json",
        "/ops",
        "/quotes.js",
        "/market-data",
        "/quotes",
        "/bars",
        "/trades",
        "/instruments",
        "/instruments/{symbol}",
        "/udf/config",
        "/udf/time",
        "/udf/symbols",
        "/udf/symbol_info",
        "/udf/search",
        "/udf/history",
        "/admin/market-data/cache/invalidate",
        "/admin/market-data/cache/warm",
        "/ops/overview",
        "/ops/clients",
        "/ops/clients/{id}/drain",
        "/ops/clients/{id}/disconnect",
        "/ops/import",
        "/ops/instruments",
        "/ops/instruments/{symbol}",
        "/",
        "/version",
        "/healthz",
        "/readyz",
        "/health",
        "/metrics",
        "/openapi.json",
        "/docs",
    }
    assert {"MarketData", "QuoteView", "Quote", "ErrorBody"} <= set(
        document["components"]["schemas"]
    )
    status, page = server.get("/docs")
    assert status == 200
    assert "openapi.json" in page
    assert "http://" not in page
    assert "https://" not in page


def test_root_leads_to_every_route(server):
    """Programs get JSON. Each path is in the description too. Browsers get a page that leads on."""
    status, text = server.get("/")
    found = json.loads(text)
    assert (status, found["name"]) == (200, "quotestream")
    paths = [each["path"] for each in found["routes"]]
    assert set(paths) == set(json.loads(server.get("/openapi.json")[1])["paths"])
    assert all(each["summary"] for each in found["routes"])
    page = server.request("GET", "/", Accept="text/html,*/*;q=0.8")[1]
    links = set(re.findall(r'href="([^"]+)"', page))
    assert {"docs", "ops"} <= links
    # The chart's licence asks for this one.
    links.discard("https://www.tradingview.com/")
    assert all(server.get(f"/{link}")[0] == 200 for link in links)


def test_everything_in_the_description_is_described(server):
    """Each operation, parameter, answer, header, type and field has words."""
    document = json.loads(server.get("/openapi.json")[1])
    assert document["info"]["description"]
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["summary"], path
            assert all(each["description"] for each in operation["parameters"]), path
            for answer in operation["responses"].values():
                assert answer["description"], path
                assert all(each["description"] for each in answer.get("headers", {}).values()), path
    for name, schema in document["components"]["schemas"].items():
        assert schema["description"], name
        for field, described in schema["properties"].items():
            assert described.get("description"), f"{name}.{field}"


def test_description_as_a_generator_reads_it(server):
    """Every number says how wide it is: an `int` of Java or C# cannot hold a market cap."""
    document = json.loads(server.get("/openapi.json")[1])
    schemas = document["components"]["schemas"]

    def formats(part: Any) -> Iterator[tuple[str, str | None]]:
        if isinstance(part, dict):
            if part.get("type") in ("integer", "number"):
                yield part["type"], part.get("format")
            for each in part.values():
                yield from formats(each)
        elif isinstance(part, list):
            for each in part:
                yield from formats(each)

    assert set(formats(document)) == {("integer", "int64"), ("number", "double")}
    quote = schemas["Quote"]["properties"]
    assert quote["volume"]["format"] == "double"  # sizes may be fractions
    assert quote["current_price"]["format"] == "double"
    assert quote["last_updated"]["format"] == "date-time"
    assert {"type": "integer", "format": "int64"} in quote["market_cap"]["anyOf"]


BAD_VALUES = """
[[operations]]
include-name = "GET /bars"
checks.positive_data_acceptance.expected-statuses = [200, 304, 400, 429, 503]

[[operations]]
include-name = "POST /ops/import"
checks.positive_data_acceptance.expected-statuses = [200, 400, 413, 415, 429, 503]
"""
"""A schema cannot say which days, time zones and page tokens there are, nor which texts are files of
instruments: others are answered 400.
"""


@pytest.mark.time_limit(240)
def test_requests_made_up_from_the_description(tmp_path):
    """schemathesis finds no answer that the document does not describe."""
    (tmp_path / "schemathesis.toml").write_text(BAD_VALUES)
    with ServerProcess(tmp_path) as server:
        done = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"),
                "run",
                f"{server.http_url}/openapi.json",
                "--max-examples",
                "30",
                "--seed",
                "1",
                "--header",
                f"Authorization: {bearer(role='admin')}",
                "--no-color",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr
        assert not [line for line in server.log_lines() if line["level"] == "error"]
