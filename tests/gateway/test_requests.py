"""Requests that no proper client sends, and clients that never finish one."""

import socket
import time

import pytest

from tests.gateway.conftest import AUDIENCE, ISSUER
from tests.gateway.wire import KEY, Client, RawClient, head, new_user, target
from tests.processes import eventually, make_token
from tests.stopwatch import Stopwatch

HANDSHAKE_TIMEOUT = 5.0
"""Seconds a client has for its request."""

MAX_HEAD = 16 * 1024


@pytest.mark.parametrize(
    "request_head",
    [
        b"hello\r\n\r\n",
        b"GET /ws/quotes\r\n\r\n",
        b"GET /ws/quotes HTTP/1.1\r\n\r\n",
        b"GET /ws/quotes?symbols=\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET //[ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /ws/quotes HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        head("/ws/quotes", Sec_WebSocket_Key="short"),
        head("/ws/quotes", Sec_WebSocket_Key=None),
    ],
)
def test_malformed_request_is_refused(server, request_head):
    """Anything but a complete opening handshake is refused, and the connection ends."""
    with RawClient(server, request_head) as client:
        assert client.answer().verdict == (400, "bad_request")


def test_malformed_head_request_is_refused_without_a_body(server):
    """A request can be wrong in any way, and the server has no error."""
    with RawClient(server, b'HEAD /ws/quotes HTTP/1.1\r\nHost: a"b\r\n\r\n') as client:
        assert client.is_over()
        assert client.received.startswith(b"HTTP/1.1 400 ")
        assert client.received.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "headers",
    [
        {"Upgrade": "websocket, h2c"},
        {"Connection": "Upgrade\r\nConnection: keep-alive"},
        {"Connection": "keep-alive, Upgrade"},
        {"Host": "xn--\xff"},
        {"Sec_WebSocket_Protocol": "quotes.v1, quotes.v2"},
        {"Sec_WebSocket_Protocol": "\xe9"},
        {"Sec_WebSocket_Extensions": "\xe9"},
        {"Sec_WebSocket_Extensions": ";=,;"},
    ],
)
def test_odd_handshake_is_accepted_or_refused_in_full(server, headers):
    """With any headers, the answer is an upgrade or a refusal of the protocol's shape."""
    with RawClient(server, head(target(), **headers)) as client:
        answer = client.socket.recv(65536)
        assert answer, "the connection ended without an answer"
        client.received = answer
        if not answer.startswith(b"HTTP/1.1 101 "):
            assert client.answer().verdict[0] in (400, 426)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Length": "5"},
        {"Content_Length": "5\r\nContent-Length: 5"},
        {"Transfer_Encoding": "chunked"},
        {"Transfer_Encoding": "chunked", "Content_Length": "5"},
    ],
)
def test_handshake_with_a_body_is_refused(server, headers):
    """Its bytes would be read as frames: the answer is 400, and the end."""
    with RawClient(server, head(target(), **headers) + b"5\r\nhello\r\n0\r\n\r\n") as client:
        assert client.answer().verdict == (400, "bad_request")
    with RawClient(server, head(target(), Content_Length="0")) as client:
        assert client.read_head().startswith("HTTP/1.1 101 ")


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ("quotestream.v1.json", "quotestream.v1.json"),
        ("quotes.v9, quotestream.v1.json,other", "quotestream.v1.json"),
        ("quotes.v9", None),
        ("QUOTESTREAM.V1.JSON", None),
        (None, None),
    ],
)
def test_known_subprotocol_is_chosen(server, offered, chosen):
    """Browsers and Node close a connection that names none of those that they offered."""
    headers = {"Sec_WebSocket_Protocol": offered} if offered else {}
    with RawClient(server, head(target(), **headers)) as client:
        answer = client.read_head()
    assert answer.startswith("HTTP/1.1 101 ")
    lines = [
        line for line in answer.splitlines() if line.lower().startswith("sec-websocket-protocol")
    ]
    assert lines == ([f"Sec-WebSocket-Protocol: {chosen}"] if chosen else [])


@pytest.mark.parametrize("host", ["localhost", None])
def test_old_http_cannot_be_upgraded(server, host):
    """HTTP/1.0, with and without `Host`, cannot open a WebSocket (RFC 6455 §4.2.1)."""
    request = head(target(), Host=host).replace(b"HTTP/1.1", b"HTTP/1.0")
    with RawClient(server, request) as client:
        assert client.answer().verdict == (426, "upgrade_required")


@pytest.mark.parametrize(
    "request_head",
    [
        head(f"/ws/quotes?token={'x' * MAX_HEAD}"),
        head("/ws/quotes", Cookie="x" * MAX_HEAD),
        b"GET /ws/quotes HTTP/1.1\r\nCookie: " + b"x" * MAX_HEAD,
        head("/ws/quotes", **{f"X-{number}": "x" for number in range(100)}),
    ],
)
def test_head_over_the_limit_is_refused(server, request_head):
    """A head of more than 16 KiB or 100 lines is not read to its end."""
    with RawClient(server, request_head) as client:
        assert client.answer().verdict == (431, "headers_too_large")


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (head("/nowhere", "HEAD"), 404),
        (head("//[", "HEAD"), 400),
        (head("/ws/quotes", "HEAD", **{f"X-{number}": "x" for number in range(100)}), 431),
    ],
)
def test_refused_head_has_no_body(server, request_head, status):
    """The answer to HEAD ends with its headers (RFC 9110 §9.3.2), for any refusal."""
    with RawClient(server, request_head) as client:
        answer = client.answer()
        assert (answer.status, answer.body) == (status, b"")
        assert int(answer.headers["Content-Length"]) > 0


def test_head_of_exactly_the_limit_is_read(server):
    """A head of 16 KiB is accepted."""
    path = target()
    request = head(path, Cookie="x" * (MAX_HEAD - len(head(path, Cookie=""))))
    assert len(request) == MAX_HEAD
    with RawClient(server, request[:100]) as client:
        client.send(request[100:])
        assert client.read_head().startswith("HTTP/1.1 101 ")


def test_frames_right_behind_the_request_are_understood(server):
    """Frames that a client sends with its request are read once the connection is open."""
    ping = b'\x81\x93\x00\x00\x00\x00{"action":  "ping"}'
    with RawClient(server, head(target()) + ping) as client:
        assert client.read_head().startswith("HTTP/1.1 101 ")
        assert client.read_message()["type"] == "pong"


def test_slow_clients_are_given_up(server):
    """Without a whole request after five seconds, dripping or not, the connection is closed."""
    start, watch = time.monotonic(), Stopwatch(server.process.pid)
    request = head(target())
    clients = [RawClient(server, request[:size]) for size in (0, 1, 100, len(request) - 1)]
    dripping = clients[1]
    dripping.socket.settimeout(0.1)
    for number in range(1, len(request)):
        try:
            dripping.send(request[number : number + 1])
            if not dripping.socket.recv(100):
                break
        except TimeoutError:
            assert watch.seconds < HANDSHAKE_TIMEOUT + 1, "still waited for"
        except ConnectionError:
            break
    for client in clients:
        with client:
            assert client.is_over()
    assert time.monotonic() - start > HANDSHAKE_TIMEOUT - 1
    assert watch.seconds < HANDSHAKE_TIMEOUT + 2


def test_clients_that_vanish_leave_no_place_taken(strict):
    """Clients that leave at any point of the handshake do not keep the only place."""
    token = make_token(new_user(), aud=AUDIENCE, iss=ISSUER)
    request = head(target(token=token))
    for size in (0, 10, len(request) - 1, len(request)):
        RawClient(strict, request[:size]).vanish()
        client = RawClient(strict, request[:size])
        client.socket.shutdown(socket.SHUT_WR)
        eventually(client.is_over)
        client.socket.close()
    eventually(lambda: strict.metric('market_data_connections{state="active"}') == 0)
    with Client(strict, token=token) as newcomer:
        assert newcomer.is_answered()


def test_refused_client_reads_the_answer_although_it_sent_more(server):
    """A refused client that still sends gets its answer, and no reset destroys it."""
    with RawClient(server, head("/nowhere", "POST", Content_Length="100000")) as client:
        client.send(b"x" * 100_000)
        assert client.answer().verdict == (404, "not_found")


def test_accept_header_is_the_key_s(server):
    """The answer to the upgrade proves that the key was read (RFC 6455 §1.3)."""
    with RawClient(server, head(target(), Sec_WebSocket_Key=KEY)) as client:
        assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in client.read_head()
