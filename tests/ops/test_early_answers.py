"""Refusals before a request's body: the server answers without reading it."""

import http.client
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Self

import pytest

from server.ops.http_request import MAX_FILE
from tests.http_wire import HttpAnswer, take_answer
from tests.processes import TIMEOUT, ServerProcess, make_token

ROOM = 8
"""HTTP_MAX_CONNECTIONS of the server."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

PRICE = b'{"symbol":"AAPL","price":175.92}'

BROTLI = {"Content-Encoding": "br"}

CHUNKED = {"Transfer-Encoding": "chunked"}

USER = make_token("bob")
PUBLISHER = make_token("press", role="publisher")
ADMIN = make_token("olivia", role="admin")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Start a server that takes prices and has little room."""
    folder = tmp_path_factory.mktemp("early")
    with ServerProcess(
        folder, FEED="push", HTTP_MAX_CONNECTIONS=str(ROOM), TRUSTED_PROXIES="127.0.0.0/8"
    ) as process:
        yield process


@pytest.fixture(scope="module")
def own_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """Start a server with an operators' port, and return that port's address."""
    with ServerProcess(tmp_path_factory.mktemp("own"), FEED="push", OPS_PORT="0") as process:
        assert process.process.stdout is not None
        line = process.process.stdout.readline().split()[1]
        host, _, port = line.removeprefix("http://").partition("/")[0].rpartition(":")
        yield host, int(port)


class Half:
    """A client that sends a request's head, and its body when the test says so."""

    def __init__(self, address: tuple[str, int], method: str, path: str, **headers: str) -> None:
        self.socket = socket.create_connection(address, timeout=TIMEOUT)
        self._method = method
        self._received = b""
        self.ask(method, path, **headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, method: str, path: str, **headers: str) -> None:
        self._method = method
        named = {"Host": "127.0.0.1", **headers}
        fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in named.items())
        self.socket.sendall(f"{method} {path} HTTP/1.1\r\n{fields}\r\n".encode())

    def answer(self) -> HttpAnswer:
        """Return the next answer."""
        while (taken := take_answer(self._received, self._method)) is None:
            data = self.socket.recv(65536)
            assert data, f"the connection ends in the middle of an answer: {self._received!r}"
            self._received += data
        found, self._received = taken
        return found

    def ends(self) -> bool:
        """Return whether the server closes the connection without a further byte."""
        return not self._received and self.socket.recv(1) == b""


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("framing", [{"Content-Length": "1000"}, CHUNKED], ids=["length", "chunks"])
@pytest.mark.parametrize(
    ("method", "path", "headers", "verdict"),
    [
        ("POST", "/prices", {}, (401, "unauthorized")),
        ("POST", "/prices", bearer("nonsense"), (401, "unauthorized")),
        ("POST", "/prices", bearer(USER), (403, "forbidden")),
        ("PUT", "/prices", bearer(PUBLISHER), (405, "method_not_allowed")),
        ("POST", "/prices", bearer(PUBLISHER) | BROTLI, (415, "unsupported_encoding")),
        ("POST", "/prices", bearer(PUBLISHER) | {"Source": "x" * 1000}, (400, "bad_request")),
        ("POST", "/ops/import", {}, (401, "unauthorized")),
        ("POST", "/ops/import", bearer(USER), (403, "forbidden")),
        ("POST", "/ops/import?dry_run=perhaps", bearer(ADMIN), (400, "bad_request")),
        ("PUT", "/ops/import", {}, (405, "method_not_allowed")),
        ("POST", "/ops/prices?price=1", {}, (401, "unauthorized")),
        ("POST", "/ops/clients/0-1/drain", {}, (401, "unauthorized")),
        ("POST", "/ops/clients/0-1/disconnect", bearer(USER), (403, "forbidden")),
        ("DELETE", "/ops/instruments/AAPL", {}, (401, "unauthorized")),
        ("POST", "/admin/market-data/cache/warm?symbols=AAPL", {}, (401, "unauthorized")),
        ("DELETE", "/admin/market-data/cache/invalidate?symbols=AAPL", {}, (401, "unauthorized")),
        ("GET", "/quotes?symbols=AAPL", {}, (401, "unauthorized")),
        ("POST", "/nothing", {}, (404, "not_found")),
    ],
)  # fmt: skip
def test_refusal_does_not_wait_for_the_body(server, framing, method, path, headers, verdict):
    """The answer comes after the head, though not a byte of the body does."""
    with Half(server.http_address, method, path, **headers, **framing) as client:
        assert client.answer().verdict == verdict


@pytest.mark.parametrize(
    ("method", "path", "verdict"),
    [
        ("POST", "/ops/import", (421, "misdirected_request")),
        ("POST", "/ops/prices?price=1", (421, "misdirected_request")),
        ("PUT", "/ops/import", (405, "method_not_allowed")),
    ],
)
def test_operators_port_looks_at_the_host_first(own_port, method, path, verdict):
    """A page of a foreign name cannot have the operators' port read a file."""
    headers = {"Host": "rebound.example:8082", "Content-Length": "1000"}
    with Half(own_port, method, path, **headers) as client:
        assert client.answer().verdict == verdict


def test_page_of_another_site_has_no_file_read(own_port):
    """The operators' port refuses its request after the head."""
    headers = {"Origin": "https://evil.example", "Content-Length": str(MAX_FILE)}
    with Half(own_port, "POST", "/ops/import", **headers) as client:
        assert client.answer().verdict == (403, "forbidden")


@pytest.mark.parametrize("path", ["/prices", "/ops/import"])
def test_body_that_is_too_long_is_not_awaited(server, path):
    """The length is looked at in the head."""
    headers = bearer(ADMIN) | {"Content-Length": str(MAX_FILE + 1), "Expect": "100-continue"}
    with Half(server.http_address, "POST", path, **headers) as client:
        assert client.answer().verdict == (413, "too_large")
        assert client.ends()


@pytest.mark.parametrize(
    ("path", "token", "status"),
    [("/prices", "nonsense", 401), ("/prices", USER, 403), ("/ops/import", PUBLISHER, 403)],
)
def test_refused_client_is_not_told_to_go_on(server, path, token, status):
    """The final answer comes in place of `100 Continue`, and ends the connection (RFC 9110 §10.1.1)."""
    headers = bearer(token) | {"Content-Length": "1000", "Expect": "100-continue"}
    with Half(server.http_address, "POST", path, **headers) as client:
        answer = client.answer()
        assert answer.status == status
        assert answer.is_last
        assert client.ends()


def test_admitted_client_is_told_to_go_on(server):
    """A publisher's body is asked for, read, and followed by the next request."""
    headers = bearer(PUBLISHER) | {"Content-Length": str(len(PRICE)), "Expect": "100-continue"}
    with Half(server.http_address, "POST", "/prices", **headers) as client:
        assert client.answer().status == 100
        client.socket.sendall(PRICE)
        answer = client.answer()
        assert answer.status == 200
        assert not answer.is_last
        client.ask("GET", "/healthz")
        assert client.answer().status == 200


def test_connection_goes_on_behind_a_short_body(server):
    """The server drops the rest of a short body, and reads the next request behind it."""
    with Half(server.http_address, "POST", "/prices", Content_Length="1000") as client:
        client.socket.sendall(b"x" * 400)
        answer = client.answer()
        assert answer.status == 401
        assert not answer.is_last
        client.socket.sendall(b"x" * 600)
        client.ask("GET", "/healthz")
        assert client.answer().status == 200


@pytest.mark.parametrize("token", ["nonsense", USER])
def test_long_body_is_dropped_and_the_connection_ends(server, token):
    """A client that sends all of a large file before it reads gets the refusal, and not a reset."""
    headers = bearer(token) | {"Content-Length": str(MAX_FILE)}
    with Half(server.http_address, "POST", "/ops/import", **headers) as client:
        for _ in range(MAX_FILE // 65536):
            client.socket.sendall(bytes(65536))
        answer = client.answer()
        assert answer.status in (401, 403)
        assert answer.is_last
        assert client.ends()


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        (b"3\r\nabc\r\nnonsense\r\n", (400, "bad_request")),
        (b"3\r\nabcdef", (400, "bad_request")),
        (b"200000\r\n" + bytes(0x200000), (413, "too_large")),
    ],
)
def test_bad_body_of_an_admitted_client_is_refused(server, body, verdict):
    """Its chunks are checked as they come. The refusal ends the connection and is counted."""
    sample = f'market_data_http_refused_total{{reason="{verdict[1]}"}}'
    before = server.metric(sample)
    headers = bearer(PUBLISHER) | CHUNKED
    with Half(server.http_address, "POST", "/prices", **headers, Expect="100-continue") as client:
        assert client.answer().status == 100
        client.socket.sendall(body)
        answer = client.answer()
        assert answer.verdict == verdict
        assert answer.is_last
        assert client.ends()
    assert server.metric(sample) == before + 1


def test_client_that_leaves_in_its_body_does_nothing(server):
    """A half file is not imported, and a half batch is not published."""
    for path, token in (("/prices", PUBLISHER), ("/ops/import", ADMIN)):
        headers = bearer(token) | {"Content-Length": "1000"}
        with Half(server.http_address, "POST", path, **headers) as client:
            client.socket.sendall(PRICE + b"\n")
            client.socket.shutdown(socket.SHUT_WR)
            assert client.answer().verdict == (400, "bad_request")
            assert client.ends()
    assert not server.events("request failed")


def test_half_bodies_make_room(server):
    """Admitted clients whose bodies do not come hold every place, and lose one to a new client."""
    headers = bearer(PUBLISHER) | {"Content-Length": "1000", "Expect": "100-continue"}
    with ExitStack() as crowd:
        for _ in range(ROOM):
            client = crowd.enter_context(Half(server.http_address, "POST", "/prices", **headers))
            assert client.answer().status == 100
        assert server.get("/healthz")[0] == 200
    assert not server.events("request failed")


def test_library_reads_an_early_refusal(server):
    """Python's own client sends its whole body first, and still reads the refusal."""
    connection = http.client.HTTPConnection(*server.http_address)
    connection.timeout = TIMEOUT
    for body in (PRICE, bytes(MAX_FILE), PRICE):
        path = "/ops/import" if len(body) == MAX_FILE else "/prices"
        connection.request("POST", path, body=body)
        with connection.getresponse() as response:
            assert response.status == 401
            response.read()
    connection.close()
