"""The streaming port has one path, with one spelling."""

import pytest

from server.gateway.target import split_target
from tests.gateway.wire import RawClient, head, target


@pytest.mark.parametrize(
    "path",
    [
        "//evil/ws/quotes",
        "//ws/quotes",
        "/ws/quotes/",
        "/ws/quotes;x",
        "/ws/quotes%00",
        "/ws/quotes%0a",
        "/WS/quotes",
        "/./ws/quotes",
        "/x/../ws/quotes",
        "/ws%2fquotes",
        "/%77s/quotes",
        "/ws//quotes",
        "/ws/quotes#x",
        "ws/quotes",
        "ftp://host/ws/quotes",
        "ws://host/ws/quotes",
        "file:///ws/quotes",
        "http:/ws/quotes",
        "http:///ws/quotes",
        "http://@host/ws/quotes",
        "http://a:b@host/ws/quotes",
        "http://host:x/ws/quotes",
        "http://host//ws/quotes",
        "*",
        "host:80",
        "http://host",
        "http://host#/ws/quotes",
    ],
)
def test_path_has_one_spelling(server, path):
    """A path in any other spelling is not found, and no browser takes the answer for a page."""
    _, _, query = target().partition("?")
    with RawClient(server, head(f"{path}?{query}")) as client:
        answer = client.answer()
    assert answer.verdict == (404, "not_found")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "start",
    ["http://host", "http://host:8080", "HTTPS://host", "http://[::1]:80", "http://1.2.3.4"],
)
def test_absolute_form_is_understood(server, start):
    """Proxies may send the absolute form (RFC 9112 §3.2.2)."""
    with RawClient(server, head(start + target())) as client:
        assert client.read_head().startswith("HTTP/1.1 101 ")


def test_fragment_reaches_no_server(server):
    """A client that forgot to escape `#` does not get half of what it asked for."""
    with RawClient(server, head(target("AAPL#1"))) as client:
        assert client.answer().verdict == (404, "not_found")


def test_query_is_whatever_follows():
    """Path and query stay as written, also an address in the query."""
    assert split_target("/a?b=http://c/d?e") == ("/a", "b=http://c/d?e")
    assert split_target("http://host?a") == ("/", "a")
    assert split_target("/a") == ("/a", "")
