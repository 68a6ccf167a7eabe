"""Reads the head of an HTTP request within limits, and refuses a head that has two readings."""

import binascii
import re
import socket
from base64 import b64decode
from typing import NamedTuple
from urllib.parse import parse_qs

import h11

from server.gateway.refusals import Refusal, Refused
from server.gateway.sockets import receive
from server.gateway.target import split_target

NOT_HTTP = "not a well-formed HTTP request"
"""h11's own error would quote the request, and with it the token, to the client and the log."""

NOT_A_URL = "the request's target is not a URL"

MAX_HEAD = 16 * 1024
"""Bytes of request line and headers: twice a query with 500 symbols and a large token."""

MAX_HEADERS = 100
"""Header lines: Apache's limit, and nginx's order of magnitude."""

_MALFORMED = re.compile(rb"\r(?!\n)|\r\n[ \t]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""Bytes that two parsers may read differently: a lone carriage return (RFC 9112 §2.2), a folded line
(§5.2), a control character (RFC 9110 §5.5).
"""

_LINE_FEED_ALONE = re.compile(rb"(?<!\r)\n")

_HOST = re.compile(rb"[!$&'()*+,;=%A-Za-z0-9._~:\[\]-]*")
"""The characters of a host and its port (RFC 9110 §7.2, RFC 3986 §3.2). Others are refused with 400
(RFC 9112 §3.2).
"""

TLS_RECORD = b"\x16\x03"
"""The first bytes of a TLS handshake: its record's type and major version (RFC 8446 §5.1)."""

_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
"""A method (RFC 9110 §5.6.2). The longest registered one has 17 characters."""

_VERSION = re.compile(rb".* HTTP/\d\.\d\r?", re.DOTALL)
"""The end of a request's first line (RFC 9112 §3)."""


TLS_ADVICE = (
    "a client speaks TLS to the plain port: give it a ws:// or http:// address, or a proxy's"
)
NOT_HTTP_ADVICE = "a client does not speak HTTP: if it is one of yours, correct its address or port"


class NotHttp(Exception):
    """The client speaks another protocol. `reason` is its counter; the message advises the operator."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


ONCE = {"source", "source-epoch"}
"""Headers that must not come twice: joined (RFC 9110 §5.3), they would name another source."""


class Request(NamedTuple):
    """`path` is the path as written, without the query. `headers` have lower-case names. `rest` are the
    bytes behind the head.
    """

    method: str
    http_version: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    rest: bytes

    def __repr__(self) -> str:
        # Query and headers may hold a token.
        return f"Request({self.method} {self.path})"


async def read_head(sock: socket.socket) -> tuple[bytes, bytes]:
    """Return one request's head, and the bytes that came behind it.

    Errors: Refusal and NotHttp as in `take_head`; EOFError if the client leaves before.
    """
    received = bytearray()
    head: bytes | None = None
    while head is None:
        if not (data := await receive(sock, MAX_HEAD)):
            raise EOFError
        searched = len(received)
        received += data
        head = take_head(received, searched)
    return head, bytes(received)


def take_head(received: bytearray, searched: int, limit: int = MAX_HEAD) -> bytes | None:
    """Take a whole head from the front of `received`; None if it has not all come.

    It skips empty lines before the head (RFC 9112 §2.2). `searched`: the length of `received` at the
    last call. It searches only later bytes, so that a head that comes byte by byte is not costly.

    Errors: Refusal if the head is larger than `limit` bytes, or a line ends with a line feed alone;
    NotHttp as soon as the bytes cannot be the beginning of a head.
    """
    while received.startswith(b"\r\n"):
        del received[:2]
        searched = 0
    end = received.find(b"\r\n\r\n", max(0, searched - 3))
    size = len(received) if end == -1 else end + 4
    if size > limit:
        raise Refusal(Refused.HEADERS_TOO_LARGE, f"the request's head exceeds {limit} bytes")
    # The first line is checked until all of it was there.
    if end == -1 and b"\n" not in received[:searched]:
        _require_http(received)
    if _LINE_FEED_ALONE.search(received, searched, size):
        raise Refusal(Refused.BAD_REQUEST, NOT_HTTP)
    if end == -1:
        return None
    head = bytes(received[:size])
    del received[:size]
    return head


def _require_http(received: bytearray) -> None:
    """Check the first line, so that no client waits for another protocol's answer. Errors: NotHttp."""
    if received.startswith(TLS_RECORD[: len(received)]):
        if len(received) >= len(TLS_RECORD):
            raise NotHttp("tls_on_plain_port", TLS_ADVICE)
        return
    line, end, _ = received.lstrip(b"\r\n").partition(b"\n")
    method = line.rstrip(b"\r").partition(b" ")[0]
    is_method = not line or _METHOD.fullmatch(method)
    if not is_method or line.startswith(b"SSH-") or (end and not _VERSION.fullmatch(line)):
        raise NotHttp("not_http", NOT_HTTP_ADVICE)


def parse_head(head: bytes, connection: h11.Connection) -> h11.Request:
    """Parse a head with h11. Errors: Refusal if it is not HTTP or has two readings."""
    if _MALFORMED.search(head):
        raise Refusal(Refused.BAD_REQUEST, NOT_HTTP)
    try:
        connection.receive_data(head)
        event = connection.next_event()
    except h11.RemoteProtocolError:
        raise Refusal(Refused.BAD_REQUEST, NOT_HTTP) from None
    if not isinstance(event, h11.Request):
        raise Refusal(Refused.BAD_REQUEST, NOT_HTTP)
    return event


def check_host(event: h11.Request) -> None:
    """Check the characters of the header `Host`. Errors: Refusal."""
    if not all(_HOST.fullmatch(value) for name, value in event.headers if name == b"host"):
        raise Refusal(Refused.BAD_REQUEST, NOT_HTTP)


def read_request(event: h11.Request, rest: bytes) -> Request:
    """Return the request. Errors: Refusal if its target is not a URL, it has too many headers, or one
    of them twice.
    """
    check_host(event)
    if len(event.headers) > MAX_HEADERS:
        raise Refusal(Refused.HEADERS_TOO_LARGE, f"more than {MAX_HEADERS} headers")
    # h11 lets only ASCII pass in targets, names and methods.
    path, query = split_target(event.target.decode())
    # Brackets belong to IPv6 addresses (RFC 3986 §3.2.2).
    if "[" in path or "]" in path:
        raise Refusal(Refused.BAD_REQUEST, NOT_A_URL)
    headers: dict[str, str] = {}
    for raw_name, raw_value in event.headers:
        name, value = raw_name.decode(), raw_value.decode("latin-1")
        if name in headers and name in ONCE:
            raise Refusal(Refused.BAD_REQUEST, f"{name}: send this header once")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    parameters = parse_qs(query, keep_blank_values=True)
    method, version = event.method.decode(), event.http_version.decode()
    return Request(method, version, path, parameters, headers, rest)


def header_values(head: bytes, name: bytes) -> list[str]:
    """Return the values of the header `name`, in lower case, in a head that h11 may have refused."""
    fields = (line.partition(b":") for line in head.split(b"\n")[1:])
    return [value.strip().decode("latin-1") for key, _, value in fields if key.lower() == name]


def require_websocket(request: Request) -> None:
    """Check that a request is an opening handshake (RFC 6455 §4.2.1). Errors: Refusal."""
    headers = request.headers
    if (
        request.method != "GET"
        or request.http_version < "1.1"
        or "websocket" not in _tokens(headers.get("upgrade", ""))
        or "upgrade" not in _tokens(headers.get("connection", ""))
    ):
        raise Refusal(Refused.UPGRADE_REQUIRED, "this address speaks WebSocket only")
    # Its bytes would be read as frames.
    if "transfer-encoding" in headers or headers.get("content-length", "0").strip("0"):
        raise Refusal(Refused.BAD_REQUEST, "an opening handshake has no body")
    if headers.get("sec-websocket-version") != "13":
        raise Refusal(Refused.UPGRADE_REQUIRED, "Sec-WebSocket-Version must be 13")
    try:
        key = b64decode(headers.get("sec-websocket-key", ""), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 16:
        raise Refusal(Refused.BAD_REQUEST, "Sec-WebSocket-Key must be 16 bytes in base64")


def _tokens(header: str) -> list[str]:
    return [token.strip().lower() for token in header.split(",")]
