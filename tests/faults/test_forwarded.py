"""Logs of refusals hold the client's address, on both ports and for each kind of refusal."""

import socket
from collections.abc import Iterator

import pytest

from tests.processes import TIMEOUT, ServerProcess, make_token

CLIENT = "198.51.100.7"

STREAMING, API, EDGE = "connection refused", "request refused", "HTTP request refused"
"""Events of the streaming port, of the API's admission, and of the HTTP port itself."""

TOKEN = "Authorization: Bearer (a good token)"
"""Stands for a token of its own time: the tests may run long after they were collected."""

HANDSHAKE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
)

REFUSALS = [
    (STREAMING, "unauthorized", "GET /ws/quotes HTTP/1.1", HANDSHAKE),
    (STREAMING, "not_found", "GET /nowhere HTTP/1.1", HANDSHAKE),
    (STREAMING, "upgrade_required", "GET /ws/quotes HTTP/1.1", TOKEN),
    (STREAMING, "no_valid_symbols", "GET /ws/quotes?symbols=+ HTTP/1.1", f"{HANDSHAKE}\r\n{TOKEN}"),
    (STREAMING, "headers_too_large", "GET /ws/quotes HTTP/1.1", "\r\n".join(["A: b"] * 120)),
    (STREAMING, "bad_request", "GET /ws/quotes HTTP/1.1", "A: \x01"),
    (API, "unauthorized", "GET /quotes?symbols=AAPL HTTP/1.1", "Authorization: Bearer x"),
    (API, "forbidden", "POST /admin/market-data/cache/warm?symbols=AAPL HTTP/1.1", TOKEN),
    (EDGE, "too_large", "POST /quotes HTTP/1.1", "Content-Length: 9999999"),
    (EDGE, "bad_request", "get /quotes HTTP/1.1", "A: b"),
    (EDGE, "headers_too_large", "GET /quotes HTTP/1.1", "\r\n".join(["A: b"] * 120)),
    (EDGE, "not_found", "GET /quotes HTTP/1.1", HANDSHAKE),
]
"""Event, reason, and a request that is refused for it: its first line, and further headers."""


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Start a server that trusts this machine as a proxy."""
    folder = tmp_path_factory.mktemp("trusting")
    with ServerProcess(folder, TRUSTED_PROXIES="127.0.0.0/8, ::1") as process:
        yield process


@pytest.fixture(scope="module")
def wary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Start a server that trusts no proxy, as by default."""
    with ServerProcess(tmp_path_factory.mktemp("wary")) as process:
        yield process


def refuse(server: ServerProcess, event: str, line: str, headers: str, forwarded: str) -> None:
    """Send a request as a proxy does, and read its refusal."""
    address = server.address if event == STREAMING else server.http_address
    headers = headers.replace("(a good token)", make_token())
    request = f"{line}\r\nHost: a\r\n{headers}\r\n{forwarded}\r\n\r\n"
    with socket.create_connection(address, timeout=TIMEOUT) as client:
        client.sendall(request.encode())
        assert client.recv(12).startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize(("event", "reason", "line", "headers"), REFUSALS)
def test_refusal_is_logged_with_the_client_s_address(trusting, wary, event, reason, line, headers):
    """A trusted proxy's `X-Forwarded-For` is believed, and that of any other client is not."""
    forwarded = f"X-Forwarded-For: 192.0.2.1\r\nx-forwarded-for: {CLIENT}"
    for server, address in ((trusting, CLIENT), (wary, "127.0.0.1")):
        before = len(server.events(event, reason=reason))
        refuse(server, event, line, headers, forwarded)
        assert server.await_event(event, before + 1, reason=reason)["address"] == address
