"""Every way a connection is refused before the upgrade: status, code and headers, in one table."""

from enum import Enum
from random import uniform
from typing import NamedTuple

import h11

from server.quotes.messages import encode
from server.redaction import redact

MIN_RETRY, MAX_RETRY = 1, 5
"""Seconds in `Retry-After`, drawn evenly: those refused together should not come back together."""


class Reason(NamedTuple):
    """`status`: the HTTP status; `headers`: what the status calls for beyond the body's own."""

    status: int
    code: str
    headers: tuple[tuple[str, str], ...] = ()


class Refused(Enum):
    """The protocol's refusals, in the order in which they are decided, and what h11 refuses."""

    BAD_REQUEST = Reason(400, "bad_request")
    HEADERS_TOO_LARGE = Reason(431, "headers_too_large")
    NOT_FOUND = Reason(404, "not_found")
    UPGRADE_REQUIRED = Reason(
        426,
        "upgrade_required",
        (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")),  # RFC 6455 §4.4
    )
    ORIGIN_NOT_ALLOWED = Reason(403, "origin_not_allowed")
    AT_CAPACITY = Reason(503, "at_capacity")
    UNAUTHORIZED = Reason(401, "unauthorized", (("WWW-Authenticate", "Bearer"),))  # RFC 6750 §3
    TOO_MANY_CONNECTIONS = Reason(429, "too_many_connections")
    NO_VALID_SYMBOLS = Reason(400, "no_valid_symbols")
    TOO_MANY_SYMBOLS = Reason(400, "too_many_symbols")
    STORE_UNAVAILABLE = Reason(503, "store_unavailable")


class Refusal(Exception):
    """A request that will not become a connection; `message` goes into the body."""

    def __init__(self, refused: Refused, message: str) -> None:
        super().__init__(message)
        self.refused = refused


def response(refusal: Refusal, connection: h11.Connection, *, has_body: bool) -> bytes:
    """The whole HTTP response, to be written at once."""
    reason = refusal.refused.value
    body = encode({"error": {"code": reason.code, "message": redact(str(refusal))}})
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
        ("X-Content-Type-Options", "nosniff"),  # a browser takes the body for JSON, not for a page
        *reason.headers,
    ]
    if reason.status == 503:
        headers.append(("Retry-After", str(round(uniform(MIN_RETRY, MAX_RETRY)))))
    parts = [
        connection.send(h11.Response(status_code=reason.status, headers=headers)),
        connection.send(h11.Data(data=body if has_body else b"")),
        connection.send(h11.EndOfMessage()),
    ]
    return b"".join(part for part in parts if part)
