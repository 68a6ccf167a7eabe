"""Each path of the HTTP port has one spelling, and each answer has its media type."""

import pytest

from tests.gateway.wire import Answer
from tests.ops.exchange import ask
from tests.processes import make_token


@pytest.mark.parametrize("path", ["/metrics", "/health", "/healthz", "/docs", "/market-data"])
@pytest.mark.parametrize(
    "spelling",
    [
        "{0}%0a",
        "{0}%0A",
        "{0}%00",
        "{0}%0d%0a",
        "{0}%20",
        "{0}%E2%80%A8",
        "{0}/",
        "{0};x",
        "{0}#x",
        "/{0}",
        "//evil{0}",
        "/.{0}",
        "/x/..{0}",
        "/%2e{0}",
        "http:{0}",
        "ftp://host{0}",
        "http:///{0}",
        "http://a@b{0}",
        "*",
    ],
)
def test_path_has_one_spelling(server, path, spelling):
    """Other spellings are 404, so a proxy can protect a path by its spelling."""
    assert get(server, spelling.format(path)).status in (400, 404)
    assert get(server, spelling.format(path.upper())).status in (400, 404)


@pytest.mark.parametrize(
    "target",
    [
        "/%6detrics",
        "/metric%73",
        "%2fmetrics",
        "/instruments%2FAAPL",
        "/web/%71uotes.js",
        "/web%2fquotes.js",
        "/udf/%63onfig",
        "/ops/%63lients",
        "/ops/clients/0%2D1/drain",
    ],
)
def test_escapes_are_for_symbols(server, target):
    """Only a symbol in a path may be escaped."""
    assert get(server, target).status in (400, 404)


def test_absolute_form_is_the_same_path(server):
    """The absolute form, which proxies send, is accepted (RFC 9112 §3.2.2)."""
    for target in ("http://host:80/healthz", "https://host/healthz?x=1", "HTTP://[::1]:1/healthz"):
        assert get(server, target).status == 200


@pytest.mark.parametrize(
    "symbol", ["BTC%2FUSD", "BTC/USD", "^NOPE", "%5ENOPE", "EURUSD=X", "A%20B"]
)
def test_symbol_may_hold_much(server, symbol):
    """A symbol may contain a slash, a caret or an equals sign, escaped or not."""
    assert get(server, f"/instruments/{symbol}").verdict == (404, "unknown_symbol")
    assert get(server, "/instruments/BRK.B").status == 200


@pytest.mark.parametrize("symbol", ["A%0A", "A%00", "%0AA", "A%7F", "%E2%80%AEA", "%C2%85"])
def test_symbol_can_be_printed(server, symbol):
    """A path with an unprintable symbol is 404."""
    assert get(server, f"/instruments/{symbol}").verdict == (404, "not_found")


def test_no_answer_is_taken_for_a_page(server):
    """Every answer has `nosniff`: results, refusals, 404, and those to HEAD."""
    for target in (
        "/healthz",
        "/docs",
        "/openapi.json",
        "/metrics",
        "/nowhere",
        "/metrics%0a",
        "/instruments/NOPE",
        "/quotes",
        "/instruments/AAPL",
    ):
        assert get(server, target).headers["X-Content-Type-Options"] == "nosniff"
    assert ask(server, "POST", "/healthz").headers["X-Content-Type-Options"] == "nosniff"
    assert ask(server, "HEAD", "/healthz").headers["X-Content-Type-Options"] == "nosniff"


def test_page_may_only_do_its_own(server):
    """The API's page runs its own script, asks its own server, and cannot be framed."""
    headers = get(server, "/docs").headers
    policy = dict(
        each.strip().split(" ", 1) for each in headers["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["script-src"].startswith("'sha256-")
    assert policy["style-src"].startswith("'sha256-")
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"


def get(server, target: str) -> Answer:
    return ask(server, "GET", target, f"Authorization: Bearer {make_token()}")
