"""The API's description (OpenAPI): it is complete, and programs can read it."""

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ops.test_api import bearer
from tests.processes import ServerProcess


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


def test_every_error_of_a_route_is_described(server):
    """Those of the port, of the token and of the role, each with its headers."""
    document = json.loads(server.get("/openapi.json")[1])
    for path, methods in document["paths"].items():
        for operation in methods.values():
            responses = operation["responses"]
            assert {"400", "408", "413", "431"} <= set(responses), path
            takes_token = {} in operation.get("security", [{}])
            assert ("401" in responses) == (not takes_token or path == "/health"), path
            needs_role = path.startswith(("/ops/", "/admin/", "/prices"))
            assert ("403" in responses) == needs_role, path
            assert ("421" in responses) == path.startswith("/ops/"), path
            assert ("429" in responses) == (path not in ("/healthz", "/readyz")), path
            assert ("415" in responses) == ("requestBody" in operation), path
            for status, header in (("401", "WWW-Authenticate"), ("429", "Retry-After")):
                assert status not in responses or header in responses[status]["headers"], path


def test_every_described_tag_is_one(server):
    """A route is described with an ETag if and only if it has one."""
    document = json.loads(server.get("/openapi.json")[1])
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            # Answers of `/bars` with open bars have none.
            if method != "get" or path == "/bars":
                continue
            query = "&".join(
                f"{each['name']}={each['example']}"
                for each in operation["parameters"]
                if each["required"] and each["in"] == "query"
            )
            request = urllib.request.Request(
                f"{server.http_url}{path.replace('{symbol}', 'KO')}?{query}"
            )
            request.add_header("Authorization", bearer(role="admin"))
            with urllib.request.urlopen(request) as response:
                tag = response.headers["ETag"]
            assert ("304" in operation["responses"]) == bool(tag), path
            assert ("ETag" in operation["responses"]["200"].get("headers", {})) == bool(tag), path


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


@pytest.mark.time_limit(480)
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
            timeout=420,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr
        assert not [line for line in server.log_lines() if line["level"] == "error"]
