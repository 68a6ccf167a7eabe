"""Heads of requests, and the answers that refuse them, without a server."""

import socket

import h11
import msgspec
import pytest
import structlog.testing
import trio

from server.gateway import refusals
from server.gateway.refusals import Refusal, Refused, response, retry_after
from server.gateway.request import (
    MAX_HEADERS,
    NOT_A_URL,
    NOT_HTTP,
    NOT_HTTP_ADVICE,
    TLS_ADVICE,
    NotHttp,
    Request,
    parse_head,
    read_head,
    read_request,
    require_websocket,
    take_head,
)
from server.gateway.sampling import SAMPLE_INTERVAL, Sampler
from server.gateway.target import split_target

HEAD = b"GET /ws/quotes?symbols=A&token=x HTTP/1.1\r\nHost: a.example:80\r\n\r\n"

KEY = "AAAAAAAAAAAAAAAAAAAAAA=="


def read(head: bytes, rest: bytes = b"") -> Request:
    return read_request(parse_head(head, h11.Connection(h11.SERVER)), rest)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_head_is_taken_in_any_pieces(step):
    """After empty lines; what follows it is left."""
    data = b"\r\n\r\n" + HEAD + b"rest"
    received, searched = bytearray(), 0
    for start in range(0, len(data), step):
        received += data[start : start + step]
        if (head := take_head(received, searched)) is not None:
            break
        searched = len(received)
    assert head == HEAD
    assert b"rest".startswith(bytes(received))


@pytest.mark.parametrize("rest", [b"\n", b"\x00\n\n", b"x\r\n\r\ny"])
def test_bytes_behind_the_head_are_not_looked_at(rest):
    """They are frames, which may hold anything."""
    received = bytearray(HEAD + rest)
    assert take_head(received, 0) == HEAD
    assert received == rest


async def test_head_is_read_from_a_socket_in_pieces():
    """What came behind it is kept; a client that leaves before its end is noticed."""
    for data, whole in ((b"\r\n" + HEAD + b"rest", True), (HEAD[:-1], False)):
        server, client = socket.socketpair()
        with server, client:
            server.setblocking(False)
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def write(client=client, data=data) -> None:
                    for start in range(0, len(data), 30):
                        client.send(data[start : start + 30])
                        await trio.testing.wait_all_tasks_blocked()
                    client.shutdown(socket.SHUT_WR)

                if whole:
                    head, rest = await read_head(server)
                    assert head == HEAD
                    assert b"rest".startswith(rest)
                else:
                    with pytest.raises(EOFError):
                        await read_head(server)


def test_whole_head_is_taken_even_if_it_is_not_http():
    """Its client waits for an answer, which says so."""
    head = b"GET / HTTP/x\r\nHost: a\r\n\r\n"
    assert take_head(bytearray(head), 0) == head


def test_head_may_be_as_large_as_its_limit():
    """Whole or not, one byte more is refused."""
    assert take_head(bytearray(HEAD), 0, len(HEAD)) == HEAD
    assert take_head(bytearray(HEAD[:-1]), 0, len(HEAD) - 1) is None
    for data in (HEAD, HEAD[:-1]):
        with pytest.raises(Refusal) as refused:
            take_head(bytearray(data), 0, len(data) - 1)
        assert refused.value.refused is Refused.HEADERS_TOO_LARGE
        assert str(refused.value) == f"the request's head exceeds {len(data) - 1} bytes"


@pytest.mark.parametrize(
    "data",
    [b"\nGET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\n\n", b"GET / HTTP/1.1\r\nHost: a\n\r\n\r\n",
     b"GET / HTTP/1.1\r\nHost: a\r\n\n", b"\r\n\nGET / HTTP/1.1\r\n\r\n"],
)  # a table # fmt: skip
@pytest.mark.parametrize("searched", [0, 1, 14])
def test_line_feed_alone_is_refused(data, searched):
    """Another parser could read another request."""
    if data[:searched].count(b"\n") > data[:searched].count(b"\r\n"):
        searched = 0
    with pytest.raises(Refusal) as refused:
        take_head(bytearray(data), searched)
    assert (refused.value.refused, str(refused.value)) == (Refused.BAD_REQUEST, NOT_HTTP)


@pytest.mark.parametrize(
    ("data", "reason", "advice"),
    [
        (b"\x16\x03", "tls_on_plain_port", TLS_ADVICE),
        (b"\x16\x03\x01\x02\x00", "tls_on_plain_port", TLS_ADVICE),
        (b"SSH-2.0-OpenSSH", "not_http", NOT_HTTP_ADVICE),
        (b"\x00", "not_http", NOT_HTTP_ADVICE),
        (b"hello\r\n", "not_http", NOT_HTTP_ADVICE),
        (b"GET / HTTP/x\r\n", "not_http", NOT_HTTP_ADVICE),
        (b"M" * 33, "not_http", NOT_HTTP_ADVICE),
        (b" GET / HTTP/1.1\r\n", "not_http", NOT_HTTP_ADVICE),
        (b"GET\t", "not_http", NOT_HTTP_ADVICE),
    ],
)
def test_other_protocols_are_told_at_once(data, reason, advice):
    """So that their clients do not wait, and the operator learns why."""
    with pytest.raises(NotHttp) as other:
        take_head(bytearray(data), 0)
    assert (other.value.reason, str(other.value)) == (reason, advice)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x16", b"G", b"M" * 32, b"GET /", b"GET / HTTP/1.1\r\n", b"\r", b"GET\r", b"X", b"X /"],
)
def test_beginning_of_a_head_is_waited_for(data):
    """It may still become one."""
    assert take_head(bytearray(data), 0) is None


def test_request_is_read():
    """Query and headers are decoded, repeated headers joined, and nothing of it is shown."""
    head = (
        b"GET /ws/quotes?symbols=A%2CB&empty=&symbols=%ff HTTP/1.1\r\nHost: [::1]:80\r\n"
        b"X-Name: one\r\nx-name: tw\xf6\r\n\r\n"
    )
    request = read(head, b"rest")
    assert request == Request(
        "GET",
        "1.1",
        "/ws/quotes",
        {"symbols": ["A,B", "\ufffd"], "empty": [""]},
        {"host": "[::1]:80", "x-name": "one, twö"},
        b"rest",
    )
    assert repr(request) == "Request(GET /ws/quotes)"


@pytest.mark.parametrize(
    ("head", "refused", "message"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", Refused.BAD_REQUEST, NOT_HTTP),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", Refused.BAD_REQUEST, NOT_HTTP),
        (b"GET / HTTP/1.1\r\nHost: a\x00\r\n\r\n", Refused.BAD_REQUEST, NOT_HTTP),
        (b"GET / HTTP/1.1\r\n\r\n", Refused.BAD_REQUEST, NOT_HTTP),
        (b"GET / HTTP/1.1\r\n", Refused.BAD_REQUEST, NOT_HTTP),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", Refused.BAD_REQUEST, NOT_HTTP),
        (b'GET / HTTP/1.1\r\nHost: a"b\r\n\r\n', Refused.BAD_REQUEST, NOT_HTTP),
        (b"GET /[a HTTP/1.1\r\nHost: a\r\n\r\n", Refused.BAD_REQUEST, NOT_A_URL),
        (b"GET /a] HTTP/1.1\r\nHost: a\r\n\r\n", Refused.BAD_REQUEST, NOT_A_URL),
    ],
)
def test_head_that_can_be_read_in_two_ways_is_refused(head, refused, message):
    """In words that do not quote it."""
    with pytest.raises(Refusal) as refusal:
        read(head)
    assert (refusal.value.refused, str(refusal.value)) == (refused, message)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/a?b=c?d", "/a", "b=c?d"), ("/a", "/a", ""), ("//h/a?b", "//h/a", "b"), ("h/a", "h/a", ""),
        ("http://h/a?b", "/a", "b"), ("HTTPS://[::1]:80/a", "/a", ""), ("http://h", "/", ""),
        ("http://h?b", "/", "b"), ("/a#b?c", "/a#b?c", ""), ("http://h/a#?c", "http://h/a#?c", ""),
    ],
)  # a table # fmt: skip
def test_target_is_split_as_it_is_written(target, path, query):
    """RFC 9112 §3.2; one with a fragment is a path that does not exist."""
    assert split_target(target) == (path, query)


def test_number_of_headers_is_bounded():
    """A hundred are taken."""
    lines = b"Host: a\r\n" + b"X: y\r\n" * (MAX_HEADERS - 1)
    assert read(b"GET / HTTP/1.1\r\n" + lines + b"\r\n").path == "/"
    with pytest.raises(Refusal) as refused:
        read(b"GET / HTTP/1.1\r\n" + lines + b"X: y\r\n\r\n")
    assert refused.value.refused is Refused.HEADERS_TOO_LARGE
    assert str(refused.value) == "more than 100 headers"


HANDSHAKE = {
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-version": "13",
    "sec-websocket-key": KEY,
}


@pytest.mark.parametrize(
    ("given", "headers", "message"),
    [
        ({}, {}, None),
        ({}, {"upgrade": "h2c,WebSocket"}, None),
        ({}, {"connection": "keep-alive , upgrade"}, None),
        ({}, {"content-length": "000"}, None),
        ({}, {"content-length": "10"}, "an opening handshake has no body"),
        ({}, {"transfer-encoding": "chunked"}, "an opening handshake has no body"),
        ({"method": "POST"}, {}, "this address speaks WebSocket only"),
        ({"http_version": "1.0"}, {}, "this address speaks WebSocket only"),
        ({}, {"upgrade": "websocket2"}, "this address speaks WebSocket only"),
        ({}, {"upgrade": None}, "this address speaks WebSocket only"),
        ({}, {"connection": "close"}, "this address speaks WebSocket only"),
        ({}, {"connection": None}, "this address speaks WebSocket only"),
        ({}, {"sec-websocket-version": "8"}, "Sec-WebSocket-Version must be 13"),
        ({}, {"sec-websocket-version": None}, "Sec-WebSocket-Version must be 13"),
        ({}, {"sec-websocket-key": None}, "Sec-WebSocket-Key must be 16 bytes in base64"),
        ({}, {"sec-websocket-key": KEY[4:]}, "Sec-WebSocket-Key must be 16 bytes in base64"),
        ({}, {"sec-websocket-key": "!" + KEY}, "Sec-WebSocket-Key must be 16 bytes in base64"),
    ],
)
def test_opening_handshake_is_complete(given, headers, message):
    """RFC 6455 §4.2.1; the case of words does not matter."""
    written = {name: value for name, value in (HANDSHAKE | headers).items() if value is not None}
    request = Request("GET", "1.1", "/", {}, written, b"")._replace(**given)
    if message is None:
        require_websocket(request)
        return
    with pytest.raises(Refusal) as refused:
        require_websocket(request)
    upgrade = message.endswith(("only", "13"))
    assert refused.value.refused is (Refused.UPGRADE_REQUIRED if upgrade else Refused.BAD_REQUEST)
    assert str(refused.value) == message


@pytest.mark.parametrize("refused", list(Refused))
@pytest.mark.parametrize("has_body", [True, False])
def test_refusal_is_a_whole_answer(refused, has_body):
    """With its code and words in the body, its status' headers, and the end of the connection."""
    server = h11.Connection(h11.SERVER)
    parse_head(HEAD if has_body else HEAD.replace(b"GET", b"HEAD"), server)
    written = response(Refusal(refused, "no reason", 7.2), server, has_body=has_body)
    # RFC 9110 §5.1: names have no case, but some programs look for this spelling.
    names = {line.partition(b":")[0] for line in written.splitlines()[1:] if b": " in line}
    assert names >= {b"Content-Type", b"Content-Length", b"Connection", b"X-Content-Type-Options"}
    assert (b"Retry-After" in names) == (refused.value.status in (429, 503))
    client = h11.Connection(h11.CLIENT)
    client.send(
        h11.Request(method="GET" if has_body else "HEAD", target="/", headers=[("Host", "a")])
    )
    client.receive_data(written)
    answer = client.next_event()
    assert isinstance(answer, h11.Response)
    headers = dict(answer.headers)
    reason = refused.value
    body = msgspec.json.encode({"error": {"code": reason.code, "message": "no reason"}})
    assert answer.status_code == reason.status
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"content-length"] == str(len(body)).encode()
    assert headers[b"connection"] == b"close"
    assert headers[b"x-content-type-options"] == b"nosniff"
    for name, value in reason.headers:
        assert headers[name.lower().encode()] == value.encode()
    assert headers.get(b"retry-after") == (b"8" if reason.status in (429, 503) else None)
    if has_body:
        data = client.next_event()
        assert isinstance(data, h11.Data)
        assert data.data == body
    assert isinstance(client.next_event(), h11.EndOfMessage)


def test_clients_come_back_apart(monkeypatch):
    """After one to five seconds, or after the time that is known to be needed."""
    assert {retry_after(0.0) for _ in range(200)} == {"2", "3", "4", "5"}
    monkeypatch.setattr(refusals, "uniform", lambda low, high: low)
    assert retry_after(0.0) == "1"
    assert retry_after(1.5) == "2"


async def test_hostile_clients_fill_no_log(autojump_clock):
    """One line a second for each reason, which says how many were left out."""
    sampler = Sampler("request refused")
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            sampler.log("a", "first", path="/")
        sampler.log("b", "other")
        await trio.sleep(SAMPLE_INTERVAL)
        sampler.log("a", "second")
        await trio.sleep(SAMPLE_INTERVAL / 2)
        sampler.log("a", "third")
        await trio.sleep(SAMPLE_INTERVAL)
        sampler.log("a", "fourth")
    seen = [(each["event"], each["reason"], each["message"], each["left_out"]) for each in logs]
    assert seen == [
        ("request refused", "a", "first", 0),
        ("request refused", "b", "other", 0),
        ("request refused", "a", "second", 2),
        ("request refused", "a", "fourth", 1),
    ]
    assert logs[0]["path"] == "/"
