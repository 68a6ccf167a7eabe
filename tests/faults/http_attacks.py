"""Requests that are malformed, ambiguous, too large or for another protocol, and their answers."""

from typing import Any, NamedTuple

from tests.http_wire import request

Verdict = tuple[int, str]

OK: Verdict = (200, "")
NOT_FOUND: Verdict = (404, "not_found")
WRONG_METHOD: Verdict = (405, "method_not_allowed")
MALFORMED: Verdict = (400, "bad_request")
TOO_LARGE: Verdict = (413, "too_large")
HEADERS_TOO_LARGE: Verdict = (431, "headers_too_large")
WRONG_VERSION: Verdict = (505, "http_version_not_supported")
SILENCE: Verdict = (0, "")
"""The answer of a connection that closes without one."""

BODY = 3 * 1024 * 1024
"""Bytes that a client may send without malice, and that no route takes."""

NEXT = request("/metrics")
"""A good request right behind a bad one; it must not be answered."""


class Case(NamedTuple):
    """A request, and the answers of which its first answer must be one."""

    name: str
    data: bytes
    expected: tuple[Verdict, ...] = (MALFORMED,)


def get(*lines: bytes, first: bytes = b"GET /healthz HTTP/1.1", body: bytes = b"") -> bytes:
    """Return a request with these lines as they are."""
    return b"\r\n".join([first, *lines, b"", body])


def post(*lines: bytes, body: bytes = b"") -> bytes:
    """Return the same as a POST request with a host."""
    return get(b"Host: a", *lines, first=b"POST /healthz HTTP/1.1", body=body)


TLS_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(507)

BAD_HEADS = [
    Case("no host", get()),
    Case("two hosts", get(b"Host: a", b"Host: b")),
    Case("a host with a space", get(b"Host: a b")),
    Case("TLS", TLS_HELLO, (MALFORMED, SILENCE)),
    Case("bare LF", b"GET /healthz HTTP/1.1\nHost: a\n\n"),
    Case("one bare LF", b"GET /healthz HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"),
    Case("bare CR in a value", get(b"Host: a", b"X: y\rZ: w")),
    Case("a value that goes on in the next line", get(b"Host: a", b"X: y", b" z")),
    Case("a first header that begins with a space", get(b" Host: a")),
    Case("a header without a colon", get(b"Host: a", b"nonsense")),
    Case("a header without a name", get(b"Host: a", b": y")),
    Case("a space before the colon", get(b"Host: a", b"X : y")),
    Case("NUL in a value", get(b"Host: a", b"X: \0")),
    Case("NUL in a name", get(b"Host: a", b"X\0: y")),
    Case("a control character in a value", get(b"Host: a", b"X: \x01")),
    Case("an escape sequence in a value", get(b"Host: a", b"X: \x1b[2J")),
    Case("a name that is not ASCII", get(b"Host: a", b"\xffX: y")),
    Case("NUL in the target", get(b"Host: a", first=b"GET /\0 HTTP/1.1")),
    Case("a target that is not ASCII", get(b"Host: a", first=b"GET /\xff HTTP/1.1")),
    Case("a target with a space", get(b"Host: a", first=b"GET /a b HTTP/1.1")),
    Case("a target without its slash", get(b"Host: a", first=b"GET healthz HTTP/1.1")),
    Case("no target", get(b"Host: a", first=b"GET HTTP/1.1")),
    Case("two spaces", get(b"Host: a", first=b"GET  /healthz HTTP/1.1")),
    Case("a tab for a space", get(b"Host: a", first=b"GET\t/healthz HTTP/1.1")),
    Case("a space behind the version", get(b"Host: a", first=b"GET /healthz HTTP/1.1 ")),
    Case("a version in lower case", get(b"Host: a", first=b"GET /healthz http/1.1")),
    Case("a version without its dot", get(b"Host: a", first=b"GET /healthz HTTP/11")),
    Case("a method that is none", get(b"Host: a", first=b"G(T /healthz HTTP/1.1")),
    Case("HTTP/0.9", b"GET /healthz\r\n\r\n", (MALFORMED, WRONG_VERSION)),
    Case("a request line that is all there is", b"GET\r\n\r\n"),
    Case("garbage", bytes(range(128, 256)) * 4 + b"\r\n\r\n", (MALFORMED, SILENCE)),
    Case("SSH", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", (MALFORMED, SILENCE)),
    Case("SMTP", b"EHLO localhost\r\n\r\n"),
    Case("a proxy's preface", b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + NEXT),
]

BAD_VERSIONS = [
    Case(f"{version!r}", get(b"Host: a", first=b"GET /healthz " + version), (WRONG_VERSION,))
    for version in (b"HTTP/2.0", b"HTTP/3.0", b"HTTP/0.9", b"HTTP/9.9")
]

BAD_LENGTHS = [
    *(
        Case(f"Content-Length {length!r}", post(b"Content-Length: " + length, body=b"hello"))
        for length in (b"-1", b"+5", b"0x5", b"5 5", b"5,6", b"5;", b"1e0", b"5.0", b"", b"\xb2")
    ),
    Case("two lengths", post(b"Content-Length: 5", b"Content-Length: 0", body=b"hello")),
    Case(
        "a length of 24 digits",
        post(b"Content-Length: " + b"9" * 24, body=b"hello"),
        (MALFORMED, TOO_LARGE),
    ),
    *(
        Case(
            f"Transfer-Encoding {coding!r}",
            post(b"Transfer-Encoding: " + coding, body=b"0\r\n\r\n"),
        )
        for coding in (b"gzip", b"xchunked", b"chunked, gzip", b"chunked;q=1", b"", b"chunked\x0b")
    ),
    Case(
        "chunks in HTTP/1.0",
        get(b"Transfer-Encoding: chunked", first=b"POST /healthz HTTP/1.0", body=b"0\r\n\r\n"),
    ),
]

TOO_MUCH = [
    Case("a header of 1 MB", get(b"Host: a", b"X: " + b"y" * (1 << 20)), (HEADERS_TOO_LARGE,)),
    Case("a name of 1 MB", get(b"Host: a", b"y" * (1 << 20) + b": x"), (HEADERS_TOO_LARGE,)),
    Case(
        "10,000 headers",
        get(b"Host: a", *(b"X%d: y" % number for number in range(10_000))),
        (HEADERS_TOO_LARGE,),
    ),
    Case(
        "a target of 1 MB",
        get(b"Host: a", first=b"GET /" + b"y" * (1 << 20) + b" HTTP/1.1"),
        (HEADERS_TOO_LARGE, (414, "uri_too_long")),
    ),
    Case(
        "1 MB without an end of a line", b"G" * (1 << 20), (HEADERS_TOO_LARGE, MALFORMED, SILENCE)
    ),
    Case("a body of 3 MB", request(method="POST", body=bytes(BODY)), (TOO_LARGE,)),
    Case(
        "chunks of 3 MB",
        post(b"Transfer-Encoding: chunked", body=(b"10000\r\n" + bytes(65536) + b"\r\n") * 48),
        (TOO_LARGE, WRONG_METHOD),
    ),
    Case(
        "a body of 3 MB that is announced",
        request(method="POST", body=bytes(BODY), Expect="100-continue"),
        (TOO_LARGE,),
    ),
]

ANSWERED = [
    Case("HTTP/1.0", get(first=b"GET /healthz HTTP/1.0"), (OK,)),
    Case(
        "HTTP/1.0 kept alive", get(b"Connection: keep-alive", first=b"GET /healthz HTTP/1.0"), (OK,)
    ),
    Case("an absolute target", request("http://localhost/healthz"), (OK,)),
    Case("an absolute target in capitals", request("HTTP://LOCALHOST:8081/healthz"), (OK,)),
    Case("an absolute target without a path", request("http://localhost"), (OK,)),
    Case("OPTIONS *", request("*", "OPTIONS"), (NOT_FOUND, WRONG_METHOD, OK, (204, ""))),
    Case("CONNECT", request("localhost:8081", "CONNECT"), (NOT_FOUND, WRONG_METHOD, MALFORMED)),
    Case("another method", request(method="BREW"), (WRONG_METHOD,)),
    Case("empty lines before it", b"\r\n\r\n" + request(), (OK,)),
    Case("a host that is empty", request(Host=""), (OK,)),
    Case("a value that is not ASCII", request(X="\xff"), (OK,)),
    Case("a tab in a value", request(X="a\tb"), (OK,)),
    Case("a body that nobody reads", request(method="POST", body=b"hello"), (WRONG_METHOD,)),
    Case(
        "a body in chunks with extensions and trailers",
        post(b"Transfer-Encoding: Chunked", body=b"005;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n"),
        (WRONG_METHOD,),
    ),
    Case(
        "a body that is announced",
        request(method="POST", body=b"hello", Expect="100-continue"),
        (WRONG_METHOD,),
    ),
    Case("an expectation that is unknown", request(Expect="x"), (OK, (417, "expectation_failed"))),
    Case("TE and a list of encodings", request(TE="trailers", Accept_Encoding="gzip, x"), (OK,)),
    Case("a percent that is none", request("/healthz%"), (NOT_FOUND, MALFORMED)),
    Case("bytes that are not UTF-8", request("/%ff%00"), (NOT_FOUND, MALFORMED)),
    Case("a path up and down", request("/docs/../healthz"), (NOT_FOUND, MALFORMED)),
]

H2C: dict[str, Any] = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c"}
WEBSOCKET: dict[str, Any] = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
CLIENT_FRAME = b"\x81\x85\x00\x00\x00\x00hello"

UPGRADES = [
    Case("h2c with settings that are spoiled", request(**H2C, HTTP2_Settings="A"), (OK,)),
    Case("h2c", request(**H2C, HTTP2_Settings="AAMAAABkAAQAoAAAAAIAAAAA"), (OK,)),
    Case("h2c without settings", request(**H2C), (OK,)),
    Case("TLS within HTTP", request(Connection="Upgrade", Upgrade="TLS/1.3"), (OK,)),
    Case("WebSocket", request("/ws/quotes", **WEBSOCKET), (NOT_FOUND,)),
    Case(
        "WebSocket with a protocol that is not ASCII",
        request("/ws/quotes", **WEBSOCKET, Sec_WebSocket_Protocol="\xff"),
        (NOT_FOUND, MALFORMED),
    ),
    Case("WebSocket to a page", request("/healthz", **WEBSOCKET), (NOT_FOUND,)),
    Case(
        "WebSocket without a key",
        request("/ws/quotes", **WEBSOCKET | {"Sec_WebSocket_Key": None}),
        (NOT_FOUND, MALFORMED),
    ),
    Case("WebSocket and a frame", request("/ws/quotes", **WEBSOCKET) + CLIENT_FRAME, (NOT_FOUND,)),
    Case(
        "WebSocket with a protocol that is not ASCII, and a frame",
        request("/ws/quotes", **WEBSOCKET, Sec_WebSocket_Protocol="\xff") + CLIENT_FRAME,
        (NOT_FOUND, MALFORMED),
    ),
]

_BOTH = (b"Content-Length: 5", b"Transfer-Encoding: chunked")

SMUGGLED = [
    Case("CL.TE", post(*_BOTH, body=b"0\r\n\r\n" + NEXT)),
    Case("CL.TE, the other order", post(*reversed(_BOTH), body=b"0\r\n\r\n" + NEXT)),
    Case("TE.CL", post(b"Transfer-Encoding: chunked", b"Content-Length: 4", body=b"5c\r\n" + NEXT)),
    Case("CL.CL", post(b"Content-Length: 0", b"Content-Length: 5", body=NEXT)),
    Case("CL.CL in one line", post(b"Content-Length: 0, 5", body=NEXT)),
    Case("CL.0 with a sign", post(b"Content-Length: +0", body=NEXT)),
    *(
        Case(f"TE.TE {lines}", post(*lines, body=b"0\r\n\r\n" + NEXT))
        for lines in (
            (b"Transfer-Encoding: chunked", b"Transfer-Encoding: x"),
            (b"Transfer-Encoding: x", b"Transfer-Encoding: chunked"),
            (b"Transfer-Encoding: chunked, chunked",),
            (b"Transfer-Encoding: chunked, identity",),
            (b"Transfer-Encoding: xchunked",),
            (b"Transfer-Encoding : chunked",),
            (b"Transfer-Encoding:\x0bchunked",),
            (b"Transfer-Encoding: chunked\x00",),
            (b'Transfer-Encoding: "chunked"',),
            (b"X: y\nTransfer-Encoding: chunked",),
            (b"X: y\rTransfer-Encoding: chunked",),
            (b"X: y", b" Transfer-Encoding: chunked"),
            (b"Transfer-Encoding:", b" chunked"),
            (b"Transfer\xadEncoding: chunked",),
            (b" Transfer-Encoding: chunked",),
        )
    ),
]

BAD_CHUNKS = [
    b"-1\r\nx\r\n0\r\n\r\n", b"+1\r\nx\r\n0\r\n\r\n", b"0x1\r\nx\r\n0\r\n\r\n", b"g\r\n", b"\r\n",
    b" 1\r\nx\r\n0\r\n\r\n", b"1\nx\n0\n\n", b"1\r\nxy\r\n0\r\n\r\n",
    b"1\r\nx0\r\n\r\n", b"1\r\nx\n0\r\n\r\n", b"0" * 70_000, b"\xff\r\n",
    b"1;a\nb\r\nx\r\n0\r\n\r\n", b"1_0\r\n" + bytes(16) + b"\r\n0\r\n\r\n",
    b"0\r\nnonsense\r\n\r\n", b"0\r\n: x\r\n\r\n", b"0\r\nX: \x00\r\n\r\n",
]  # a table # fmt: skip
"""Texts behind `Transfer-Encoding: chunked` that are not a chunked body (RFC 9112 §7.1)."""
