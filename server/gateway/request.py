"""The head of the HTTP request that opens a connection: read within limits, and what it asks for."""

import binascii
import socket
from base64 import b64decode
from typing import NamedTuple
from urllib.parse import parse_qs

import h11

from server.gateway.refusals import Refusal, Refused
from server.gateway.sockets import receive
from server.gateway.target import split_target

NOT_HTTP = "not a well-formed HTTP request"
"""h11's own words would quote the request, and with it the token, to the client and the log."""

NOT_A_URL = "the request's target is not a URL"

MAX_HEAD = 16 * 1024
"""Bytes of request line and headers: a 500-symbol query and a large token fit twice."""

MAX_HEADERS = 100
"""Header lines, as in Apache and nginx's order of magnitude."""


class Request(NamedTuple):
    """`path` without the query, as it is written; `headers` by lower-case name; `rest`: what came
    behind the head.
    """

    method: str
    http_version: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    rest: bytes

    def __repr__(self) -> str:
        return f"Request({self.method} {self.path})"  # query and headers may hold a token


async def read_head(sock: socket.socket) -> tuple[bytes, bytes]:
    """One request's head, and what came behind it.

    Errors: Refusal if it is too large; EOFError if the client leaves before its end.
    """
    received = bytearray()
    while (end := received.find(b"\r\n\r\n")) < 0:
        if len(received) > MAX_HEAD:
            raise Refusal(Refused.HEADERS_TOO_LARGE, f"the request's head exceeds {MAX_HEAD} bytes")
        if not (data := await receive(sock, MAX_HEAD)):
            raise EOFError
        received += data
    if end + 4 > MAX_HEAD:
        raise Refusal(Refused.HEADERS_TOO_LARGE, f"the request's head exceeds {MAX_HEAD} bytes")
    return bytes(received[: end + 4]), bytes(received[end + 4 :])


def parse_head(head: bytes, connection: h11.Connection) -> h11.Request:
    """Have h11 take a head apart. Errors: Refusal if it is not HTTP."""
    try:
        connection.receive_data(head)
        event = connection.next_event()
    except h11.RemoteProtocolError:
        raise Refusal(Refused.BAD_REQUEST, NOT_HTTP) from None
    if not isinstance(event, h11.Request):
        raise Refusal(Refused.BAD_REQUEST, NOT_HTTP)
    return event


def read_request(event: h11.Request, rest: bytes) -> Request:
    """What is asked for. Errors: Refusal if that is no URL or there are too many headers."""
    if len(event.headers) > MAX_HEADERS:
        raise Refusal(Refused.HEADERS_TOO_LARGE, f"more than {MAX_HEADERS} headers")
    try:
        path, written = split_target(event.target.decode("ascii"))
        query = parse_qs(written, keep_blank_values=True, errors="replace")
    except ValueError:
        raise Refusal(Refused.BAD_REQUEST, NOT_A_URL) from None
    if "[" in path or "]" in path:  # they belong to IPv6 addresses (RFC 3986 §3.2.2)
        raise Refusal(Refused.BAD_REQUEST, NOT_A_URL)
    headers: dict[str, str] = {}
    for raw_name, raw_value in event.headers:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    method, version = event.method.decode("ascii"), event.http_version.decode("ascii")
    return Request(method, version, path, query, headers, rest)


def require_websocket(request: Request) -> None:
    """Check that this is an opening handshake (RFC 6455 §4.2.1). Errors: Refusal."""
    headers = request.headers
    if (
        request.method != "GET"
        or request.http_version < "1.1"
        or "websocket" not in _tokens(headers.get("upgrade", ""))
        or "upgrade" not in _tokens(headers.get("connection", ""))
    ):
        raise Refusal(Refused.UPGRADE_REQUIRED, "this address speaks WebSocket only")
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
