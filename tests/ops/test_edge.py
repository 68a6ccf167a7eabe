"""The edge of the HTTP port: valid requests, evicted connections, and the operators' port."""

import http.client
import json
import re
import socket
from contextlib import ExitStack

import h11
import pytest
import trio

from server.gateway.refusals import Refusal
from server.ops.http_edge import MAX_UNFINISHED
from server.ops.http_request import MAX_BODY, MAX_HEAD, IncomingRequest
from server.ops.lag import LoopLag
from server.ops.request_pacer import MAX_INTERVAL, RequestPacer
from tests.processes import ServerProcess, eventually
from tests.stopwatch import Stopwatch

HOST = b"Host: a\r\n"

ROOM = 8
"""HTTP_MAX_CONNECTIONS of the server that the tests fill up."""

PATIENCE = 5.0
"""Seconds in which a well-behaved client is answered."""


def connect(server: ServerProcess) -> socket.socket:
    client = socket.create_connection(server.http_address)
    client.settimeout(PATIENCE)
    return client


def exchange(server: ServerProcess, request: bytes) -> tuple[int, bytes]:
    """Return status and body of the first answer."""
    with connect(server) as client:
        client.sendall(request)
        with http.client.HTTPResponse(client) as response:
            response.begin()
            return response.status, response.read()


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET http://another.example/healthz HTTP/1.1\r\n" + HOST,
        b"GET HTTPS://another.example:8081/healthz HTTP/1.1\r\n" + HOST,
        b"\r\n\r\nGET /healthz HTTP/1.1\r\n" + HOST,
        b"GET /healthz HTTP/1.0\r\n",
        b"GET /healthz HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: A\r\n" + HOST,
    ],
)
def test_unusual_but_good_requests_are_answered(server, request_head):
    """Absolute form, leading empty lines, an old version and an optional upgrade are accepted."""
    assert exchange(server, request_head + b"\r\n") == (200, b'{"status":"ok"}')


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: 5\r\n", b"hello"),
        (b"Transfer-Encoding: chunked\r\n", b"5;x=y\r\nhello\r\n0\r\nTrailer: 1\r\n\r\n"),
    ],
)
def test_body_is_read_up_to_its_end(server, framing, body):
    """With any framing of the body, the connection's next request begins behind it."""
    with connect(server) as client:
        client.sendall(b"POST /healthz HTTP/1.1\r\n" + HOST + framing + b"\r\n" + body)
        client.sendall(b"GET /healthz HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n")
        answers = b""
        while data := client.recv(4096):
            answers += data
    assert re.findall(rb"HTTP/1.1 ([0-9]+)", answers) == [b"405", b"200"]
    assert answers.endswith(b'{"status":"ok"}')


def test_refusal_of_head_has_no_body(server):
    """The answer to HEAD has the length of GET's body, but no body (RFC 9110 §9.3.2)."""
    with connect(server) as client:
        client.sendall(b"HEAD / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\n" + HOST)
        client.sendall(b"\r\n")
        answer = b""
        while data := client.recv(4096):
            answer += data
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert answer.endswith(b"\r\n\r\n")


def test_client_is_told_to_go_on_before_it_sends_its_body(server):
    """The edge sends `100 Continue`, which curl expects for larger bodies (RFC 9110 §10.1.1)."""
    with connect(server) as client:
        client.sendall(
            b"POST /healthz HTTP/1.1\r\n"
            + HOST
            + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"hello")
        assert client.recv(12) == b"HTTP/1.1 405"


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n",
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"A: b\r\n c\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"A: b\rc\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"A: \x00\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"A : b\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + HOST,
        b"GET ftp://a/ HTTP/1.1\r\n" + HOST,
        b"head / HTTP/1.1\r\n" + HOST,
        b"CONNECT a:80 HTTP/1.1\r\n" + HOST,
    ],
)
def test_head_that_can_be_read_in_two_ways_is_refused(head):
    """No proxy and this server can disagree about a request's end or target."""
    with pytest.raises(Refusal) as refused:
        IncomingRequest(head + b"\r\n")
    assert refused.value.refused.value.code == "bad_request"


def _take_without_end(request: IncomingRequest, chunk: bytes) -> None:
    for _ in range(MAX_BODY):
        assert not request.take_body(bytearray(chunk))


def test_chunked_body_is_bounded_in_what_it_holds_and_in_its_chunks():
    """Neither large chunks nor many small ones are kept."""
    head = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    for chunk in (b"1000\r\n" + b"x" * 0x1000 + b"\r\n", b"1;" + b"e" * 100 + b"\r\nx\r\n"):
        request = IncomingRequest(head)
        with pytest.raises(Refusal) as refused:
            _take_without_end(request, chunk)
        assert refused.value.refused.value.code == "too_large"


def test_rewritten_request_says_nothing_of_upgrades_and_has_one_length():
    """Hypercorn gets the request without anything that would switch its protocol."""
    request = IncomingRequest(
        b"PUT http://b/x?y HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n"
        b"Connection: upgrade, close\r\nX: 1\r\n\r\n"
    )
    assert request.take_body(received := bytearray(b"2\r\nok\r\n0\r\n\r\nGET /"))
    assert received == b"GET /"
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(request.rewritten())
    event = parser.next_event()
    assert isinstance(event, h11.Request)
    assert event.target == b"/x?y"
    assert list(event.headers) == [
        (b"host", b"b"),
        (b"x", b"1"),
        (b"connection", b"close"),
    ]


def test_idle_connections_make_room(tmp_path):
    """The longest idle connection is cut, and a new client is answered."""
    with ServerProcess(tmp_path, HTTP_MAX_CONNECTIONS=str(ROOM)) as server, ExitStack() as idle:
        crowd = [idle.enter_context(connect(server)) for _ in range(ROOM)]
        for client in crowd:
            client.sendall(b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
        watch = Stopwatch(server.process.pid)
        assert server.get("/healthz")[0] == 200
        assert watch.seconds < PATIENCE
        assert server.metric("market_data_http_evicted_total") >= 1
        assert server.metric("market_data_http_connections") <= ROOM
        crowd[0].settimeout(PATIENCE)
        while crowd[0].recv(1000):  # its answer, then its end
            pass


def test_clients_that_do_not_read_make_room(tmp_path):
    """Clients with unread answers hold every place, and lose one to a new client."""
    with ServerProcess(tmp_path, HTTP_MAX_CONNECTIONS=str(ROOM)) as server, ExitStack() as crowd:
        for _ in range(ROOM):
            client = crowd.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            client.connect(server.http_address)
            client.sendall((b"GET /metrics HTTP/1.1\r\n" + HOST + b"\r\n") * 50)
        watch = Stopwatch(server.process.pid)
        assert server.get("/healthz")[0] == 200
        assert watch.seconds < PATIENCE


def test_refused_clients_make_room(tmp_path):
    """Refused clients make room, also while the server waits for their close."""
    with ServerProcess(tmp_path, HTTP_MAX_CONNECTIONS=str(ROOM)) as server, ExitStack() as crowd:
        for data in (b"GET / HTTP/1.1\nHost: a\n\n", b"", b"GET / HTTP/1.1\nHost: a\n\n"):
            for _ in range(ROOM):
                crowd.enter_context(connect(server)).sendall(data)
            watch = Stopwatch(server.process.pid)
            assert server.get("/healthz")[0] == 200
            assert watch.seconds < PATIENCE


def test_unfinished_heads_are_bounded_in_all(tmp_path):
    """If many connections send unfinished heads, the one with the most bytes is cut."""
    begun = b"GET /healthz HTTP/1.1\r\n" + HOST + b"X: " + b"y" * (MAX_HEAD - 1024)
    with ServerProcess(tmp_path) as server, ExitStack() as crowd:
        for _ in range(2 * MAX_UNFINISHED // MAX_HEAD):
            crowd.enter_context(connect(server)).sendall(begun)
        eventually(lambda: server.metric("market_data_http_evicted_total") > 0)
        assert server.get("/healthz")[0] == 200


def test_operators_have_a_port_of_their_own(tmp_path):
    """With OPS_PORT, operators' routes are on that port only, with all details. Probes are on both."""
    with ServerProcess(tmp_path, OPS_PORT="0") as server:
        assert server.process.stdout is not None
        address = server.process.stdout.readline().split()[1].removesuffix("/health")
        ops = http.client.HTTPConnection(address.removeprefix("http://"), timeout=PATIENCE)
        for path, here, there in (
            ("/healthz", 200, 200),
            ("/readyz", 200, 200),
            ("/health", 404, 200),
            ("/metrics", 404, 200),
            ("/docs", 404, 200),
            ("/openapi.json", 200, 200),
            ("/", 200, 200),
            ("/quotes", 401, 404),
        ):
            assert server.get(path)[0] == here, path
            ops.request("GET", path)
            with ops.getresponse() as response:
                assert response.status == there, path
                body = response.read()
            if path == "/":
                own = {each["path"] for each in json.loads(body)["routes"]}
                public = {each["path"] for each in json.loads(server.get(path)[1])["routes"]}
                assert own == {
                    "/",
                    "/version",
                    "/healthz",
                    "/readyz",
                    "/health",
                    "/metrics",
                    "/openapi.json",
                    "/asyncapi.json",
                    "/docs",
                    "/ops",
                    "/quotes.js",
                }
                assert not {"/health", "/metrics", "/docs"} & public
            if path == "/health":
                assert json.loads(body)["components"]["pool"]["detail"]
        ops.close()


def test_refused_requests_are_counted_and_told(tmp_path):
    """Refusals are counted, and logged at most once a second."""
    with ServerProcess(tmp_path) as server:
        for _ in range(20):
            assert exchange(server, b"GET / HTTP/1.1\nHost: a\n\n")[0] == 400
        eventually(
            lambda: server.metric('market_data_http_refused_total{reason="bad_request"}') == 20
        )
        server.await_event("HTTP request refused")
        lines = server.events("HTTP request refused")
        assert 0 < len(lines) < 20
        assert lines[0]["reason"] == "bad_request"


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "tls_on_plain_port"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "not_http"),
    ],
)
def test_other_protocols_are_closed_at_once(server, hello, reason):
    """A client of another protocol is closed at once, and not after ten seconds."""
    sample = f'market_data_http_refused_total{{reason="{reason}"}}'
    before = server.metric(sample)
    with connect(server) as client:
        client.sendall(hello)
        assert client.recv(1) == b""
    assert server.metric(sample) == before + 1


class Load(LoopLag):
    """A loop whose load the test sets."""

    busy = 0.0

    def take_busy(self, reader: str) -> float:
        return self.busy


async def test_requests_start_further_apart_while_the_loop_is_busy(autojump_clock):
    """A busy loop slows requests down to 400 a second. A calm one starts them at once."""
    load = Load()
    pacer = RequestPacer(load)
    for busy, slowest in ((0.5, 0.0), (0.95, MAX_INTERVAL), (0.5, 0.0)):
        load.busy = busy
        for _ in range(10):
            await trio.sleep(1)
            await pacer.enter()
        assert pacer.interval == slowest
    load.busy = 0.95
    for _ in range(10):
        await trio.sleep(1)
        await pacer.enter()
    start = trio.current_time()
    for _ in range(100):
        await pacer.enter()
    assert trio.current_time() - start == pytest.approx(100 * MAX_INTERVAL, rel=0.1)
